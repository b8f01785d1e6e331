"""The folder of a run: what it was started with, how far it came, and what it may be continued with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predilect.leaderboard.storage import differences, read_json, write_json

if TYPE_CHECKING:
    from pref_losses.align_options import StageOptions
    from pref_losses.config import PreferenceConfig

WEIGHTS_FILE = "example_weights.json"

# Options that change what a run writes or how fast it is, and no number of it.
_FREE = {
    "output_dir", "run_name", "logging_dir", "report_to", "disable_tqdm", "save_total_limit", "resume_from_checkpoint",
    "hub_token", "hub_model_id", "push_to_hub", "hub_strategy", "project", "trackio_space_id", "dataset_num_proc",
    "dataloader_num_workers", "local_rank", "log_level", "ref_log_probs_file", "resume", "overwrite", "samples", "max_new_tokens",
}  # fmt: skip


def fingerprint(options: StageOptions, training: PreferenceConfig, model: Any, **more: Any) -> dict[str, Any]:
    """Every option that a number of the run depends on, as JSON holds it."""
    values = {**asdict(options), **training.to_dict(), **asdict(model), **more}
    kept = {name: value for name, value in values.items() if name not in _FREE and not name.startswith("_")}
    told: dict[str, Any] = json.loads(json.dumps(kept, default=str, sort_keys=True))
    return told


def open_folder(folder: Path, file: str, now: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Claim the output folder of a run, whose `file` says what it was started with.

    Raises:
        ValueError: it holds another run, or anything at all without `resume` or `overwrite`; nothing is removed that no run wrote.
    """
    path = folder / file
    if folder.is_file():
        raise ValueError(f"the output folder {folder} is a file: choose another --output-dir")
    if folder.is_dir() and any(folder.iterdir()):
        if overwrite:
            if not path.is_file():
                raise ValueError(
                    f"{folder} was not written by this command, --overwrite leaves it alone: remove it yourself"
                )
            shutil.rmtree(folder)
        elif not resume:
            raise ValueError(
                f"{folder} is not empty: continue that run with --resume, choose another --output-dir, or throw it away with --overwrite"
            )
        elif path.is_file() and (told := differences(read_json(path)["options"], now["options"])):
            raise ValueError(
                f"{folder} holds another run ({'; '.join(told)}), which cannot be resumed with these options: restore them, choose "
                "another --output-dir, or throw it away with --overwrite"
            )
    write_json(path, now)


def newest_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that was written to its end: the trainer's state is its last file."""
    numbered = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
    return next((path for path in numbered if _is_whole(path)), None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        return "global_step" in (read_json(checkpoint / "trainer_state.json") or {})
    except json.JSONDecodeError:
        return False


def evaluation_options(options: StageOptions, training: PreferenceConfig, reference: str) -> dict[str, Any]:
    """What `predilect align evaluate` needs to know of a run."""
    from pref_losses.align_options import DataOptions

    data = {f.name: getattr(options, f.name) for f in fields(DataOptions)}
    return {
        **data,
        "reference": reference,
        "max_length": training.max_length,
        "truncation_mode": training.truncation_mode,
    }
