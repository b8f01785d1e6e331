"""From item ids to token ids: prompts of a history and candidates, and titles as answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

from predilect.data.catalogue import Catalogue
from predilect.tokenization import PromptSet, PromptTemplate, encode_answers


class Prompt(NamedTuple):
    """A prompt as token ids.

    Attributes:
        ids: token ids.
        item_ids: the items at the soft tokens, in reading order; empty for plain text.
    """

    ids: list[int]
    item_ids: list[int]


@dataclass(frozen=True)
class Prompter:
    """Writes prompts about the items of one catalogue.

    Args:
        catalogue: the items; one without a title is called by its raw id.
        tokenizer: of the language model.
        prompts: templates with the slots `history` and, if they name candidates, `candidates`.
        max_length: longest prompt with one answer; the oldest items of the history are dropped until it fits.
        chat: put prompts through the tokenizer's chat template.
        template: number of the template; None: any of them in training, the first in ranking.
        mark: written behind every title: the soft token of a hybrid prompt, or "".
        seed: of the choice of templates.

    Raises:
        ValueError: templates with other slots, or a template number that does not exist.
    """

    catalogue: Catalogue
    tokenizer: Any
    prompts: PromptSet
    max_length: int
    chat: bool = False
    template: int | None = 0
    mark: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.prompts.slots not in ({"history"}, {"history", "candidates"}):
            raise ValueError(
                "templates have the slots history, and candidates where they name them (got "
                f"{', '.join(sorted(self.prompts.slots))})"
            )
        if self.template is not None and not 0 <= self.template < len(self.prompts):
            raise ValueError(f"template must be in 0..{len(self.prompts) - 1} (got {self.template})")

    @property
    def names_candidates(self) -> bool:
        return "candidates" in self.prompts.slots

    def answers(self) -> list[list[int]]:
        """Token ids of every title, each ending in EOS; item `i` is at `i - 1`."""
        titles = [self.catalogue.title(i) for i in range(1, len(self.catalogue) + 1)]
        return encode_answers(self.tokenizer, titles, leading_space=not self.chat)

    def encode(
        self, history: Sequence[int], candidates: Sequence[int] = (), *, reserve: int, row: int | None = None
    ) -> Prompt:
        """One prompt.

        Args:
            history: item ids, oldest first, 0 ignored; may be empty.
            candidates: item ids in the order in which they are named.
            reserve: tokens to leave free for the answer.
            row: number of a training row, which chooses its template; None: as in ranking.

        Raises:
            ValueError: it does not fit even without history.
        """
        history = [i for i in history if i]
        template = self._template(row)
        values = {"history": self._named(history)}
        if self.names_candidates:
            values["candidates"] = self._named(candidates)
        encoded = template.encode(self.tokenizer, values, max_length=self.max_length, reserve=reserve, chat=self.chat)
        if not self.mark:
            return Prompt(encoded.prompt_ids, [])
        kept = {"history": history[len(history) - encoded.kept :], "candidates": list(candidates)}
        return Prompt(encoded.prompt_ids, [i for slot in _slots(template) for i in kept[slot]])

    def save(self, folder: Path) -> None:
        """Write the templates."""
        self.prompts.save(folder / "prompts.json")

    def _named(self, items: Sequence[int]) -> list[str]:
        return [self.catalogue.title(i) + self.mark for i in items]

    def _template(self, row: int | None) -> PromptTemplate:
        if self.template is None and row is not None:
            return self.prompts.choose(row, seed=self.seed)
        return self.prompts[self.template or 0]


def _slots(template: PromptTemplate) -> list[str]:
    """The slots that hold titles, in reading order."""
    return [name for _, name, _, _ in Formatter().parse(template.text) if name in ("history", "candidates")]
