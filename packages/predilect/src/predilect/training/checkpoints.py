"""Checkpoints of a `Trainer`'s folder that were written to their end."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

STATE_FILE = "trainer_state.json"
_PARTS = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
_PARTS_OF_SEVERAL = ("optimizer.pt", "scheduler.pt", "rng_state_0.pth")


def newest_checkpoint(folder: str | Path) -> Path | None:
    """The newest whole checkpoint in a folder; None if there is none."""
    checkpoints = sorted(Path(folder).glob("checkpoint-*"), key=checkpoint_step, reverse=True)
    return next((checkpoint for checkpoint in checkpoints if is_whole(checkpoint)), None)


def checkpoint_step(checkpoint: Path) -> int:
    """The optimizer step that a checkpoint was written after; -1 for a folder of another name."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end.

    `Trainer` writes the state last; a process killed before leaves a folder without it, or with half of it. Weights
    are read as far as their header. Under an engine that spreads optimizer and weights over files of its own (FSDP,
    DeepSpeed) the state alone decides.
    """
    try:
        if "global_step" not in json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8")):
            return False
    except (OSError, ValueError):
        return False
    if any(checkpoint.glob("global_step*")) or any(checkpoint.glob("*_fsdp_*")) or any(checkpoint.glob("optimizer_*")):
        return True
    if not any(all((checkpoint / part).is_file() for part in parts) for parts in (_PARTS, _PARTS_OF_SEVERAL)):
        return False
    weights = list(checkpoint.glob("*.safetensors"))
    return bool(weights) and all(map(_is_readable, weights))


def _is_readable(weights: Path) -> bool:
    try:
        with safe_open(weights, "pt") as file:
            return len(list(file.keys())) > 0
    except (OSError, SafetensorError):
        return False
