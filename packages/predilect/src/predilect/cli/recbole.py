"""Write a data set as RecBole's atomic files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

if TYPE_CHECKING:
    from predilect.data import RecDataset

_PARTS = {"train": "train", "validation": "valid", "test": "test"}


def write_recbole(data: RecDataset, folder: Path) -> None:
    """Write `NAME.item`, and `NAME.inter` or, where the data has a split, `NAME.{train,valid,test}.inter`.

    Items keep their raw ids, users their dense ones. The format separates fields by tabs and words by spaces and has
    no escape: tabs and line ends in a title become a space, spaces in a category become `_`. An `event` column is not
    part of the format and is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = data.interactions.with_format("arrow")[:]
    raw = pa.array([_plain(r) for r in data.catalogue.raw_ids])
    table = pa.table(
        {
            "user_id:token": log["user_id"].cast(pa.string()),
            "item_id:token": raw.take(pc.subtract(log["item_id"].combine_chunks(), 1)),
            "rating:float": log["rating"],
            "timestamp:float": log["timestamp"],
        }
    )
    if "split" in log.column_names:
        for part, suffix in _PARTS.items():
            _write(table.filter(pc.equal(log["split"], part)), folder / f"{data.name}.{suffix}.inter")
    else:
        _write(table, folder / f"{data.name}.inter")
    items = {
        "item_id:token": raw,
        "title:token_seq": [_plain(t) for t in data.catalogue.titles],
        "genre:token_seq": [" ".join("_".join(c.split()) for c in cs) for cs in data.catalogue.categories],
    }
    _write(pa.table(items), folder / f"{data.name}.item")


def _plain(text: str) -> str:
    return " ".join(text.split())


def _write(table: pa.Table, path: Path) -> None:
    with path.open("wb") as file:
        file.write(("\t".join(table.column_names) + "\n").encode())
        options = pcsv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
        pcsv.write_csv(table, file, options)
