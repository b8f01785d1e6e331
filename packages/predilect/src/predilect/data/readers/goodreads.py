"""Goodreads (UCSD Book Graph): interactions by genre as JSON lines, or the whole log as CSV, and books."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from predilect.data.arrow import positions
from predilect.data.readers.base import RawTables, Reader, find
from predilect.data.readers.text import BrokenLines, read_delimited, read_lines
from predilect.data.schema import DataError

_JSON = "goodreads_interactions*.json.gz|goodreads_interactions*.json"
_CSV = "goodreads_interactions.csv|goodreads_interactions.csv.gz"
_BOOKS = "goodreads_books*.json.gz|goodreads_books*.json"
_CSV_TYPES = {"user_id": pa.int32(), "book_id": pa.int32(), "rating": pa.float32()}
_ID_MAP = {"book_id_csv": pa.int32(), "book_id": pa.string()}
_OFFSET = r"^(?P<clock>.*) (?P<sign>[+-])(?P<hours>\d{2})(?P<minutes>\d{2}) (?P<year>\d{4})$"


def read(path: Path) -> RawTables:
    """Shelvings as interactions, at the time when the book was added; rating 0 means that the user gave none.

    The genre files (`goodreads_interactions_poetry.json.gz`, ...) have times. The whole log
    `goodreads_interactions.csv` has none: the order of its rows is taken, and its own book numbers are translated by
    `book_id_map.csv`.
    """
    source = find(path, _JSON)
    log, problems = _from_csv(path) if source is None else _from_json(source)
    books = find(path, _BOOKS)
    if books is None:
        return RawTables(log, None, problems)
    rows, broken = _fields(books, ("book_id", "title"), "items")
    items = pa.table(rows).rename_columns(["item_id", "title"])
    return RawTables(log, items, problems + broken.problems())


def _fields(path: Path, names: tuple[str, ...], table: Any) -> tuple[dict[str, pa.Array], BrokenLines]:
    """The given fields of every line; a line without one of them is broken."""
    broken = BrokenLines(path, table)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for number, record in read_lines(path, broken=broken):
        if missing := [name for name in names if name not in record]:
            broken.add(number, f"no {', '.join(missing)}")
            continue
        for name in names:
            columns[name].append(record[name])
    kinds = {"rating": pa.float32()}
    return {name: pa.array(values, kinds.get(name, pa.string())) for name, values in columns.items()}, broken


def _from_json(path: Path) -> tuple[pa.Table, list[Any]]:
    columns, broken = _fields(path, ("user_id", "book_id", "rating", "date_added"), "interactions")
    log = {
        "user_id": columns["user_id"],
        "item_id": columns["book_id"],
        "rating": columns["rating"],
        "timestamp": _times(columns["date_added"]),
    }
    return pa.table(log), broken.problems()


def _times(text: pa.Array) -> pa.Array:
    """Unix seconds of "Fri Apr 19 08:15:15 -0700 2013"; null where the text is no such time."""
    parts = pc.extract_regex(text, _OFFSET)
    clock = pc.binary_join_element_wise(pc.struct_field(parts, "clock"), pc.struct_field(parts, "year"), " ")
    local = pc.strptime(clock, format="%a %b %d %H:%M:%S %Y", unit="s", error_is_null=True).cast(pa.int64())
    hours, minutes = (pc.struct_field(parts, part).cast(pa.int64()) for part in ("hours", "minutes"))
    offset = pc.add(pc.multiply(hours, 3600), pc.multiply(minutes, 60))
    behind = pc.equal(pc.struct_field(parts, "sign"), "-")
    return pc.if_else(behind, pc.add(local, offset), pc.subtract(local, offset))


def _from_csv(path: Path) -> tuple[pa.Table, list[Any]]:
    source, id_map = find(path, _CSV), find(path, "book_id_map.csv")
    if source is None or id_map is None:
        raise DataError(f"{path} holds goodreads_interactions.csv without book_id_map.csv, which its book ids need")
    rows, problems = read_delimited(source, _CSV_TYPES, delimiter=",", header=True)
    ids, more = read_delimited(id_map, _ID_MAP, delimiter=",", header=True, table="items")
    place = positions(rows["book_id"], ids["book_id_csv"].combine_chunks())
    item = ids["book_id"].combine_chunks().take(pa.array(place, mask=place < 0))
    return pa.table({"user_id": rows["user_id"], "item_id": item, "rating": rows["rating"]}), problems + more


def _recognises(path: Path) -> bool:
    return find(path, f"{_JSON}|{_CSV}") is not None


GOODREADS = Reader(
    name="goodreads",
    files=(
        "goodreads_interactions_*.json.gz",
        "goodreads_books_*.json.gz",
        "or goodreads_interactions.csv, book_id_map.csv",
    ),
    where="https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html (a genre's interactions and its books).",
    recognises=_recognises,
    parse=read,
)
