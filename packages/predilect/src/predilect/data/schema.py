"""What is wrong with a log and its item table, said so that a person can act on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predilect.data.arrow import positions

_EXAMPLES = 5
_WAY_OUT = 'repair the files, or drop and count the rows with errors: --on-error skip (on_error="skip")'


@dataclass(frozen=True)
class Problem:
    """One kind of fault.

    Attributes:
        kind: its name, e.g. "duplicate row".
        severity: "error": strict loading refuses it, `on_error="skip"` drops the rows; "warning": kept and reported.
        count: how often it occurs.
        examples: the first few, each with its line or row number and the value.
        table: "interactions" or "items".
        rows: 0-based rows of that table; empty where the rows could not even be read.
    """

    kind: str
    severity: Literal["error", "warning"]
    count: int
    examples: tuple[str, ...] = ()
    table: Literal["interactions", "items"] = "interactions"
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64), repr=False, compare=False)

    def summary(self) -> dict[str, Any]:
        """All but the rows, ready for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "rows"}

    @classmethod
    def from_summary(cls, summary: dict[str, Any]) -> Problem:
        """The problem that `summary` tells of."""
        return cls(**{**summary, "examples": tuple(summary["examples"])})


@dataclass(frozen=True)
class SchemaReport:
    """All problems found in one data set; `str()` is a table of them."""

    problems: tuple[Problem, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.severity == "warning")

    def find(self, kind: str) -> Problem | None:
        """The problem of that kind, if there is one."""
        return next((p for p in self.problems if p.kind == kind), None)

    def faulty_rows(self, table: str) -> np.ndarray:
        """The distinct rows of "interactions" or "items" that have an error."""
        rows = [p.rows for p in self.errors if p.table == table]
        return np.unique(np.concatenate(rows)) if rows else np.empty(0, dtype=np.int64)

    def __str__(self) -> str:
        if not self.problems:
            return "no problems found"
        width = max(len(p.kind) for p in self.problems)
        lines = []
        for p in self.problems:
            lines.append(f"{p.severity:7}  {p.kind:{width}}  {p.count:>9,}  {p.examples[0] if p.examples else ''}")
            lines += [" " * (width + 22) + example for example in p.examples[1:]]
        return "\n".join(lines)


class DataError(ValueError):
    """The data cannot be used as it is; `.report` holds everything that was found."""

    def __init__(self, message: str, report: SchemaReport | None = None) -> None:
        super().__init__(message)
        self.report = report or SchemaReport()


def require(report: SchemaReport, name: str, rows: int | None = None) -> None:
    """Raise where the report has errors.

    Args:
        report: what was found.
        name: of the data.
        rows: of the log; where none of them is free of errors, the way out is not to drop them.

    Raises:
        DataError: with the whole report and the way out.
    """
    if report.errors:
        total = sum(p.count for p in report.errors)
        way_out = _WAY_OUT
        if rows is not None and len(report.faulty_rows("interactions")) == rows:
            broken = sum(p.count for p in report.errors if p.kind == "broken line" and p.table == "interactions")
            kinds = [p.kind for p in report.errors if p.table == "interactions" and p.count == rows + broken]
            fault = f"all {rows + broken:,} rows have the error {kinds[0]!r}" if kinds else "every row has an error"
            way_out = f"{fault}, so the file is written in another way than it is read (columns, separator, format)"
        raise DataError(f"{name} has {total:,} errors:\n{report}\n{way_out}", report)


def check(interactions: pa.Table, items: pa.Table | None = None, *, found: Iterable[Problem] = ()) -> SchemaReport:
    """Look for every known fault.

    Args:
        interactions: raw log: `user_id`, `item_id`, and where the source has them `timestamp` (number, Unix seconds),
            `rating`, `event`, `split`.
        items: raw item table: `item_id`, and where the source has them `title`, `categories`, more.
        found: what the reader already found (broken lines).

    Returns:
        The report: errors first. Errors are missing columns, broken lines, missing ids, a missing or negative time,
            NaN
        ratings, duplicate rows (same user, item, time and event: the later ones), items of the log that the item table
        lacks or that alone have no title, and an id that the item table holds twice (the later ones). Warnings are two
        items with one title, users whose rows are not in order of time, and data without titles or without a clock.

    Raises:
        DataError: a column is missing: nothing else can be checked.
    """
    tables = (("interactions", interactions, ("user_id", "item_id")), ("items", items, ("item_id",)))
    for name, table, needed in tables:
        missing = [c for c in needed if table is not None and c not in table.column_names]
        if table is not None and missing:
            columns = ", ".join(table.column_names)
            way_out = f'name yours with columns={{"{missing[0]}": "your column", ...}}'
            raise DataError(
                f"the {name} lack the column {', '.join(missing)} (got {columns}): {way_out}",
                SchemaReport((Problem("missing column", "error", len(missing), tuple(missing)),)),
            )
    problems = [*found, *_check_interactions(interactions)]
    problems += _check_items(interactions, items)
    if sum(p.kind == "no titles" for p in problems) > 1:
        problems.pop()  # the reader has said it, and what to do
    return SchemaReport(tuple(sorted((p for p in problems if p.count), key=lambda p: p.severity)))


