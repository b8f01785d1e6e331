"""The folder of a run: what it was started with, how far it came, and what it may be continued with."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from pref_losses.align.options import DataOptions

if TYPE_CHECKING:
    from pref_losses.align.options import StageOptions
    from pref_losses.config import PreferenceConfig

RUN = "predilect align"  # the kind of these runs
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


def evaluation_options(options: StageOptions, training: PreferenceConfig, reference: str) -> dict[str, Any]:
    """What `predilect align evaluate` needs to know of a run."""
    data = {f.name: getattr(options, f.name) for f in fields(DataOptions)}
    cut = {"max_length": training.max_length, "truncation_mode": training.truncation_mode}
    return {**data, "reference": reference, **cut}
