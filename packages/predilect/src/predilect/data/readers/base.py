"""What a reader of a file format is, and the parsing that readers share."""

from __future__ import annotations

import gzip
import inspect
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from predilect.data.schema import DataError, Problem


@dataclass(frozen=True)
class RawTables:
    """What a reader returns: tables with the source's own ids.

    Attributes:
        interactions: `user_id`, `item_id`, and where the source has them `timestamp` (Unix seconds, fractions
            allowed), `rating`, `event`, `split`; original row order.
        items: `item_id` and where the source has them `title`, `categories` (lists of text), more columns; or None.
        problems: what could not be read.
    """

    interactions: pa.Table
    items: pa.Table | None = None
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Reader:
    """One file format.

    Attributes:
        name: what `load(..., format=name)` takes.
        files: the files it reads, as patterns.
        where: where the user gets them.
        recognises: whether a file or folder has this format.
        parse: path and the reader's options -> `RawTables`.
    """

    name: str
    files: tuple[str, ...]
    where: str
    recognises: Callable[[Path], bool]
    parse: Callable[..., RawTables]

    def read(self, path: Path, **options: Any) -> RawTables:
        """The tables of `path`.

        Raises:
            DataError: the path does not hold this format; names its files and where to get them.
            TypeError: an option that this reader does not have.
        """
        known = [p.name for p in inspect.signature(self.parse).parameters.values() if p.kind is p.KEYWORD_ONLY]
        if unknown := sorted(set(options) - set(known)):
            there = f"its options are {', '.join(known)}" if known else "it has no options"
            raise TypeError(f"the reader {self.name} has no option {', '.join(unknown)}; {there}")
        if not self.recognises(path):
            raise DataError(
                f"{path} does not hold the format {self.name} ({', '.join(self.files)}), from {self.where}"
            )
        return self.parse(path, **options)


def has_files(*names: str) -> Callable[[Path], bool]:
    """A folder that holds a file of each name (patterns; alternatives joined by `|`), or one of these files."""

    def recognises(path: Path) -> bool:
        return all(find(path, name) is not None for name in names)

    return recognises


def find(path: Path, names: str) -> Path | None:
    """The first file in the folder `path` (or beside the file `path`) that fits one of the patterns joined by `|`."""
    folder = path if path.is_dir() else path.parent
    alternatives = names.split("|")
    if path.is_file() and any(path.match(name) for name in alternatives):
        return path
    return next((found for name in alternatives for found in sorted(folder.glob(name))), None)


