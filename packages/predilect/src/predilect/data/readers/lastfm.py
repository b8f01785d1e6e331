"""Last.fm of HetRec 2011 (`user_taggedartists-timestamps.dat`, `artists.dat`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predilect.data.readers.base import RawTables, Reader, has_files, required
from predilect.data.readers.text import read_delimited

_TAGS = {"userID": pa.int32(), "artistID": pa.int32(), "tagID": pa.int32(), "timestamp": pa.int64()}
_ARTISTS = {"id": pa.int32(), "name": pa.string()}


def read(path: Path) -> RawTables:
    """One interaction per user and artist: the first time the user tagged the artist.

    The play counts of `user_artists.dat` have no time, so they give no sequence; tags do, though the authors published
    the month only. Within a month the order of the file is kept. A few tagged artists are missing from `artists.dat`
    and a few times are broken (negative): load with `on_error="skip"` to drop and count them.
    """
    tags, problems = read_delimited(
        required(path, "user_taggedartists-timestamps.dat"), _TAGS, delimiter="\t", header=True
    )
    user, artist, time = (tags[c].to_numpy() for c in ("userID", "artistID", "timestamp"))
    order = np.lexsort((time, artist, user))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (user[order][1:] != user[order][:-1]) | (artist[order][1:] != artist[order][:-1])
    first = tags.take(pa.array(np.sort(order[new])))
    log = pa.table(
        {
            "user_id": first["userID"],
            "item_id": first["artistID"],
            "timestamp": pc.divide(first["timestamp"].cast(pa.float64()), 1000),
        }
    )
    artists, more = read_delimited(required(path, "artists.dat"), _ARTISTS, delimiter="\t", header=True, table="items")
    return RawTables(log, artists.rename_columns(["item_id", "title"]), problems + more)


LASTFM = Reader(
    name="lastfm",
    files=("user_taggedartists-timestamps.dat", "artists.dat"),
    where="https://grouplens.org/datasets/hetrec-2011/ (hetrec2011-lastfm-2k.zip).",
    recognises=has_files("user_taggedartists-timestamps.dat", "artists.dat"),
    parse=read,
)
