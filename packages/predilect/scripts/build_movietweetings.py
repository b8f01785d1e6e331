"""Write the Parquet files of movietweetings-100k that the wheel carries.

    python scripts/build_movietweetings.py FOLDER

FOLDER holds `ratings.csv.gz` (user_id, item_id, rating, timestamp) and `movies.csv.gz` (item_id, title, genres joined
by a vertical bar): the 100K snapshot of sidooms/MovieTweetings with `::` turned into CSV. Row order and values are
kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

TARGET = Path(__file__).parents[1] / "src" / "predilect" / "data" / "movietweetings"


def main(folder: Path) -> None:
    """Convert both tables."""
    types = {"user_id": pa.int32(), "item_id": pa.string(), "rating": pa.int8(), "timestamp": pa.int32()}
    options = pa.csv.ConvertOptions(column_types=types)
    ratings = pa.csv.read_csv(folder / "ratings.csv.gz", convert_options=options)
    movies = pa.csv.read_csv(folder / "movies.csv.gz", convert_options=options)
    genres = pc.if_else(pc.equal(movies["genres"], ""), None, movies["genres"])
    categories = pc.coalesce(pc.split_pattern(genres, "|"), pa.scalar([], pa.list_(pa.string())))
    year = pc.extract_regex(movies["title"], r"\((?P<year>\d{4})\)\s*$")
    movies = pa.table(
        {
            "item_id": movies["item_id"],
            "title": movies["title"],
            "categories": categories,
            "year": pc.cast(pc.struct_field(year, "year"), pa.int16()),
        }
    )
    for name, table in (("ratings", ratings), ("movies", movies)):
        path = TARGET / f"{name}.parquet"
        pq.write_table(table, path, compression="zstd", compression_level=19)
        print(f"{path.name}: {len(table):,} rows, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
