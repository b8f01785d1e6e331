"""What all metrics share: rows come in batch by batch, one flat dict comes out, and the rows stay readable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


class Metric(ABC):
    """Accumulate rows with `update`, summarise them with `compute`, read them one by one with `per_row`."""

    def __init__(self) -> None:
        self._batches: dict[str, list[np.ndarray]] = {}

    def __len__(self) -> int:
        """Number of rows so far."""
        return sum(len(batch) for batch in next(iter(self._batches.values()), []))

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The metrics over all rows so far.

        Raises:
            RuntimeError: there are no rows yet.
        """

    @abstractmethod
    def per_row(self) -> dict[str, np.ndarray]:
        """One value per row and metric, in the order of the updates; what a bootstrap resamples."""

    def _add(self, **columns: np.ndarray) -> None:
        for name, values in columns.items():
            self._batches.setdefault(name, []).append(values)

    def _column(self, name: str) -> np.ndarray:
        if not len(self):
            raise RuntimeError(f"{type(self).__name__} has no rows yet: call update first")
        return np.concatenate(self._batches[name])


def float_rows(name: str, values: torch.Tensor | np.ndarray | Sequence[Any], *, nan: bool = False) -> np.ndarray:
    """`values` as a float64 vector.

    Raises:
        ValueError: not one-dimensional, infinite, or NaN where `nan` is not allowed.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().to(torch.float64).numpy()
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one value per row, shape (B,) (got shape {array.shape})")
    bad = np.isinf(array) if nan else ~np.isfinite(array)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{name} must be finite (got {array[row]} in row {row})")
    return array


def check_same_rows(**columns: np.ndarray) -> None:
    """Refuse columns of unequal length."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"all columns of a batch must have the same number of rows (got {lengths})")
