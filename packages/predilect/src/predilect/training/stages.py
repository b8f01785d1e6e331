"""Stages of a training: one folder each, resumed from the newest whole checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from predilect.processes import processes
from predilect.training.checkpoints import newest_checkpoint
from predilect.training.devices import compute_dtype
from predilect.training.silence import quiet


class StageConfig(Protocol):
    """What a stage takes from a method's config: `AnswerOptions`, its language model's dtype, and its seed."""

    batch_size: int
    gradient_accumulation: int
    learning_rate: float
    weight_decay: float
    gradient_checkpointing: bool
    save_steps: int
    dtype: Any
    seed: int


def stage_options(
    config: StageConfig, folder: Path, *, steps: int, learning_rate: float | None = None
) -> dict[str, Any]:
    """Fields of `TrainingArguments` (and of its subclasses) that every stage here shares.

    Args:
        config: of the method.
        folder: of the stage.
        steps: optimizer steps.
        learning_rate: in place of the config's.

    Raises:
        ValueError: a batch that cannot be spread evenly over processes and parts.
    """
    parts = config.gradient_accumulation * processes().num_processes
    if config.batch_size % parts:
        raise ValueError(
            f"batch_size must be a multiple of gradient_accumulation x processes (got {config.batch_size} and {parts})"
        )
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": config.batch_size // parts,
        "gradient_accumulation_steps": config.gradient_accumulation,
        "learning_rate": config.learning_rate if learning_rate is None else learning_rate,
        "weight_decay": config.weight_decay,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "bf16": compute_dtype(config.dtype) == torch.bfloat16,
        "use_cpu": not torch.accelerator.is_available(),
        "activation_checkpointing": config.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        "save_total_limit": 1,
        "logging_steps": 10,
        "train_sampling_strategy": "sequential",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": config.seed,
    }


def answer_arguments(**options: Any) -> TrainingArguments:
    """`TrainingArguments` of an `AnswerTrainer`: what `stage_options` gives."""
    return TrainingArguments(**options, remove_unused_columns=False, dataloader_pin_memory=False)


def run_stage(trainer: transformers.Trainer, callbacks: Sequence[TrainerCallback]) -> None:
    """Train from the newest whole checkpoint in the stage's folder, if there is one; a finished stage is loaded."""
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.remove_callback(PrinterCallback)
    with quiet():
        checkpoint = newest_checkpoint(trainer.args.output_dir)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
