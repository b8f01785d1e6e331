"""How answers are written as lists of titles, and read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llm_rec.matching import TitleMatcher
from predilect.data.catalogue import Catalogue

SEPARATOR = "; "


class Reading(NamedTuple):
    """What a text names.

    Attributes:
        items: ids in the order of the text, once per mention.
        entries: number of entries of the list.
        unknown: number of those that name no item of the catalogue.
    """

    items: list[int]
    entries: int
    unknown: int


class TitleList:
    """Writes items as a list of titles, and reads such a list, or any other text, as items.

    A text is cut at semicolons, so that the end of a title and the beginning of the next make no third one; titles
    that hold semicolons themselves stay whole. An entry is a title as a whole, or else all titles in it count
    (`TitleMatcher`). Items with one and the same title are told apart by nothing: the first of them stands for all, in
    what is read and in `same`.

    Source: RecInterpreter's code searches each title as an unescaped regular expression in the whole text, so that
    "(500) Days of Summer" is never found and "It" is found in any sentence.

    Args:
        catalogue: the items; one without a title is called by its raw id.

    Examples:
        >>> films = TitleList(Catalogue(("a", "b"), ("Heat (1995)", "What? (1972)"), ((), ())))
        >>> films.write([2, 1]), films.read("What?; Heat (1995); Heart")
        ('What? (1972); Heat (1995)', Reading(items=[2, 1], entries=3, unknown=1))
    """

    def __init__(self, catalogue: Catalogue) -> None:
        # in one line each: a text is read up to its first line break
        self.titles = [" ".join(catalogue.title(i).split()) for i in range(1, len(catalogue) + 1)]
        first: dict[str, int] = {}
        self._same = [first.setdefault(title, i) for i, title in enumerate(self.titles, start=1)]
        self._whole = {title for title in first if ";" in title}
        self._most = 1 + max((title.count(";") for title in self._whole), default=0)
        self._matcher = TitleMatcher(self.titles)

    def write(self, items: Sequence[int]) -> str:
        """The titles, separated by semicolons."""
        return SEPARATOR.join(self.titles[i - 1] for i in items)

    def same(self, items: Sequence[int]) -> list[int]:
        """Each item as a reading names it: the first with its title."""
        return [self._same[i - 1] for i in items]

    def read(self, text: str) -> Reading:
        """The items that a text names."""
        named = [self._entry(entry) for entry in self._entries(text)]
        return Reading([i for items in named for i in items], len(named), sum(not items for items in named))

    def only(self, text: str) -> int | None:
        """The item whose title the whole text is; None where it is none, or that of several items."""
        match = self._matcher.match(text)
        return match.item_id if match.reason == "exact" else None

    def _entry(self, entry: str) -> list[int]:
        whole = self.only(entry)
        return self._matcher.find_all(entry) if whole is None else [whole]

    def _entries(self, text: str) -> Iterator[str]:
        pieces, start = text.split(";"), 0
        while start < len(pieces):
            end = min(len(pieces), start + self._most)
            while end > start + 1 and ";".join(pieces[start:end]).strip() not in self._whole:
                end -= 1
            if entry := ";".join(pieces[start:end]).strip():
                yield entry
            start = end
