"""ZhihuRec's own log, and the rows that DreamRec published (of Zhihu, and in the same form YooChoose, KuaiRec)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predilect.data.readers.base import RawTables, Reader, find, has_files, open_parquet, required
from predilect.data.readers.text import read_delimited
from predilect.data.schema import DataError

_LOG = "inter_impression.csv|inter_impression.csv.gz"
_IMPRESSIONS = {"user_id": pa.int64(), "item_id": pa.int64(), "shown": pa.int64(), "clicked": pa.int64()}
_PARTS = {
    "train": "train.parquet|train_data.parquet",
    "validation": "val.parquet|val_data.parquet",
    "test": "test.parquet|test_data.parquet",
}


def read_zhihurec(path: Path) -> RawTables:
    """Clicks on answers: `inter_impression.csv` has user, answer, time shown, time clicked (0: not), no header.

    Impressions without a click are left out. The data has no titles.
    """
    rows, problems = read_delimited(required(path, _LOG), _IMPRESSIONS, delimiter=",")
    rows = rows.filter(pc.greater(rows["clicked"], 0))
    log = {"user_id": rows["user_id"], "item_id": rows["item_id"], "timestamp": rows["clicked"]}
    return RawTables(pa.table({**log, "event": pa.repeat("click", len(rows))}), None, problems)


def read_dreamrec(path: Path) -> RawTables:
    """Rebuild the log from rows of `seq` (the last items, padded on the right), `len_seq`, `next`.

    There is one row per prefix of a sequence, in order; a row whose `seq` is all padding starts a new sequence (its
    `len_seq` is 1, a quirk of the files). Each sequence becomes a user, each row's `next` an interaction; `split` says
    which file it came from, and its place over all files stands for the time. With
    `split("official", max_history=10, min_history=0)` the published rows come back. There are no titles.

    Raises:
        DataError: a row is not the window of its sequence; names file and row.
    """
    padding = _padding(path)
    tables, users, rows = [], 0, 0
    for split, names in _PARTS.items():
        file = required(path, names)
        table = open_parquet(file).read(["seq", "next"])
        item = table["next"].to_numpy().astype(np.int64)
        seq = np.asarray(pc.list_flatten(table["seq"])).reshape(len(item), -1)
        user, bad = _rebuild(seq, item, padding)
        if bad >= 0:
            raise DataError(
                f"{file.name} row {bad + 1}: seq {seq[bad].tolist()} is not what the rows before it add up to"
            )
        columns = {"user_id": user + users, "item_id": item, "timestamp": np.arange(rows, rows + len(item))}
        tables.append(pa.table(columns).append_column("split", pa.repeat(split, len(item))))
        users, rows = users + int(user[-1]) + 1, rows + len(item)
    return RawTables(pa.concat_tables(tables))


def _padding(path: Path) -> int:
    """The padding id is the number of items, since ids are 0..item_num - 1."""
    described = required(path, "statistics.json|data_statis.json")
    return int(json.loads(described.read_text(encoding="utf-8"))["item_num"])


def _rebuild(seq: np.ndarray, item: np.ndarray, padding: int) -> tuple[np.ndarray, int]:
    """Sequence number of each row, and the first row whose window does not fit (-1: all fit)."""
    starts = (seq == padding).all(axis=1)
    if not starts[0]:
        return np.zeros(len(item), dtype=np.int64), 0
    user = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)[user]
    width = seq.shape[1]
    length = np.minimum(np.arange(len(item)) - first, width)
    column = np.arange(width)[None, :]
    source = np.arange(len(item))[:, None] - length[:, None] + column
    expected = np.where(column < length[:, None], item[np.minimum(source, len(item) - 1)], padding)
    wrong = np.flatnonzero((expected != seq).any(axis=1))
    return user, int(wrong[0]) if len(wrong) else -1


def _is_dreamrec(path: Path) -> bool:
    if not has_files(*_PARTS.values(), "statistics.json|data_statis.json")(path):
        return False
    train = find(path, _PARTS["train"])
    return train is not None and {"seq", "next"} <= set(open_parquet(train).schema_arrow.names)


ZHIHUREC = Reader(
    name="zhihurec",
    files=("inter_impression.csv",),
    where="https://github.com/THUIR/ZhihuRec-Dataset (ZhihuRec-1M, -20M or -100M; research use only).",
    recognises=has_files(_LOG),
    parse=read_zhihurec,
)
DREAMREC = Reader(
    name="dreamrec",
    files=("train.parquet", "val.parquet", "test.parquet", "statistics.json"),
    where=(
        "https://github.com/YangZhengyi98/DreamRec, folder data. The authors publish pickles (*_data.df), "
        "which Predilect does not open: convert files that you trust with pandas.read_pickle(...).to_parquet(...), "
        'and write {"seq_size": ..., "item_num": ...} to statistics.json.'
    ),
    recognises=_is_dreamrec,
    parse=read_dreamrec,
)
