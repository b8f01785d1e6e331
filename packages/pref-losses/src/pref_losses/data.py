"""Preference rows to token ids: one chosen answer and one or many rejected ones to every prompt."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback

logger = logging.getLogger(__name__)

_PER_REJECTED = ("rejected_ids", "ref_rejected_logps")  # columns with one entry a rejected answer
PLACE = "_place"  # column that says where a row was read: its file and line, whatever became of the order since
Answer = str | list[dict[str, Any]]


def as_answers(rejected: Any) -> list[Answer]:
    """The rejected answers of a row as a list: text, a list of texts, messages, or a list of lists of messages."""
    if is_one_answer(rejected):
        return [rejected]
    if isinstance(rejected, Sequence):
        return list(rejected)
    raise TypeError(f"rejected is an answer or a list of answers (got {type(rejected).__name__})")


def is_one_answer(rejected: Any) -> bool:
    """Whether it is text or messages, not a list of either."""
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
        without an answer token, are dropped, counted and named; rows whose chosen answer is empty but for its end are
        kept, counted and named. Data that has `prompt_ids` is taken as tokenised.

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
    return _usable(prepared, name, max_length)


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


def _usable(prepared: Dataset, name: str, max_length: int | None = None) -> Dataset:
    """The rows to learn from; the others are counted, and the first of them named."""
    gone = [row for row in prepared if _flaw(row, max_length)]
    if len(gone) == len(prepared):
        raise ValueError(_none_left(gone, name, max_length))
    if gone:
        logger.warning(_left_out(gone, len(prepared), name, max_length))
        without = {row["row"] for row in gone}
        prepared = prepared.select([n for n, row in enumerate(prepared["row"]) if row not in without])
    empty = [row for row in prepared if row.get("empty_chosen")]
    if empty:
        logger.warning(
            f"{len(empty)} of {len(prepared)} rows of the {name} data have an empty chosen answer, which teaches to "
            f"end at once ({name_some(list(map(place_of, empty)), ', ')})"
        )
    return prepared.remove_columns([c for c in ("empty_chosen", "prompt_tokens", PLACE) if c in prepared.column_names])


def _left_out(gone: Sequence[dict[str, Any]], of: int, name: str, max_length: int | None) -> str:
    reasons = name_some([f"{place_of(row)}: {_flaw(row, max_length)}" for row in gone], "; ")
    return f"{len(gone)} of {of} rows of the {name} data are left out ({reasons})"


def _none_left(gone: Sequence[dict[str, Any]], name: str, max_length: int | None) -> str:
    lengths = [row.get("prompt_tokens", 0) for row in gone]
    if max_length is not None and min(lengths, default=0) >= max_length:
        return (
            f"{len(gone)} of {len(gone)} rows of the {name} data do not fit max_length {max_length}: each prompt "
            f"fills max_length alone, with {min(lengths)} to {max(lengths)} tokens; raise max_length, or let "
            "truncation_mode='keep_end' cut prompts at their beginning"
        )
    return f"{_left_out(gone, len(gone), name, max_length)}, and none is left"


def name_some(names: Sequence[str], separator: str, most: int = 5) -> str:
    """The first of them, and dots for the others."""
    return separator.join([*names[:most], *["..."] * (len(names) > most)])


def place_of(row: dict[str, Any]) -> str:
    """Where a row was read, or its number in the data."""
    return row.get(PLACE) or f"row {row['row']}"


def _flaw(row: dict[str, Any], max_length: int | None) -> str | None:
    """Why a row cannot be learned from."""
    if not row["prompt_ids"]:
        tokens = row.get("prompt_tokens", 0)
        return (
            f"the prompt fills max_length alone: {tokens} tokens of {max_length}" if tokens else "the prompt is empty"
        )
    if not row["chosen_ids"]:
        return "the chosen answer has no token"
    return None if row["rejected_ids"] else "no rejected answer differs from the chosen one"


def require_usable(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, *, max_length: int | None, truncation_mode: str, name: str
) -> None:
    """Refuse data of which `prepare_preferences` would leave no row, before it is split or a model is loaded.

    Rows are tokenised up to the first that can be learned from, which mostly is the first of all.

    Raises:
        ValueError: there is none; a row before it cannot be read.
    """
    unusable = []
    for row in _numbered(dataset):
        unusable.append(row | _tokenise(row, tokenizer, max_length, truncation_mode, name))
        if _flaw(unusable[-1], max_length) is None:
            return
    if unusable:
        raise ValueError(_none_left(unusable, name, max_length))


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
        prompt, completions, empty = _token_ids(row, tokenizer)
    except Exception as error:  # chat templates raise errors of their own
        place = row.get(PLACE) or f"row {row['row']} of the {name} data"
        raise ValueError(f"{place}: {error}") from error
    tokens = len(prompt)
    prompt, (chosen, *rejected) = _truncate(prompt, completions, max_length, truncation_mode)
    ids = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    return ids | _without_repeats(ids) | {"prompt_tokens": tokens, "empty_chosen": empty}


def _token_ids(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[list[int]], bool]:
    """The prompt that a row's answers share, what follows it in each, the chosen one first, and whether that is
    empty but for its end.
    """
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
    chosen = answers[0]
    empty = not (chosen if isinstance(chosen, str) else any(m.get("content") or m.get("tool_calls") for m in chosen))
    return prompt_ids[:shared], [ids[shared:] for ids in whole], empty


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
    raise TypeError(f"prompt and answers are all text or all messages (got {kind_of(prompt)} and {kind_of(answer)})")


def kind_of(value: Any) -> str:
    """What a prompt or an answer is: text, messages, or the name of another type."""
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
