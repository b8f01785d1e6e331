"""`predict_csv`: the answers for a whole CSV file of pairs, row by row, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mol_llm.molecules import SmilesReader
from mol_llm.pair_method import PairMethod
from mol_llm.pairs import PairTask
from predilect.runs import CsvRows, csv_writer

PREDICTION, REASON = "prediction", "reason"


class PredictedFile(NamedTuple):
    """How many rows were written, how many of them have no prediction, and why the first of these has none."""

    rows: int
    failed: int
    first_reason: str


class _Row(NamedTuple):
    """The values of a row in the columns of the header, its two molecules, and why it cannot be predicted."""

    values: list[str]
    pair: tuple[str, str] | None
    reason: str


def predict_csv(
    method: PairMethod,
    source: str | Path,
    target: str | Path,
    *,
    first: str = "first",
    second: str = "second",
    reader: SmilesReader | None = None,
    batch_size: int = 1024,
    progress: Callable[[float, int], None] | None = None,
) -> PredictedFile:
    """Write a CSV file again with the answers of a method: every row, in its place, with all that it holds.

    Columns are added: `prediction` (a value, the number of a class, or a text); of a class task `answer`, what the
    class says, and `probability_0`, `probability_1`, ...; and `reason`, why a row has no prediction, else empty.

    Args:
        method: fitted.
        source: a CSV file with a header; packed by gzip or not.
        target: where it goes; packed where it ends in .gz. It is there when all rows are.
        first: column of the first molecule's SMILES.
        second: column of the second's.
        reader: which SMILES can be used and how they are written; None: canonical SMILES, as `predilect train` reads
            them. Rows that it refuses have its reason.
        batch_size: rows that are read, predicted and written at once.
        progress: is told the share of the file, 0..1, and the rows so far.

    Raises:
        FileNotFoundError: there is no `source`.
        ValueError: it has no rows, lacks a column or has one of those that are added; or it is `target`.
    """
    source, target = Path(source), Path(target)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1 (got {batch_size})")
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {source}")
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the file that is read: give the predictions another name")
    reader = reader or SmilesReader("skip", canonical=True)
    added = added_columns(method.task)
    rows, failed, first_reason = 0, 0, ""
    with CsvRows(source) as file:
        places = (file.place(first), file.place(second))
        if clash := [name for name in added if name in file.names]:
            raise ValueError(f"{source} has a column {clash[0]!r} already, which would be lost: rename it")
        with csv_writer(target, [*file.names, *added]) as write:
            checked = _checked(file, places, reader)
            while batch := list(islice(checked, batch_size)):
                found = _answered(method, batch)
                write([*row.values, *more] for row, more in zip(batch, found, strict=True))
                reasons = [more[-1] for more in found if more[-1]]
                rows, failed = rows + len(batch), failed + len(reasons)
                first_reason = first_reason or next(iter(reasons), "")
                if progress is not None:
                    progress(file.share, rows)
            if not rows:
                raise ValueError(f"{source} has no rows")
    return PredictedFile(rows, failed, first_reason)


def added_columns(task: PairTask) -> list[str]:
    """What `predict_csv` adds for a task.

    Examples:
        >>> from mol_llm import INTERACTION
        >>> added_columns(INTERACTION)
        ['prediction', 'answer', 'probability_0', 'probability_1', 'reason']
    """
    classes = [f"probability_{number}" for number in range(len(task.answers))]
    return [PREDICTION, *(["answer", *classes] if task.kind == "class" else []), REASON]


def _checked(file: CsvRows, places: tuple[int, int], reader: SmilesReader) -> Iterator[_Row]:
    width = len(file.names)
    for _, values in file:
        if len(values) != width:
            more = f", behind them {', '.join(map(repr, values[width:]))}" if len(values) > width else ""
            reason = f"{len(values)} values where the header has {width}{more}"
            yield _Row([*values, *[""] * width][:width], None, reason)
            continue
        try:
            one, two = (reader.read(values[place]) for place in places)
            yield _Row(values, (one, two), "")
        except ValueError as error:
            yield _Row(values, None, str(error))


def _answered(method: PairMethod, rows: Sequence[_Row]) -> list[list[str]]:
    """What is added to each row."""
    good = [row.pair for row in rows if row.pair is not None]
    answers = iter(_predicted(method, good))
    empty = [""] * (len(added_columns(method.task)) - 1)
    return [[*empty, row.reason] if row.pair is None else next(answers) for row in rows]


def _predicted(method: PairMethod, pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """All at once; where the method refuses one of them, one by one, so that only that one has no prediction."""
    if not pairs:
        return []
    try:
        found = method.predict(*map(list, zip(*pairs, strict=True)))
    except ValueError as error:
        if len(pairs) == 1:
            empty = [""] * (len(added_columns(method.task)) - 1)
            return [[*empty, str(error).removeprefix("row 0: ")]]
        return [answer for pair in pairs for answer in _predicted(method, [pair])]
    method.forget()
    return [[*_columns(method.task, answer), ""] for answer in found]


def _columns(task: PairTask, answer: Any) -> list[str]:
    if task.kind == "text":
        return [answer]
    if task.kind == "value":
        return [f"{answer:.6g}"]
    best = int(np.argmax(answer))
    return [str(best), task.answers[best], *(f"{probability:.6g}" for probability in answer)]
