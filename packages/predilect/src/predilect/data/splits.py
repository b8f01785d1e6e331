"""Training, validation and test rows of next-item prediction, and how they are cut from a log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from predilect.data.arrow import as_dataset, as_table, numpy_column
from predilect.data.candidates import draw_candidates, row_keys
from predilect.data.catalogue import Catalogue
from predilect.data.rows import PARTS, SequenceRows, UserSequences

if TYPE_CHECKING:
    from datasets import Dataset
    from rich.table import Table

NEGATIVES = ("uniform", "popularity")


@dataclass(frozen=True)
class StepCount:
    """Row counts after one step of preparation ("read", "5-core", "temporal: test", ...)."""

    step: str
    interactions: int
    users: int
    items: int


@dataclass(frozen=True)
class SequenceSplits:
    """What a `Recommender` is fitted and evaluated on.

    Attributes:
        train, validation, test: the rows.
        train_interactions: the part of the log that training may look at (`user_id, item_id, timestamp, rating`).
        catalogue: the items.
        protocol: data name, strategy, ratios, k_core, max_history, min_history, and the candidates' size, seed and
            negatives; copied into every result.
        counts: rows, users and items after each step of preparation.
    """

    train: SequenceRows
    validation: SequenceRows
    test: SequenceRows
    train_interactions: Dataset
    catalogue: Catalogue
    protocol: dict[str, Any]
    counts: tuple[StepCount, ...]

    @property
    def num_items(self) -> int:
        return len(self.catalogue)

    @property
    def sequences(self) -> UserSequences:
        """Each user's whole sequence, of which the rows of all parts are places."""
        return self.train.sequences

    def part(self, name: str) -> SequenceRows:
        """The rows of "train", "validation" or "test"."""
        if name not in PARTS:
            raise ValueError(f"a split has the parts {PARTS} (got {name!r})")
        rows: SequenceRows = getattr(self, name)
        return rows

    def with_candidates(self, size: int = 20, seed: int = 0, negatives: str = "uniform") -> SequenceSplits:
        """These splits with a fixed candidate set in every validation and test row; see `sample_candidates`."""

        def added(part: str) -> SequenceRows:
            sets = sample_candidates(self, part, size=size, seed=seed, negatives=negatives)
            return replace(self.part(part), candidates=sets.astype(np.int32))

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


def sample_candidates(
    splits: SequenceSplits, part: str, *, size: int = 20, seed: int = 0, negatives: str = "uniform"
) -> np.ndarray:
    """One set of candidates per row: the target and `size - 1` distinct items that are no answer of its user.

    In validation and test rows no negative is an item that the user ever took, before or after: what it takes later
    would be right too. In training rows no negative is the target or was taken before it; what comes later may be
    drawn like any item. Were the future left out there too, an item's absence from a person's negatives would tell the
    model what that person's validation and test targets are.

    Which negatives are drawn and where the target stands depends on the seed, the part, the user and the position in
    the user's sequence, never on the target: each row has a random stream of its own (a counter-based generator), so a
    set does not change when other rows are added or removed.

    Args:
        splits: the data.
        part: "train", "validation" or "test".
        size: candidates per row, the target included.
        seed: another seed gives other sets.
        negatives: "uniform" over the items, as the papers do; or "popularity": in proportion to the counts in the
            training part, items with count zero only where nothing else is left. Under uniform negatives popularity
            alone looks strong, so every result names which was used.

    Returns:
        int64 array (rows, size) of item ids 1..N; the target's place is uniform over the columns.

    Raises:
        ValueError: an unknown kind of negatives, size below 2, or a user who leaves too few items; names the row.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f"negatives must be one of {', '.join(NEGATIVES)} (got {negatives!r})")
    if size < 2:
        raise ValueError(f"size must be at least 2: the target and a negative (got {size})")
    rows = splits.part(part)
    weights = np.ones(splits.num_items)
    if negatives == "popularity":
        weights = np.array(splits.catalogue.popularity, dtype=np.float64)
    keys = row_keys(seed, PARTS.index(part), rows.user, rows.position)
    try:
        return draw_candidates(rows, keys, weights, size, past=part == "train")
    except ValueError as error:
        raise ValueError(f"{part} {error}") from None


@dataclass(frozen=True)
class _Log:
    """A log sorted by user, and within a user by time; equal times keep the order of the rows."""

    sequences: UserSequences
    user: np.ndarray
    time: np.ndarray
    order: np.ndarray
    """place of each event in the unsorted log"""
    official: np.ndarray | None

    @property
    def position(self) -> np.ndarray:
        """Place of each event in its user's sequence, from 0."""
        place: np.ndarray = np.arange(len(self.user)) - self.sequences.offsets[self.user]
        return place

    @property
    def remaining(self) -> np.ndarray:
        """How many events of the user come after each event."""
        count: np.ndarray = self.sequences.offsets[self.user + 1] - 1 - np.arange(len(self.user))
        return count


