"""Steam reviews and games of J. McAuley's group: one Python literal per line."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from predilect.data.readers.base import RawTables, Reader, find, required
from predilect.data.readers.text import BrokenLines, read_lines

_REVIEWS = "steam_reviews.json|steam_reviews.json.gz|australian_user_reviews.json|australian_user_reviews.json.gz"
_GAMES = "steam_games.json|steam_games.json.gz"
_POSTED = re.compile(r"(\w+) (\d{1,2})(?:, (\d{4}))?\.?$")
_MONTHS = "January February March April May June July August September October November December"


def read(path: Path, *, undated_year: int | None = None) -> RawTables:
    """Reviews as interactions; rating 1 or 0 where the review says whether the game is recommended.

    The lines are Python literals and parsed as such (`ast.literal_eval` runs no code). Users are account names in
    `steam_reviews`, ids in `australian_user_reviews`. Times are days. The second file writes "Posted November 5,
    2011." and leaves out the year if it is the year of the crawl (2016 as far as known): such reviews have no time, an
    error, unless `undated_year` says which year is meant. Repeated reviews and games without metadata are errors too:
    `on_error="skip"` drops and counts them.
    """
    reviews = required(path, _REVIEWS)
    broken = BrokenLines(reviews)
    rows: list[tuple[Any, Any, float | None, float]] = []
    for _, record in read_lines(reviews, parse=ast.literal_eval, broken=broken):
        if "reviews" in record:
            rows += [_review(r, record.get("user_id"), r.get("item_id"), undated_year) for r in record["reviews"]]
        else:
            rows.append(_review(record, record.get("username"), record.get("product_id"), undated_year))
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    kinds = (pa.string(), pa.string(), pa.float64(), pa.float32())
    arrays = [pa.array(c, kind) for c, kind in zip(columns, kinds, strict=True)]
    log = pa.table(arrays, names=["user_id", "item_id", "timestamp", "rating"])
    games = find(path, _GAMES)
    if games is None:
        return RawTables(log, None, broken.problems())
    items, more = _games(games)
    return RawTables(log, items, broken.problems() + more.problems())


def _review(
    review: Mapping[str, Any], user: Any, item: Any, undated_year: int | None
) -> tuple[str | None, str | None, float | None, float]:
    text = str(review.get("posted", "")).removeprefix("Posted ") or str(review.get("date", ""))
    when = _day(text, undated_year)
    time = None if when is None else (when - date(1970, 1, 1)).days * 86400.0
    return _text(user), _text(item), time, float(review.get("recommend", True))


def _text(value: Any) -> str | None:
    return None if value in (None, "") else str(value)


def _day(text: str, undated_year: int | None) -> date | None:
    """The day of "2017-12-17", "November 5, 2011." or, with `undated_year`, "July 3."; None where there is none."""
    try:
        if match := _POSTED.match(text.strip()):
            year = int(match[3]) if match[3] else undated_year
            return None if year is None else date(year, _MONTHS.split().index(match[1]) + 1, int(match[2]))
        return date.fromisoformat(text.strip())
    except ValueError:
        return None


def _games(path: Path) -> tuple[pa.Table, BrokenLines]:
    broken = BrokenLines(path, "items")
    ids, titles, genres = [], [], []
    for number, game in read_lines(path, parse=ast.literal_eval, broken=broken):
        if not game.get("id"):
            broken.add(number, f"no id: title {game.get('title')!r}")
            continue
        ids.append(str(game["id"]))
        titles.append(game.get("app_name") or game.get("title"))
        genres.append([str(g) for g in game.get("genres") or ()])
    kinds = (pa.string(), pa.string(), pa.list_(pa.string()))
    arrays = [pa.array(c, kind) for c, kind in zip((ids, titles, genres), kinds, strict=True)]
    return pa.table(arrays, names=["item_id", "title", "categories"]), broken


def _recognises(path: Path) -> bool:
    return find(path, _REVIEWS) is not None


STEAM = Reader(
    name="steam",
    files=("steam_reviews.json.gz or australian_user_reviews.json.gz", "steam_games.json.gz"),
    where="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data (reviews and item metadata).",
    recognises=_recognises,
    parse=read,
)
