"""A person's own log and item table: CSV, TSV, Parquet or JSON lines, with any column names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from predilect.data.readers.base import (
    BrokenLines,
    RawTables,
    Reader,
    cast_text,
    read_delimited,
    read_lines,
    seconds,
    split_text,
)
from predilect.data.schema import DataError, Problem

_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".jsonl", ".jsonl.gz")
_LOGS = ("interactions", "ratings", "reviews", "events", "log", "clicks", "transactions", "purchases")
_ITEMS = ("items", "movies", "games", "books", "products", "artists", "songs", "videos", "catalogue", "catalog")
_NAMES = {
    "user_id": ("user_id", "userid", "user"),
    "item_id": ("item_id", "itemid", "item", "movieid", "movie_id", "product_id", "productid", "book_id", "artist_id"),
    "timestamp": ("timestamp", "time", "datetime", "date", "posted"),
    "rating": ("rating",),
    "event": ("event",),
    "split": ("split",),
    "title": ("title", "name"),
    "categories": ("categories", "genres", "category", "genre", "tags"),
}
_LOG_COLUMNS = ("user_id", "item_id", "timestamp", "rating", "event", "split")
_SPLITS = {"val": "validation", "valid": "validation", "dev": "validation"}


def read(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    items: str | Path | None = None,
    time_unit: str = "s",
    list_separator: str = "|",
    encoding: str = "utf-8",
) -> RawTables:
    """Read a log (and an item table) of one's own.

    In a folder the log is the file named interactions, ratings, reviews, events, log, clicks, transactions or
    purchases, the item table the one named items, movies, games, books, products, ...; both as .csv, .tsv (.gz
    allowed), .parquet or .jsonl (.gz allowed). Columns with the usual names (user_id, userId, user; item_id, movieId;
    timestamp, time, date; title, name; genres, categories, ...) are found without help, in any case.

    Args:
        path: the folder, or the log.
        columns: Predilect's name -> your name, for `user_id`, `item_id`, `timestamp`, `rating`, `event`, `split`,
            `title`, `categories`. Only user and item are needed; without a time the order of the rows is the order of
            events.
        items: the item table, if it has another name or stands elsewhere.
        time_unit: "s" or "ms", for times that are numbers; dates and ISO 8601 text are understood as well (UTC).
        list_separator: between the categories of an item.
        encoding: of text files.

    Raises:
        DataError: no log, or several; a column that is not there.
    """
    if time_unit not in ("s", "ms"):
        raise ValueError(f'time_unit must be "s" or "ms" (got {time_unit!r})')
    if unknown := sorted(set(columns or ()) - set(_NAMES)):
        raise DataError(f"columns maps {', '.join(_NAMES)} to your names (got {', '.join(unknown)})")
    source = path if path.is_file() else _pick(path, _LOGS)
    if source is None:  # `recognises` makes sure of it
        raise DataError(f"{path} holds no log")
    log, problems = _read_any(source, encoding, "interactions")
    names = _find_columns(log, source, columns or {}, _LOG_COLUMNS)
    log = log.select(list(names.values())).rename_columns(list(names))
    log, more = _typed(log, time_unit)
    described = Path(items) if items is not None else _pick(source.parent, _ITEMS) if path.is_dir() else None
    if items is not None and described is not None and not described.is_absolute():
        described = source.parent / described
    if described is None:
        return RawTables(log, None, [*problems, *more])
    table, found = _read_any(described, encoding, "items")
    return RawTables(log, _item_table(table, described, columns or {}, list_separator), [*problems, *more, *found])


def _pick(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The one file of these names."""
    found = [folder / (n + s) for n in names for s in _SUFFIXES if (folder / (n + s)).is_file()]
    if len(found) > 1:
        raise DataError(
            f"{folder} holds {' and '.join(p.name for p in found)}: pass the path of one, items= for the other"
        )
    return found[0] if found else None


def _read_any(path: Path, encoding: str, table: Any) -> tuple[pa.Table, list[Problem]]:
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        return pq.read_table(path).replace_schema_metadata(None), []
    if kind == "jsonl":
        broken = BrokenLines(path, table)
        records = [dict(record) for _, record in read_lines(path, broken=broken)]
        return pa.Table.from_pylist(records), broken.problems()
    delimiter = "\t" if kind == "tsv" else ","
    return read_delimited(path, None, delimiter=delimiter, header=True, encoding=encoding, quoted=True, table=table)


