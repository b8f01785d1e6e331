"""KuaiRec 2.0: videos watched, with the share of the video that was played."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from predilect.data.readers.base import RawTables, Reader, find, required
from predilect.data.readers.columns import distinct_items
from predilect.data.readers.text import read_delimited

_LOG = {"user_id": pa.int32(), "video_id": pa.int32(), "timestamp": pa.float64(), "watch_ratio": pa.float64()}
_CAPTIONS = {
    "video_id": pa.int32(),
    "caption": pa.string(),
    **{f"{level}_level_category_name": pa.string() for level in ("first", "second", "third")},
}
_CATEGORIES = {"video_id": pa.int32(), "feat": pa.string()}


def read(path: Path, *, matrix: str = "big", min_watch_ratio: float = 0.0, titles: bool = True) -> RawTables:
    """Rating = watch ratio (time played / length; above 1 if a video was repeated).

    Videos without a caption, rows without a time (in the small matrix) and repeated rows are errors:
    `on_error="skip"` drops and counts them. Some captions break their line in the published file.

    Args:
        path: the folder.
        matrix: "big" (`big_matrix.csv`, sparse) or "small" (`small_matrix.csv`, fully observed).
        min_watch_ratio: rows with a smaller ratio are left out.
        titles: take titles and names of categories from `kuairec_caption_category.csv`, where it is present; otherwise
            there are no titles, and the category numbers of `item_categories.csv`.
    """
    if matrix not in ("big", "small"):
        raise ValueError(f'matrix must be "big" or "small" (got {matrix!r})')
    rows, problems = read_delimited(required(path, f"{matrix}_matrix.csv"), _LOG, delimiter=",", header=True)
    rows = rows.filter(pc.greater_equal(rows["watch_ratio"], min_watch_ratio))
    log = rows.rename_columns(["user_id", "item_id", "timestamp", "rating"])
    captions, numbers = find(path, "kuairec_caption_category.csv"), find(path, "item_categories.csv")
    if titles and captions is not None:
        found, more = read_delimited(captions, _CAPTIONS, delimiter=",", header=True, quoted=True, table="items")
        names = [_known(found[c]) for c in found.column_names[2:]]
        lists = pc.split_pattern(pc.binary_join_element_wise(*names, "|", null_handling="skip"), "|")
        items = pa.table({"item_id": found["video_id"], "title": _known(found["caption"]), "categories": lists})
    elif numbers is not None:
        found, more = read_delimited(numbers, _CATEGORIES, delimiter=",", header=True, quoted=True, table="items")
        lists = pc.split_pattern_regex(pc.utf8_trim(found["feat"], "[]"), r",\s*")
        items = pa.table({"item_id": found["video_id"], "categories": lists})
    else:
        items, more = distinct_items(log), []
    return RawTables(log, items, problems + more)


def _known(column: pa.ChunkedArray) -> pa.ChunkedArray:
    unknown = pc.or_(pc.equal(column, "UNKNOWN"), pc.equal(column, ""))
    return pc.if_else(unknown, pa.scalar(None, pa.string()), column)


def _recognises(path: Path) -> bool:
    return find(path, "big_matrix.csv|small_matrix.csv") is not None


KUAIREC = Reader(
    name="kuairec",
    files=("big_matrix.csv or small_matrix.csv", "kuairec_caption_category.csv or item_categories.csv"),
    where="https://kuairec.com (KuaiRec.zip, folder data; the captions are a separate file).",
    recognises=_recognises,
    parse=read,
)
