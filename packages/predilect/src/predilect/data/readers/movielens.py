"""MovieLens-100K (`u.data`, `u.item`) and MovieLens-1M (`ratings.dat`, `movies.dat`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from predilect.data.readers.base import RawTables, Reader, find, has_files, required
from predilect.data.readers.columns import flags_to_lists, split_text
from predilect.data.readers.text import open_text, read_delimited

GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
RATINGS = {"user_id": pa.int32(), "item_id": pa.int32(), "rating": pa.float32(), "timestamp": pa.int64()}
_MOVIES = {"item_id": pa.int32(), "title": pa.string(), "genres": pa.string()}


def read_100k(path: Path) -> RawTables:
    """`u.data`: user, item, rating, time, tabs; `u.item`: id, title, dates, link, 19 genre flags, `|`, Latin-1."""
    log, problems = read_delimited(required(path, "u.data"), RATINGS, delimiter="\t")
    text = ("title", "release_date", "video_release_date", "link")
    types = {"item_id": pa.int32(), **dict.fromkeys(text, pa.string()), **dict.fromkeys(GENRES_100K, pa.int8())}
    movies, more = read_delimited(required(path, "u.item"), types, delimiter="|", encoding="latin-1", table="items")
    flags = np.stack([movies[g].to_numpy() for g in GENRES_100K], axis=1)
    items = movies.select(["item_id", "title", "release_date"])
    return RawTables(log, items.append_column("categories", flags_to_lists(flags, GENRES_100K)), problems + more)


def read_1m(path: Path) -> RawTables:
    """`ratings.dat`: user::item::rating::time; `movies.dat`: id::title::genres joined by `|`, Latin-1."""
    return read_double_colon(path, _MOVIES, "latin-1")


def read_double_colon(path: Path, movie_types: dict[str, pa.DataType], encoding: str) -> RawTables:
    """The two `::` tables, whose item ids have the type that `movie_types` gives them."""
    types = {**RATINGS, "item_id": movie_types["item_id"]}
    log, problems = read_delimited(required(path, "ratings.dat"), types, delimiter="::")
    movies, more = read_delimited(
        required(path, "movies.dat"), movie_types, delimiter="::", encoding=encoding, table="items"
    )
    items = movies.drop_columns("genres").append_column("categories", split_text(movies["genres"], "|"))
    return RawTables(log, items, problems + more)


def imdb_ids(path: Path) -> bool:
    """Whether `movies.dat` has IMDb numbers of 7 digits, as MovieTweetings does and MovieLens does not."""
    movies = find(path, "movies.dat")
    if movies is None or find(path, "ratings.dat") is None:
        return False
    with open_text(movies) as file:
        return len(file.readline().split(b"::")[0].strip()) >= 7


def _is_1m(path: Path) -> bool:
    return has_files("ratings.dat", "movies.dat")(path) and not imdb_ids(path)


MOVIELENS_100K = Reader(
    name="movielens-100k",
    files=("u.data", "u.item"),
    where="https://grouplens.org/datasets/movielens/100k/ (ml-100k.zip). 18 titles stand under two ids, a warning.",
    recognises=has_files("u.data", "u.item"),
    parse=read_100k,
)
MOVIELENS_1M = Reader(
    name="movielens-1m",
    files=("ratings.dat", "movies.dat"),
    where="https://grouplens.org/datasets/movielens/1m/ (ml-1m.zip; ml-10m.zip has the same form).",
    recognises=_is_1m,
    parse=read_1m,
)
