"""A person's own log and item table: text with separators, JSON or Parquet, with any column names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predilect.data.readers.base import RawTables, Reader, open_parquet
from predilect.data.readers.columns import cast_text, distinct_items, seconds, split_text
from predilect.data.readers.text import (
    BrokenLines,
    first_fields,
    open_text,
    read_array,
    read_delimited,
    read_lines,
    require_distinct,
    require_header,
)
from predilect.data.schema import DataError, Problem

_KINDS = ("csv", "tsv", "txt", "parquet", "jsonl", "ndjson", "json")
_SUFFIXES = tuple(f".{kind}{packed}" for kind in _KINDS for packed in ("", ".gz"))
_LOGS = ("interactions", "ratings", "reviews", "events", "log", "clicks", "transactions", "purchases")
_ITEMS = ("items", "movies", "games", "books", "products", "artists", "songs", "videos", "catalogue", "catalog")
_NAMES = {
    "user_id": ("user_id", "userid", "user"),
    "item_id": ("item_id", "itemid", "item", "movieid", "movie_id", "product_id", "productid", "book_id", "artist_id"),
    "timestamp": ("timestamp", "time", "datetime", "date", "posted"),
    "rating": ("rating",),
    "event": ("event",),
    "split": ("split",),
    "title": (
        "title",
        "item_title",
        "item_name",
        "movie_title",
        "book_title",
        "product_title",
        "product_name",
        "name",
    ),
    "categories": ("categories", "genres", "category", "genre", "tags"),
}
_LOG_COLUMNS = ("user_id", "item_id", "timestamp", "rating", "event", "split")
_ITEM_COLUMNS = ("title", "categories")
_SPLITS = {"val": "validation", "valid": "validation", "dev": "validation"}
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_SEPARATORS = {"tab": "\t", r"\t": "\t", "space": " "}


def read(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    items: str | Path | None = None,
    time_unit: str = "s",
    list_separator: str = "|",
    separator: str | None = None,
    encoding: str = "utf-8",
) -> RawTables:
    """Read a log (and an item table) of one's own.

    In a folder the log is the file named interactions, ratings, reviews, events, log, clicks, transactions or
    purchases, the item table the one named items, movies, games, books, products, ...; both as text (.csv, .tsv,
    .txt), JSON lines or an array of objects (.jsonl, .ndjson, .json; all gzipped or not) or .parquet. Columns with the
    usual names (user_id, userId, user; item_id, movieId; timestamp, time, date; title, name; genres, categories, ...)
    are found without help, in any case. Where there is no item table, titles and categories in the log are taken: an
    item's first ones.

    Args:
        path: the folder, or the log.
        columns: Predilect's name -> your name, for `user_id`, `item_id`, `timestamp`, `rating`, `event`, `split`,
            `title`, `categories`; an empty name leaves a column out. Only user and item are needed; without a time the
            order of the rows is the order of events. In a text without a header, the columns' numbers from 1 are
            their names. `title` may be the column that is `item_id`, where ids are titles.
        items: the item table, if it has another name or stands elsewhere.
        time_unit: "s", "ms", "us" or "ns", for times that are numbers; dates and ISO 8601 text are understood as well
            (UTC).
        list_separator: between the categories of an item.
        separator: between the columns of a text: one character, "tab", "space" or "::"; None: found from the first
            lines.
        encoding: of text files; UTF-16 and UTF-8 that begin with a byte-order mark are known by it.

    Raises:
        DataError: no log, or several; a column that is not there, or stands there twice, or is empty; no text.
    """
    if time_unit not in _UNITS:
        raise ValueError(f"time_unit must be one of {', '.join(_UNITS)} (got {time_unit!r})")
    if unknown := sorted(set(columns or ()) - set(_NAMES)):
        raise DataError(f"columns maps {', '.join(_NAMES)} to your names (got {', '.join(unknown)})")
    source = path if path.is_file() else _pick(path, _LOGS)
    if source is None:  # `recognises` makes sure of it
        raise DataError(f"{path} holds no log")
    text = _Text(_separator(separator), encoding)
    own = dict(columns or {})
    own, header = _numbered(source, own, text)
    table, problems = text.read(source, "interactions", header=header)
    names = _find_columns(table, source, own, _LOG_COLUMNS)
    _require_ids(table, source, names)
    log, more = _typed(pa.table({name: table[theirs] for name, theirs in names.items()}), source, names, time_unit)
    problems += more
    described = Path(items) if items is not None else _pick(source.parent, _ITEMS) if path.is_dir() else None
    if items is not None and described is not None and not described.is_absolute():
        described = source.parent / described
    if described is not None:
        found, more = text.read(described, "items")
        return RawTables(log, _item_table(found, described, own, list_separator), [*problems, *more])
    described_by = _find_columns(table, source, own, _ITEM_COLUMNS, without=("name",))
    if not described_by:
        return RawTables(log, None, [*problems, *_untitled(log, names["item_id"])])
    described_items, more = _items_of_log(log["item_id"], table, described_by, list_separator)
    return RawTables(log, described_items, [*problems, *more])


def _pick(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The one file of these names."""
    found = [folder / (n + s) for n in names for s in _SUFFIXES if (folder / (n + s)).is_file()]
    if len(found) > 1:
        raise DataError(
            f"{folder} holds {' and '.join(p.name for p in found)}: pass the path of one, items= for the other"
        )
    return found[0] if found else None


