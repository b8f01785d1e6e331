"""Training, validation and test rows of next-item prediction, and how they are cut from a log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from predilect.data.catalogue import Catalogue

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class StepCount:
    """Row counts after one step of preparation ("read", "5-core", "temporal: test", ...)."""

    step: str
    interactions: int
    users: int
    items: int


@dataclass(frozen=True)
class UserSequences:
    """All items of every user in time order, as one flat array (compressed rows).

    Attributes:
        items: item ids, user after user, shape (interactions,), int32.
        offsets: user `u` (0..U-1) owns `items[offsets[u]:offsets[u + 1]]`, shape (U + 1,), int64.
    """

    items: np.ndarray
    offsets: np.ndarray

    def past(self, users: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Everything each user took before `positions`: pairs (row, item id), two arrays of equal length."""
        return self._pairs(self.offsets[users], positions.astype(np.int64))

    def whole(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Everything each user ever took: pairs (row, item id)."""
        return self._pairs(self.offsets[users], self.offsets[users + 1] - self.offsets[users])

    def _pairs(self, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.repeat(np.arange(len(starts)), lengths)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return rows, self.items[np.repeat(starts, lengths) + within]


@dataclass(frozen=True)
class RowTensors:
    """A split as tensors; what models and evaluation read.

    Attributes:
        history: (rows, max_history) int64, padded with 0 on the **left**.
        target: (rows,) int64, 1..N.
        user_id: (rows,) int64.
        position: (rows,) int64, the target's place in its user's sequence.
        candidates: (rows, C) int64 or None.
    """

    history: torch.Tensor
    target: torch.Tensor
    user_id: torch.Tensor
    position: torch.Tensor
    candidates: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class SequenceSplits:
    """What a `Recommender` is fitted and evaluated on.

    Attributes:
        train, validation, test: rows with the columns `user_id`, `history` (list of item ids, oldest first, at most
            `max_history`), `target`, `timestamp`, `position` (of the target in its user's sequence), and `candidates`
            (validation and test, after `with_candidates`).
        train_interactions: the part of the log that training may look at (`user_id, item_id, timestamp, rating`).
        catalogue: the items.
        sequences: each user's whole sequence: what was seen before a row, what a negative must not be.
        protocol: data name, strategy, ratios, k_core, max_history, min_history, and the candidates' size, seed and
            negatives; copied into every result.
        counts: rows, users and items after each step of preparation.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    train_interactions: Dataset
    catalogue: Catalogue
    sequences: UserSequences
    protocol: dict[str, Any]
    counts: tuple[StepCount, ...]

    @property
    def num_items(self) -> int:
        return len(self.catalogue)

    def part(self, name: str) -> Dataset:
        """The rows of "train", "validation" or "test"."""
        if name not in PARTS:
            raise ValueError(f"a split has the parts {PARTS} (got {name!r})")
        rows: Dataset = getattr(self, name)
        return rows

    def tensors(self, name: str) -> RowTensors:
        """The rows of one part as tensors."""
        return row_tensors(self.part(name), self.protocol["max_history"])


def row_tensors(rows: Dataset, max_history: int) -> RowTensors:
    """Columns of `rows` as tensors; histories are cut to the last `max_history` items and padded with 0 on the left."""
    import torch

    table = rows.with_format("arrow")[:]

    def column(name: str) -> np.ndarray:
        return table[name].to_numpy().astype(np.int64)

    lists = table["history"].combine_chunks()
    lengths = np.asarray(lists.value_lengths()).astype(np.int64)
    values = np.asarray(lists.flatten()).astype(np.int64)
    row = np.repeat(np.arange(len(lengths)), lengths)
    from_end = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(values))  # 1 = most recent
    keep = from_end <= max_history
    history = np.zeros((len(lengths), max_history), dtype=np.int64)
    history[row[keep], max_history - from_end[keep]] = values[keep]
    candidates = None
    if "candidates" in table.column_names:
        flat = table["candidates"].combine_chunks()
        candidates = torch.from_numpy(np.asarray(flat.flatten()).astype(np.int64).reshape(len(lengths), -1))
    return RowTensors(
        torch.from_numpy(history),
        torch.from_numpy(column("target")),
        torch.from_numpy(column("user_id")),
        torch.from_numpy(column("position")),
        candidates,
    )
