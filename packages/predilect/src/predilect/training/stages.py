"""Stages of a training: one folder each, resumed from the newest whole checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from predilect.processes import processes
from predilect.training.checkpoints import newest_checkpoint
from predilect.training.silence import quiet


def stage_options(
    folder: Path,
    *,
    steps: int,
    batch_size: int,
    gradient_accumulation: int,
    learning_rate: float,
    weight_decay: float,
    save_steps: int,
    bf16: bool,
    gradient_checkpointing: bool,
    seed: int,
) -> dict[str, Any]:
    """Fields of `TrainingArguments` (and of its subclasses) that every stage here shares.

    Raises:
        ValueError: a batch that cannot be spread evenly over processes and parts.
    """
    parts = gradient_accumulation * processes().num_processes
    if batch_size % parts:
        raise ValueError(
            f"batch_size must be a multiple of gradient_accumulation x processes (got {batch_size} and {parts})"
        )
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": batch_size // parts,
        "gradient_accumulation_steps": gradient_accumulation,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "bf16": bf16,
        "use_cpu": not torch.accelerator.is_available(),
        "activation_checkpointing": gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": save_steps,
        "save_total_limit": 1,
        "logging_steps": 10,
        "train_sampling_strategy": "sequential",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
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
