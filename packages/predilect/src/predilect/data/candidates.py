"""Fixed candidate sets: one target among negatives that its user never took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from predilect.data.arrow import numpy_column
from predilect.data.splits import PARTS

if TYPE_CHECKING:
    from predilect.data.splits import SequenceSplits

NEGATIVES = ("uniform", "popularity")


def sample_candidates(
    splits: SequenceSplits, part: str, *, size: int = 20, seed: int = 0, negatives: str = "uniform"
) -> np.ndarray:
    """One set of candidates per row: the target and `size - 1` distinct items that the user never took.

    Which negatives are drawn and where the target stands depends on the seed, the part, the user and the position in
    the user's sequence, never on the target: each row has a random stream of its own (a counter-based generator), so a
    set does not change when other rows are added or removed.

    Args:
        splits: the data.
        part: "validation" or "test" (or "train").
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
    user, target = numpy_column(rows, "user_id").astype(np.int64), numpy_column(rows, "target").astype(np.int64)
    taken = _Taken(splits, user)
    free = splits.num_items - taken.distinct
    if len(short := np.flatnonzero(free < size - 1)):
        row = int(short[0])
        raise ValueError(
            f"{part} row {row} (user {user[row]}) leaves {free[row]} items never taken, {size - 1} negatives are "
            f"needed: choose a smaller size or drop such users (got size {size})"
        )
    weights = np.ones(splits.num_items)
    if negatives == "popularity":
        items = numpy_column(splits.train_interactions, "item_id")
        weights = np.bincount(items, minlength=splits.num_items + 1)[1:].astype(np.float64)
    keys = np.full(len(user), seed % 2**64, dtype=np.uint64)
    for number in (
        np.uint64(PARTS.index(part)),
        user.astype(np.uint64),
        numpy_column(rows, "position").astype(np.uint64),
    ):
        keys = _mix(keys) + number
    drawn = _draw(keys, taken, weights, size - 1)
    place = (_uniform(keys, 0) * size).astype(np.int64)
    sets = np.empty((len(user), size), dtype=np.int64)
    columns = np.arange(size)[None, :] != place[:, None]
    sets[columns] = drawn.ravel()
    sets[~columns] = target
    return sets


class _Taken:
    """Which items each row's user ever took."""

    def __init__(self, splits: SequenceSplits, user: np.ndarray) -> None:
        self.stride = splits.num_items + 1
        users, self.user = np.unique(user, return_inverse=True)
        row, item = splits.sequences.whole(users)
        self.pairs = np.unique(row * self.stride + item)
        self.distinct = np.bincount(self.pairs // self.stride, minlength=len(users))[self.user]

    def holds(self, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        wanted = self.user[rows] * self.stride + items
        place = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
        found: np.ndarray = self.pairs[place] == wanted
        return found

    def of(self, row: int) -> np.ndarray:
        first = self.user[row] * self.stride
        low, high = np.searchsorted(self.pairs, (first, first + self.stride))
        items: np.ndarray = self.pairs[low:high] - first
        return items


def _draw(keys: np.ndarray, taken: _Taken, weights: np.ndarray, count: int) -> np.ndarray:
    """`count` distinct items per row that are not taken, one after the other in proportion to their weights."""
    cumulative = np.cumsum(weights) / weights.sum()
    last = int(np.flatnonzero(weights)[-1])
    drawn = np.zeros((len(keys), count), dtype=np.int64)
    filled = np.zeros(len(keys), dtype=np.int64)
    open_rows = np.arange(len(keys))
    for attempt in range(1, 4 * count + 21):
        place = np.searchsorted(cumulative, _uniform(keys[open_rows], attempt), side="right")
        item = np.minimum(place, last) + 1  # rounding may leave the last sum below 1
        good = ~taken.holds(open_rows, item) & ~(drawn[open_rows] == item[:, None]).any(axis=1)
        rows = open_rows[good]
        drawn[rows, filled[rows]] = item[good]
        filled[rows] += 1
        open_rows = open_rows[filled[open_rows] < count]
        if not len(open_rows):
            break
    for row in open_rows:  # few free items are left: draw among them directly, which has the same distribution
        _draw_rest(drawn[row], int(filled[row]), keys[row], taken.of(int(row)), weights)
    return drawn


def _draw_rest(drawn: np.ndarray, filled: int, key: np.uint64, taken: np.ndarray, weights: np.ndarray) -> None:
    """Fill the row in place: exponential races over the items that are left; weight zero comes after all others."""
    free = np.ones(len(weights), dtype=bool)
    free[taken - 1] = False
    free[drawn[:filled] - 1] = False
    items = np.flatnonzero(free)
    race = -np.log1p(-_uniform(_mix(np.full(len(items), key) + items.astype(np.uint64) * _STEP), 0))
    with np.errstate(divide="ignore"):
        race = np.where(weights[items] > 0, race / weights[items], race)
    order = np.lexsort((race, weights[items] == 0))
    drawn[filled:] = items[order[: len(drawn) - filled]] + 1


_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection that scatters neighbours."""
    with np.errstate(over="ignore"):
        x = (x + _STEP).astype(np.uint64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def _uniform(keys: np.ndarray, draw: int) -> np.ndarray:
    """The `draw`-th number in [0, 1) of every row's stream."""
    with np.errstate(over="ignore"):
        bits = _mix(keys + np.uint64(draw) * _STEP)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
