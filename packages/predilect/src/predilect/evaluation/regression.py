"""Metrics of predicted numbers, some of which a language model may have failed to give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from predilect.evaluation.metric import Metric, check_same_rows, float_rows


class RegressionMetrics(Metric):
    """Errors of the predictions that could be read, and how many could not.

    - `coverage`: share of rows with a prediction, 0..1.
    - `mae` = mean |prediction - target|, `rmse` = root of the mean square, over rows with a prediction; units of the
      target.
    - `r2` = 1 - sum of squared errors / sum of squared deviations of these rows' targets from their mean; at most 1,
      negative when worse than that mean. NaN where the targets are constant.
    - `mae_imputed`, `rmse_imputed` (with `fallback`): over all rows, `fallback` in place of a missing prediction.
      These compare models of different coverage: without them a model gains by not answering where it is unsure.

    Errors are NaN when no row has a prediction.

    Args:
        fallback: what stands for a missing prediction, such as the mean of the training targets; None: no imputed
            errors.

    Examples:
        >>> metrics = RegressionMetrics(fallback=0.0)
        >>> metrics.update([1.0, float("nan"), 4.0], [2.0, 3.0, 4.0])
        >>> {name: round(value, 3) for name, value in metrics.compute().items()}
        {'coverage': 0.667, 'mae': 0.5, 'rmse': 0.707, 'r2': 0.5, 'mae_imputed': 1.333, 'rmse_imputed': 1.826}
    """

    def __init__(self, fallback: float | None = None) -> None:
        super().__init__()
        if fallback is not None and not np.isfinite(fallback):
            raise ValueError(f"fallback must be finite (got {fallback})")
        self.fallback = fallback

    def update(self, predictions: torch.Tensor | Sequence[float], targets: torch.Tensor | Sequence[float]) -> None:
        """Add one batch.

        Args:
            predictions: (B,), NaN where no number could be read.
            targets: (B,), finite.

        Raises:
            ValueError: unequal lengths, an infinite prediction, a target that is not finite.
        """
        predicted, wanted = float_rows("predictions", predictions, nan=True), float_rows("targets", targets)
        check_same_rows(predictions=predicted, targets=wanted)
        self._add(prediction=predicted, target=wanted)

    def compute(self) -> dict[str, float]:
        prediction, target = self._column("prediction"), self._column("target")
        parsed = ~np.isnan(prediction)
        metrics = {"coverage": float(parsed.mean())}
        metrics["mae"], metrics["rmse"] = _errors(prediction[parsed] - target[parsed])
        metrics["r2"] = _r2(prediction[parsed], target[parsed])
        if self.fallback is not None:
            imputed = np.where(parsed, prediction, self.fallback)
            metrics["mae_imputed"], metrics["rmse_imputed"] = _errors(imputed - target)
        return metrics

    def per_row(self) -> dict[str, np.ndarray]:
        """`coverage` (0 or 1), `mae` (absolute error; NaN where none) and, with `fallback`, `mae_imputed`."""
        prediction, target = self._column("prediction"), self._column("target")
        parsed = ~np.isnan(prediction)
        rows = {"coverage": parsed.astype(np.float64), "mae": np.abs(prediction - target)}
        if self.fallback is not None:
            rows["mae_imputed"] = np.abs(np.where(parsed, prediction, self.fallback) - target)
        return rows


def _errors(errors: np.ndarray) -> tuple[float, float]:
    if not len(errors):
        return float("nan"), float("nan")
    return float(np.abs(errors).mean()), float(np.sqrt(np.square(errors).mean()))


def _r2(prediction: np.ndarray, target: np.ndarray) -> float:
    if not len(target) or (target == target[0]).all():
        return float("nan")
    return 1.0 - float(np.square(prediction - target).sum() / np.square(target - target.mean()).sum())
