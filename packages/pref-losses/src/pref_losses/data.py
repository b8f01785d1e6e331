"""Preference rows to token ids: one chosen answer and one or many rejected ones to every prompt."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, load_dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback

logger = logging.getLogger(__name__)

_HH_TURN = "\n\nAssistant:"
_PER_REJECTED = ("rejected_ids", "ref_rejected_logps")  # columns with one entry a rejected answer
_NAMED = 5  # rows left out that a message names
Answer = str | list[dict[str, Any]]


def as_answers(rejected: Any) -> list[Answer]:
    """The rejected answers of a row as a list: text, a list of texts, messages, or a list of lists of messages."""
    if _is_one_answer(rejected):
        return [rejected]
    if isinstance(rejected, Sequence):
        return list(rejected)
    raise TypeError(f"rejected is an answer or a list of answers (got {type(rejected).__name__})")


def _is_one_answer(rejected: Any) -> bool:
    return isinstance(rejected, str) or (
        isinstance(rejected, list) and bool(rejected) and isinstance(rejected[0], dict)
    )


def split_prompt(answers: Sequence[Any]) -> tuple[Any, list[Any]]:
    """The prompt that all answers begin with, and what is left of each; texts are not cut behind a space."""
    length = _common_length(answers)
    if isinstance(answers[0], str) and answers[0][:length].endswith(" "):
        length -= 1
    return answers[0][:length], [answer[length:] for answer in answers]


def _common_length(sequences: Sequence[Sequence[Any]]) -> int:
    """How many elements all of them begin with."""
    first = sequences[0]
    shortest = min(map(len, sequences))
    return next((i for i in range(shortest) if any(other[i] != first[i] for other in sequences)), shortest)


def prepare_preferences(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = None,
    truncation_mode: str = "keep_start",
    num_proc: int | None = None,
    name: str = "train",
) -> Dataset:
    """Tokenise TRL's preference columns, of which `rejected` may be a list.

    Args:
        dataset: `prompt` (optional), `chosen`, `rejected`; plain text or messages. `rejected`: one answer or a list of
            any length.
        tokenizer: has an EOS token, and a chat template if the rows are messages.
        max_length: longest prompt + answer. All answers of a row keep the same prompt, so that they can share it.
        truncation_mode: "keep_start" drops rows whose prompt alone is too long and cuts answers at their end;
            "keep_end" cuts the prompt at its beginning and answers only where they exceed `max_length` alone.
        num_proc: processes of `Dataset.map`.
        name: of the data set, for messages.

    Returns:
        `prompt_ids`, `chosen_ids`, `rejected_ids` (a list of lists), `row` (the row's number in `dataset`), and the
        other columns. Answers that are equal, or equal to the chosen one, are left out; rows with none left, or
        without an answer token, are dropped, counted and named. Data that has `prompt_ids` is taken as tokenised.

    Raises:
        TypeError: a stream.
        ValueError: a missing column; a row that cannot be read, by its number; no row left.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"the {name} data is a datasets.Dataset, whose rows have numbers (got {type(dataset).__name__}): collect "
            "a stream with Dataset.from_generator"
        )
    if truncation_mode not in ("keep_start", "keep_end"):
        raise ValueError(f"truncation_mode is 'keep_start' or 'keep_end' (got {truncation_mode!r})")
    if "prompt_ids" in dataset.column_names:
        return _tokenised_before(dataset, name)
    missing = {"chosen", "rejected"} - set(dataset.column_names)
    if missing:
        raise ValueError(
            f"the {name} data needs the columns chosen and rejected (missing: {', '.join(sorted(missing))}; got "
            f"{dataset.column_names})"
        )
    dataset = _numbered(dataset)
    tokenise = partial(
        _tokenise, tokenizer=tokenizer, max_length=max_length, truncation_mode=truncation_mode, name=name
    )
    columns = [c for c in ("prompt", "chosen", "rejected") if c in dataset.column_names]
    prepared = dataset.map(tokenise, num_proc=num_proc, remove_columns=columns, desc=f"Tokenizing {name} dataset")
    return _usable(prepared, name)


def _numbered(dataset: Dataset) -> Dataset:
    if "row" in dataset.column_names:
        dataset = dataset.remove_columns("row")
    return dataset.add_column("row", np.arange(len(dataset)))


def _tokenised_before(dataset: Dataset, name: str) -> Dataset:
    """Data of `prepare_preferences`, or of the user's own tokenisation."""
    columns = dataset.column_names
    lists = "rejected_ids" in columns and next((ids for ids in dataset["rejected_ids"] if ids), None)
    if "chosen_ids" not in columns or not lists or not isinstance(lists[0], list):
        raise ValueError(
            f"tokenised {name} data needs prompt_ids and chosen_ids (lists of ids) and rejected_ids (a list of such "
            "lists, one an answer)"
        )
    if "row" in columns:
        return dataset
    return _usable(_numbered(dataset).map(_without_repeats, desc=f"Looking for equal answers in {name} dataset"), name)


