"""The tasks as data: their prompts, what stands at the slots, and how answers are written and read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from llm_rec.matching import TitleMatcher
from predilect.data.catalogue import Catalogue
from predilect.tokenization import PromptSet, PromptTemplate
from predilect.tokenization.wording import DOMAINS

SEPARATOR = "; "


@dataclass(frozen=True)
class Task:
    """What is asked about vectors.

    Attributes:
        space: of the vectors, and name of their soft token: "state" of a sequence, or "item".
        slots: of the templates; one vector each, in the order in which they are read.
        templates: in the words of `predilect.tokenization.wording`.
    """

    space: Literal["state", "item"]
    slots: tuple[str, ...]
    templates: tuple[str, ...]

    def prompts(self, domain: str) -> PromptSet:
        """The templates in the words of a domain."""
        return PromptSet(tuple(PromptTemplate(text) for text in self.templates), DOMAINS[domain])


TASKS = {
    "recovery": Task(
        "state",
        ("state",),
        (
            "{state} stands for the {items} that a {person} {took}. List their titles, oldest first.",
            "Somebody {took} the {items} that are summed up in {state}. Write down their titles in that order.",
            "Which {items} are behind {state}? Name all that this {person} {took}, from the first to the last.",
        ),
    ),
    "residual": Task(
        "state",
        ("before", "after"),
        (
            "{before} stands for the {items} that a {person} {took}, {after} for the same with one more. "
            "Name the {item} that was added.",
            "Between {before} and {after} a {person} {took} one more of the {items}. Reply with its title alone.",
        ),
    ),
    "item": Task(
        "item",
        ("vector",),
        (
            "{vector} stands for one of the {items}. Reply with its title alone.",
            "Which of the {items} is {vector}? Name it.",
        ),
    ),
}


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
        self.titles = [catalogue.title(i) for i in range(1, len(catalogue) + 1)]
        first: dict[str, int] = {}
        self._same = [first.setdefault(title.strip(), i) for i, title in enumerate(self.titles, start=1)]
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
