"""Lists of recommendations, from any table or from a recommender."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from predilect.data import Catalogue, SequenceSplits
from predilect.evaluation import Evaluation, evaluate
from predilect.recommender import Recommender


@dataclass(frozen=True)
class Lists:
    """What was recommended.

    Attributes:
        items: (R, K) int64 item ids, best first; 0 fills a list that is shorter, at its end.
        user: (R,) whose list it is; the lists of one user are resampled together.
        num_items: N of the catalogue.
    """

    items: np.ndarray
    user: np.ndarray
    num_items: int

    def __post_init__(self) -> None:
        if self.items.ndim != 2 or not self.items.size:
            raise ValueError(f"lists must be (rows, length) of at least one item (got {self.items.shape})")
        if len(self.user) != len(self.items):
            raise ValueError(f"every list needs its user (got {len(self.items)} lists and {len(self.user)} users)")
        low, high = int(self.items.min()), int(self.items.max())
        if low < 0 or high > self.num_items:
            bad = high if high > self.num_items else low
            row = int(np.argwhere(self.items == bad)[0][0])
            raise ValueError(f"list {row} holds the item {bad}, which is not in 1..{self.num_items}")
        if ((self.items[:, 1:] != 0) & (self.items[:, :-1] == 0)).any():
            row = int(((self.items[:, 1:] != 0) & (self.items[:, :-1] == 0)).any(axis=1).argmax())
            raise ValueError(f"list {row} has a gap: 0 fills lists at their end only")
        ordered = np.sort(self.items, axis=1)
        if (twice := (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != 0)).any():
            row, column = (int(v) for v in np.argwhere(twice)[0])
            raise ValueError(f"list {row} (user {self.user[row]}) holds the item {ordered[row, column]} twice")

    def __len__(self) -> int:
        return len(self.items)

    @property
    def length(self) -> int:
        """K, the longest list."""
        return int(self.items.shape[1])

    def top(self, k: int) -> np.ndarray:
        """(R, k) the first k places.

        Raises:
            ValueError: a k beyond the lists.
        """
        if not 1 <= k <= self.length:
            raise ValueError(f"k must be in 1..{self.length}, the length of the lists (got {k})")
        return self.items[:, :k]


def as_lists(
    table: Any,
    *,
    catalogue: Catalogue | None = None,
    num_items: int | None = None,
    user: str = "user_id",
    items: str | None = None,
    rank: str = "rank",
) -> Lists:
    """Lists from an array, an `Evaluation`, or a table: `datasets.Dataset`, Arrow, pandas, polars, or a dict.

    A table has a list a row (a column `top` or `items`), or an item a row (`item_id` or `item`, in the order of
    `rank`, or of the table where there is none).

    Args:
        table: where the lists are; a plain array (R, K) holds one user a row.
        catalogue: of the items; ids that are no numbers are its raw ids or titles.
        num_items: N, in place of a catalogue.
        user: column of the users.
        items: column of the lists or items, if it has another name.
        rank: column of the places, where the table has an item a row.

    Raises:
        ValueError: neither catalogue nor `num_items`, a missing column (names those that are there), or lists that
            `Lists` refuses.
    """
    total = len(catalogue) if catalogue is not None else num_items
    if total is None:
        raise ValueError("how many items are there? Pass catalogue or num_items")
    if isinstance(table, Evaluation):
        table = table.rows
    if isinstance(table, np.ndarray) or (isinstance(table, Sequence) and not isinstance(table, str)):
        array = np.asarray(table)
        return Lists(array.astype(np.int64), np.arange(len(array)), total)
    columns = _columns(table)
    name = items or next((n for n in ("top", "items", "item_id", "item") if n in columns), None)
    for wanted in (user, name):
        if wanted not in columns:
            raise ValueError(f"the table lacks a column {wanted or 'of items'} (got {', '.join(columns)})")
    users, values = np.asarray(columns[user]), list(columns[name or ""])
    if not len(values):
        raise ValueError("the table has no rows")
    if not isinstance(values[0], list | tuple | np.ndarray):
        users, values = _gathered(users, values, columns.get(rank))
    rows = [[_item_id(item, catalogue) for item in row] for row in values]
    padded = np.zeros((len(rows), max(1, *map(len, rows))), dtype=np.int64)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return Lists(padded, users, total)


def _columns(table: Any) -> dict[str, Any]:
    if isinstance(table, dict):
        return table
    if hasattr(table, "column_names") and hasattr(table, "to_pydict"):  # Arrow
        return dict(table.to_pydict())
    if hasattr(table, "with_format"):  # datasets
        return dict(table.with_format("arrow")[:].to_pydict())
    if hasattr(table, "to_dict") and hasattr(table, "columns"):  # pandas, polars
        return {str(name): table[name].to_list() for name in table.columns}
    raise ValueError(f"lists are read from arrays, data sets, Arrow, pandas or polars (got {type(table).__name__})")


def _gathered(users: np.ndarray, items: Sequence[Any], rank: Any) -> tuple[np.ndarray, list[list[Any]]]:
    """One list a user, of a table with an item a row; users in the order of their first row."""
    place = np.arange(len(items)) if rank is None else np.asarray(rank)
    lists: dict[Any, list[Any]] = {user: [] for user in users.tolist()}
    for row in np.argsort(place, kind="stable"):
        lists[users[row].item()].append(items[row])
    return np.array(list(lists)), list(lists.values())


def _item_id(item: Any, catalogue: Catalogue | None) -> int:
    if isinstance(item, str):
        if catalogue is None:
            raise ValueError(f"the item {item!r} is a text: pass the catalogue whose raw ids or titles these are")
        return catalogue.resolve([item])[0]
    return int(item)


def lists_of(
    recommender: Recommender,
    splits: SequenceSplits,
    part: str = "test",
    k: int = 20,
    *,
    mask_seen: bool = True,
    max_rows: int | None = None,
    seed: int = 0,
) -> Lists:
    """The lists that a recommender gives for the rows of a part (`predilect.evaluation.evaluate`)."""
    result = evaluate(recommender, splits, part, mask_seen=mask_seen, bootstrap=0, max_rows=max_rows, seed=seed, top=k)
    return as_lists(result, catalogue=splits.catalogue)
