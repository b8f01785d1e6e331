"""From text-only to hybrid prompts: the share of LLaRA's curriculum, and the trainer that draws by it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from predilect.training import AnswerTrainer

ITEM = "item"
COMPETENCE_START = 0.1


def hybrid_share(progress: float, mode: str = "curriculum", schedule: str = "linear") -> float:
    r"""Probability that a prompt is hybrid at `progress` (optimizer steps done / all steps, in [0, 1]).

    linear (LLaRA): :math:`p = \tau / T`. competence (Platanios et al. 2019, arXiv 1903.09848,
    c0 = 0.1): :math:`p = \min(1, \sqrt{\tau / T (1 - c_0^2) + c_0^2})`, which reaches hybrid prompts sooner.

    Examples:
        >>> hybrid_share(0.25), round(hybrid_share(0.25, schedule="competence"), 3), hybrid_share(0.25, mode="text")
        (0.25, 0.507, 0.0)
    """
    if mode != "curriculum":
        return float(mode == "hybrid")
    if schedule == "linear":
        return progress
    return min(1.0, math.sqrt(progress * (1 - COMPETENCE_START**2) + COMPETENCE_START**2))


class CurriculumTrainer(AnswerTrainer):
    """Draws for every batch, or every row, whether its prompt is hybrid.

    The two kinds of prompt differ in one token per item, so the batch is made once, by whichever data-loader worker,
    and the draw happens here, where the global step is known: it is a function of seed, step and row alone, the same
    for any number of workers and after a resume. (In the code of LLaRA, arXiv 2312.02445, the counter lives in the
    collator: workers get a copy of it that begins anew every epoch, so that the share never passes 1 / epochs.)

    Attributes:
        drawn: (optimizer step, share of hybrid rows) of every micro-batch so far in this process.
    """

    def __init__(self, *args: Any, mode: str, schedule: str, draw: str, item_id: int, text_id: int, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.mode, self.schedule, self.draw = mode, schedule, draw
        self.item_id, self.text_id = item_id, text_id
        self.drawn: list[tuple[int, float]] = []

    def model_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        hybrid = self._hybrid(inputs["row"])
        self.drawn.append((self.state.global_step, float(hybrid.float().mean())))
        ids = inputs["input_ids"]
        places = ids == self.item_id
        kept = hybrid[:, None].expand_as(places)[places]  # of each vector, in reading order
        return {
            "input_ids": ids.masked_fill(places & ~hybrid[:, None], self.text_id),
            "attention_mask": inputs["attention_mask"],
            "vectors": {ITEM: inputs["vectors"][ITEM][kept]},
        }

    def _hybrid(self, rows: Tensor) -> Tensor:
        step = self.state.global_step
        share = hybrid_share(step / max(1, self.state.max_steps), self.mode, self.schedule)
        keys = rows.tolist() if self.draw == "sample" else rows[:1].tolist()
        draws = [float(np.random.default_rng((self.args.seed, step, key)).random()) for key in keys]
        return (torch.tensor(draws, device=rows.device) < share).expand(len(rows))
