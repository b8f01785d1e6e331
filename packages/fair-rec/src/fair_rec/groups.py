"""Groups of items: by popularity, category, year, or a column of one's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from predilect.data import Catalogue

Counting = Literal["unit", "fractional"]
_YEAR = re.compile(r"\((\d{4})\)\s*$")


@dataclass(frozen=True)
class ItemGroups:
    """Which item belongs to which groups.

    Attributes:
        name: what the groups are, such as "popularity".
        labels: of the G groups.
        membership: (N + 1, G) float64, row `i` is item `i`, row 0 (padding) is zero: 1 in each group of an item
            ("unit" counting, the paper's), or 1 / number of its groups ("fractional"). An item without a group counts
            nowhere.
    """

    name: str
    labels: tuple[str, ...]
    membership: np.ndarray

    def __post_init__(self) -> None:
        if self.membership.ndim != 2 or self.membership.shape[1] != len(self.labels) or not self.labels:
            raise ValueError(
                f"membership must be (items + 1, {len(self.labels)}), one column a label (got {self.membership.shape})"
            )
        if not np.isfinite(self.membership).all() or (self.membership < 0).any():
            raise ValueError(f"membership of {self.name} must be finite and at least 0")
        if self.membership[0].any():
            raise ValueError(f"row 0 of the membership of {self.name} is padding and must be zero")
        if empty := [
            label for label, some in zip(self.labels, np.ravel(self.membership.any(axis=0)), strict=True) if not some
        ]:
            raise ValueError(f"groups of {self.name} without items: {', '.join(empty)}; leave them out")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_items(self) -> int:
        """Number of items, padding not counted."""
        return len(self.membership) - 1

    @property
    def breadth(self) -> np.ndarray:
        """(N + 1,) sum of an item's memberships."""
        total: np.ndarray = self.membership.sum(axis=1)
        return total

    def mean_over_groups(self, values: np.ndarray) -> np.ndarray:
        """(N + 1,) the mean of the values (G,) of an item's groups; 0 for an item without a group."""
        among = self.membership > 0
        count = among.sum(axis=1)
        mean: np.ndarray = (among @ values) / np.where(count, count, 1)
        return mean

    def __and__(self, other: ItemGroups) -> ItemGroups:
        """The intersections of two groupings that have items; memberships multiply.

        Raises:
            ValueError: groupings of different catalogues.
        """
        if self.num_items != other.num_items:
            raise ValueError(f"groups of {self.num_items} and of {other.num_items} items have no intersection")
        products = self.membership[:, :, None] * other.membership[:, None, :]
        flat = products.reshape(len(products), -1)
        labels = [f"{a} & {b}" for a in self.labels for b in other.labels]
        some = flat.any(axis=0)
        kept = tuple(label for label, there in zip(labels, some, strict=True) if there)
        return ItemGroups(f"{self.name} & {other.name}", kept, flat[:, some])


def groups_of(
    values: Sequence[Any] | Mapping[int, Any], name: str, *, num_items: int | None = None, counting: Counting = "unit"
) -> ItemGroups:
    """Groups by a column of your own.

    Args:
        values: one entry per item 1..N (or item id -> entry): a label, several labels, or None for no group.
        name: of the grouping.
        num_items: N, where `values` is a mapping; items that it lacks are an error.
        counting: of an item in several groups, see `ItemGroups`.

    Raises:
        ValueError: items that are missing or unknown (names them), or no label at all.
    """
    if isinstance(values, Mapping):
        if num_items is None:
            raise ValueError("a mapping needs num_items, the number of items of the catalogue")
        missing = [i for i in range(1, num_items + 1) if i not in values]
        unknown = [i for i in values if not 1 <= i <= num_items]
        for what, items in (("lacks", missing), ("has unknown", unknown)):
            if items:
                raise ValueError(f"the column {name} {what} items {items[:5]} ({len(items)} in all)")
        values = [values[i] for i in range(1, num_items + 1)]
    own = [_labels(value) for value in values]
    labels = sorted({label for some in own for label in some})
    if not labels:
        raise ValueError(f"no item has a group in {name}")
    place = {label: number for number, label in enumerate(labels)}
    membership = np.zeros((len(own) + 1, len(labels)))
    for item, some in enumerate(own, start=1):
        membership[item, [place[label] for label in some]] = 1 / len(some) if some and counting == "fractional" else 1
    return ItemGroups(name, tuple(labels), membership)


def _labels(value: Any) -> tuple[str, ...]:
    if value is None or (isinstance(value, float) and value != value):
        return ()
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(dict.fromkeys(str(v) for v in value))
    return (str(value),)


def category_groups(catalogue: Catalogue, *, counting: Counting = "unit") -> ItemGroups:
    """Groups by category; an item may have several.

    Raises:
        ValueError: no item has a category.
    """
    if not any(catalogue.categories):
        raise ValueError("the items have no categories: group by popularity, or by a column of your own (groups_of)")
    return groups_of(catalogue.categories, "category", counting=counting)


def popularity_groups(counts: np.ndarray, n: int = 5) -> ItemGroups:
    """`n` groups with equal numbers of items (they differ by at most one), in ascending order of popularity.

    Of items that are equally popular the lower id comes first, so that the groups are always the same. Source:
    IFairLRS (Jiang et al. 2024, arXiv 2402.15215), five groups.

    Args:
        counts: (N,) interactions of items 1..N, such as `item_counts(splits)`.
        n: number of groups.

    Raises:
        ValueError: fewer than two groups, or more groups than items.
    """
    if not 2 <= n <= len(counts):
        raise ValueError(f"popularity groups must be in 2..{len(counts)}, the number of items (got {n})")
    membership = np.zeros((len(counts) + 1, n))
    for group, items in enumerate(np.array_split(np.argsort(counts, kind="stable"), n)):
        membership[items + 1, group] = 1
    ends = ("least popular", *("" for _ in range(n - 2)), "most popular")
    labels = tuple(f"{number} {end}".strip() for number, end in enumerate(ends, start=1))
    return ItemGroups("popularity", labels, membership)


def year_groups(catalogue: Catalogue, *, width: int = 10) -> ItemGroups:
    """Groups by the year at the end of the title, "Heat (1995)", in spans of `width` years; others have no group.

    Raises:
        ValueError: a width below 1, or no title with a year.
    """
    if width < 1:
        raise ValueError(f"a span has at least one year (got {width})")

    def span(title: str) -> str | None:
        found = _YEAR.search(title)
        first = int(found[1]) // width * width if found else 0
        return (str(first) if width == 1 else f"{first}-{first + width - 1}") if found else None

    return groups_of([span(title) for title in catalogue.titles], "year")
