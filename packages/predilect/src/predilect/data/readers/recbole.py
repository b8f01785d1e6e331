"""RecBole's atomic files: `NAME.inter` and `NAME.item` with typed headers such as `item_id:token`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from predilect.data.readers.base import RawTables, Reader, find
from predilect.data.readers.columns import split_text
from predilect.data.readers.text import open_text, read_delimited
from predilect.data.schema import DataError, Problem

_KINDS = {"token": pa.string(), "token_seq": pa.string(), "float": pa.float64(), "float_seq": pa.string()}
_TITLES = ("title", "movie_title", "item_name", "name", "product_name", "app_name", "artist_name")
_CATEGORIES = ("genre", "genres", "class", "categories", "category")
_PARTS = {"train": "train", "valid": "validation", "test": "test"}


def read(path: Path, *, title: str | None = None, categories: str | None = None) -> RawTables:
    """One interaction per line of the `.inter` file; `NAME.train.inter`, `.valid.inter`, `.test.inter` give `split`.

    Args:
        path: the folder, or one `.inter` file.
        title: the `.item` field that holds the title; None: the first of title, movie_title, item_name, name, ...
        categories: the field that holds categories, separated by spaces; None: the first of genre, genres, class, ...

    Raises:
        DataError: no `user_id` or `item_id` field (files of ready-made sequences, `item_id_list`, are not read).
    """
    files = [path] if path.is_file() else sorted(path.glob("*.inter"))
    parts = {_PARTS[f.suffixes[-2][1:]]: f for f in files if len(f.suffixes) > 1 and f.suffixes[-2][1:] in _PARTS}
    if not parts and len(files) > 1:
        raise DataError(f"{path} holds {len(files)} logs ({', '.join(f.name for f in files)}): name one of them")
    problems: list[Problem] = []
    logs = []
    for split, file in (parts or {"": files[0]}).items():
        rows, found = _fields(file, "interactions")
        if missing := [c for c in ("user_id", "item_id") if c not in rows.column_names]:
            raise DataError(f"{file.name} lacks the field {', '.join(missing)} (got {', '.join(rows.column_names)})")
        rows = rows.select([c for c in ("user_id", "item_id", "timestamp", "rating") if c in rows.column_names])
        logs.append(rows.append_column("split", pa.repeat(split, len(rows))) if split else rows)
        problems += found
    described = find(path, f"{files[0].name.split('.')[0]}.item")
    if described is None:
        return RawTables(pa.concat_tables(logs), None, problems)
    items, found = _fields(described, "items")
    return RawTables(pa.concat_tables(logs), _name(items, title, categories), problems + found)


def _fields(path: Path, table: str) -> tuple[pa.Table, list[Problem]]:
    """The table with plain names; fields have the type that the header says."""
    with open_text(path) as file:
        header = file.readline().decode(errors="replace").rstrip("\r\n").split("\t")
    kinds = {field: _KINDS.get(field.rpartition(":")[2]) for field in header}
    if unknown := [field for field, kind in kinds.items() if kind is None]:
        raise DataError(f"{path.name} has fields without a type {', '.join(_KINDS)} (got {', '.join(unknown)})")
    rows, problems = read_delimited(path, kinds, delimiter="\t", header=True, table=table)  # type: ignore[arg-type]
    return rows.rename_columns([field.rpartition(":")[0] for field in header]), problems


def _name(items: pa.Table, title: str | None, categories: str | None) -> pa.Table:
    there = items.column_names
    for wanted in (title, categories):
        if wanted is not None and wanted not in there:
            raise DataError(f"the item file lacks the field {wanted} (got {', '.join(there)})")
    title = title or next((f for f in _TITLES if f in there), None)
    categories = categories or next((f for f in _CATEGORIES if f in there), None)
    if categories is not None:
        lists = split_text(items[categories], " ")
        items = items.drop_columns(categories).append_column("categories", lists)
    return items.rename_columns(["title" if c == title else c for c in items.column_names])


def _recognises(path: Path) -> bool:
    return path.suffix == ".inter" if path.is_file() else any(path.glob("*.inter"))


RECBOLE = Reader(
    name="recbole",
    files=("NAME.inter", "NAME.item"),
    where="https://recbole.io/dataset_list.html, or written by RecBole's conversion tools.",
    recognises=_recognises,
    parse=read,
)