def _find_columns(table: pa.Table, path: Path, columns: Mapping[str, str], wanted: tuple[str, ...]) -> dict[str, str]:
    """Predilect's name -> the table's name."""
    there = table.column_names
    found = {}
    for name in wanted:
        if name in columns:
            if columns[name] not in there:
                raise DataError(f"{path.name} has no column {columns[name]!r} for {name} (got {', '.join(there)})")
            found[name] = columns[name]
            continue
        usual = [c for c in there if c.lower() in _NAMES[name] and c not in columns.values()]
        if len(usual) > 1 and name not in usual and name not in ("title", "categories"):
            raise DataError(f"{path.name} has {' and '.join(usual)}: say which is {name} with columns={{...}}")
        if usual:
            found[name] = min(usual, key=lambda c: _NAMES[name].index(c.lower()))
    return found


def _typed(log: pa.Table, time_unit: str) -> tuple[pa.Table, list[Problem]]:
    """Ids and labels as text, ratings and times as numbers; values that are none are reported as broken."""
    problems = []
    for place, name in enumerate(log.column_names):
        column = log[name]
        bad = np.zeros(len(log), dtype=bool)
        if name == "timestamp":
            column, bad = _to_seconds(column, time_unit)
        elif name == "rating":
            column, bad = cast_text(column.cast(pa.string()), pa.float64())
        elif not pa.types.is_integer(column.type):
            column = column.cast(pa.string())
        if bad.any():
            rows = np.flatnonzero(bad)
            told = tuple(f"row {r + 1}: {name} {log[name][int(r)].as_py()!r}" for r in rows[:5])
            problems.append(Problem(f"unreadable {name}", "error", len(rows), told, "interactions", rows))
        log = log.set_column(place, name, column)
    if "split" in log.column_names:
        texts = log["split"].combine_chunks().dictionary_encode()
        names = pa.array([_SPLITS.get(t, t) for t in texts.dictionary.to_pylist()], pa.string())
        log = log.set_column(log.column_names.index("split"), "split", names.take(texts.indices))
    return log, problems


def _to_seconds(column: pa.ChunkedArray, time_unit: str) -> tuple[pa.ChunkedArray, np.ndarray]:
    if pa.types.is_temporal(column.type):
        return seconds(column), np.zeros(len(column), dtype=bool)
    numbers, bad = cast_text(column.cast(pa.string()), pa.float64())
    if bad.any():
        texts = column.combine_chunks().dictionary_encode()
        stamps = pa.array([_iso_seconds(t) for t in texts.dictionary.to_pylist()], pa.float64())
        times = stamps.take(texts.indices)
        numbers = pc.coalesce(times, pc.if_else(pa.array(bad), pa.scalar(None, pa.float64()), numbers))
        bad &= np.asarray(pc.is_null(times))
        return pa.chunked_array([numbers]) if isinstance(numbers, pa.Array) else numbers, bad
    return _whole(pc.divide(numbers, 1000) if time_unit == "ms" else numbers), bad


def _whole(numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return numbers.cast(pa.int64())
    except pa.ArrowInvalid:  # fractions
        return numbers


def _iso_seconds(text: str) -> float | None:
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _item_table(table: pa.Table, path: Path, columns: Mapping[str, str], separator: str) -> pa.Table:
    own = {name: theirs for name, theirs in columns.items() if name == "item_id" and theirs in table.column_names}
    own |= {name: columns[name] for name in ("title", "categories") if name in columns}
    names = _find_columns(table, path, own, ("item_id", "title", "categories"))
    back = {theirs: name for name, theirs in names.items()}
    table = table.rename_columns([back.get(c, c) for c in table.column_names])
    if "item_id" in names and not pa.types.is_integer(table["item_id"].type):
        table = table.set_column(table.column_names.index("item_id"), "item_id", table["item_id"].cast(pa.string()))
    if "categories" in names and not pa.types.is_list(table["categories"].type):
        lists = split_text(table["categories"].cast(pa.string()), separator)
        table = table.set_column(table.column_names.index("categories"), "categories", lists)
    return table


def _recognises(path: Path) -> bool:
    return path.name.endswith(_SUFFIXES) if path.is_file() else _pick(path, _LOGS) is not None


TABLE = Reader(
    name="table",
    files=("ratings.csv (or interactions, reviews, events, ...)", "items.csv (or movies, games, books, ...)"),
    where="your own files: CSV, TSV, Parquet or JSON lines; `columns` maps other names.",
    recognises=_recognises,
    parse=read,
)
