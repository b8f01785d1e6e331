"""Which item a freely generated answer names: the papers' protocol, without its wrong verdicts.

The papers call an answer valid if exactly one candidate's title occurs in it as a substring. That makes a right
answer invalid where one title lies inside another ("Alien" in "Aliens"), and a wrong one valid where a title lies in
an ordinary word. Here titles are compared as whole words, the longest first, and each stretch of text counts once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from predilect.data.catalogue import normalise_title

_YEAR = re.compile(r"\((\d{4})\)\s*$")

Items = frozenset[int]


class Match(NamedTuple):
    """The verdict on one answer.

    Attributes:
        item_id: the item named; None where the answer names none, or several.
        reason: "exact": the answer is a title; "contained": one title stands in it, among other words; "none": no
            title does; "several": titles of more than one item do, or one that several items bear.
    """

    item_id: int | None
    reason: Literal["exact", "contained", "none", "several"]


class TitleMatcher:
    """Finds the one item that a text names, among a row's candidates or in a whole catalogue.

    Case, accents, punctuation and the place of an article do not matter (`normalise_title`), and neither does a year:
    a title is found with and without it, even with a wrong one; but of titles that differ in their year alone, a text
    names one only with its year. An answer that is a title as a whole, letter for letter or else normalised, is that
    title, whatever other titles lie in it. Otherwise the text is searched as described above, and is valid if all that
    is found belongs to one item.

    Text cannot tell apart items of one and the same title: the first given stands for them all. A title without any
    letter or digit ("!!!") is found only where it is the whole answer; an empty one never. The cost of a match
    depends on the length of the text, not on the number of titles.

    Source: LLaRA (arXiv 2312.02445) and S-DPO (arXiv 2406.09215), whose code tests substrings (LLaRA's lower-cased).

    Args:
        titles: of the candidates, or of the catalogue.
        item_ids: one id per title; an item may have several titles. None: 1, 2, ... as in a `Catalogue`.

    Raises:
        ValueError: ids that are not one per title.

    Examples:
        >>> matcher = TitleMatcher(["Alien (1979)", "Aliens (1986)", "Matrix, The (1999)"])
        >>> matcher.match("Aliens").item_id, matcher.match("I would pick The Matrix.")
        (2, Match(item_id=3, reason='contained'))
        >>> matcher.match("Alien, or Aliens?")
        Match(item_id=None, reason='several')
    """

    def __init__(self, titles: Sequence[str], item_ids: Sequence[int] | None = None) -> None:
        ids = range(1, len(titles) + 1) if item_ids is None else [int(i) for i in item_ids]
        if len(ids) != len(titles):
            raise ValueError(f"item_ids must be one per title (got {len(ids)} for {len(titles)} titles)")
        self._verbatim: dict[str, int] = {}
        for item_id, title in zip(ids, titles, strict=True):
            if title.strip():
                self._verbatim.setdefault(title.strip(), item_id)
        by_spelling: dict[str, set[int]] = {}
        for title, item_id in self._verbatim.items():
            for spelling in _spellings(title):
                by_spelling.setdefault(spelling, set()).add(item_id)
        self._items = {spelling: frozenset(items) for spelling, items in by_spelling.items()}
        self._longest = max((spelling.count(" ") + 1 for spelling in self._items), default=0)

    def match(self, text: str) -> Match:
        """The item that `text` names: generated text only, without its prompt (`answer_text`)."""
        text = text.strip()
        if text in self._verbatim:
            return Match(self._verbatim[text], "exact")
        words = _words(text)
        for spelling in (words, _with_year(text), normalise_title(text)):
            if items := self._items.get(spelling):
                return _verdict([items], "exact")
        return _verdict(self._contained(words.split()).values(), "contained")

    def find_all(self, text: str) -> list[int]:
        """All items that `text` names, in the order in which it names them, once per mention.

        The text is searched as in `match`, the longest title first, each stretch of words for one title. A title
        that several items bear, such as one of two films that differ in their year alone, names none of them.

        Examples:
            >>> TitleMatcher(["Alien (1979)", "Aliens (1986)", "Heat (1995)"]).find_all("Heat, Aliens (1986), heat")
            [3, 2, 3]
        """
        contained = self._contained(_words(text).split())
        return [item for start in sorted(contained) if len(contained[start]) == 1 for item in contained[start]]

    def _contained(self, words: list[str]) -> dict[int, Items]:
        """Number of a title's first word -> its items; a stretch of words counts for its longest title only."""
        free = [True] * len(words)
        contained: dict[int, Items] = {}
        for length in range(min(self._longest, len(words)), 0, -1):
            for start in range(len(words) - length + 1):
                stretch = slice(start, start + length)
                items = self._items.get(" ".join(words[stretch]))
                if items and all(free[stretch]):
                    free[stretch] = [False] * length
                    contained[start] = items
        return contained


def _words(text: str) -> str:
    """Normalised, but with its year and its article where they are: both count only at the end of a title."""
    return normalise_title(f"{text}.")


def _with_year(title: str) -> str:
    """The normalised title and, where it has one, its year."""
    year = _YEAR.search(title)
    return f"{normalise_title(title)} {year[1]}".strip() if year else normalise_title(title)


def _spellings(title: str) -> set[str]:
    """As written and normalised, each with and without the year."""
    spellings = {_words(title), _words(_YEAR.sub("", title)), _with_year(title), normalise_title(title)}
    return {s for s in spellings if re.search(r"\w", s)}


def _verdict(mentions: Iterable[Items], reason: Literal["exact", "contained"]) -> Match:
    """Of one item, if exactly one remains: "Dracula" beside "Dracula (1931)" means that one."""
    groups = set(mentions)
    certain = frozenset[int]().union(*(g for g in groups if len(g) == 1))
    named = certain.union(*(g for g in groups if certain.isdisjoint(g)))
    if len(named) == 1:
        return Match(min(named), reason)
    return Match(None, "several" if named else "none")
