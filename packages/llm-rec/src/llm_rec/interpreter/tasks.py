"""The tasks as data: their prompts, and which vectors stand at the slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from predilect.tokenization import PromptSet, PromptTemplate
from predilect.tokenization.wording import DOMAINS


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
