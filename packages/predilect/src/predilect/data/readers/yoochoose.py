"""YooChoose, the RecSys Challenge 2015: clicks and buys of sessions."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from predilect.data.readers.base import RawTables, Reader, find, has_files, required
from predilect.data.readers.columns import distinct_items, seconds, with_categories
from predilect.data.readers.text import read_delimited

_CLICK_FILES = "yoochoose-clicks.dat|yoochoose-clicks.dat.gz"
_KEYS = {"user_id": pa.int64(), "time": pa.timestamp("ms", "UTC"), "item_id": pa.int64()}
_CLICKS = {**_KEYS, "category": pa.string()}
_BUYS = {**_KEYS, "price": pa.float64(), "quantity": pa.int32()}


def read(path: Path, *, buys: bool = True) -> RawTables:
    """Sessions are users; `event` is click or buy; times to the millisecond give the order, whole seconds are kept.

    An item's categories are the regular ones (1 to 12) among which it was clicked; S (special offer), 0 (missing) and
    brands say nothing about the item. There are no titles. Prices and quantities are not kept.

    Args:
        path: the folder.
        buys: read `yoochoose-buys.dat` as well, if it is there.
    """
    clicks, problems = read_delimited(required(path, _CLICK_FILES), _CLICKS, delimiter=",")
    parts = [(clicks, "click")]
    bought = find(path, "yoochoose-buys.dat|yoochoose-buys.dat.gz")
    if buys and bought is not None:
        rows, more = read_delimited(bought, _BUYS, delimiter=",")
        parts.append((rows, "buy"))
        problems += more
    log = pa.concat_tables(
        pa.table(
            {
                "user_id": rows["user_id"],
                "item_id": rows["item_id"],
                "timestamp": seconds(rows["time"]),
                "event": pa.repeat(event, len(rows)),
            }
        )
        for rows, event in parts
    )
    regular = clicks.filter(pc.is_in(clicks["category"], value_set=pa.array([str(i) for i in range(1, 13)])))
    return RawTables(log, with_categories(distinct_items(log), regular["item_id"], regular["category"]), problems)


YOOCHOOSE = Reader(
    name="yoochoose",
    files=("yoochoose-clicks.dat", "yoochoose-buys.dat"),
    where="https://www.kaggle.com/datasets/chadgostopp/recsys-challenge-2015 (CC BY-NC-ND 4.0).",
    recognises=has_files(_CLICK_FILES),
    parse=read,
)
