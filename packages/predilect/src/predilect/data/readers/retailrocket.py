"""RetailRocket: views, additions to the cart and transactions of a web shop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predilect.data.readers.base import RawTables, Reader, find, required
from predilect.data.readers.columns import distinct_items, with_categories
from predilect.data.readers.text import open_text, read_delimited

_EVENTS = {"timestamp": pa.int64(), "visitorid": pa.int64(), "event": pa.string(), "itemid": pa.int64()}
_PROPERTIES = {"timestamp": pa.int64(), "itemid": pa.int64(), "property": pa.string(), "value": pa.string()}


def read(path: Path, *, categories: bool = True) -> RawTables:
    """`event` is view, addtocart or transaction; times to the millisecond give the order, whole seconds are kept.

    There are no titles. A few hundred events are repeated exactly: `on_error="skip"` drops and counts them.

    Args:
        path: the folder.
        categories: take the latest `categoryid` of each item from `item_properties_part1.csv` and `_part2.csv`, where
            they are present (20 million rows).
    """
    rows, problems = read_delimited(required(path, "events.csv"), _EVENTS, delimiter=",", header=True)
    log = pa.table(
        {
            "user_id": rows["visitorid"],
            "item_id": rows["itemid"],
            "timestamp": pc.divide(rows["timestamp"].cast(pa.float64()), 1000),
            "event": rows["event"],
        }
    )
    items = distinct_items(log)
    parts = [find(path, f"item_properties_part{i}.csv") for i in (1, 2)] if categories else []
    found = []
    for part in parts:
        if part is not None:
            table, more = read_delimited(part, _PROPERTIES, delimiter=",", header=True, table="items")
            found.append(table.filter(pc.equal(table["property"], "categoryid")))
            problems += more
    if found:
        values = pa.concat_tables(found).sort_by([("itemid", "ascending"), ("timestamp", "ascending")])
        item = values["itemid"].to_numpy()
        latest = values.take(pa.array(np.flatnonzero(np.append(item[1:] != item[:-1], True))))
        items = with_categories(items, latest["itemid"], latest["value"])
    return RawTables(log, items, problems)


def _recognises(path: Path) -> bool:
    events = find(path, "events.csv")
    if events is None:
        return False
    with open_text(events) as file:
        return file.readline().strip() == b"timestamp,visitorid,event,itemid,transactionid"


RETAILROCKET = Reader(
    name="retailrocket",
    files=("events.csv", "item_properties_part1.csv", "item_properties_part2.csv"),
    where="https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset (CC BY-NC-SA 4.0).",
    recognises=_recognises,
    parse=read,
)