def _usable(prepared: Dataset, name: str) -> Dataset:
    """The rows to learn from; the others are counted, and the first of them named."""
    kept = prepared.filter(lambda row: _flaw(row) is None, desc=f"Dropping rows of the {name} dataset without a pair")
    if gone := sorted(set(prepared["row"]) - set(kept["row"])):
        told = [f"row {number}: {_flaw(prepared[number])}" for number in gone[:_NAMED]]
        told += ["..."] * (len(gone) > _NAMED)
        message = f"{len(gone)} of {len(prepared)} rows of the {name} data are left out ({'; '.join(told)})"
        if not len(kept):
            raise ValueError(f"{message}, and none is left")
        logger.warning(message)
    return kept


def _flaw(row: dict[str, Any]) -> str | None:
    """Why a row cannot be learned from."""
    if not row["prompt_ids"]:
        return "the prompt is empty or fills max_length alone"
    if not row["chosen_ids"]:
        return "the chosen answer has no token"
    return None if row["rejected_ids"] else "no rejected answer differs from the chosen one"


def _without_repeats(row: dict[str, Any]) -> dict[str, Any]:
    """Rejected answers that differ from the chosen one and from each other, and what belongs to each."""
    answers = [tuple(ids) for ids in row["rejected_ids"]]
    places = {ids: i for i, ids in reversed([*enumerate(answers)]) if ids and ids != tuple(row["chosen_ids"])}
    columns = [c for c in _PER_REJECTED if row.get(c) is not None]
    return {c: [row[c][i] for i in sorted(places.values())] for c in columns}


def _tokenise(
    row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, max_length: int | None, truncation_mode: str, name: str
) -> dict[str, Any]:
    try:
        prompt, completions = _token_ids(row, tokenizer)
    except Exception as error:  # chat templates raise errors of their own
        raise ValueError(f"row {row['row']} of the {name} data: {error}") from error
    prompt, (chosen, *rejected) = _truncate(prompt, completions, max_length, truncation_mode)
    ids = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    return ids | _without_repeats(ids)


def _token_ids(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[list[int]]]:
    """The prompt that a row's answers share, and what follows it in each, the chosen one first."""
    answers = [row["chosen"], *as_answers(row["rejected"])]
    if not (all(isinstance(a, str) for a in answers) or all(isinstance(a, list) for a in answers)):
        kinds = ", ".join(type(a).__name__ for a in answers)
        raise TypeError(f"chosen and rejected are all text or all lists of messages (got {kinds})")
    prompt = row.get("prompt")
    if prompt is None:
        prompt, answers = split_prompt(answers)
    options = {"tools": json.loads(row["tools"]) if isinstance(row.get("tools"), str) else row.get("tools")}
    options |= row.get("chat_template_kwargs") or {}
    prompt_ids = _encode(tokenizer, prompt, options, add_generation_prompt=True)
    whole = [_encode(tokenizer, _joined(prompt, answer, tokenizer), options) for answer in answers]
    # Tokens may merge across the boundary, and a chat template may render a prompt alone differently: the answer
    # starts where they part.
    shared = min(_common_length([prompt_ids, ids]) for ids in whole)
    return prompt_ids[:shared], [ids[shared:] for ids in whole]


def _encode(tokenizer: PreTrainedTokenizerBase, text: Answer, options: dict[str, Any], **more: Any) -> list[int]:
    if isinstance(text, str):
        return list(tokenizer(text)["input_ids"])
    ids = tokenizer.apply_chat_template(text, tokenize=True, return_dict=True, **options, **more)["input_ids"]
    return list(ids)


def _joined(prompt: Answer, answer: Answer, tokenizer: PreTrainedTokenizerBase) -> Answer:
    if isinstance(prompt, str) and isinstance(answer, str):
        end = str(tokenizer.eos_token)
        return prompt + answer + ("" if answer.endswith(end) else end)
    if isinstance(prompt, list) and isinstance(answer, list):
        return prompt + answer
    raise TypeError(f"prompt and answers are all text or all messages (got {_kind(prompt)} and {_kind(answer)})")


def _kind(value: Any) -> str:
    return {"str": "text", "list": "messages"}.get(type(value).__name__, type(value).__name__)


