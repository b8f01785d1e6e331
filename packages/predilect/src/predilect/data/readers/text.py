"""Text files as people have them: packed or not, in any encoding, with any separator; what cannot be read is named."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from predilect.data.readers.columns import cast_text, kind_in_words
from predilect.data.schema import DataError, Problem

SEPARATORS = (",", "\t", ";", "|", "::", " ")
_HEAD = 1 << 16  # bytes from which the separator is found
_BYTE_ORDER = {  # the longest first: UTF-32's mark begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
_SIGNATURES = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"PAR1": "a Parquet file",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ": "packed with xz",
    b"(\xb5/\xfd": "packed with Zstandard",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
}


class UndecodableError(DataError):
    """Bytes that are no text of the encoding; names file and line."""


def open_text(path: Path, encoding: str = "utf-8") -> BinaryIO:
    """The file's text as UTF-8 bytes: unpacked if it is gzip, whatever its name, and without a byte-order mark.

    Bytes that are not UTF-8 come through where that is the encoding; the parsers name their lines.

    Raises:
        DataError: an unknown encoding, or no text; while reading, a packed file that ends early or is damaged.
        UndecodableError: while reading, bytes that the encoding does not have.
    """
    try:
        known = codecs.lookup(encoding)
    except LookupError:
        raise DataError(f"there is no encoding {encoding!r}; usual ones are utf-8, cp1252, latin-1, utf-16") from None
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as file:
        head = _read(path, file, _HEAD)
    marked = next((e for mark, e in _BYTE_ORDER.items() if head.startswith(mark)), None)
    for signature, what in _SIGNATURES.items():
        if head.startswith(signature):
            raise DataError(f"{path.name} is not a text file but {what}: unpack or export it as text")
    if marked is None and b"\0" in head and not known.name.startswith(("utf-16", "utf-32")):
        raise DataError(
            f"{path.name} is not a text file: byte {head.index(0) + 1:,} is 0; UTF-16 without a byte-order mark needs "
            "its encoding (--encoding utf-16-le)"
        )
    encoding = marked or known.name
    whole = path.open("rb")  # closed with what is returned
    return io.BufferedReader(_Unpacked(path, whole, packed, None if encoding == "utf-8" else encoding), 1 << 18)


def _read(path: Path, source: Any, count: int) -> bytes:
    try:
        chunk: bytes = source.read(count)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        lines = _unpacked_lines(path)
        raise DataError(
            f"{path.name} is damaged: its packed content can be read up to line {lines:,} ({error}); get it again"
        ) from None
    return chunk


class _Unpacked(io.RawIOBase):
    """A file whose faults are errors that say how far it was read; with an encoding, its text as UTF-8."""

    def __init__(self, path: Path, file: BinaryIO, packed: bool, encoding: str | None = None) -> None:
        self._path, self._file, self._encoding = path, file, encoding
        self._source: Any = gzip.GzipFile(fileobj=file) if packed else file
        self._decoder = codecs.getincrementaldecoder(encoding)() if encoding else None
        self._lines, self._left = 0, b""

    def readable(self) -> bool:
        return True

    def position(self) -> int:
        """Bytes of the file, as it lies on disk, that were read so far."""
        return self._file.tell()

    def close(self) -> None:
        self._source.close()
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        if self._decoder is None:
            chunk = _read(self._path, self._source, len(buffer))
        else:
            while not self._left and (given := _read(self._path, self._source, len(buffer))):
                self._left = self._decoded(given)
            self._left = self._left or self._decoded(b"", final=True)
            chunk, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _decoded(self, given: bytes, final: bool = False) -> bytes:
        assert self._decoder is not None
        try:
            text = self._decoder.decode(given, final)
        except UnicodeDecodeError as error:
            line = self._lines + error.object[: error.start].decode(error.encoding, "ignore").count("\n") + 1
            raise _undecodable(self._path, self._encoding, line, error) from None
        self._lines += text.count("\n")
        return text.encode("utf-8", "surrogatepass")


def _unpacked_lines(path: Path) -> int:
    """Whole lines that a damaged gzip file still gives."""
    unpacker, lines = zlib.decompressobj(31), 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 16):
            while chunk:
                try:
                    lines += unpacker.decompress(chunk).count(b"\n")
                except zlib.error:
                    return lines
                chunk = unpacker.unused_data  # the next member of several
                if unpacker.eof:
                    unpacker = zlib.decompressobj(31)
    return lines


class BrokenLines:
    """Collects lines that cannot be read, by file, with number and reason."""

    def __init__(
        self, path: Path, table: Literal["interactions", "items"] = "interactions", unit: str = "line"
    ) -> None:
        self.path, self.table, self.unit = path, table, unit
        self.found: list[tuple[int, str]] = []
        self.over_lines = 0  # number of the last record that goes over several lines

    def add(self, line: int, reason: str) -> None:
        self.found.append((line, reason))

    def problems(self) -> list[Problem]:
        """None or one problem."""
        if not self.found:
            return []
        first = tuple(f"{self.path.name} {self.unit} {line}: {reason}" for line, reason in sorted(self.found)[:5])
        return [Problem("broken line", "error", len(self.found), first, self.table)]


@dataclass(frozen=True)
class _Form:
    """How a text table is written; `trailing`: every line ends in a separator, which the header does not."""

    names: Sequence[str]
    delimiter: str
    header: bool
    encoding: str
    quoted: bool
    trailing: bool = False


def read_delimited(
    path: Path,
    types: Mapping[str, pa.DataType] | None,
    *,
    delimiter: str | None,
    header: bool = False,
    encoding: str = "utf-8",
    quoted: bool = False,
    table: Literal["interactions", "items"] = "interactions",
) -> tuple[pa.Table, list[Problem]]:
    """Parse a text table; broken lines (number of fields, a value of the wrong type) are left out and reported.

    A last column without a name is ignored where it is empty in every line.

    Args:
        path: the file; gzip is unpacked.
        types: the columns in the file's order, or with `header` those wanted; None: all there are, as text, with
            their numbers for names where there is no header.
        delimiter: one character, or `::`; None: found from the first lines.
        header: whether the first line names the columns.
        encoding: of the text.
        quoted: whether `"` encloses fields (which may then hold line breaks: line numbers count records).
        table: what the file holds, for the report.

    Raises:
        DataError: the file is empty, is no text, or lacks a wanted column, or has two of one name.
        UndecodableError: the text has another encoding.
    """
    form = _form(path, types, delimiter, header, encoding, quoted)
    types = types or dict.fromkeys(form.names, pa.string())
    if missing := [c for c in types if c not in form.names]:
        raise DataError(f"{path.name} lacks the column {', '.join(missing)} (got {', '.join(form.names)})")
    wanted, broken = dict(types), BrokenLines(path, table)
    if form.trailing:
        wanted[form.names[-1]] = pa.string()
    try:
        rows = _parse(path, wanted, form, broken)
    except pa.ArrowInvalid:
        rows = _as_text(path, wanted, form, broken)
        rows = _convert(rows, wanted, _line_numbers(rows, form, broken), broken)
    if form.quoted:
        _require_closed(path, rows, form, broken)
    if form.trailing:
        over = ~_empty(rows[form.names[-1]])
        for line in _line_numbers(rows, form, broken)[over]:
            broken.add(int(line), f"{len(form.names)} fields instead of {len(form.names) - 1}")
        rows = rows.drop_columns(form.names[-1]).filter(pa.array(~over))
    last = form.names[-1]
    if last == _unnamed(len(form.names)) and last in rows.column_names and _empty(rows[last]).all():
        rows = rows.drop_columns(last)
    blank = np.logical_and.reduce([_empty(rows[c]) for c in rows.column_names])
    return (rows.filter(pa.array(~blank)) if blank.any() else rows), broken.problems()


def first_fields(path: Path, *, delimiter: str | None = None, encoding: str = "utf-8") -> list[str]:
    """The fields of the first line: the columns' names, if it is a header."""
    lines = _head(path, encoding)
    return _fields(lines[:1], delimiter or _separator(lines, path), True)[0]


