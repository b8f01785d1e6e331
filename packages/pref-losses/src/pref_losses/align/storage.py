"""The folder of a run: what it was started with, how far it came, and what it may be continued with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predilect.leaderboard.storage import differences, read_json, write_json
from pref_losses.align.options import DataOptions

if TYPE_CHECKING:
    from pref_losses.align.options import StageOptions
    from pref_losses.config import PreferenceConfig

RUN_FILE = "align.json"
METRICS_FILE = "metrics.json"

# Options that change what a run writes or how fast it is, and no number of it.
_FREE = {
    "output_dir", "run_name", "logging_dir", "report_to", "disable_tqdm", "save_total_limit", "resume_from_checkpoint",
    "hub_token", "hub_model_id", "push_to_hub", "hub_strategy", "project", "trackio_space_id", "dataset_num_proc",
    "dataloader_num_workers", "local_rank", "log_level", "ref_log_probs_file", "resume", "overwrite", "samples",
    "max_new_tokens",
}  # fmt: skip


def fingerprint(options: StageOptions, training: PreferenceConfig, model: Any, **more: Any) -> dict[str, Any]:
    """Every option that a number of the run depends on, as JSON holds it."""
    values = {**asdict(options), **training.to_dict(), **asdict(model), **more}
    kept = {name: value for name, value in values.items() if name not in _FREE and not name.startswith("_")}
    told: dict[str, Any] = json.loads(json.dumps(kept, default=str, sort_keys=True))
    return told


def check_folder(folder: Path, file: str, *, resume: bool, overwrite: bool) -> None:
    """Whether a run may write into its output folder, before anything else is done.

    A folder that holds nothing but the run's `file` is free: that run failed before it trained.

    Raises:
        ValueError: the folder is in use, or what is in it was not written by this command.
    """
    if folder.is_file():
        raise ValueError(f"the output folder {folder} is a file: choose another --output-dir")
    if not _in_use(folder, file):
        return
    if not resume and not overwrite:
        raise ValueError(
            f"{folder} is not empty: continue that run with --resume, choose another --output-dir, or throw it away "
            "with --overwrite"
        )
    if not (folder / file).is_file():
        way = "--overwrite leaves it alone: remove it yourself" if overwrite else "there is nothing to --resume"
        raise ValueError(f"{folder} was not written by this command, {way}, or choose another --output-dir")


def claim_folder(folder: Path, file: str, now: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Begin the folder of a run, whose `file` says what it was started with, or go on with it.

    Raises:
        ValueError: it holds a run with other options or other data.
    """
    if overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    before = read_json(folder / file)
    if before and _in_use(folder, file) and (told := differences(before["options"], now["options"])):
        raise ValueError(
            f"{folder} holds another run ({'; '.join(told)}), which cannot be resumed with these options: restore "
            "them, choose another --output-dir, or throw it away with --overwrite"
        )
    write_json(folder / file, now)


def _in_use(folder: Path, file: str) -> bool:
    return folder.is_dir() and any(path.name != file for path in folder.iterdir())


def newest_checkpoint(folder: Path) -> str | None:
    """The latest checkpoint that was written to its end: the trainer's state is its last file."""
    numbered = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
    return next((str(path) for path in numbered if _is_whole(path)), None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        return "global_step" in (read_json(checkpoint / "trainer_state.json") or {})
    except json.JSONDecodeError:
        return False


def evaluation_options(options: StageOptions, training: PreferenceConfig, reference: str) -> dict[str, Any]:
    """What `predilect align evaluate` needs to know of a run."""
    data = {f.name: getattr(options, f.name) for f in fields(DataOptions)}
    cut = {"max_length": training.max_length, "truncation_mode": training.truncation_mode}
    return {**data, "reference": reference, **cut}
