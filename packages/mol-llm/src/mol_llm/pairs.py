"""Pairs of molecules, and what is asked about them."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class PairTask:
    """A question about two molecules and how its answers are written.

    Attributes:
        name: such as "solvation".
        question: what stands behind the two molecules in the prompt.
        kind: "class": one of `answers`; "value": a number; "text": any text, such as a description of both molecules.
        answers: sentences of a class task, in the order of the targets 0, 1, ...
        step: of a value task: values are written, and predicted, as multiples of it.
        interval: of a value task: width of the interval that is said before the value (fine-grained chain of thought).
            MolTC says "above L and below U" with both rounded, which contradicts itself for a value on the grid; here
            intervals are half open, `L <= v < U`.
    """

    name: str
    question: str
    kind: Literal["class", "value", "text"]
    answers: tuple[str, ...] = ()
    step: float = 0.1
    interval: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", tuple(self.answers))  # JSON gives lists
        if (self.kind == "class") != (len(set(self.answers)) >= 2):
            raise ValueError(f"a class task, and no other, has at least two different answers (got {self.answers})")
        if not 0 < self.step <= self.interval < math.inf:
            raise ValueError(f"step and interval must be 0 < step <= interval (got {self.step} and {self.interval})")

    def answer(self, target: Any, *, chain_of_thought: bool) -> str:
        """The text that says a target.

        Examples:
            >>> task = PairTask("solvation", "What is the free energy?", "value")
            >>> task.answer(-2.53, chain_of_thought=True)
            'at least -2.5 and below -2, so the value is -2.5.'
            >>> task.answer(-2.46, chain_of_thought=False)
            '-2.5.'
        """
        if self.kind == "text":
            return str(target)
        if self.kind == "class":
            return self.answers[int(target)]
        value = round(float(target) / self.step) * self.step
        if not chain_of_thought:
            return f"{_text(value)}."
        low = (
            math.floor(value / self.interval + 1e-9) * self.interval
        )  # of the value that is written, so that they fit
        return f"at least {_text(low)} and below {_text(low + self.interval)}, so the value is {_text(value)}."


# a sign belongs to a number unless a digit stands before it, as in "3-5"
_NUMBER = re.compile(r"(?<![\d.,])(?:(?<!\d)[-+\u2212\u2013]\s?)?(?:\d+(?:[.,]\d+)*|[.,]\d+)(?:[eE][-+]?\d+)?")
_SAID = re.compile(r"value\s*(?:is|of|=|:)", re.IGNORECASE)
_ONLY_AN_INTERVAL = re.compile(r"at least|below|above|between", re.IGNORECASE)


def value_of(text: str) -> float:
    """The number that a written answer says, NaN where it says none.

    That is the first number behind "value is", or else the last of the text; a text that was cut after its interval
    says none. Integers, signs as hyphen, minus or dash, decimal commas, commas between thousands and powers of ten
    are read. MolTC's script takes the last decimal in the text, and stops at integers and at texts without a number.

    Examples:
        >>> [value_of(text) for text in ("at least -3 and below -2.5, so the value is -2.6.", "about 4 kcal/mol")]
        [-2.6, 4.0]
        >>> value_of("at least -3 and below -2.5, so")
        nan
    """
    said = _SAID.search(text)
    if said is None and _ONLY_AN_INTERVAL.search(text):
        return math.nan
    numbers = _NUMBER.findall(text[said.end() :] if said else text)
    if not numbers:
        return math.nan
    number = numbers[0 if said else -1].replace("\u2212", "-").replace("\u2013", "-").replace(" ", "")
    several = number.count(",") > 1 or ("," in number and "." in number)  # thousands
    try:
        value = float(number.replace(",", "" if several else "."))
    except ValueError:  # such as 1.2.3
        return math.nan
    return value if math.isfinite(value) else math.nan


ANSWER = "Answer:"  # between what is said about the molecules and the answer


def reasoned(first: str | None, second: str | None, *, words: int) -> str:
    """What is said before the answer (broad-grained chain of thought): the descriptions that there are, and `ANSWER`.

    Examples:
        >>> reasoned("An alcohol with one ring.", None, words=2)
        'First: An alcohol Answer:'
    """
    said = [
        f"{name} {' '.join(text.split()[:words]).replace(ANSWER, '')}"
        for name, text in (("First:", first), ("Second:", second))
        if text is not None
    ]
    return " ".join([*said, ANSWER])


def read_reasoning(text: str) -> str:
    """What a model wrote before its answer, with `ANSWER` at the end; all that it wrote where it came to no answer.

    Examples:
        >>> read_reasoning("First: An alcohol Answer: Yes, they interact.")
        'First: An alcohol Answer:'
        >>> read_reasoning("First: An alcohol that is an alcohol that")
        'First: An alcohol that is an alcohol that Answer:'
    """
    return f"{text.partition(ANSWER)[0].strip()} {ANSWER}".strip()


def _text(value: float) -> str:
    return f"{round(value, 6) + 0.0:g}"  # + 0.0: no minus zero


SOLVATION = PairTask("solvation", "What is the free energy of solvation, in kcal/mol?", "value")
INTERACTION = PairTask(
    "interaction",
    "Do the two drugs interact?",
    "class",
    ("No, they do not interact.", "Yes, they interact."),
)
ABSORPTION = PairTask(
    "absorption", "At which wavelength does it absorb most, in nm?", "value", step=1.0, interval=10.0
)
EMISSION = PairTask("emission", "At which wavelength does it emit most, in nm?", "value", step=1.0, interval=10.0)
LIFETIME = PairTask("lifetime", "What is the natural logarithm of its lifetime in ns?", "value")
TASKS = {task.name: task for task in (SOLVATION, INTERACTION, ABSORPTION, EMISSION, LIFETIME)}


@dataclass
class PairRows:
    """Pairs of SMILES and their targets: class numbers, values, or texts."""

    first: Sequence[str]
    second: Sequence[str]
    targets: Sequence[Any]

    def __post_init__(self) -> None:
        if not len(self.first) == len(self.second) == len(self.targets):
            raise ValueError(
                f"pairs need as many first as second molecules and targets (got {len(self.first)}, "
                f"{len(self.second)} and {len(self.targets)})"
            )

    def __len__(self) -> int:
        return len(self.first)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.first, self.second, strict=True))


@dataclass
class PairData:
    """What a pair method learns from: a task and rows of it, and the rows that it is measured on.

    Attributes:
        task: what is asked.
        train: rows to learn from.
        validation: rows to choose on; None: none.
        test: rows to measure on; None: none.
        left_out: why rows of the source are in no part, a line each.
    """

    task: PairTask
    train: PairRows
    validation: PairRows | None = None
    test: PairRows | None = None
    left_out: tuple[str, ...] = ()

    def describe(self) -> str:
        """How many rows each part has, and what was left out."""
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        counts = ", ".join(f"{len(rows):,} {name}" for name, rows in parts.items() if rows is not None)
        lines = [f"{self.task.name}: {counts} rows"]
        if self.left_out:
            shown = [f"  {line}" for line in self.left_out[:5]]
            lines += [f"left out: {len(self.left_out):,} rows", *shown]
        return "\n".join(lines)

    def molecules(self) -> list[str]:
        """The SMILES of all parts, each once."""
        parts = [part for part in (self.train, self.validation, self.test) if part is not None]
        return list(dict.fromkeys(smiles for part in parts for pair in part.pairs for smiles in pair))

    def part(self, name: str) -> PairRows:
        """The rows of "train", "validation" or "test".

        Raises:
            ValueError: another name, or a part that is not there.
        """
        rows: PairRows | None = getattr(self, name) if name in ("train", "validation", "test") else None
        if rows is None:
            raise ValueError(f"there is no part {name!r} of these pairs")
        return rows

    def fingerprint(self) -> str:
        """A digest of the task and of the rows of all parts."""
        parts = [part for part in (self.train, self.validation, self.test) if part is not None]
        rows = [[list(map(str, column)) for column in (part.first, part.second, part.targets)] for part in parts]
        return hashlib.sha256(repr((asdict(self.task), rows)).encode()).hexdigest()
