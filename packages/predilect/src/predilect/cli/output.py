"""The output folder of a command that trains: claimed before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FILE = "train.json"


def claim_output(folder: Path, now: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Write down what is trained in a folder; refuse one in use unless the run says what to do with it.

    Args:
        folder: the output folder.
        now: all that the result depends on.
        resume: the same run goes on.
        overwrite: what an earlier run of the command left is removed.

    Raises:
        ValueError: a folder that this command did not write, one in use, or one of a run with other options.
    """
    from predilect.leaderboard.storage import differences, read_json, write_json

    before = read_json(folder / _FILE)
    in_use = folder.is_dir() and any(folder.iterdir())
    if in_use and before is None:
        raise ValueError(f"{folder} is not empty and was not written by this command: choose another --output-dir")
    if in_use and overwrite:
        shutil.rmtree(folder)
    elif in_use and not resume:
        raise ValueError(
            f"{folder} is not empty: continue that run with --resume, choose another --output-dir, or throw it away "
            "with --overwrite"
        )
    elif before is not None and (told := differences(before, now)):
        raise ValueError(
            f"{folder} holds another run ({'; '.join(told)}), which cannot be resumed with these options: restore "
            "them, choose another --output-dir, or throw it away with --overwrite"
        )
    write_json(folder / _FILE, now)
