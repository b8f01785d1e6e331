"""Training, validation and test rows of next-item prediction, and how they are cut from a log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from predilect.data.arrow import as_dataset, as_table, list_column, numpy_column
from predilect.data.catalogue import Catalogue

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from rich.table import Table

    from predilect.data.dataset import RecDataset

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

    def with_candidates(self, size: int = 20, seed: int = 0, negatives: str = "uniform") -> SequenceSplits:
        """These splits with a fixed candidate set in every validation and test row; see `sample_candidates`."""
        from predilect.data.candidates import sample_candidates

        def added(part: str) -> Dataset:
            sets = sample_candidates(self, part, size=size, seed=seed, negatives=negatives)
            table = as_table(self.part(part))
            if "candidates" in table.column_names:
                table = table.drop_columns("candidates")
            column = list_column(sets.astype(np.int32).ravel(), np.full(len(sets), size))
            return as_dataset(table.append_column("candidates", column))

        chosen = {"candidates": size, "candidate_seed": seed, "negatives": negatives}
        return replace(self, validation=added("validation"), test=added("test"), protocol={**self.protocol, **chosen})

    def describe(self) -> Table:
        """What was done to the data, step by step, and the protocol: a table that `rich` prints."""
        from rich.table import Table

        said = ", ".join(f"{k} {v}" for k, v in self.protocol.items() if v is not None)
        table = Table("step", title=self.protocol["data"], caption=said)
        for column in ("interactions", "users", "items"):
            table.add_column(column, justify="right")
        for c in self.counts:
            table.add_row(c.step, f"{c.interactions:,}", f"{c.users:,}", f"{c.items:,}")
        return table


def row_tensors(rows: Dataset, max_history: int) -> RowTensors:
    """Columns of `rows` as tensors; histories are cut to their last `max_history` items and padded on the left."""
    import torch

    table = rows.with_format("arrow")[:]

    def column(name: str) -> np.ndarray:
        values: np.ndarray = table[name].to_numpy().astype(np.int64)
        return values

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
        size = len(flat.flatten()) // max(1, len(lengths))
        candidates = torch.from_numpy(np.asarray(flat.flatten()).astype(np.int64).reshape(len(lengths), size))
    return RowTensors(
        torch.from_numpy(history),
        torch.from_numpy(column("target")),
        torch.from_numpy(column("user_id")),
        torch.from_numpy(column("position")),
        candidates,
    )


@dataclass(frozen=True)
class _Log:
    """A log sorted by user, and within a user by time; equal times keep the order of the rows."""

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    row: np.ndarray
    """place of the event in the unsorted log"""
    offsets: np.ndarray
    official: np.ndarray | None

    @property
    def position(self) -> np.ndarray:
        """Place of each event in its user's sequence, from 0."""
        place: np.ndarray = np.arange(len(self.user)) - self.offsets[self.user]
        return place

    @property
    def remaining(self) -> np.ndarray:
        """How many events of the user come after each event."""
        count: np.ndarray = self.offsets[self.user + 1] - 1 - np.arange(len(self.user))
        return count


def _sorted_log(data: RecDataset) -> _Log:
    user, time = numpy_column(data.interactions, "user_id"), numpy_column(data.interactions, "timestamp")
    order = np.lexsort((time, user))  # stable
    item = numpy_column(data.interactions, "item_id")[order].astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user))]).astype(np.int64)
    official = None
    if "split" in data.interactions.column_names:
        official = np.asarray(as_table(data.interactions)["split"].to_numpy())[order]
    return _Log(user[order].astype(np.int32), item, time[order], order, offsets, official)


def _temporal(log: _Log, ratios: tuple[float, ...], seed: int) -> np.ndarray:
    """One moment for everybody ends training, another ends validation; neither falls within a tie."""
    time = np.sort(log.time)
    changes = np.flatnonzero(time[1:] > time[:-1]) + 1  # a boundary before one of these parts no equal times
    if not len(changes):
        raise ValueError("all events have one time: choose strategy leave_one_out or by_user")
    wanted = np.cumsum(ratios[:2]) * len(time)
    starts = [time[changes[np.abs(changes - w).argmin()]] for w in wanted]
    return np.searchsorted(starts, log.time, side="right")


def _leave_one_out(log: _Log, ratios: tuple[float, ...], seed: int) -> np.ndarray:
    """Each user's last event is for testing, the one before for validation, the rest for training."""
    part: np.ndarray = 2 - np.minimum(log.remaining, 2)
    return part