def _truncate(
    prompt: list[int], completions: list[list[int]], max_length: int | None, mode: str
) -> tuple[list[int], list[list[int]]]:
    if max_length is None:
        return prompt, completions
    if mode == "keep_start":
        room = max_length - len(prompt)
        return (prompt, [c[:room] for c in completions]) if room > 0 else ([], completions)
    completions = [c[: max_length - 1] for c in completions]
    return prompt[-(max_length - max(map(len, completions))) :], completions


class NegativeSampler:
    """Rows with at most `num_negatives` of their rejected answers, drawn anew every epoch or always the same.

    The draw depends on the seed, the row and, with `resample`, the epoch; neither on workers nor on the order of
    access. The epoch lies in shared memory, where workers that outlive an epoch see it change.
    """

    def __init__(self, dataset: Dataset, num_negatives: int | None, *, resample: bool, seed: int) -> None:
        self.dataset, self.num_negatives, self.resample, self.seed = dataset, num_negatives, resample, seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of every epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self.dataset[index]
        count = len(row["rejected_ids"])
        if self.num_negatives is None or count <= self.num_negatives:
            return row
        rng = np.random.default_rng((self.seed, int(self._epoch) if self.resample else 0, row["row"]))
        chosen = sorted(rng.choice(count, self.num_negatives, replace=False))
        columns = [c for c in _PER_REJECTED if row.get(c) is not None]
        return row | {c: [row[c][i] for i in chosen] for c in columns}


class NewNegatives(TrainerCallback):
    """Tells a `NegativeSampler` the epoch. accelerate's loaders do so in one process only, where they shard no
    batches.
    """

    def __init__(self, sampler: NegativeSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the first batch of the epoch is drawn; `state.epoch` counts fractions."""
        self.sampler.set_epoch(int(state.epoch or 0))


def load_preferences(name_or_path: str, *, split: str = "train") -> Dataset:
    """A preference data set from a hub id, a JSON, JSON lines or Parquet file (gzipped or not), or a folder of such
    files.

    Rows whose `chosen` and `rejected` are whole dialogues in the HH format (turns marked by "Human:" and "Assistant:")
    and that have no `prompt` are split at the last assistant turn; rows whose two prompts differ are left out and
    counted.

    Raises:
        FileNotFoundError: a path that does not exist; ValueError: a file of another kind.
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
        dataset = _read_file(path)
    elif path.suffix or name_or_path.startswith((".", "/")):
        raise FileNotFoundError(f"there is no file {path}")
    else:
        dataset = load_dataset(name_or_path, split=split)
    if "prompt" not in dataset.column_names and _is_dialogue(dataset[0].get("chosen")):
        return split_dialogues(dataset)
    return dataset


def _read_file(path: Path) -> Dataset:
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        return Dataset.from_parquet(str(path))
    if kind not in ("json", "jsonl"):
        raise ValueError(f"{path} is not JSON, JSON lines or Parquet")
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        if kind == "jsonl":
            return _from_rows(
                [_json(line, f"{path.name} line {n}") for n, line in enumerate(file, start=1)], path.name
            )
        return _from_rows(_json(file.read(), path.name), path.name)


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON: {error}") from error


def _from_rows(rows: Any, file: str) -> Dataset:
    """A table of JSON objects: with every key that any of them has, and lists where some `rejected` are lists."""
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{file} holds no list of rows (got {type(rows).__name__}, {len(rows)} entries)")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"{file}: row {number} is not an object with keys (got {type(row).__name__})")
    table = {key: [row.get(key) for row in rows] for key in dict.fromkeys(key for row in rows for key in row)}
    rejected = table.get("rejected", [])
    if len({_is_one_answer(answer) for answer in rejected if answer is not None}) > 1:
        table["rejected"] = [answer if answer is None else as_answers(answer) for answer in rejected]
    return Dataset.from_dict(table)


def _is_dialogue(text: Any) -> bool:
    return isinstance(text, str) and "\n\nHuman:" in text and _HH_TURN in text


def split_dialogues(dataset: Dataset) -> Dataset:
    """HH dialogues to `prompt`, `chosen`, `rejected`, split behind the last "Assistant:"."""

    def split(row: dict[str, Any], number: int) -> dict[str, Any]:
        answers = [row["chosen"], *as_answers(row["rejected"])]
        if not all(isinstance(answer, str) for answer in answers):
            raise ValueError(f"row {number}: a dialogue is text (got {', '.join(map(_kind, answers))})")
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
        told = ", ".join(map(str, gone[:_NAMED])) + ", ..." * (len(gone) > _NAMED)
        logger.warning(
            "%d of %d dialogues differ before the last answer, or have none, and are left out (rows %s)",
            len(gone),
            len(rows),
            told,
        )
    return rows.select([number for number, prompt in enumerate(prompts) if prompt])
