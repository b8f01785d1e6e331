"""Prompts with named slots, and their token ids: the history shrinks where room is short, nothing else is ever cut."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from string import Formatter
from typing import Any, Self

import numpy as np

from predilect.tokenization.wording import DOMAINS, TASKS

Slot = str | Sequence[str]
_COUNT = "num_"
_SPACE_MARKS = ("▁", "Ġ")


@dataclass(frozen=True)
class EncodedPrompt:
    """Token ids of one prompt and, in training, its answer.

    Attributes:
        prompt_ids: the prompt, BOS included where the model wants one.
        answer_ids: the answer, which ends in EOS; empty where no answer was given.
        kept: number of items of the shrinking slot that are in the prompt (its last ones); 0 where there is no such
            slot.
    """

    prompt_ids: list[int]
    answer_ids: list[int]
    kept: int

    @property
    def input_ids(self) -> list[int]:
        return self.prompt_ids + self.answer_ids

    @property
    def labels(self) -> list[int]:
        """Ids to predict: the answer; -100 over the prompt."""
        return [-100] * len(self.prompt_ids) + self.answer_ids


def encode_answers(tokenizer: Any, answers: Sequence[str], *, leading_space: bool = True) -> list[list[int]]:
    """Token ids of answers, each ending in EOS: the one rule for training, scoring and constrained generation.

    An answer is encoded apart from its prompt, so that its ids never depend on the prompt. After a plain prompt it
    starts with a space (tokenizers that put a leading space by themselves, as Llama-2's does, get none); after a chat
    template it does not.

    Args:
        tokenizer: any transformers tokenizer.
        answers: texts, none of them blank.
        leading_space: whether the answer follows a word (plain prompt) or a line break (chat template).

    Raises:
        ValueError: no EOS token, a blank answer, or an answer that holds the EOS token; names it.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ValueError("answers end in EOS, but this tokenizer has no eos_token: set tokenizer.eos_token")
    for position, answer in enumerate(answers):
        if not answer.strip():
            raise ValueError(f"an answer must not be blank (got {answer!r} at position {position})")
    if not answers:
        return []
    space = " " if leading_space and not _adds_space(tokenizer) else ""
    encoded: list[list[int]] = tokenizer([space + a for a in answers], add_special_tokens=False)["input_ids"]
    for answer, ids in zip(answers, encoded, strict=True):
        if eos in ids:
            raise ValueError(
                f"the answer {answer!r} holds the end token {tokenizer.eos_token!r}: remove it from the text"
            )
    return [[*ids, eos] for ids in encoded]


def _adds_space(tokenizer: Any) -> bool:
    first = tokenizer.convert_ids_to_tokens(tokenizer.encode("a", add_special_tokens=False))[0]
    return bool(first.startswith(_SPACE_MARKS))


def _adds_bos(tokenizer: Any) -> bool:
    ids = tokenizer.encode("a")
    return tokenizer.bos_token_id is not None and len(ids) > 1 and ids[0] == tokenizer.bos_token_id


@dataclass(frozen=True)
class PromptTemplate:
    """A text with named slots.

    `{name}` is a slot: its value is a text, or a list of texts that is joined by `separator`. `{num_name}` is the
    number of texts in the list `name`, counted after shortening: a template never states a number itself. Double
    braces stand for braces.

    Args:
        text: the instruction.
        system: what a chat model is told first; comes before the instruction in a plain prompt.
        cue: ends a plain prompt and opens the answer; a chat template has its own.
        separator: between the texts of a list.
        empty: stands for an empty list.
        shrinks: the slot whose oldest (first) texts are dropped where the prompt is too long.

    Raises:
        ValueError: a slot without a name, or with a format or conversion.

    Examples:
        >>> template = PromptTemplate("Seen: {history}. Pick one of {num_candidates}: {candidates}.")
        >>> print(template.render(history=["Heat", "Ran"], candidates=["Alien", "Jaws", "Big"]))
        Seen: Heat; Ran. Pick one of 3: Alien; Jaws; Big.
        Answer:
    """

    text: str
    system: str = ""
    cue: str = "Answer:"
    separator: str = "; "
    empty: str = "nothing yet"
    shrinks: str = "history"

    def __post_init__(self) -> None:
        for _, name, spec, conversion in Formatter().parse(self.text):
            if name is not None and (not name.isidentifier() or spec or conversion):
                raise ValueError(
                    f"a slot is a plain name in braces, such as {{history}} (got {name!r} in {self.text!r})"
                )

    @property
    def slots(self) -> frozenset[str]:
        """Names of the values that `render` needs."""
        return frozenset(name.removeprefix(_COUNT) for name in self._names())

    def fill(self, words: Mapping[str, str]) -> Self:
        """The template with some slots replaced by fixed words; words that it does not use are ignored."""
        parts = []
        for literal, name, _, _ in Formatter().parse(self.text):
            parts.append(_escape(literal))
            if name is not None:
                parts.append(_escape(words[name]) if name in words else "{" + name + "}")
        text = "".join(parts)
        return replace(self, text=text[:1].upper() + text[1:])

    def render(self, **values: Slot) -> str:
        """The plain prompt as text: system, instruction, cue.

        Raises:
            KeyError: a slot is missing, or a value has no slot; names it.
        """
        return "\n".join(part for part in (self.system, self._instruction(values), self.cue) if part)

    def encode(
        self,
        tokenizer: Any,
        values: Mapping[str, Slot],
        *,
        answer: str | None = None,
        max_length: int | None = None,
        reserve: int = 0,
        chat: bool = False,
        bos: bool | None = None,
    ) -> EncodedPrompt:
        """Token ids of the prompt and the answer, at most `max_length` together.

        Training (with `answer`) and inference (without) give the same prompt ids.

        Args:
            tokenizer: any transformers tokenizer.
            values: slot -> text or list of texts.
            answer: the answer to train on; see `encode_answers`.
            max_length: longest prompt + answer in tokens; oldest texts of the slot `shrinks` are dropped, one whole
                text at a time, until it fits.
            reserve: tokens to leave free for an answer that is to be generated; only without `answer`.
            chat: put the prompt through the tokenizer's chat template (system and user turn, opening of the reply).
            bos: start with BOS; None: as the tokenizer does by itself. A chat template brings its own.

        Raises:
            KeyError: a slot is missing or unknown.
            ValueError: too long even without history; no chat template; no BOS token; contradicting options.
        """
        self._check_options(tokenizer, answer, reserve, chat, bos)
        answer_ids = [] if answer is None else encode_answers(tokenizer, [answer], leading_space=not chat)[0]
        room = None if max_length is None else max_length - (len(answer_ids) or reserve)
        texts = values.get(self.shrinks, ()) if self.shrinks in self.slots else ()
        total = 0 if isinstance(texts, str) else len(texts)

        def prompt(kept: int) -> list[int]:
            shortened = {**values, self.shrinks: list(texts)[total - kept :]} if total else values
            return self._prompt_ids(tokenizer, shortened, chat, bos)

        ids = prompt(total)
        if room is None or len(ids) <= room:
            return EncodedPrompt(ids, answer_ids, total)
        kept, ids = _longest(prompt, total, room)
        if len(ids) > room:
            raise ValueError(
                f"the prompt needs {len(ids)} tokens without any {self.shrinks}, the answer "
                f"{len(answer_ids) or reserve}, but max_length is {max_length}: raise max_length, "
                "or give fewer candidates"
            )
        return EncodedPrompt(ids, answer_ids, kept)

    def _check_options(self, tokenizer: Any, answer: str | None, reserve: int, chat: bool, bos: bool | None) -> None:
        if answer is not None and reserve:
            raise ValueError(f"reserve is for an answer to be generated; here one is given (got reserve={reserve})")
        if chat and not tokenizer.chat_template:
            raise ValueError("chat=True, but the tokenizer has no chat template: use chat=False, or set chat_template")
        if chat and bos is not None:
            raise ValueError(f"a chat template brings its own BOS: leave bos out with chat=True (got bos={bos})")
        if bos and tokenizer.bos_token_id is None:
            raise ValueError("bos=True, but the tokenizer has no bos_token")

    def _prompt_ids(self, tokenizer: Any, values: Mapping[str, Slot], chat: bool, bos: bool | None) -> list[int]:
        if chat:
            turns = [{"role": "system", "content": self.system}] if self.system else []
            turns.append({"role": "user", "content": self._instruction(values)})
            text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        else:
            text = self.render(**values)
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        with_bos = not chat and (_adds_bos(tokenizer) if bos is None else bos)
        return [tokenizer.bos_token_id, *ids] if with_bos else ids

    def _names(self) -> list[str]:
        return [name for _, name, _, _ in Formatter().parse(self.text) if name is not None]

    def _instruction(self, values: Mapping[str, Slot]) -> str:
        if unknown := sorted(set(values) - self.slots):
            raise KeyError(
                f"no slot {', '.join(unknown)} in {self.text!r}; its slots are {', '.join(sorted(self.slots))}"
            )
        if missing := sorted(self.slots - set(values)):
            raise KeyError(f"the slot {', '.join(missing)} has no value in {self.text!r}")
        filled = {}
        for name in self._names():
            value = values[name.removeprefix(_COUNT)]
            if name.startswith(_COUNT):
                if isinstance(value, str):
                    raise KeyError(f"{{{name}}} counts a list, but {name.removeprefix(_COUNT)} is the text {value!r}")
                filled[name] = str(len(value))
            else:
                filled[name] = value if isinstance(value, str) else self.separator.join(value) or self.empty
        return self.text.format(**filled)


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _longest(prompt: Any, total: int, room: int) -> tuple[int, list[int]]:
    """The largest number of kept texts that fits, by bisection, with its ids; zero texts where nothing fits."""
    low, high, ids = 0, total, prompt(0)  # `low` fits (or is 0), `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        tried = prompt(middle)
        if len(tried) <= room:
            low, ids = middle, tried
        else:
            high = middle
    return low, ids


@dataclass(frozen=True)
class PromptSet:
    """Several templates for one task in the words of one domain; each row of data gets one of them by its number.

    Args:
        templates: the templates.
        words: slot -> word of the domain (item, items, took, take, person).

    Raises:
        ValueError: no template, or templates that need different values.

    Examples:
        >>> prompts = PromptSet.for_domain("movie", task="open")
        >>> prompts.slots == {"history"}, prompts.choose(row=7, seed=1) == prompts.choose(row=7, seed=1)
        (True, True)
    """

    templates: tuple[PromptTemplate, ...]
    words: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.templates:
            raise ValueError("a prompt set needs at least one template")
        needs = {t.fill(self.words).slots for t in self.templates}
        if len(needs) > 1:
            raise ValueError(f"the templates of a set must need the same values (got {[sorted(n) for n in needs]})")

    @classmethod
    def for_domain(cls, domain: str, *, task: str = "candidates") -> PromptSet:
        """The templates of this package.

        Args:
            domain: movie, music, game or book.
            task: "candidates" (slots history, candidates) or "open" (slot history).
        """
        if domain not in DOMAINS:
            raise ValueError(
                f"there is wording for {', '.join(DOMAINS)} (got {domain!r}): pass own words to PromptSet"
            )
        if task not in TASKS:
            raise ValueError(f"the tasks are {', '.join(TASKS)} (got {task!r})")
        return cls(tuple(PromptTemplate(text) for text in TASKS[task]), DOMAINS[domain])

    @property
    def slots(self) -> frozenset[str]:
        """Names of the values that every template needs."""
        return self.templates[0].fill(self.words).slots

    def __len__(self) -> int:
        return len(self.templates)

    def __getitem__(self, index: int) -> PromptTemplate:
        return self.templates[index].fill(self.words)

    def choose(self, row: int, *, seed: int = 0) -> PromptTemplate:
        """The template of a row: the same for the same row and seed, whatever ran before and in whichever process."""
        return self[int(np.random.default_rng((seed, row)).integers(len(self)))]

    def save(self, path: str | Path) -> None:
        """Write one JSON file."""
        content = {"words": dict(self.words), "templates": [asdict(t) for t in self.templates]}
        Path(path).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> PromptSet:
        """Read a file written by `save`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a prompt set; names what is missing or unknown.
        """
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or set(content) != {"words", "templates"}:
            raise ValueError(f"{path} is not a prompt set: it must hold exactly 'words' and 'templates'")
        try:
            return cls(tuple(PromptTemplate(**t) for t in content["templates"]), content["words"])
        except TypeError as error:
            raise ValueError(f"{path} holds a template that cannot be read: {error}") from error