def require_header(names: Sequence[str], path: Path) -> None:
    """Refuse names of columns that look like values.

    Raises:
        DataError: says how columns are named where there is no header.
    """
    if any(re.fullmatch(r"[\d.,:/ TZ+-]+", name) for name in names):
        raise DataError(
            f"the first line of {path.name} looks like data ({', '.join(names)}): where there is no header, name "
            'columns by their numbers, as in --column user_id=1 --column item_id=2 (columns={"user_id": "1", '
            '"item_id": "2"})'
        )


def require_distinct(names: Sequence[str], path: Path) -> None:
    """Refuse two columns of one name.

    Raises:
        DataError: names the columns and their places, or says that these are no names (`require_header`).
    """
    if len(set(names)) < len(names):
        require_header(names, path)
    for name in names:
        places = [str(place) for place, other in enumerate(names, start=1) if other == name]
        if len(places) > 1:
            raise DataError(
                f"{path.name} has {len(places)} columns named {name!r} (columns {' and '.join(places)}): rename one"
            )


def _form(
    path: Path,
    types: Mapping[str, pa.DataType] | None,
    delimiter: str | None,
    header: bool,
    encoding: str,
    quoted: bool,
) -> _Form:
    lines = _head(path, encoding)
    delimiter = delimiter or _separator(lines, path)
    fields = _fields(lines, delimiter, quoted)
    names = list(types or ())
    if header:
        names = [name.strip() or _unnamed(place) for place, name in enumerate(fields[0], start=1)]
        require_distinct(names, path)
    elif not names:
        names = [str(place) for place in range(1, len(fields[0]) + 1)]
    body = [row for row in fields[header:] if row]
    trailing = bool(body) and all(len(row) == len(names) + 1 and not row[-1].strip() for row in body)
    if trailing:
        names.append(_unnamed(len(names) + 1))
    return _Form(names, delimiter, header, encoding, quoted, trailing)