def _problem(
    kind: str,
    mask: np.ndarray,
    table: pa.Table,
    *,
    show: Sequence[str],
    severity: Literal["error", "warning"] = "error",
    where: Literal["interactions", "items"] = "interactions",
) -> Problem:
    """The rows of `table` where `mask` holds, the first few with the columns `show`."""
    rows = np.flatnonzero(mask)
    columns = [c for c in show if c in table.column_names]
    first = table.select(columns).take(pa.array(rows[:_EXAMPLES])).to_pylist()
    told = [
        f"row {row + 1}: " + ", ".join(f"{k} {v!r}" for k, v in values.items())
        for row, values in zip(rows, first, strict=False)
    ]
    return Problem(kind, severity, len(rows), tuple(told), where, rows)


def _missing(column: pa.ChunkedArray) -> np.ndarray:
    """Null, NaN, or empty text."""
    mask = pc.is_null(column, nan_is_null=True)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        mask = pc.or_(mask, pc.fill_null(pc.equal(pc.utf8_trim_whitespace(column), ""), True))
    return np.asarray(mask.to_numpy())


def _check_interactions(log: pa.Table) -> list[Problem]:
    shown = ("user_id", "item_id", "timestamp")
    problems = [_problem(f"missing {c}", _missing(log[c]), log, show=shown) for c in ("user_id", "item_id")]
    if "rating" in log.column_names:
        problems.append(_problem("missing rating", _missing(log["rating"]), log, show=(*shown, "rating")))
    problems.append(_problem("duplicate row", _duplicates(log), log, show=(*shown, "event")))
    if "timestamp" not in log.column_names:
        told = ("the order of the rows is taken as the order of events",)
        return [*problems, Problem("no time", "warning", 1, told)]
    time = log["timestamp"]
    problems.append(_problem("missing time", _missing(time), log, show=shown))
    negative = np.asarray(pc.fill_null(pc.less(time, 0), False).to_numpy())
    problems.append(_problem("negative time", negative, log, show=shown))
    late = np.asarray(pc.fill_null(pc.greater(time, 1e11), False).to_numpy())  # the year 5138
    beyond = _problem("time beyond the year 5000", late, log, show=shown)
    hint = "where all times of a column have one unit it is known by their size; these have several"
    problems.append(replace(beyond, examples=(*beyond.examples[:2], hint)))
    back = _backward(log)
    return [*problems, _problem("time goes back within a user", back, log, show=shown, severity="warning")]


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Equal values get equal numbers."""
    if pa.types.is_integer(column.type) and not column.null_count:
        return np.asarray(column.to_numpy())
    encoded = pc.dictionary_encode(column, null_encoding="encode").combine_chunks()
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False))


def _duplicates(log: pa.Table) -> np.ndarray:
    """Rows that repeat an earlier row in user, item, time and event; without a time column nothing repeats."""
    if "timestamp" not in log.column_names:
        return np.zeros(len(log), dtype=bool)
    keys = [_codes(log[c]) for c in ("user_id", "item_id", "timestamp", "event") if c in log.column_names]
    mixed = np.zeros(len(log), dtype=np.uint64)
    for key in keys:
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + key.astype(np.uint64)
    ordered = np.sort(mixed)
    suspects = np.flatnonzero(np.isin(mixed, ordered[1:][ordered[1:] == ordered[:-1]]))  # a cheap sieve; now exactly
    order = suspects[np.lexsort([key[suspects] for key in keys])]
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for key in keys:
        same &= key[order[1:]] == key[order[:-1]]
    repeated = np.zeros(len(log), dtype=bool)
    repeated[order[1:][same]] = True  # lexsort is stable: the first of equal rows stays
    return repeated


def _backward(log: pa.Table) -> np.ndarray:
    """Rows that are earlier than the row before them of the same user."""
    user = _codes(log["user_id"])
    time = np.asarray(log["timestamp"].to_numpy()).astype(np.float64)
    order = np.argsort(user, kind="stable")
    back = np.zeros(len(log), dtype=bool)
    back[order[1:]] = (user[order[1:]] == user[order[:-1]]) & (time[order[1:]] < time[order[:-1]])
    return back


def _check_items(log: pa.Table, items: pa.Table | None) -> list[Problem]:
    if items is None:
        return [Problem("no titles", "warning", 1, ("there is no item table",))]
    again = np.ones(len(items), dtype=bool)
    codes = _codes(items["item_id"])
    again[np.unique(codes, return_index=True)[1]] = False
    problems = [_problem("id twice in the item table", again, items, show=("item_id", "title"), where="items")]
    problems.append(_problem("missing item_id", _missing(items["item_id"]), items, show=("title",), where="items"))
    place = positions(log["item_id"].cast(pa.string()), items["item_id"].cast(pa.string()).combine_chunks())
    unknown = (place < 0) & ~_missing(log["item_id"])
    problems.append(_problem("item not in the item table", unknown, log, show=("user_id", "item_id")))
    if "title" not in items.column_names or _missing(items["title"]).all():
        return [*problems, Problem("no titles", "warning", 1, ("the item table has no titles",))]
    untitled = _missing(items["title"])
    bare = (place >= 0) & untitled[np.maximum(place, 0)]
    problems.append(_problem("item without a title", bare, log, show=("user_id", "item_id")))
    taken = np.zeros(len(items), dtype=bool)
    taken[place[place >= 0]] = True
    titles = _codes(items["title"].cast(pa.string()))
    counts = np.bincount(titles[taken & ~untitled], minlength=titles.max(initial=0) + 1)
    shared = taken & ~untitled & (counts[titles] > 1)
    told = _problem(
        "two items with one title", shared, items, show=("title", "item_id"), severity="warning", where="items"
    )
    return [*problems, told]
