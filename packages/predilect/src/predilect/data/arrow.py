"""Between `datasets.Dataset`, Arrow tables and numpy columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from datasets import Dataset


def as_dataset(table: pa.Table) -> Dataset:
    """An in-memory dataset over `table`, without a copy."""
    from datasets import Dataset
    from datasets.table import InMemoryTable

    return Dataset(InMemoryTable(table))


def as_table(rows: Dataset | pa.Table) -> pa.Table:
    """The rows as an Arrow table without metadata; a dataset's shuffling and selection are applied."""
    if isinstance(rows, pa.Table):
        return rows
    table = rows.with_format("arrow")[:]
    return table.replace_schema_metadata(None)


def numpy_column(rows: Dataset | pa.Table, name: str) -> np.ndarray:
    """One column as a numpy array."""
    column: np.ndarray = as_table(rows.select_columns([name]) if not isinstance(rows, pa.Table) else rows)[
        name
    ].to_numpy()
    return column


def list_column(values: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """Lists of the given lengths, cut from `values` one after the other."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def sorted_ids(raw: pa.Array) -> pa.Array:
    """The distinct ids, by number if all are numbers, else by text: an id's place says nothing about its use."""
    distinct = pc.drop_null(pc.unique(raw))
    if pa.types.is_integer(distinct.type):
        return distinct.take(pc.array_sort_indices(distinct))
    try:
        numbers = distinct.cast(pa.int64())
    except pa.ArrowInvalid:
        return distinct.take(pc.array_sort_indices(distinct))
    keys = pa.table({"number": numbers, "text": distinct})
    return distinct.take(pc.sort_indices(keys, [("number", "ascending"), ("text", "ascending")]))


def positions(raw: pa.ChunkedArray | pa.Array, ids: pa.Array) -> np.ndarray:
    """The place of every value in `ids`, int64; -1 where it is null or not among them."""
    found = pc.fill_null(pc.index_in(raw, value_set=ids, skip_nulls=True), -1)
    return np.asarray(found.to_numpy()).astype(np.int64)