def _unnamed(place: int) -> str:
    return f"column {place}"


def _head(path: Path, encoding: str) -> list[str]:
    """The first lines."""
    with open_text(path, encoding) as file:
        head = file.read(_HEAD)
    if not head.strip():
        raise DataError(f"{path.name} is empty")
    lines = list(io.StringIO(head.decode("utf-8", "replace"), newline=None))
    return lines[:-1] if len(head) == _HEAD and len(lines) > 1 else lines  # the last may be cut


def _fields(lines: Sequence[str], delimiter: str, quoted: bool) -> list[list[str]]:
    lines = [line.rstrip("\n") for line in lines]
    if len(delimiter) > 1:
        return [line.split(delimiter) if line else [] for line in lines]
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    return list(csv.reader(lines, delimiter=delimiter, quoting=quoting))


def _separator(lines: Sequence[str], path: Path) -> str:
    """The one that cuts the first line, and most lines into as many fields; of several, the one into most fields."""
    usual = "\t" if ".tsv" in path.name else ","

    def fit(separator: str) -> tuple[bool, float, bool, int, bool]:
        counts = [len(row) for row in _fields(lines, separator, True) if row]
        alike = float(np.mean([count == counts[0] for count in counts]))
        return counts[0] > 1, alike, separator != " ", counts[0], separator == usual

    return max(SEPARATORS, key=fit)


def _parse(path: Path, types: Mapping[str, pa.DataType], form: _Form, broken: BrokenLines) -> pa.Table:
    """One attempt at the whole file; lines with a wrong number of fields go to `broken`."""
    broken.found.clear()
    broken.over_lines = 0

    def skip(row: Any) -> str:
        broken.over_lines = row.number if "\n" in row.text else broken.over_lines
        text = row.text[:80].replace("\x1f", "::")
        expected, given = row.expected_columns - form.trailing, row.actual_columns
        if not (form.trailing and given == expected):
            broken.add(row.number, f"{given} fields instead of {expected}: {text!r}")
        else:
            broken.add(row.number, f"no {form.delimiter!r} at the end, which all lines before it have: {text!r}")
        return "skip"

    double = form.delimiter == "::"
    with open_text(path, form.encoding) as file:
        return pa.csv.read_csv(
            io.BytesIO(file.read().replace(b"::", b"\x1f")) if double else file,
            # one thread: with several, Arrow does not know the numbers of the lines it skips
            pa.csv.ReadOptions(
                use_threads=False, column_names=form.names, skip_rows=int(form.header), block_size=1 << 23
            ),
            pa.csv.ParseOptions(
                delimiter="\x1f" if double else form.delimiter,
                quote_char='"' if form.quoted else False,
                newlines_in_values=form.quoted,
                ignore_empty_lines=False,
                invalid_row_handler=skip,
            ),
            pa.csv.ConvertOptions(column_types=types, include_columns=list(types)),
        )


def _as_text(path: Path, types: Mapping[str, pa.DataType], form: _Form, broken: BrokenLines) -> pa.Table:
    """All columns as text.

    Raises:
        UndecodableError: the text is not UTF-8.
        DataError: what Arrow says about the file.
    """
    try:
        return _parse(path, dict.fromkeys(types, pa.string()), form, broken)
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            _find_undecodable(path, form.encoding)
        said = str(error).removeprefix("CSV parse error: ")
        raise DataError(f"{path.name} cannot be parsed as a text table: {said}") from None


