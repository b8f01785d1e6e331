"""Batches of prompts with their answers, packed or one row an answer, and the log-probabilities of the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from predilect.modeling.packed import LabelLogps, label_logps, packed_inputs, sums_by_slot
from predilect.tokenization import SharedPrefixCollator

IGNORE = -100  # label of a position that is not scored
_CHUNK = 64  # tokens whose logits are looked at together


@dataclass
class PreferenceCollator:
    """Collates rows of `prompt_ids`, `chosen_ids`, `rejected_ids` (a list of lists).

    The batch holds `input_ids`, `labels` and `slots` (all (R, T)); `slots` says to which answer a label belongs, `b *
    (1 + K) + k` with k = 0 for the chosen one, -1 elsewhere; `answer_mask` (B, 1 + K) tells which answers exist. With
    prefix sharing a row is a prompt with all its answers (R = B) and there are `position_ids` and `segment_ids`;
    without, a row is a prompt with one answer, and there is an `attention_mask`. `row`, `flipped` and reference
    log-probs come along where the data has them.

    Args:
        pad_token_id: what to pad with.
        share_prefix: pack a prompt and all its answers into one row.
        pad_to_multiple_of: pad T up to a multiple of this.
    """

    pad_token_id: int
    share_prefix: bool = False
    pad_to_multiple_of: int | None = None

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        answers = [[f["chosen_ids"], *f["rejected_ids"]] for f in features]
        width = max(map(len, answers))
        counts = torch.tensor([len(a) for a in answers])
        batch = (
            self._packed(features, answers, width) if self.share_prefix else self._separate(features, answers, width)
        )
        batch["answer_mask"] = torch.arange(width) < counts[:, None]
        batch["row"] = torch.tensor([f["row"] for f in features])
        if "flipped" in features[0]:
            batch["flipped"] = torch.tensor([bool(f["flipped"]) for f in features])
        if features[0].get("ref_chosen_logps") is not None:
            references = [[f["ref_chosen_logps"], *f["ref_rejected_logps"]] for f in features]
            batch["ref_logps"] = torch.tensor([r + [0.0] * (width - len(r)) for r in references])
        return batch

    def _packed(self, features: Any, answers: list[list[list[int]]], width: int) -> dict[str, Tensor]:
        collate = SharedPrefixCollator(self.pad_token_id, "right", pad_to_multiple_of=self.pad_to_multiple_of or 1)
        batch = collate(
            [{"prompt_ids": f["prompt_ids"], "completions": a} for f, a in zip(features, answers, strict=True)]
        )
        first = torch.arange(len(answers))[:, None] * width
        slots = torch.where(batch["labels"] != IGNORE, first + batch["segment_ids"] - 1, -1)
        names = ("input_ids", "position_ids", "segment_ids", "labels")
        return {**{name: batch[name] for name in names}, "slots": slots}

    def _separate(self, features: Any, answers: list[list[list[int]]], width: int) -> dict[str, Tensor]:
        rows = [
            (f["prompt_ids"], answer, b * width + k)
            for b, (f, own) in enumerate(zip(features, answers, strict=True))
            for k, answer in enumerate(own)
        ]
        multiple = self.pad_to_multiple_of or 1
        length = -(-max(len(p) + len(a) for p, a, _ in rows) // multiple) * multiple
        batch = {
            name: torch.full((len(rows), length), fill)
            for name, fill in {
                "input_ids": self.pad_token_id,
                "attention_mask": 0,
                "labels": IGNORE,
                "slots": -1,
            }.items()
        }
        for number, (prompt, answer, slot) in enumerate(rows):
            start, end = len(prompt), len(prompt) + len(answer)
            batch["input_ids"][number, :end] = torch.tensor([*prompt, *answer])
            batch["attention_mask"][number, :end] = 1
            batch["labels"][number, start:end] = torch.tensor(answer)
            batch["slots"][number, start:end] = slot
        return batch


@dataclass(frozen=True)
class AnswerScores:
    """Sums and counts of the answers of B prompts, and what TRL logs about their tokens.

    Attributes:
        sums: (B, 1 + K) log-probability of each answer in nats, float32; chosen first, 0 where there is none.
        counts: (B, 1 + K) tokens.
        statistics: detached means over tokens: `entropy`, `logits/chosen`, `logits/rejected`, `mean_token_accuracy`
            (of the chosen answers).
    """

    sums: Tensor
    counts: Tensor
    statistics: dict[str, Tensor]


def score_answers(model: torch.nn.Module, batch: Mapping[str, Tensor], *, statistics: bool = False) -> AnswerScores:
    """Log-probabilities of all answers of a batch of `PreferenceCollator`; the head sees only positions that predict
    an answer token.
    """
    if "segment_ids" in batch:
        inputs = packed_inputs(model, batch)
    else:
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    predictions = label_logps(model, batch["labels"], **inputs)
    slots = batch["slots"][predictions.rows, predictions.columns]
    shape = batch["answer_mask"].shape
    sums, counts = sums_by_slot(predictions.logps, slots, shape)
    token_statistics = {}
    if statistics:
        labels = batch["labels"][predictions.rows, predictions.columns]
        token_statistics = _token_statistics(predictions, labels, slots % shape[1] == 0)
    return AnswerScores(sums, counts, token_statistics)


@torch.no_grad()
def _token_statistics(predictions: LabelLogps, labels: Tensor, of_chosen: Tensor) -> dict[str, Tensor]:
    """In chunks that stay in the processor's cache: on a CPU the copies would cost more than the arithmetic."""
    entropy, mean, top1 = [], [], []
    for logits, logps, label in zip(
        *(torch.split(part, _CHUNK) for part in (predictions.logits, predictions.logps, labels)), strict=True
    ):
        values = logits.float()
        log_total = values.gather(1, label[:, None]) - logps[:, None]
        mean.append(values.mean(1))
        top1.append(values.argmax(1) == label)
        # sum p (log_total - value) = log_total - sum p value
        entropy.append(log_total.squeeze(1) - torch.linalg.vecdot((values - log_total).exp_(), values))
    means = torch.cat(mean)
    return {
        "entropy": torch.cat(entropy).mean(),
        "logits/chosen": means[of_chosen].mean(),
        "logits/rejected": means[~of_chosen].mean(),
        "mean_token_accuracy": torch.cat(top1)[of_chosen].float().mean(),
    }
