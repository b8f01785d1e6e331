"""Drawing candidate sets: one target among negatives that its user did not take."""

from __future__ import annotations

import numpy as np

from predilect.data.rows import SequenceRows, first_places


def draw_candidates(rows: SequenceRows, keys: np.ndarray, weights: np.ndarray, size: int, *, past: bool) -> np.ndarray:
    """The target and `size - 1` distinct items in proportion to their weights, for each row.

    Args:
        rows: the targets, and what their users took.
        keys: (R,) uint64, one stream of random numbers each; see `row_keys`.
        weights: (N,) of the items; those of weight zero come where nothing else is left.
        size: items in a set.
        past: whether only what the user took up to the target is no negative, or whatever it ever took.

    Returns:
        (R, size) int64 item ids; the target's place is uniform over the columns.

    Raises:
        ValueError: a row that leaves too few items; names it.
    """
    taken = _Taken(rows, len(weights), past)
    free = len(weights) - taken.distinct
    if len(short := np.flatnonzero(free < size - 1)):
        row = int(short[0])
        raise ValueError(
            f"row {row} (user {rows.user[row]}) leaves {free[row]} items never taken, {size - 1} negatives are "
            f"needed: choose a smaller size or drop such users (got size {size})"
        )
    drawn = _draw(keys, taken, weights, size - 1)
    place = (_uniform(keys, 0) * size).astype(np.int64)
    sets = np.empty((len(rows), size), dtype=np.int64)
    columns = np.arange(size)[None, :] != place[:, None]
    sets[columns] = drawn.ravel()
    sets[~columns] = rows.target
    return sets


def row_keys(seed: int, *numbers: np.ndarray | int) -> np.ndarray:
    """(R,) uint64: the key of each row's stream, from a seed and numbers that tell the rows apart."""
    keys = np.full(np.broadcast(*numbers).shape, seed % 2**64, dtype=np.uint64)
    for number in numbers:
        keys = _mix(keys) + np.asarray(number).astype(np.uint64)
    return keys


class _Taken:
    """Which items each row's user took: ever, or up to the row's target."""

    def __init__(self, rows: SequenceRows, num_items: int, past: bool) -> None:
        self.stride = num_items + 1
        users, self.user = np.unique(rows.user, return_inverse=True)
        theirs = rows.sequences.of_users(users)
        lengths = np.diff(theirs.offsets)
        self.last = rows.position.astype(np.int64) if past else lengths[self.user] - 1
        new = first_places(theirs) == np.arange(len(theirs.items))
        count = np.concatenate([[0], np.cumsum(new)])
        start = theirs.offsets[self.user]
        self.distinct = count[start + self.last + 1] - count[start]
        owner = np.repeat(np.arange(len(users)), lengths)[new]
        pairs = owner * self.stride + theirs.items[new]
        order = np.argsort(pairs)
        self.pairs, self.first = pairs[order], (np.flatnonzero(new) - theirs.offsets[owner])[order]

    def holds(self, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        wanted = self.user[rows] * self.stride + items
        place = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
        held: np.ndarray = (self.pairs[place] == wanted) & (self.first[place] <= self.last[rows])
        return held

    def of(self, row: int) -> np.ndarray:
        start = self.user[row] * self.stride
        low, high = np.searchsorted(self.pairs, (start, start + self.stride))
        items: np.ndarray = self.pairs[low:high][self.first[low:high] <= self.last[row]] - start
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
