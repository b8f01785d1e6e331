"""Preference files and hub data sets to rows; what cannot be read is named by file and line."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, load_dataset

from pref_losses.data import PLACE, as_answers, is_one_answer, kind_of, name_some

logger = logging.getLogger(__name__)

_HH_TURN = "\n\nAssistant:"
_TEXTS = ("prompt", "chosen", "rejected")


def load_preferences(name_or_path: str, *, split: str = "train", places: bool = False) -> Dataset:
    """A preference data set from a hub id, a JSON, JSON lines or Parquet file (gzipped or not), or a folder of such
    files.

    Rows whose `chosen` and `rejected` are whole dialogues in the HH format (turns marked by "Human:" and "Assistant:")
    and that have no `prompt` are split at the last assistant turn; rows whose two prompts differ are left out and
    counted.

    Args:
        name_or_path: the data.
        split: of a data set on the hub.
        places: add a column that says where each row was read, which messages of `prepare_preferences` name.

    Raises:
        FileNotFoundError: a path that does not exist.
        ValueError: a file of another kind, or one that cannot be read: the message names file and line.
    """
    path = Path(name_or_path)
    if path.is_dir():
        files = sorted(
            p for p in path.iterdir() if p.name.removesuffix(".gz").endswith((".json", ".jsonl", ".parquet"))
        )
        if len(files) != 1:
            raise ValueError(f"{path} holds {len(files)} JSON or Parquet files: name one of them")
        path = files[0]
    if path.is_file():
        dataset, where = _read_file(path)
    elif path.suffix or name_or_path.startswith((".", "/")):
        raise FileNotFoundError(f"there is no file {path}")
    else:
        dataset = load_dataset(name_or_path, split=split)
        where = _rows_of(name_or_path, len(dataset))
    dataset = dataset.add_column(PLACE, where)
    if len(dataset) and "prompt" not in dataset.column_names and _is_dialogue(dataset[0].get("chosen")):
        dataset = split_dialogues(dataset)
    return dataset if places else dataset.remove_columns(PLACE)


def _rows_of(name: str, count: int) -> list[str]:
    return [f"{name} row {number}" for number in range(1, count + 1)]


def _read_file(path: Path) -> tuple[Dataset, list[str]]:
    """The rows of a file, and where each of them stands."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        dataset = Dataset.from_parquet(str(path))
        return dataset, _rows_of(path.name, len(dataset))
    if kind not in ("json", "jsonl"):
        raise ValueError(f"{path} is not JSON, JSON lines or Parquet")
    if kind == "jsonl":
        lines = [(place, text) for place, text in _lines(path) if text.strip()]
        rows, places = [_json(text, place) for place, text in lines], [place for place, _ in lines]
    else:
        rows = _json("".join(text for _, text in _lines(path)), path.name)
        if not isinstance(rows, list):
            size = f", {len(rows)} entries" if isinstance(rows, dict) else ""
            raise ValueError(f"{path.name} holds no list of rows (got {type(rows).__name__}{size})")
        places = _rows_of(path.name, len(rows))
    if not rows:
        raise ValueError(f"{path.name} holds no list of rows (got an empty one)")
    return _as_table(rows, places, path.name), places


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file, gzipped or not, each with its place."""
    number = 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            for number, line in enumerate(file, start=1):
                place = f"{path.name} line {number}"
                yield place, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{place} is not UTF-8: byte {error.start + 1} is {error.object[error.start]:#04x}"
            ) from error
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path.name} is damaged behind line {number}: {error}") from error


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON: {error}") from error


def _as_table(rows: Sequence[Any], places: Sequence[str], file: str) -> Dataset:
    """JSON objects as a table with every key that any of them has, and lists where some `rejected` are lists."""
    for row, place in zip(rows, places, strict=True):
        if not isinstance(row, dict):
            raise ValueError(f"{place} is not an object with keys (got {type(row).__name__})")
    _require_one_kind(rows, places)
    table = {key: [row.get(key) for row in rows] for key in dict.fromkeys(key for row in rows for key in row)}
    rejected = table.get("rejected", [])
    if len({is_one_answer(answer) for answer in rejected if answer is not None}) > 1:
        table["rejected"] = [answer if answer is None else as_answers(answer) for answer in rejected]
    try:
        return Dataset.from_dict(table)
    except UnicodeEncodeError as error:
        raise _half_character(table, places) from error
    except pa.ArrowException as error:
        raise ValueError(f"{file} has a column whose values are of several kinds: {error}") from error


def _require_one_kind(rows: Sequence[dict[str, Any]], places: Sequence[str]) -> None:
    """Refuse a file that mixes plain text and conversations, which are two kinds of data."""
    first: dict[str, str] = {}
    for row, place in zip(rows, places, strict=True):
        for name in _TEXTS:
            answers = (
                row[name] if isinstance(row.get(name), list) and not is_one_answer(row[name]) else [row.get(name)]
            )
            for kind in {kind_of(answer) for answer in answers if answer is not None}:
                if kind not in ("text", "messages"):
                    raise ValueError(f"{place}: {name} is text or a list of messages (got {kind})")
                first.setdefault(kind, f"{place} has {kind} as {name}")
        if len(first) > 1:
            raise ValueError(
                f"{' and '.join(first.values())}: the rows of a file are all plain text or all conversations"
            )


def _half_character(table: dict[str, list[Any]], places: Sequence[str]) -> ValueError:
    """Names the first text that no encoding can write: JSON's escapes can name half of a character."""
    for number, place in enumerate(places):
        for column, values in table.items():
            try:
                json.dumps(values[number], ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                half = error.object[error.start]
                return ValueError(
                    f"{place}: the column {column} holds the lone surrogate \\u{ord(half):04x}, half of a character: "
                    "write the character whole, or leave it out"
                )
    raise AssertionError("every text can be written")


def _is_dialogue(text: Any) -> bool:
    return isinstance(text, str) and "\n\nHuman:" in text and _HH_TURN in text


def split_dialogues(dataset: Dataset) -> Dataset:
    """HH dialogues to `prompt`, `chosen`, `rejected`, split behind the last "Assistant:"."""

    def split(row: dict[str, Any], number: int) -> dict[str, Any]:
        answers = [row["chosen"], *as_answers(row["rejected"])]
        if not all(isinstance(answer, str) for answer in answers):
            place = row.get(PLACE) or f"row {number}"
            raise ValueError(f"{place}: a dialogue is text (got {', '.join(map(kind_of, answers))})")
        prompts, turns, (chosen, *rejected) = zip(*(answer.rpartition(_HH_TURN) for answer in answers), strict=True)
        shared = all(turns) and len(set(prompts)) == 1
        return {
            "prompt": prompts[0] + _HH_TURN if shared else "",
            "chosen": chosen,
            "rejected": rejected[0] if isinstance(row["rejected"], str) else rejected,
        }

    rows = dataset.map(split, with_indices=True, desc="Splitting dialogues")
    prompts = rows["prompt"]
    gone = [number for number, prompt in enumerate(prompts) if not prompt]
    if gone:
        logger.warning(
            "%d of %d dialogues differ before the last answer, or have none, and are left out (rows %s)",
            len(gone),
            len(rows),
            name_some(list(map(str, gone)), ", "),
        )
    return rows.select([number for number, prompt in enumerate(prompts) if prompt])