def open_file(path: Path) -> io.BufferedIOBase:
    """The file's bytes, unpacked where it ends in .gz."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def required(path: Path, names: str) -> Path:
    """As `find`, for a file that `recognises` made sure of."""
    found = find(path, names)
    if found is None:
        raise DataError(f"{path} lacks {names}")
    return found


class BrokenLines:
    """Collects lines that cannot be read, by file, with number and reason."""

    def __init__(self, path: Path, table: Literal["interactions", "items"] = "interactions") -> None:
        self.path, self.table = path, table
        self.found: list[tuple[int, str]] = []

    def add(self, line: int, reason: str) -> None:
        self.found.append((line, reason))

    def problems(self) -> list[Problem]:
        """None or one problem."""
        if not self.found:
            return []
        first = tuple(f"{self.path.name} line {line}: {reason}" for line, reason in sorted(self.found)[:5])
        return [Problem("broken line", "error", len(self.found), first, self.table)]


@dataclass(frozen=True)
class _Form:
    delimiter: str
    header: bool
    encoding: str
    quoted: bool


def read_delimited(
    path: Path,
    types: Mapping[str, pa.DataType] | None,
    *,
    delimiter: str,
    header: bool = False,
    encoding: str = "utf-8",
    quoted: bool = False,
    table: Literal["interactions", "items"] = "interactions",
) -> tuple[pa.Table, list[Problem]]:
    """Parse a text table; broken lines (number of fields, a value of the wrong type) are left out and reported.

    Args:
        path: the file, .gz allowed.
        types: the columns in the file's order, or with `header` those wanted; None: all of the header's, as text.
        delimiter: one character, or `::`.
        header: whether the first line names the columns.
        encoding: of the text.
        quoted: whether `"` encloses fields (which may then hold line breaks: line numbers count records).
        table: what the file holds, for the report.

    Raises:
        DataError: the file is empty, a wanted column is missing, or the text has another encoding.
    """
    form, broken = _Form(delimiter, header, encoding, quoted), BrokenLines(path, table)
    with open_file(path) as file:
        first = file.readline()
    if not first:
        raise DataError(f"{path.name} is empty")
    there = _names(first, form) if header else list(types or ())
    types = types or dict.fromkeys(there, pa.string())
    if missing := [c for c in types if c not in there]:
        raise DataError(f"{path.name} lacks the column {', '.join(missing)} (got {', '.join(there)})")
    try:
        rows = _parse(path, types, form, broken)
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise DataError(f"{path.name} is not UTF-8 text (line {_undecodable(path)}): pass its encoding") from error
        rows = _parse(path, dict.fromkeys(types, pa.string()), form, broken)
        skipped = [line for line, _ in broken.found]
        lines = np.setdiff1d(np.arange(len(rows) + len(skipped)) + 1 + header, skipped)
        rows = _convert(rows, types, lines, broken)
    blank = np.logical_and.reduce([_empty(rows[c]) for c in rows.column_names])
    return (rows.filter(pa.array(~blank)) if blank.any() else rows), broken.problems()


def _parse(path: Path, types: Mapping[str, pa.DataType], form: _Form, broken: BrokenLines) -> pa.Table:
    """One attempt at the whole file; lines with a wrong number of fields go to `broken`."""
    broken.found.clear()

    def skip(row: Any) -> str:
        text = row.text[:80].replace("\x1f", "::")
        broken.add(row.number, f"{row.actual_columns} fields instead of {row.expected_columns}: {text!r}")
        return "skip"

    double = form.delimiter == "::"
    names = None if form.header else list(types)
    with open_file(path) as file:
        return pa.csv.read_csv(
            io.BytesIO(file.read().replace(b"::", b"\x1f")) if double else file,
            # one thread: with several, Arrow does not know the numbers of the lines it skips
            pa.csv.ReadOptions(use_threads=False, column_names=names, encoding=form.encoding, block_size=1 << 23),
            pa.csv.ParseOptions(
                delimiter="\x1f" if double else form.delimiter,
                quote_char='"' if form.quoted else False,
                newlines_in_values=form.quoted,
                ignore_empty_lines=False,
                invalid_row_handler=skip,
            ),
            pa.csv.ConvertOptions(column_types=types, include_columns=list(types)),
        )


def _names(first: bytes, form: _Form) -> list[str]:
    """The columns that a header line names."""
    options = pa.csv.ParseOptions(delimiter=form.delimiter, quote_char='"' if form.quoted else False)
    names: list[str] = pa.csv.read_csv(
        io.BytesIO(first), pa.csv.ReadOptions(encoding=form.encoding), options
    ).column_names
    return names


def _empty(column: pa.ChunkedArray) -> np.ndarray:
    mask = pc.is_null(column)
    if pa.types.is_string(column.type):
        mask = pc.or_(mask, pc.fill_null(pc.equal(column, ""), True))
    return np.asarray(mask.to_numpy())


def _undecodable(path: Path) -> int:
    """Number of the first line that is no UTF-8."""
    with open_file(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


def _convert(rows: pa.Table, types: Mapping[str, pa.DataType], lines: np.ndarray, broken: BrokenLines) -> pa.Table:
    """Cast text columns; rows with a value that does not fit are left out."""
    keep = np.ones(len(rows), dtype=bool)
    for name, kind in types.items():
        if not pa.types.is_string(kind):
            values, bad = cast_text(rows[name], kind)
            rows = rows.set_column(rows.column_names.index(name), name, values)
            for row in np.flatnonzero(bad & keep):
                broken.add(int(lines[row]), f"{name} is not a {_plain(kind)}")
            keep &= ~bad
    return rows.filter(pa.array(keep))


def _plain(kind: pa.DataType) -> str:
    if pa.types.is_temporal(kind):
        return "time"
    return "whole number" if pa.types.is_integer(kind) else "number"


def cast_text(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Text as `kind`; empty text is null; second, which values are neither empty nor of that kind (null as well)."""
    column = pc.utf8_trim_whitespace(column)
    column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    try:
        return column.cast(kind), np.zeros(len(column), dtype=bool)
    except pa.ArrowInvalid:
        pass
    encoded = column.combine_chunks().dictionary_encode()
    values = pa.array([_cast_one(text, kind) for text in encoded.dictionary], kind)
    cast = pa.chunked_array([values.take(encoded.indices)])
    return cast, np.asarray(pc.and_(pc.is_valid(column), pc.is_null(cast)).to_numpy())


def _cast_one(text: pa.StringScalar, kind: pa.DataType) -> Any:
    try:
        return text.cast(kind).as_py()
    except pa.ArrowInvalid:
        return None


def read_lines(
    path: Path, *, parse: Callable[[str], Any] = json.loads, broken: BrokenLines
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Number and record of every line of a file of one record (a mapping) per line."""
    with open_file(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = parse(line.decode())
            except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                broken.add(number, f"cannot be parsed: {error}")
                continue
            if isinstance(record, Mapping):
                yield number, record
            else:
                broken.add(number, f"not a record but {type(record).__name__}")


def seconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Arrow times or dates as Unix seconds with fractions (without a zone: UTC)."""
    stamps = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)))
    return pc.divide(stamps.cast(pa.int64()).cast(pa.float64()), 1e6)


def split_text(column: pa.ChunkedArray, separator: str) -> pa.ChunkedArray:
    """Text such as "Drama|War" as lists; empty text gives an empty list."""
    text = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    return pc.coalesce(pc.split_pattern(text, separator), pa.scalar([], pa.list_(pa.string())))


def flags_to_lists(flags: np.ndarray, names: Sequence[str]) -> pa.ListArray:
    """0/1 columns (rows, names) as lists of names."""
    row, column = np.nonzero(flags)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(flags)))])
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(names).take(pa.array(column)))


def distinct_items(log: pa.Table) -> pa.Table:
    """An item table of the ids in a log, for sources without one."""
    return pa.table({"item_id": pc.unique(log["item_id"])})


def with_categories(items: pa.Table, item: pa.Array, category: pa.Array) -> pa.Table:
    """Add the distinct categories of every item from (item, category) pairs; items without one get an empty list."""
    pairs = pa.table({"item": item, "category": category.cast(pa.string())}).group_by("item", use_threads=False)
    grouped = pairs.aggregate([("category", "distinct")])
    place = pc.index_in(items["item_id"], value_set=grouped["item"].combine_chunks())
    lists = grouped["category_distinct"].combine_chunks().take(place)
    return items.append_column("categories", pc.coalesce(lists, pa.scalar([], lists.type)))
