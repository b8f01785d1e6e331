"""Rows of CSV files one by one: read in memory that does not grow with the file, and written whole or not at all."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from predilect.data.readers.text import open_text
from predilect.data.schema import DataError
from predilect.runs.files import whole_file


class CsvRows:
    """The rows of a CSV file with a header, packed by gzip or not; a context manager.

    Iterating gives each row as (line, values), `line` being its last line in the file, counted from 1. Rows may have
    another number of values than the header; lines without any are passed over.

    Args:
        path: of the file.

    Attributes:
        names: the header; empty for an empty file.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: no text, no UTF-8, or no CSV (a quotation mark that is never closed); names file and line.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "pairs.csv")
        ...     _ = path.write_text("first,second\\nCCO,O\\n")
        ...     with CsvRows(path) as rows:
        ...         rows.names, list(rows)
        (['first', 'second'], [(2, ['CCO', 'O'])])
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = path.stat().st_size
        self._bytes = open_text(path)
        self._reader = csv.reader(io.TextIOWrapper(self._bytes, encoding="utf-8", newline=""))
        self.names: list[str] = next(self._values(), [])

    def __enter__(self) -> CsvRows:
        return self

    def __exit__(self, *error: object) -> None:
        self._bytes.close()

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        for values in self._values():
            yield self._reader.line_num, values

    @property
    def share(self) -> float:
        """Share of the file that was read so far, 0..1."""
        raw: Any = self._bytes.raw  # type: ignore[attr-defined]
        return raw.position() / self._size if self._size else 1.0

    def place(self, name: str) -> int:
        """Number of a column.

        Raises:
            DataError: there is none of this name, or several; names those there are.
        """
        if self.names.count(name) == 1:
            return self.names.index(name)
        there = ", ".join(self.names) or "no header"
        how = "several columns" if name in self.names else "no column"
        raise DataError(f"{self.path} has {how} {name!r}; it has {there}")

    def _values(self) -> Iterator[list[str]]:
        try:
            for values in self._reader:
                if values:
                    yield values
        except UnicodeDecodeError as error:
            found = error.object[error.start]
            raise DataError(
                f"{self.path} is not UTF-8: byte {found:#04x} after line {self._reader.line_num:,}; save it as UTF-8"
            ) from None
        except csv.Error as error:
            raise DataError(
                f"{self.path}, line {self._reader.line_num:,}: {error} (is a quotation mark never closed?)"
            ) from None


@contextmanager
def csv_writer(path: Path, names: Sequence[str]) -> Iterator[Callable[[Iterable[Sequence[Any]]], None]]:
    """A function that appends rows to a CSV file, which is there, with its header, when the block ends without error.

    Args:
        path: of the file; one that ends in .gz is packed.
        names: the header.
    """
    with whole_file(path) as temporary:
        packed = path.suffix == ".gz"
        with (
            gzip.open(temporary, "wt", compresslevel=6, newline="", encoding="utf-8")
            if packed
            else temporary.open("w", newline="", encoding="utf-8")
        ) as file:
            writer = csv.writer(file)
            writer.writerow(names)
            yield writer.writerows
