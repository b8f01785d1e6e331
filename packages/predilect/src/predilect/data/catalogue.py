"""The item table as people and models see it: dense ids, the data set's own ids, titles, categories."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from predilect.encoding import typed_text

_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")
_ARTICLE = re.compile(r"^(?P<rest>.+), (?P<article>the|a|an)$")


class UnknownItemError(KeyError):
    """An item id or title that the catalogue does not hold; the message names it and the closest titles."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


def normalise_title(title: str) -> str:
    """Case, accents, punctuation, a trailing year and an inverted article do not distinguish titles typed by people.

    Examples:
        >>> normalise_title("Matrix, The (1999)"), normalise_title("Amélie")
        ('the matrix', 'amelie')
    """
    text = _YEAR.sub("", title).strip().casefold()
    if match := _ARTICLE.match(text):
        text = f"{match['article']} {match['rest']}"
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    words = re.sub(r"[^\w]+", " ", text).strip()
    return words or text  # a title of punctuation only stays itself


@dataclass(frozen=True)
class Catalogue:
    """Items 1..N; position 0 is padding, everywhere.

    Attributes:
        raw_ids: the data set's own item ids as text, length N; `raw_ids[i - 1]` belongs to item `i`.
        titles: length N; an empty string where the data has none.
        categories: genres, tags or the like, length N; empty lists where the data has none.
        popularity: optional number of interactions per item, length N; orders titles that a person may mean.
    """

    raw_ids: tuple[str, ...]
    titles: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]
    popularity: tuple[int, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        lengths = {"raw_ids": len(self.raw_ids), "titles": len(self.titles), "categories": len(self.categories)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of a catalogue must have one length (got {lengths})")
        if self.popularity and len(self.popularity) != len(self.raw_ids):
            raise ValueError(f"popularity must have one count per item (got {len(self.popularity)} for {len(self)})")

    def __len__(self) -> int:
        return len(self.raw_ids)

    @property
    def has_titles(self) -> bool:
        return any(self.titles)

    def title(self, item_id: int) -> str:
        """The title of item `item_id`, or "item <raw id>" where the data has no title."""
        self._check(item_id)
        return self.titles[item_id - 1] or f"item {self.raw_ids[item_id - 1]}"

    def resolve(self, items: Iterable[int | str]) -> list[int]:
        """Item ids of what a person typed: dense ids (int), titles, or the data set's own ids (str).

        An exact title comes first, then a normalised one (`normalise_title`; of several items with one such title the
        most popular), then a raw id.

        Raises:
            UnknownItemError: names every unknown entry with up to three close titles.
        """
        resolved: list[int] = []
        unknown: list[str] = []
        for item in items:
            if isinstance(item, bool) or not isinstance(item, int | str):
                raise TypeError(f"an item is an int id or a str title or raw id (got {item!r})")
            item = item if isinstance(item, int) else typed_text(item)
            found = self._find(item)
            if found is None:
                hint = ", ".join(repr(t) for t in self.close_titles(str(item)))
                unknown.append(f"{item!r}" + (f" (did you mean {hint}?)" if hint else ""))
            else:
                resolved.append(found)
        if unknown:
            raise UnknownItemError(f"not in the catalogue of {len(self)} items: " + "; ".join(unknown))
        return resolved

    def close_titles(self, title: str, n: int = 3) -> list[str]:
        """Up to `n` titles close to `title`: titles that contain its words first, then similar spellings."""
        wanted = normalise_title(title)
        if not wanted or not self.has_titles:
            return []
        inside = [key for key in self._by_title if f" {wanted} " in f" {key} "]
        inside.sort(key=lambda key: -self._popularity(self._by_title[key]))
        spelled = difflib.get_close_matches(wanted, self._by_title, n=n, cutoff=0.6)
        keys = dict.fromkeys([*inside[:n], *spelled])
        return [self.titles[self._by_title[key] - 1] for key in keys][:n]

    def save(self, path: Path) -> None:
        """Write one Parquet file."""
        categories = [list(c) for c in self.categories]
        table: dict[str, Any] = {"raw_id": self.raw_ids, "title": self.titles, "categories": categories}
        if self.popularity:
            table["popularity"] = self.popularity
        pq.write_table(pa.table(table), path)

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        if not path.is_file():
            raise FileNotFoundError(f"no catalogue at {path}: the folder is incomplete, save the recommender again")
        table = pq.read_table(path).to_pydict()
        return cls(
            tuple(table["raw_id"]),
            tuple(table["title"]),
            tuple(tuple(c) for c in table["categories"]),
            tuple(table.get("popularity", ())),
        )

    def subset(self, item_ids: Sequence[int]) -> Catalogue:
        """The catalogue of the given items, which become 1..len(item_ids) in that order."""
        rows = [i - 1 for i in item_ids]
        return Catalogue(
            tuple(self.raw_ids[r] for r in rows),
            tuple(self.titles[r] for r in rows),
            tuple(self.categories[r] for r in rows),
            tuple(self.popularity[r] for r in rows) if self.popularity else (),
        )

    def _check(self, item_id: int) -> None:
        if not 1 <= item_id <= len(self):
            raise UnknownItemError(f"item id {item_id} is outside 1..{len(self)}")

    def _find(self, item: int | str) -> int | None:
        if isinstance(item, int):
            return item if 1 <= item <= len(self) else None
        return self._exact.get(item) or self._by_title.get(normalise_title(item)) or self._by_raw_id.get(item)

    def _popularity(self, item_id: int) -> int:
        return self.popularity[item_id - 1] if self.popularity else 0

    def _most_popular(self, keys: Iterable[str]) -> dict[str, int]:
        best: dict[str, int] = {}
        for item_id, key in enumerate(keys, start=1):
            if key and (key not in best or self._popularity(item_id) > self._popularity(best[key])):
                best[key] = item_id
        return best

    @cached_property
    def _exact(self) -> dict[str, int]:
        return self._most_popular(self.titles)

    @cached_property
    def _by_title(self) -> dict[str, int]:
        return self._most_popular(normalise_title(t) for t in self.titles)

    @cached_property
    def _by_raw_id(self) -> dict[str, int]:
        return {raw: i for i, raw in enumerate(self.raw_ids, start=1)}
