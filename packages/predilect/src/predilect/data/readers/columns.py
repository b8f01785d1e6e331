"""Columns of text as numbers, times and lists, and what readers make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_DECIMAL_COMMA = r"^[+-]?\d+(,\d+)?$"


def cast_text(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Text as `kind`; empty text is null; second, which values are neither empty nor of that kind (null as well).

    A column whose numbers are all whole or have a decimal comma ("4,5") is read as such.
    """
    column = pc.utf8_trim_whitespace(column)
    column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    try:
        return column.cast(kind), np.zeros(len(column), dtype=bool)
    except pa.ArrowInvalid:
        pass
    if pa.types.is_floating(kind) and pc.all(pc.match_substring_regex(column, _DECIMAL_COMMA)).as_py():
        return pc.replace_substring(column, ",", ".").cast(kind), np.zeros(len(column), dtype=bool)
    encoded = column.combine_chunks().dictionary_encode()
    values = pa.array([_cast_one(text, kind) for text in encoded.dictionary], kind)
    cast = pa.chunked_array([values.take(encoded.indices)])
    return cast, np.asarray(pc.and_(pc.is_valid(column), pc.is_null(cast)).to_numpy())


def _cast_one(text: pa.StringScalar, kind: pa.DataType) -> Any:
    try:
        return text.cast(kind).as_py()
    except pa.ArrowInvalid:
        return None


def kind_in_words(kind: pa.DataType) -> str:
    """What a value of the type is called in a message."""
    if pa.types.is_temporal(kind):
        return "time"
    return "whole number" if pa.types.is_integer(kind) else "number"


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
