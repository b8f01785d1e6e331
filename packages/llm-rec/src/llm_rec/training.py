"""Supervised fine-tuning on answers: `transformers.Trainer`, the output head at answer tokens only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from peft.helpers import disable_input_dtype_casting
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from predilect.modeling.next_item import quiet
from predilect.processes import processes
from predilect.tokenization import label_logps
from pref_losses.align.storage import newest_checkpoint

IGNORE = -100


class AnswerRows(Dataset[dict[str, Any]]):
    """Rows of `llm_rec.rows.encoded_rows`."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


@dataclass
class AnswerCollator:
    """Pads rows of `prompt_ids` and `answer_ids` on the right.

    The batch holds `input_ids`, `attention_mask` and `labels` (all (B, T)), `row` (B,), and `vectors` where there are
    soft tokens: for each of them the rows of its table that belong to the row's `item_ids`, in reading order; or,
    without `tables`, what the rows bring as `vectors` (name -> one tensor, one entry per occurrence).

    Args:
        pad_token_id: what to pad with.
        tables: name of a soft token -> (N + 1, d) one vector per item id.
    """

    pad_token_id: int
    tables: Mapping[str, Tensor] | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        width = max(len(r["prompt_ids"]) + len(r["answer_ids"]) for r in rows)
        fill = {"input_ids": self.pad_token_id, "attention_mask": 0, "labels": IGNORE}
        batch: dict[str, Any] = {name: torch.full((len(rows), width), value) for name, value in fill.items()}
        for number, row in enumerate(rows):
            start, end = len(row["prompt_ids"]), len(row["prompt_ids"]) + len(row["answer_ids"])
            batch["input_ids"][number, :end] = torch.tensor(row["prompt_ids"] + row["answer_ids"])
            batch["attention_mask"][number, :end] = 1
            batch["labels"][number, start:end] = torch.tensor(row["answer_ids"])
        batch["row"] = torch.tensor([r["row"] for r in rows])
        if self.tables:
            items = torch.tensor([i for r in rows for i in r["item_ids"]], dtype=torch.int64)
            batch["vectors"] = {name: table[items] for name, table in self.tables.items()}
        elif names := sorted({name for r in rows for name in r.get("vectors", ())}):
            own = [r["vectors"] for r in rows]
            batch["vectors"] = {name: torch.cat([v[name] for v in own if name in v]) for name in names}
        return batch


class AnswerTrainer(Trainer):
    """Minimises the mean negative log-likelihood, in nats per token, of the answers; prompts have no loss.

    Checkpoints hold no pickled arguments. Rows are taken in the order given.
    """

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of one micro-batch; the mean over its answer tokens."""
        predictions = label_logps(model, inputs["labels"], **self.model_inputs(inputs))
        loss = -predictions.logps.mean()
        return (loss, {"logps": predictions.logps.detach()}) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One micro-batch, backward pass included. Under autocast PEFT brings each activation to float32 for its
        adapters and autocast brings it back: the same numbers without the two copies."""
        with disable_input_dtype_casting(self.model, active=self.args.bf16 or self.args.fp16):
            loss: Tensor = super().training_step(*args, **kwargs)
        return loss

    def model_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What the model's forward takes of a batch."""
        return {name: inputs[name] for name in ("input_ids", "attention_mask", "vectors") if name in inputs}

    def floating_point_ops(self, inputs: Any) -> int:
        """0: `Trainer` would walk through all parameters at every step."""
        return 0

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # `Trainer` would add its arguments as a pickle; PEFT would ask the hub whether the vocabulary has grown
        options = {"save_embedding_layers": False} if hasattr(self.model, "peft_config") else {}
        self.model.save_pretrained(output_dir or self.args.output_dir, state_dict=state_dict, **options)


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


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """No progress bars of datasets; what the user has set is put back."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def run_stage(trainer: Trainer, callbacks: Sequence[TrainerCallback]) -> None:
    """Train from the newest whole checkpoint in the stage's folder, if there is one; a finished stage is loaded."""
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.remove_callback(PrinterCallback)
    with quiet():
        trainer.train(resume_from_checkpoint=newest_checkpoint(Path(trainer.args.output_dir)))
