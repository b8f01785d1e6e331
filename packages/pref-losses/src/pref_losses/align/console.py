"""What a user sees while models train: one bar, the numbers that matter, and no chatter of the libraries."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import datasets
import transformers
from transformers import ProgressCallback

HEADLINES = ("loss", "rewards/margins", "rewards/accuracies", "beta", "weights/effective", "eval_loss", "epoch")


class Headlines(ProgressCallback):
    """The trainer's bar with the headline numbers of every log; all of them are in `trainer_state.json`."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        kept = {name: logs[name] for name in HEADLINES if name in logs}
        if len(kept) > 1:  # the summary at the end has none but the epoch
            super().on_log(args, state, control, logs=kept, **kwargs)


def show_headlines(trainer: Any) -> None:
    """Replace the trainer's bar, where it has one."""
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(Headlines)


def silence_libraries() -> None:
    """No bars for loading and mapping, no warnings of the libraries about each other's options and models."""
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|trl|<string>")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"peft\.utils")  # it looks for the base's config


def print_metrics(metrics: Mapping[str, Any]) -> None:
    """One line a number; an interval stands behind its mean."""
    for name, value in metrics.items():
        if name.endswith(("_low", "_high")) and name.rpartition("_")[0] in metrics:
            continue
        low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
        interval = "" if low is None or high is None else f"  [{low:.4g}, {high:.4g}]"
        print(f"{name:<30} {_shown(value)}{interval}")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
