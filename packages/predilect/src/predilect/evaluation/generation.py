"""Metrics of models that answer with text: an answer may be right, wrong, or no item at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from predilect.evaluation.metric import Metric, check_same_rows


class GenerationMetrics(Metric):
    """How often a generated answer is the target, and how often it is an item at all.

    - `hr@1` = correct / all
    - `valid_ratio` = valid / all
    - `hr@1_given_valid` = correct / valid; NaN when no answer is valid

    All lie in 0..1. Papers and their code mix the first and the third, so all three are always reported; a model that
    answers seldom can have a high third and a low first.

    Examples:
        >>> metrics = GenerationMetrics()
        >>> metrics.update([3, None, 5, 5], [3, 4, 5, 6])
        >>> {name: round(value, 3) for name, value in metrics.compute().items()}
        {'hr@1': 0.5, 'valid_ratio': 0.75, 'hr@1_given_valid': 0.667}
    """

    def update(self, predicted: Sequence[int | None] | torch.Tensor, targets: Sequence[int] | torch.Tensor) -> None:
        """Add one batch.

        Args:
            predicted: (B,) item ids; None or 0 where the text names no item (of the candidates, if there are any).
            targets: (B,) item ids, 1..N.

        Raises:
            ValueError: unequal lengths, a negative id, or a target that is padding.
        """
        answers = np.array([0 if p is None else int(p) for p in predicted], dtype=np.int64)
        wanted = np.array([int(t) for t in targets], dtype=np.int64)
        check_same_rows(predicted=answers, targets=wanted)
        if (answers < 0).any():
            raise ValueError(f"a predicted item id is positive, or None or 0 for no item (got {answers.min()})")
        if (wanted < 1).any():
            raise ValueError(f"a target is an item id in 1..N, 0 is padding (got {wanted.min()})")
        self._add(correct=answers == wanted, valid=answers > 0)

    def compute(self) -> dict[str, float]:
        correct, valid = self._column("correct"), self._column("valid")
        given_valid = float(correct[valid].mean()) if valid.any() else float("nan")
        return {"hr@1": float(correct.mean()), "valid_ratio": float(valid.mean()), "hr@1_given_valid": given_valid}

    def per_row(self) -> dict[str, np.ndarray]:
        """`hr@1` and `valid_ratio` of each row, 0 or 1."""
        return {
            "hr@1": self._column("correct").astype(np.float64),
            "valid_ratio": self._column("valid").astype(np.float64),
        }
