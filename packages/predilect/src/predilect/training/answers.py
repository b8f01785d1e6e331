"""Supervised fine-tuning on answers: rows, collator, and a trainer with the output head at answer tokens only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor
from torch.utils.data import Dataset

from predilect.modeling.losses import weighted_mean
from predilect.modeling.packed import label_logps
from predilect.training.trainer import Trainer

IGNORE = -100


class AnswerRows(Dataset[dict[str, Any]]):
    """Rows of `prompt_ids` and `answer_ids`, and what else a collator reads of them."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


@dataclass
class AnswerCollator:
    """Pads rows of `prompt_ids` and `answer_ids` on the right.

    The batch holds `input_ids`, `attention_mask` and `labels` (all (B, T)), `row` (B,), `weight` (B,) where the rows
    have one, and `vectors` where there are soft tokens: for each of them the rows of its table that belong to the
    row's `item_ids`, in reading order; or, without `tables`, what the rows bring as `vectors` (name -> one tensor, one
    entry per occurrence).

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
        if "weight" in rows[0]:
            batch["weight"] = torch.tensor([r["weight"] for r in rows], dtype=torch.float32)
        if self.tables:
            items = torch.tensor([i for r in rows for i in r["item_ids"]], dtype=torch.int64)
            batch["vectors"] = {name: table[items] for name, table in self.tables.items()}
        elif names := sorted({name for r in rows for name in r.get("vectors", ())}):
            own = [r["vectors"] for r in rows]
            batch["vectors"] = {name: torch.cat([v[name] for v in own if name in v]) for name in names}
        return batch


class AnswerTrainer(Trainer):
    """Minimises the mean negative log-likelihood, in nats per token, of the answers; prompts have no loss.

    Rows are taken in the order given; a row's `weight` multiplies the loss of each of its tokens:
    `sum_i w_i sum_t -log p_it / sum_i w_i n_i`, n_i the tokens of row i.
    """

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of one micro-batch; the mean over its answer tokens."""
        predictions = label_logps(model, inputs["labels"], **self.model_inputs(inputs))
        weight = inputs.get("weight")
        of_token = None if weight is None else weight.to(predictions.logps.device)[predictions.rows]
        loss = weighted_mean(-predictions.logps, of_token)
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
