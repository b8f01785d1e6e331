"""Lists for a whole file of people: a person a row, in the order of the file, in memory that does not grow with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predilect.recommender import Recommender

ENDINGS = (".csv", ".jsonl", ".parquet")
HISTORY, BETWEEN = "history", "|"
ADDED = ("recommended", "item_id", "score", "error")
Row = dict[str, Any]


def recommend_people(
    recommender: Recommender, source: Path, target: Path, *, k: int, exclude_history: bool, batch_size: int = 1024
) -> tuple[int, int]:
    """Write the lists of everybody in a file.

    A row has a column `history`, oldest first: a list of titles or ids in JSON lines and Parquet, the same between
    "|" in CSV; an empty one is a person of whom nothing is known. What else it holds is kept. `recommended` (titles),
    `item_id` and `score` are added, and `error`: empty, or why the row has no list.

    Args:
        recommender: fitted.
        source: .csv, .jsonl or .parquet.
        target: of the same format; written whole or not at all.
        k: length of the lists.
        exclude_history: never recommend what a person took.
        batch_size: people scored at once.

    Returns:
        Numbers of people, and of those without a list.

    Raises:
        ValueError: another format, two formats, a file without the column, or a row that is no row.
        FileNotFoundError: there is no such file.
    """
    for path in (source, target):
        if path.suffix not in ENDINGS:
            raise ValueError(f"people are read from and written to {', '.join(ENDINGS)} (got {path})")
    if source.suffix != target.suffix:
        raise ValueError(f"the lists are written in the format of the histories, {source.suffix} (got {target})")
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {source}")
    people = failed = 0
    with _writer(target, source) as write:
        rows = _rows(source)
        while batch := list(islice(rows, batch_size)):
            served = _served(recommender, batch, k, exclude_history)
            people, failed = people + len(batch), failed + sum(bool(row["error"]) for row in served)
            write(served)
    if not people:
        raise ValueError(f"{source} has no rows")
    return people, failed


def _served(recommender: Recommender, rows: list[Row], k: int, exclude_history: bool) -> list[Row]:
    histories: list[list[int]] = []
    errors: list[str] = []
    for row in rows:
        try:
            history = row[HISTORY]
            if not isinstance(history, list):
                raise ValueError(f"a history is a list of titles or ids (got {history!r})")
            histories.append(recommender.catalogue.resolve(history))
            errors.append("")
        except (LookupError, TypeError, ValueError) as error:  # UnknownItemError is one of them
            histories.append([])
            errors.append(str(error.args[0]) if error.args else str(error))
    good = [history for history, reason in zip(histories, errors, strict=True) if not reason]
    lists = iter(recommender.recommend_many(good, k, exclude_history=exclude_history, batch_size=max(1, len(good))))
    served = []
    for row, reason in zip(rows, errors, strict=True):
        items = [] if reason else next(lists)
        found = {
            "recommended": [r.title for r in items],
            "item_id": [r.item_id for r in items],
            "score": [r.score for r in items],
        }
        nothing = "" if items or reason else "every item was taken already"
        served.append({**row, **found, "error": reason or nothing})
    return served


def _rows(source: Path) -> Iterator[Row]:
    return {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}[source.suffix](source)


def _csv_rows(source: Path) -> Iterator[Row]:
    from predilect.runs import CsvRows

    with CsvRows(source) as reader:
        _require_history(reader.names, source)
        for line, values in reader:
            if len(values) != len(reader.names):
                raise ValueError(f"{source}, line {line}: another number of columns than in the first line")
            row = dict(zip(reader.names, values, strict=True))
            text = row[HISTORY].strip()
            yield {**row, HISTORY: [part.strip() for part in text.split(BETWEEN)] if text else []}


def _json_rows(source: Path) -> Iterator[Row]:
    with source.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{source}, line {number}: no JSON ({error})") from error
            if not isinstance(row, dict):
                raise ValueError(
                    f"{source}, line {number}: a row is an object with a {HISTORY} (got {line.strip()[:40]})"
                )
            yield {HISTORY: None, **row}


def _parquet_rows(source: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        _require_history(file.schema_arrow.names, source)
        for batch in file.iter_batches(1024):
            yield from batch.to_pylist()


def _require_history(names: Any, source: Path) -> None:
    if HISTORY not in names:
        raise ValueError(f"{source} has no column {HISTORY} (got {', '.join(names)})")


@contextmanager
def _writer(target: Path, source: Path) -> Iterator[Callable[[list[Row]], None]]:
    from predilect.runs import whole_file

    if target.suffix == ".csv":
        with _csv_writer(target, source) as write:
            yield write
        return
    with whole_file(target) as path:
        if target.suffix == ".parquet":
            with _parquet_writer(path, source) as write:
                yield write
            return
        with path.open("w", newline="", encoding="utf-8") as file:
            yield lambda rows: file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@contextmanager
def _csv_writer(target: Path, source: Path) -> Iterator[Callable[[list[Row]], None]]:
    """The columns of the source, then what is added; lists as they are in the source."""
    from predilect.runs import CsvRows, csv_writer

    with CsvRows(source) as there:
        names = list(dict.fromkeys([*there.names, *ADDED]))
    with csv_writer(target, names) as write:

        def flat(row: Row) -> list[Any]:
            values = (row[name] for name in names)
            return [BETWEEN.join(map(str, v)) if isinstance(v, list) else v for v in values]

        yield lambda rows: write(map(flat, rows))


@contextmanager
def _parquet_writer(path: Path, source: Path) -> Iterator[Callable[[list[Row]], None]]:
    """Columns keep the types that they have in the source, whatever the first rows hold."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    added = {
        "recommended": pa.list_(pa.string()),
        "item_id": pa.list_(pa.int64()),
        "score": pa.list_(pa.float64()),
        "error": pa.string(),
    }
    kept = [field for field in pq.read_schema(source) if field.name not in added]
    schema = pa.schema([*kept, *(pa.field(name, kind) for name, kind in added.items())])
    with pq.ParquetWriter(path, schema) as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema=schema))