def _line_numbers(rows: pa.Table, form: _Form, broken: BrokenLines) -> np.ndarray:
    """In the file, of rows of which only broken ones were left out."""
    skipped = [line for line, _ in broken.found]
    lines: np.ndarray = np.setdiff1d(np.arange(len(rows) + len(skipped)) + 1 + form.header, skipped)
    return lines


def _require_closed(path: Path, rows: pa.Table, form: _Form, broken: BrokenLines) -> None:
    """Refuse a file in which a quotation mark stays open: its last record goes over all lines that follow."""
    record = broken.over_lines
    texts = [column[-1].as_py() or "" for column in rows.columns if len(rows) and pa.types.is_string(column.type)]
    if any("\n" in text for text in texts):
        record = max(record, int(_line_numbers(rows, form, broken)[-1]))
    if not record:
        return
    marks = 0
    with open_text(path, form.encoding) as file:
        while chunk := file.read(1 << 20):
            marks += chunk.count(b'"')
    if marks % 2:
        raise DataError(
            f"{path.name}: a quotation mark in line {record:,} is never closed, so that the lines behind it are lost"
        )


def _empty(column: pa.ChunkedArray) -> np.ndarray:
    mask = pc.is_null(column)
    if pa.types.is_string(column.type):
        mask = pc.or_(mask, pc.fill_null(pc.equal(column, ""), True))
    return np.asarray(mask.to_numpy())


def _find_undecodable(path: Path, encoding: str) -> None:
    """Raise at the first line that is not UTF-8."""
    with open_text(path, encoding) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise _undecodable(path, "UTF-8", number, error) from None


def _undecodable(path: Path, encoding: str | None, line: int, error: UnicodeDecodeError) -> UndecodableError:
    byte = error.object[error.start]
    return UndecodableError(f"{path.name} is not {encoding} text (line {line:,}: byte {byte:#04x})")


def _convert(rows: pa.Table, types: Mapping[str, pa.DataType], lines: np.ndarray, broken: BrokenLines) -> pa.Table:
    """Cast text columns; rows with a value that does not fit are left out."""
    keep = np.ones(len(rows), dtype=bool)
    for name, kind in types.items():
        if not pa.types.is_string(kind):
            values, bad = cast_text(rows[name], kind)
            rows = rows.set_column(rows.column_names.index(name), name, values)
            for row in np.flatnonzero(bad & keep):
                broken.add(int(lines[row]), f"{name} is not a {kind_in_words(kind)}")
            keep &= ~bad
    return rows.filter(pa.array(keep))


def read_lines(
    path: Path, *, parse: Callable[[str], Any] = json.loads, encoding: str = "utf-8", broken: BrokenLines
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Number and record of every line of a file of one record (a mapping) per line."""
    with open_text(path, encoding) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = parse(line.decode())
            except UnicodeDecodeError as error:
                broken.add(number, f"not UTF-8: byte {error.start + 1} is {line[error.start]:#04x}")
            except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                broken.add(number, f"cannot be parsed: {error}")
            else:
                if checked(number, record, broken, escaped=b"\\u" in line):
                    yield number, record


def read_array(path: Path, *, encoding: str = "utf-8", broken: BrokenLines) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """As `read_lines`, of a JSON array of objects, which are counted from 1.

    Raises:
        DataError: the file is no JSON; names the line.
    """
    with open_text(path, encoding) as file:
        content = file.read()
    try:
        records = json.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _undecodable(path, "UTF-8", line, error) from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path.name} cannot be parsed as JSON: {error}") from None
    for number, record in enumerate(records, start=1):
        if checked(number, record, broken):
            yield number, record


def checked(number: int, record: Any, broken: BrokenLines, *, escaped: bool = True) -> bool:
    """Whether it is a record of texts that can be written; if not, it is added to `broken`.

    Half of a character (a lone surrogate) can be named by an escape only: `escaped` is false where there is none.
    """
    if not isinstance(record, Mapping):
        broken.add(number, f"not a record but {type(record).__name__}")
        return False
    for name, value in record.items() if escaped else ():
        if half := re.search("[\ud800-\udfff]", name + _text(value)):
            broken.add(number, f"the column {name!r} holds the lone surrogate {ascii(half[0])[1:-1]}")
            return False
    return True


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
