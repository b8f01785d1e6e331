"""Rows for training and testing: a split that keeps prompts together, and flips that are remembered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from datasets import Dataset

from predilect.runs import table_fingerprint
from pref_losses.data import PLACE, as_answers, name_some, split_prompt
from pref_losses.loading import load_preferences

if TYPE_CHECKING:
    from pref_losses.align.options import DataOptions


def load_rows(options: DataOptions, check: Callable[[Dataset], None] | None = None) -> tuple[Dataset, Dataset | None]:
    """Training rows and test rows (None where nothing is held out), both with a `prompt`; `check` sees all of them
    before they are parted.

    Raises:
        FileNotFoundError: there is no such file, or no such data set on the hub.
        ValueError: data without preferences, or nothing left to train on.
    """
    assert options.dataset_name is not None
    rows = _read(options.dataset_name, options.dataset_train_split)
    if check is not None:
        check(rows)
    if options.test_dataset is not None:
        test = _read(options.test_dataset, options.dataset_test_split)
        return choose(rows, 0, options.max_rows, options.split_seed)[0], test
    train, held_out = choose(rows, options.test_size, options.max_rows, options.split_seed)
    return train, held_out if len(held_out) else None


def _read(name: str, split: str) -> Dataset:
    rows = load_preferences(name, split=split, places=True)
    if not len(rows):
        raise ValueError(f"{name} holds no rows")
    if missing := {"chosen", "rejected"} - set(rows.column_names):
        raise ValueError(
            f"{name} needs the columns chosen and rejected, prompt is optional (missing: "
            f"{', '.join(sorted(missing))}; got {', '.join(c for c in rows.column_names if c != PLACE)})"
        )
    _require_answers(rows)
    return with_prompts(rows)


def _require_answers(rows: Dataset) -> None:
    """Refuse rows in which an answer is missing, by their places in the file."""
    for name in ("chosen", "rejected"):
        answers = rows.select_columns([name]).with_format("arrow")[:][name].combine_chunks()
        missing = answers.is_null().to_pylist()
        if pa.types.is_list(answers.type) and answers.flatten().null_count:
            missing = [answer is None or None in answer for answer in answers.to_pylist()]
        if gone := [number for number, null in enumerate(missing) if null]:
            places = name_some(rows.select(gone)[PLACE][:], ", ")
            raise ValueError(
                f"{name} is null, or an answer in it is, in {len(gone)} of {len(rows)} rows ({places}): leave them out"
            )


def with_prompts(rows: Dataset) -> Dataset:
    """A `prompt` column for rows whose answers are whole dialogues."""
    if "prompt" in rows.column_names:
        return rows

    def split(row: dict[str, Any]) -> dict[str, Any]:
        several = not isinstance(row["rejected"], str)
        prompt, (chosen, *rejected) = split_prompt([row["chosen"], *as_answers(row["rejected"])])
        one = not several or isinstance(row["rejected"][0], dict)
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected[0] if one else rejected}

    return rows.map(split, desc="Splitting prompts from answers")


def choose(rows: Dataset, test_size: float, max_rows: int | None, seed: int) -> tuple[Dataset, Dataset]:
    """`max_rows` rows, parted into training and test rows.

    Rows are ordered by a hash of seed and prompt; the first are the test rows. So the parts depend on the seed and
    the prompts, not on the order of the file, and rows with one prompt are never on both sides.
    """
    keys = [_number(seed, row) for row in rows.select_columns(["prompt"])]
    order = sorted(range(len(rows)), key=keys.__getitem__)[:max_rows]
    count = round(test_size * len(order)) if test_size < 1 else int(test_size)
    while 0 < count < len(order) and keys[order[count - 1]] == keys[order[count]]:
        count += 1
    if count >= len(order):
        prompts = len({keys[number] for number in order})
        raise ValueError(
            f"test_size {test_size:g} of {len(order)} rows leaves none to train on: they have {prompts} different "
            f"prompts, and the rows of one prompt stay on one side; lower test_size (0 holds none out), or name a "
            f"test_dataset"
        )
    return rows.select(order[count:]), rows.select(order[:count])


def flip_preferences(rows: Dataset, rate: float, seed: int) -> Dataset:
    """Exchange chosen and rejected in a share of the rows; the column `flipped` says in which.

    A row is flipped if the hash of seed and row, as a number in [0, 1), lies below `rate`: the choice depends neither
    on the order of the rows nor on any other row, and a higher rate flips more rows beside the same ones.

    Raises:
        ValueError: a row with several rejected answers, which has no opposite.
    """

    def flip(row: dict[str, Any]) -> dict[str, Any]:
        flipped = _number(seed, {name: row[name] for name in ("prompt", "chosen", "rejected")}) < rate
        if not flipped:
            return {"flipped": False}
        answers = as_answers(row["rejected"])
        if len(answers) != 1:
            raise ValueError(f"a pair can be flipped, a row with {len(answers)} rejected answers cannot")
        single = isinstance(row["rejected"], str) or isinstance(row["rejected"][0], dict)
        return {
            "flipped": True,
            "chosen": answers[0],
            "rejected": row["chosen"] if single else [row["chosen"]],
        }

    return rows.map(flip, desc="Flipping pairs")


def preferences_fingerprint(*parts: Dataset | None) -> str:
    """Changes with any prompt or answer of any part, and with their order."""
    return table_fingerprint(*parts, columns=("prompt", "chosen", "rejected"))


def _number(seed: int, value: Any) -> float:
    """A hash in [0, 1)."""
    text = json.dumps([seed, value], sort_keys=True, ensure_ascii=False)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) / 2**56
