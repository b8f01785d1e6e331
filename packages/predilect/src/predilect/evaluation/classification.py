"""Metrics of yes-or-no predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from predilect.evaluation.metric import Metric, check_same_rows, float_rows


class ClassificationMetrics(Metric):
    """Metrics of a binary classifier's scores.

    A row is predicted positive when its score is at least `threshold`.

    - `accuracy`: share of rows predicted right, 0..1.
    - `f1` = 2 TP / (2 TP + FP + FN) of the positive class, 0..1; 0 when there is neither a positive row nor
      prediction.
    - `auc_roc`: probability that a random positive scores above a random negative, equal scores counting one half,
      0..1 (the Mann-Whitney statistic; from ranks, equal scores sharing their mean rank). NaN when a class is absent.

    Args:
        threshold: 0.5 for probabilities, 0 for logits.

    Examples:
        >>> metrics = ClassificationMetrics()
        >>> metrics.update([0.9, 0.6, 0.6, 0.1], [1, 1, 0, 0])
        >>> {name: round(value, 3) for name, value in metrics.compute().items()}
        {'accuracy': 0.75, 'f1': 0.8, 'auc_roc': 0.875}
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold

    def update(self, scores: torch.Tensor | Sequence[float], labels: torch.Tensor | Sequence[int]) -> None:
        """Add one batch.

        Args:
            scores: (B,) finite; higher means more probably positive.
            labels: (B,) 0 or 1.

        Raises:
            ValueError: unequal lengths, scores that are not finite, labels other than 0 and 1.
        """
        score, label = float_rows("scores", scores), float_rows("labels", labels)
        check_same_rows(scores=score, labels=label)
        if not np.isin(label, (0, 1)).all():
            raise ValueError(f"labels must be 0 or 1 (got {label[~np.isin(label, (0, 1))][0]:g})")
        self._add(score=score, label=label.astype(bool))

    def compute(self) -> dict[str, float]:
        score, label = self._column("score"), self._column("label")
        predicted = score >= self.threshold
        hits, either = int((predicted & label).sum()), int(predicted.sum() + label.sum())
        return {
            "accuracy": float((predicted == label).mean()),
            "f1": 2 * hits / either if either else 0.0,
            "auc_roc": _auc_roc(score, label),
        }

    def per_row(self) -> dict[str, np.ndarray]:
        """`accuracy` (0 or 1) and the `score` of each row."""
        score, label = self._column("score"), self._column("label")
        return {"accuracy": ((score >= self.threshold) == label).astype(np.float64), "score": score}


def _auc_roc(score: np.ndarray, label: np.ndarray) -> float:
    positives, negatives = int(label.sum()), int((~label).sum())
    if not positives or not negatives:
        return float("nan")
    _, group, size = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(size) - (size - 1) / 2
    above = mean_rank[group][label].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))