def _by_user(log: _Log, ratios: tuple[float, ...], seed: int) -> np.ndarray:
    """Whole users, shuffled."""
    users = len(log.offsets) - 1
    bounds = np.rint(np.cumsum(ratios[:2]) * users)
    place = np.random.default_rng(seed).permutation(users)
    part: np.ndarray = np.searchsorted(bounds, place, side="right")[log.user]
    return part


def _official(log: _Log, ratios: tuple[float, ...], seed: int) -> np.ndarray:
    """The split that the data set comes with."""
    if log.official is None:
        raise ValueError("the data has no column split: choose another strategy than official")
    part = np.full(len(log.official), -1)
    for code, name in enumerate(PARTS):
        part[log.official == name] = code
    if (part < 0).any():
        found = sorted({str(v) for v in log.official[part < 0]})
        raise ValueError(f"the column split may hold {', '.join(PARTS)} (got {', '.join(found[:5])})")
    return part


STRATEGIES: dict[str, Callable[[_Log, tuple[float, ...], int], np.ndarray]] = {
    "temporal": _temporal,
    "leave_one_out": _leave_one_out,
    "by_user": _by_user,
    "official": _official,
}


def cut(
    data: RecDataset,
    strategy: str,
    *,
    ratios: tuple[float, ...],
    max_history: int,
    min_history: int,
    seed: int,
) -> SequenceSplits:
    """Cut a log into training, validation and test rows.

    Every event is in exactly one part, and is a row of it if its user has at least `min_history` earlier events. A
    row's history is what the user took before the event, whatever part that lies in: nothing later than the target is
    ever seen.

    Args:
        data: the log.
        strategy: "temporal": two moments cut the whole log by time, the shares being `ratios` as nearly as ties allow;
            "leave_one_out": each user's last event is tested, the one before validates; "by_user": users are shuffled
            by `seed` into shares of `ratios`; "official": the `split` column that the data comes with.
        ratios: shares of training, validation and test; sum 1. Only for "temporal" and "by_user".
        max_history: longest history; older items are cut off.
        min_history: events without that many predecessors are no rows (they stay in histories and
            `train_interactions`).
        seed: of "by_user".

    Raises:
        ValueError: an unknown strategy, ratios that are no three shares, or a part without rows; says what to change.
    """
    _require_options(strategy, ratios, max_history, min_history)
    log = _sorted_log(data)
    part = STRATEGIES[strategy](log, ratios, seed)
    enough = log.position >= min_history
    events = [np.flatnonzero((part == code) & enough) for code in range(3)]
    for name, rows in zip(PARTS, events, strict=True):
        if not len(rows):
            raise ValueError(
                f"the {name} part of {data.name} has no rows under strategy {strategy!r}, ratios {ratios}, "
                f"min_history {min_history}: give it a larger ratio, lower min_history, or choose another strategy"
            )
    train_rows = np.sort(log.row[part == 0])
    training = as_table(data.interactions).take(pa.array(train_rows))
    taken = np.bincount(training["item_id"].to_numpy(), minlength=len(data.catalogue) + 1)[1:]
    protocol = {
        "data": data.name,
        "strategy": strategy,
        "ratios": list(ratios) if strategy in ("temporal", "by_user") else None,
        "split_seed": seed if strategy == "by_user" else None,
        "k_core": data.k,
        "max_history": max_history,
        "min_history": min_history,
    }
    told = [
        StepCount(f"{strategy}: {name}", len(rows), len(np.unique(log.user[rows])), len(np.unique(log.item[rows])))
        for name, rows in zip(PARTS, events, strict=True)
    ]
    parts = [_rows(log, rows, max_history) for rows in events]
    return SequenceSplits(
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        train_interactions=as_dataset(training),
        catalogue=replace(data.catalogue, popularity=tuple(taken.tolist())),
        sequences=UserSequences(log.item, log.offsets),
        protocol=protocol,
        counts=(*data.counts, *told),
    )


def _require_options(strategy: str, ratios: tuple[float, ...], max_history: int, min_history: int) -> None:
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)} (got {strategy!r})")
    if len(ratios) != 3 or min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-9:
        raise ValueError(f"ratios must be three positive shares that sum to 1 (got {ratios})")
    if max_history < 1 or min_history < 0:
        raise ValueError(
            f"max_history must be at least 1 and min_history at least 0 (got {max_history} and {min_history})"
        )


def _rows(log: _Log, events: np.ndarray, max_history: int) -> Dataset:
    """The rows whose targets are the given events."""
    position = log.position[events]
    lengths = np.minimum(position, max_history)
    start = np.repeat(events - lengths, lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    columns = {
        "user_id": log.user[events],
        "history": list_column(log.item[start + within], lengths),
        "target": log.item[events],
        "timestamp": log.time[events],
        "position": position.astype(np.int32),
    }
    return as_dataset(pa.table(columns))
