"""What every trainer here needs: a `Trainer` without pickles, whole checkpoints, stages that resume, answers, LoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from predilect.training.answers import AnswerCollator as AnswerCollator
    from predilect.training.answers import AnswerRows as AnswerRows
    from predilect.training.answers import AnswerTrainer as AnswerTrainer
    from predilect.training.checkpoints import checkpoint_step as checkpoint_step
    from predilect.training.checkpoints import is_whole as is_whole
    from predilect.training.checkpoints import newest_checkpoint as newest_checkpoint
    from predilect.training.devices import arithmetic as arithmetic
    from predilect.training.devices import compute_dtype as compute_dtype
    from predilect.training.devices import default_device as default_device
    from predilect.training.next_item import NextItemRows as NextItemRows
    from predilect.training.next_item import NextItemTrainer as NextItemTrainer
    from predilect.training.next_item import NextItemWindows as NextItemWindows
    from predilect.training.next_item import next_item_arguments as next_item_arguments
    from predilect.training.silence import quiet as quiet
    from predilect.training.silence import without_progress_bars as without_progress_bars
    from predilect.training.stages import answer_arguments as answer_arguments
    from predilect.training.stages import run_stage as run_stage
    from predilect.training.stages import stage_options as stage_options
    from predilect.training.trainer import Trainer as Trainer

_HOMES = {
    "answers": ("AnswerCollator", "AnswerRows", "AnswerTrainer"),
    "checkpoints": ("checkpoint_step", "is_whole", "newest_checkpoint"),
    "devices": ("arithmetic", "compute_dtype", "default_device"),
    "next_item": ("NextItemRows", "NextItemTrainer", "NextItemWindows", "next_item_arguments"),
    "silence": ("quiet", "without_progress_bars"),
    "stages": ("answer_arguments", "run_stage", "stage_options"),
    "trainer": ("Trainer",),
}

__all__ = [
    "AnswerCollator",
    "AnswerRows",
    "AnswerTrainer",
    "NextItemRows",
    "NextItemTrainer",
    "NextItemWindows",
    "Trainer",
    "answer_arguments",
    "arithmetic",
    "checkpoint_step",
    "compute_dtype",
    "default_device",
    "is_whole",
    "newest_checkpoint",
    "next_item_arguments",
    "quiet",
    "run_stage",
    "stage_options",
    "without_progress_bars",
]

__getattr__, __dir__ = attach(
    __name__, {name: f"predilect.training.{home}" for home, names in _HOMES.items() for name in names}
)