def _sorted_log(interactions: Dataset) -> _Log:
    table = as_table(interactions)
    user, time = numpy_column(table, "user_id"), numpy_column(table, "timestamp")
    order = np.lexsort((time, user))  # stable
    user, time = user[order].astype(np.int32), time[order]
    event, events = None, ()
    if "event" in table.column_names:
        coded = table["event"].combine_chunks().dictionary_encode()
        event = coded.indices.fill_null(-1).to_numpy()[order].astype(np.int32)
        events = tuple(coded.dictionary.to_pylist())
    sequences = UserSequences(
        items=numpy_column(table, "item_id")[order].astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(np.bincount(user))]).astype(np.int64),
        timestamp=time,
        rating=numpy_column(table, "rating")[order].astype(np.float32),
        event=event,
        events=events,
    )
    official = np.asarray(table["split"].to_numpy())[order] if "split" in table.column_names else None
    return _Log(sequences, user, time, order, official)


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
    users = len(log.sequences.offsets) - 1
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
    interactions: Dataset,
    catalogue: Catalogue,
    strategy: str,
    *,
    name: str,
    k: int,
    ties: str = "",
    counts: tuple[StepCount, ...],
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
        interactions: the log, with dense ids; see `RecDataset`.
        catalogue: its items.
        strategy: "temporal": two moments cut the whole log by time, the shares being `ratios` as nearly as ties allow;
            "leave_one_out": each user's last event is tested, the one before validates; "by_user": users are shuffled
            by `seed` into shares of `ratios`; "official": the `split` column that the data comes with.
        ratios: shares of training, validation and test; sum 1. Only for "temporal" and "by_user".
        max_history: longest history; older items are cut off.
        min_history: events without that many predecessors are no rows (they stay in histories and
            `train_interactions`).
        name: of the data, for the protocol.
        k: of the k-core applied before, for the protocol.
        ties: how rows of one user and time were ordered, for the protocol.
        counts: steps so far.
        seed: of "by_user".

    Raises:
        ValueError: an unknown strategy, ratios that are no three shares, or a part without rows; says what to change.
    """
    _require_options(strategy, ratios, max_history, min_history)
    log = _sorted_log(interactions)
    part = STRATEGIES[strategy](log, ratios, seed).astype(np.int8)
    position = log.position.astype(np.int32)
    enough = position >= min_history
    parts, steps = [], []
    for code, part_name in enumerate(PARTS):
        events = np.flatnonzero((part == code) & enough)
        if not len(events):
            raise ValueError(
                f"the {part_name} part of {name} has no rows under strategy {strategy!r}, ratios {ratios}, "
                f"min_history {min_history}: give it a larger ratio, lower min_history, or choose another strategy"
            )
        rows = SequenceRows.at(log.sequences, log.user[events], position[events], max_history)
        size = (len(rows), len(np.unique(rows.user)), len(np.unique(rows.target)))
        parts.append(rows)
        steps.append(StepCount(f"{strategy}: {part_name}", *size))
    training = as_table(interactions).take(pa.array(np.sort(log.order[part == 0])))
    taken = np.bincount(training["item_id"].to_numpy(), minlength=len(catalogue) + 1)[1:]
    protocol = {
        "data": name,
        "strategy": strategy,
        "ratios": list(ratios) if strategy in ("temporal", "by_user") else None,
        "split_seed": seed if strategy == "by_user" else None,
        "k_core": k,
        "ties": ties or None,
        "max_history": max_history,
        "min_history": min_history,
    }
    train, validation, test = parts
    return SequenceSplits(
        train=train,
        validation=validation,
        test=test,
        train_interactions=as_dataset(training),
        catalogue=replace(catalogue, popularity=tuple(taken.tolist())),
        protocol=protocol,
        counts=(*counts, *steps),
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
