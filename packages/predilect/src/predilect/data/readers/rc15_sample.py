"""The sample of RecSys Challenge 2015 with clicks and purchases that GAN-RL's authors prepared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predilect.data.readers.base import RawTables, Reader, find, required
from predilect.data.readers.columns import distinct_items
from predilect.data.readers.text import first_fields, read_delimited
from predilect.data.schema import DataError, Problem

_ORIGINAL = "rsc.txt|rsc.txt.gz"
_EVENTS = "events.csv|events.csv.gz"
_ORIGINAL_HEADER = ["SessionId", "Time", "ItemId", "is_click", "raw_index"]
_EVENTS_HEADER = ["session_id", "event_index", "item_id", "event"]
_BEHAVIOURS = {0: "click", 1: "buy"}
_PARTS = {0: "train", 1: "validation", 2: "test"}
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def read(path: Path, *, original: bool = False) -> RawTables:
    """Sessions are users; `event` is click or buy, `split` the authors' parts; clicks and buys share their item ids.

    There is no clock: the order within a session is `event_index`, and sessions stand in the order of their ids, so
    that a temporal split parts them by their ids. `split("official")` keeps the authors' parts. There are no titles.

    The original file lists, for every buy, the clicks before it again; an event is taken once, by `raw_index`, and
    `is_click` = 1 is read as a buy, as the paper's positive events are.

    Source: Chen et al., "Generative Adversarial User Model for Reinforcement Learning Based Recommendation System",
    ICML 2019.

    Args:
        path: the folder, or one of the files.
        original: read `rsc.txt` where `events.csv`, which has each event once, is there as well.

    Raises:
        DataError: a number that stands for no behaviour or no part; an event that is told twice, and not alike.
    """
    events = None if original else _file(path, _EVENTS, _EVENTS_HEADER)
    if events is not None:
        log, problems = _read_events(events)
    else:
        log, problems = _read_original(required(path, _ORIGINAL))
    return RawTables(log, distinct_items(log), problems)


def _read_events(path: Path) -> tuple[pa.Table, list[Problem]]:
    kinds = {"session_id": pa.int64(), "event_index": pa.int64(), "item_id": pa.int64(), "event": pa.string()}
    parts = {"split": pa.string()} if "split" in first_fields(path, delimiter=",") else {}
    rows, problems = read_delimited(path, {**kinds, **parts}, delimiter=",", header=True)
    rows = rows.sort_by([("session_id", "ascending"), ("event_index", "ascending")])
    log = {"user_id": rows["session_id"], "item_id": rows["item_id"], "event": rows["event"]}
    if parts:
        log["split"] = _named(path, "split", rows["split"], _SPLITS)
    return pa.table(log), [*problems, *_told_twice(path, rows)]


def _told_twice(path: Path, rows: pa.Table) -> list[Problem]:
    """Rows, sorted by session and place, that repeat the place of the row before."""
    session, place = (np.asarray(rows[name].fill_null(-1).to_numpy()) for name in ("session_id", "event_index"))
    again = np.append(False, (session[1:] == session[:-1]) & (place[1:] == place[:-1]))[: len(rows)]
    found = np.flatnonzero(again)
    if not len(found):
        return []
    told = tuple(f"{path.name}: session {session[i]} has event_index {place[i]} twice" for i in found[:5])
    return [Problem("duplicate row", "error", len(found), told, rows=found)]


def _read_original(path: Path) -> tuple[pa.Table, list[Problem]]:
    names = {"SessionId": "user_id", "ItemId": "item_id", "is_click": "event", "raw_index": "place"}
    kinds = {**dict.fromkeys(names, pa.int64()), "tr_val_tst": pa.int64()}
    rows, problems = read_delimited(path, kinds, delimiter="\t", header=True)
    rows = rows.rename_columns([*names.values(), "split"])
    once = rows.group_by(rows.column_names).aggregate([]).sort_by([("user_id", "ascending"), ("place", "ascending")])
    user, place = (np.asarray(once[name].to_numpy()) for name in ("user_id", "place"))
    same = (user[1:] == user[:-1]) & (place[1:] == place[:-1])
    if same.any():
        first = int(same.argmax())
        raise DataError(
            f"{path.name} tells the event raw_index {place[first]} of session {user[first]} twice, and not alike: "
            "get the file again"
        )
    log = {
        "user_id": once["user_id"],
        "item_id": once["item_id"],
        "event": _named(path, "is_click", once["event"], _BEHAVIOURS),
        "split": _named(path, "tr_val_tst", once["split"], _PARTS),
    }
    return pa.table(log), problems


def _named(path: Path, column: str, values: pa.ChunkedArray, names: dict[int, str] | dict[str, str]) -> pa.Array:
    """The names of values.

    Raises:
        DataError: a value without a name.
    """
    encoded = pc.dictionary_encode(values, null_encoding="encode").combine_chunks()
    there = encoded.dictionary.to_pylist()
    if unknown := [value for value in there if value not in names]:
        known = ", ".join(map(str, names))
        raise DataError(f"{path.name}: {column} must be one of {known} (got {unknown[0]})")
    return pa.array([names[value] for value in there], pa.string()).take(encoded.indices)


def _file(path: Path, names: str, header: list[str]) -> Path | None:
    """The file of that name, if its first columns are these."""
    found = find(path, names)
    if found is None or (path.is_file() and found != path):
        return None
    separator = "\t" if names == _ORIGINAL else ","
    fields = [field.strip() for field in first_fields(found, delimiter=separator)]
    return found if fields[: len(header)] == header else None


def _recognises(path: Path) -> bool:
    layouts = ((_EVENTS, _EVENTS_HEADER), (_ORIGINAL, _ORIGINAL_HEADER))
    return any(_file(path, names, header) is not None for names, header in layouts)


RC15_SAMPLE = Reader(
    name="rc15-sample",
    files=("events.csv (session_id, event_index, item_id, event)", "or rsc.txt (SessionId, Time, ItemId, is_click)"),
    where="https://github.com/xinshi-chen/GenerativeAdversarialUserModel (data: YOOCHOOSE, CC BY-NC-ND 4.0).",
    recognises=_recognises,
    parse=read,
)
