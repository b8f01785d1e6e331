"""MovieTweetings snapshots and the latest files (`ratings.dat`, `movies.dat`)."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from predilect.data.readers.base import RawTables, Reader
from predilect.data.readers.movielens import imdb_ids, read_double_colon


def read(path: Path) -> RawTables:
    """user::IMDb number::rating 0..10::time, and IMDb number::title::genres, UTF-8; ids keep their leading zeros."""
    return read_double_colon(path, {"item_id": pa.string(), "title": pa.string(), "genres": pa.string()}, "utf-8")


MOVIETWEETINGS = Reader(
    name="movietweetings",
    files=("ratings.dat", "movies.dat"),
    where="https://github.com/sidooms/MovieTweetings, the folder latest or one of snapshots (users.dat is not read).",
    recognises=imdb_ids,
    parse=read,
)