def _kind(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[2]


@dataclass(frozen=True)
class _Text:
    """How files of text are read."""

    separator: str | None
    encoding: str

    def read(
        self, path: Path, table: Literal["interactions", "items"], *, header: bool = True
    ) -> tuple[pa.Table, list[Problem]]:
        """The columns of a file of any kind; what is no Parquet and no JSON is a text with separators."""
        if not path.is_file():
            raise DataError(f"there is no file {path}")
        if _kind(path) == "parquet":
            return _read_parquet(path), []
        if _kind(path) in ("jsonl", "ndjson", "json"):
            return self._read_json(path, table)
        options = {"delimiter": self.separator, "encoding": self.encoding, "quoted": True}
        return read_delimited(path, None, header=header, table=table, **options)  # type: ignore[arg-type]

    def _read_json(self, path: Path, table: Literal["interactions", "items"]) -> tuple[pa.Table, list[Problem]]:
        with open_text(path, self.encoding) as file:
            array = next((line.lstrip()[:1] == b"[" for line in file if line.strip()), None)
        if array is None:
            raise DataError(f"{path.name} is empty")
        broken = BrokenLines(path, table, "record" if array else "line")
        read = read_array if array else read_lines
        records = [record for _, record in read(path, encoding=self.encoding, broken=broken)]
        names = dict.fromkeys(name for record in records for name in record)
        if not names:
            raise DataError(f"{path.name} holds no record:\n" + "\n".join(p.examples[0] for p in broken.problems()))
        return pa.table({name: _column([r.get(name) for r in records]) for name in names}), broken.problems()


def _column(values: list[Any]) -> pa.Array:
    """Values of several kinds become text."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def _read_parquet(path: Path) -> pa.Table:
    table = open_parquet(path).read().replace_schema_metadata(None)
    require_distinct(table.column_names, path)
    return table


def _separator(given: str | None) -> str | None:
    separator = None if given is None else _SEPARATORS.get(given, given)
    if separator is not None and separator != "::" and (len(separator) != 1 or separator in '"\r\n'):
        raise DataError(f"the separator is one character, tab, space or :: (got {given!r})")
    return separator


def _numbered(path: Path, columns: dict[str, str], text: _Text) -> tuple[dict[str, str], bool]:
    """Your names for ours, with names for numbers of columns; and whether a text's first line is a header."""
    numbers = [theirs for theirs in columns.values() if theirs.isdecimal()]
    if not numbers or _kind(path) not in ("csv", "tsv", "txt"):
        return columns, True
    fields = [field.strip() for field in first_fields(path, delimiter=text.separator, encoding=text.encoding)]
    places = [str(place) for place in range(len(fields) + 1)]
    if fields in (places[1:], places[:-1]):  # a header of numbers
        return columns, True
    if over := [n for n in numbers if not 1 <= int(n) <= len(fields)]:
        raise DataError(f"{path.name} has the columns 1 to {len(fields)} (got {', '.join(over)})")
    if not any(field.lower() in names for field in fields for names in _NAMES.values()):
        return columns, False
    return {ours: fields[int(n) - 1] if n in numbers else n for ours, n in columns.items()}, True


def _find_columns(
    table: pa.Table, path: Path, columns: Mapping[str, str], wanted: Sequence[str], without: Sequence[str] = ()
) -> dict[str, str]:
    """Predilect's name -> the table's name; names that are usual elsewhere may be left out."""
    there = table.column_names
    found = {}
    for name in wanted:
        if name in columns:
            if columns[name] not in ("", *there):
                raise DataError(f"{path.name} has no column {columns[name]!r} for {name} (got {', '.join(there)})")
            if columns[name]:
                found[name] = columns[name]
            continue
        names = [n for n in _NAMES[name] if n not in without]
        usual = [c for c in there if c.lower() in names and c not in columns.values()]
        if len(usual) > 1 and name not in usual and name not in _ITEM_COLUMNS:
            raise DataError(
                f"{path.name} has {' and '.join(usual)}: say which is {name} with --column {name}=... "
                f'(columns={{"{name}": ...}})'
            )
        if usual:
            found[name] = min(usual, key=lambda c: names.index(c.lower()))
    return found


def _require_ids(table: pa.Table, path: Path, names: Mapping[str, str]) -> None:
    missing = [name for name in ("user_id", "item_id") if name not in names]
    if not missing:
        return
    there = ", ".join(table.column_names)
    way_out = f'name yours with --column {missing[0]}=... (columns={{"{missing[0]}": ...}})'
    require_header(table.column_names, path)
    raise DataError(f"{path.name} lacks the column {', '.join(missing)} (got {there}): {way_out}")


def _typed(log: pa.Table, path: Path, names: Mapping[str, str], time_unit: str) -> tuple[pa.Table, list[Problem]]:
    """Ids and labels as text, ratings and times as numbers; values that are none are reported as broken."""
    problems = []
    for place, name in enumerate(log.column_names):
        column, bad = log[name], np.zeros(len(log), dtype=bool)
        if pa.types.is_nested(column.type):
            raise DataError(f"the column {names[name]!r} of {path.name}, read as {name}, holds lists or objects")
        if name == "timestamp":
            column, bad = _to_seconds(column, time_unit)
        elif name == "rating":
            column, bad = cast_text(column.cast(pa.string()), pa.float64())
        else:
            column = _labels(column)
        if name in ("timestamp", "rating"):
            if len(log) and column.null_count == len(log) and not bad.any():
                raise DataError(
                    f"the column {names[name]!r} of {path.name}, read as {name}, is empty throughout: leave it out "
                    f'with --column {name}= (columns={{"{name}": ""}}), or name another'
                )
            problems += _decimal_commas(log[name], column, name)
        if bad.any():
            rows = np.flatnonzero(bad)
            told = tuple(f"row {r + 1}: {name} {log[name][int(r)].as_py()!r}" for r in rows[:5])
            problems.append(Problem(f"unreadable {name}", "error", len(rows), told, "interactions", rows))
        log = log.set_column(place, name, column)
    if "split" in log.column_names:
        texts = log["split"].combine_chunks().dictionary_encode()
        names_of_parts = pa.array([_SPLITS.get(t, t) for t in texts.dictionary.to_pylist()], pa.string())
        log = log.set_column(log.column_names.index("split"), "split", names_of_parts.take(texts.indices))
    return log, problems


def _labels(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole numbers, also of a column of floats (which pandas makes where some are missing), or text."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        column = _whole(column)
    return column if pa.types.is_integer(column.type) else column.cast(pa.string())


def _decimal_commas(text: pa.ChunkedArray, numbers: pa.ChunkedArray, name: str) -> list[Problem]:
    if not pa.types.is_string(text.type) or not pa.types.is_floating(numbers.type):
        return []
    rows = np.flatnonzero(pc.and_(pc.match_substring(text, ","), pc.is_valid(numbers)).to_numpy())
    told = tuple(
        f"row {r + 1}: {name} {text[int(r)].as_py()!r} is read as {numbers[int(r)].as_py()}" for r in rows[:1]
    )
    return [Problem("decimal comma", "warning", len(rows), told)] if len(rows) else []


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
    return _whole(pc.divide(numbers, _UNITS[time_unit])), bad


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
    own |= {name: columns[name] for name in _ITEM_COLUMNS if name in columns}
    names = _find_columns(table, path, own, ("item_id", *_ITEM_COLUMNS))
    back = {theirs: name for name, theirs in names.items()}
    if names.get("title") == names.get("item_id", ""):  # ids that are titles
        table = table.append_column("title", table[names["title"]])
        back[names["title"]] = "item_id"
    table = table.rename_columns([back.get(c, c) for c in table.column_names])
    for name, make in (("item_id", _labels), ("categories", lambda column: _lists(column, separator))):
        if name in names:
            table = table.set_column(table.column_names.index(name), name, make(table[name]))
    return table


def _lists(column: pa.ChunkedArray, separator: str) -> pa.ChunkedArray:
    return column if pa.types.is_list(column.type) else split_text(column.cast(pa.string()), separator)


def _items_of_log(
    item: pa.ChunkedArray, table: pa.Table, names: Mapping[str, str], separator: str
) -> tuple[pa.Table, list[Problem]]:
    """The items' first titles and categories in the log; different titles of one item are a warning."""
    log = pa.table({"item_id": item})
    items, problems = distinct_items(log), []
    for name, theirs in names.items():
        texts = table[theirs] if pa.types.is_list(table[theirs].type) else table[theirs].cast(pa.string())
        told = pa.table({"item_id": item, name: texts})
        told = told.filter(
            pc.fill_null(pc.not_equal(texts, ""), False) if pa.types.is_string(texts.type) else pc.is_valid(texts)
        )
        _, first = np.unique(
            told["item_id"].combine_chunks().dictionary_encode().indices.to_numpy(), return_index=True
        )
        kept = told.take(pa.array(first))
        place = pc.index_in(items["item_id"], value_set=kept["item_id"].combine_chunks())
        column = kept[name].combine_chunks().take(place.combine_chunks())
        items = items.append_column(
            name, _lists(pa.chunked_array([column]), separator) if name == "categories" else column
        )
        if name == "title":
            problems = _several_titles(told, kept)
    return items, problems


def _several_titles(told: pa.Table, kept: pa.Table) -> list[Problem]:
    counted = told.group_by("item_id", use_threads=False).aggregate([("title", "count_distinct")])
    several = counted.filter(pc.greater(counted["title_count_distinct"], 1)).to_pylist()
    titles = dict(zip(*(kept[c].to_pylist() for c in ("item_id", "title")), strict=True)) if several else {}
    examples = tuple(
        f"item {item!r} has {count} titles: the first is kept, {titles[item]!r}"
        for item, count in (row.values() for row in several[:5])
    )
    return [Problem("several titles of one item", "warning", len(several), examples, "items")] if several else []


def _untitled(log: pa.Table, item: str) -> list[Problem]:
    """Says what to do where ids look like titles."""
    ids = pc.unique(log["item_id"])
    if not pa.types.is_string(ids.type) or not pc.any(pc.match_substring_regex(ids, r"\p{L}\p{L}")).as_py():
        return []
    way_out = f'if the ids are titles, say so with --column title={item} (columns={{"title": {item!r}}})'
    return [Problem("no titles", "warning", 1, (f"there is no item table; {way_out}",))]


def _recognises(path: Path) -> bool:
    return path.name.endswith(_SUFFIXES) if path.is_file() else _pick(path, _LOGS) is not None


TABLE = Reader(
    name="table",
    files=("ratings.csv (or interactions, reviews, events, ...)", "items.csv (or movies, games, books, ...)"),
    where="your own files: text with any separator (.csv, .tsv, .txt), JSON or Parquet; `columns` maps other names.",
    recognises=_recognises,
    parse=read,
)
