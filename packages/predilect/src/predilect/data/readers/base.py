"""What a reader of a file format is, and how it finds its files."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from predilect.data.readers.text import UndecodableError
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
            DataError: the path does not hold this format (names its files and where to get them), an option that this
                reader does not have, text of another encoding.
        """
        known = [p.name for p in inspect.signature(self.parse).parameters.values() if p.kind is p.KEYWORD_ONLY]
        if unknown := sorted(set(options) - set(known)):
            there = f"its options are {', '.join(known)}" if known else "it has no options"
            raise DataError(f"the reader {self.name} has no option {', '.join(unknown)}; {there}")
        if not self.recognises(path):
            raise DataError(
                f"{path} does not hold the format {self.name} ({', '.join(self.files)}), from {self.where}"
            )
        try:
            return self.parse(path, **options)
        except UndecodableError as error:
            way_out = "the format is read in its own encoding, so convert the file"
            if "encoding" in known:
                way_out = 'say which encoding it has with --encoding, such as cp1252 or utf-16 (encoding="cp1252")'
            raise DataError(f"{error}: {way_out}") from None


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


def open_parquet(path: Path) -> pq.ParquetFile:
    """The file, to be read or asked for its schema.

    Raises:
        DataError: it is no Parquet.
    """
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} cannot be read as Parquet: {error}") from None


def required(path: Path, names: str) -> Path:
    """As `find`, for a file that `recognises` made sure of."""
    found = find(path, names)
    if found is None:
        raise DataError(f"{path} lacks {names}")
    return found
