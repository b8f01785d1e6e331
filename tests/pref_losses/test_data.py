"""Rows to token ids: formats, prompts, equal answers, truncation, resampling, and rows that cannot be used."""

from __future__ import annotations

import copy
import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast
from trl import DPOTrainer

from pref_losses import load_preferences
from pref_losses.data import (
    NegativeSampler,
    _truncate,
    as_answers,
    prepare_preferences,
    split_prompt,
)
from pref_losses.loading import split_dialogues

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


ROWS: dict[str, list[dict[str, Any]]] = {
    "plain": [{"prompt": "one plus one is", "chosen": " two", "rejected": " three"}] * 2
    + [{"prompt": "ends in EOS", "chosen": " yes</s>", "rejected": " no</s>"}],
    "plain_implicit": [{"chosen": "one plus one is two", "rejected": "one plus one is six or seven"}] * 2,
    "chat": [{"prompt": user("one plus one?"), "chosen": assistant("two"), "rejected": assistant("three")}] * 2,
    "chat_implicit": [
        {"chosen": user("one plus one?") + assistant("two"), "rejected": user("one plus one?") + assistant("three")}
    ],
}


def as_lists(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"rejected": [row["rejected"]]} for row in rows]


def prepared(rows: list[dict[str, Any]] | Dataset, tokenizer: Any, **options: Any) -> list[dict[str, Any]]:
    dataset = rows if isinstance(rows, Dataset) else Dataset.from_list(rows)
    return list(prepare_preferences(dataset, tokenizer, **options))


@pytest.mark.parametrize("kind", ROWS)
def test_pairs_become_the_ids_that_trl_makes(kind: str, tokenizer: PreTrainedTokenizerFast) -> None:
    args = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    theirs = DPOTrainer._prepare_dataset(
        SimpleNamespace(_tokenizer=tokenizer), Dataset.from_list(ROWS[kind]), tokenizer, args, "train"
    )
    for rows in (ROWS[kind], as_lists(ROWS[kind])):
        for number, (mine, row) in enumerate(zip(prepared(rows, tokenizer), theirs, strict=True)):
            assert mine["row"] == number
            assert [mine["prompt_ids"], mine["chosen_ids"]] == [row["prompt_ids"], row["chosen_ids"]]
            assert mine["rejected_ids"] == [row["rejected_ids"]]


def test_the_answer_is_what_follows_the_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    (row,) = prepared([{"prompt": "say hi:", "chosen": " hi", "rejected": [" ho", " hum"]}], tokenizer)
    assert tokenizer.decode(row["prompt_ids"]) == "say hi:"
    assert [tokenizer.decode(ids) for ids in [row["chosen_ids"], *row["rejected_ids"]]] == [
        " hi</s>",
        " ho</s>",
        " hum</s>",
    ]


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("chat", [False, True])
def test_lists_of_any_length(chat: bool, implicit: bool, tokenizer: PreTrainedTokenizerFast) -> None:
    def whole(answer: str) -> Any:
        if chat:
            return (user("go") if implicit else []) + assistant(answer)
        return ("go" if implicit else "") + f" {answer}"

    rows = [
        {"chosen": whole("a"), "rejected": [whole(letter) for letter in letters]} for letters in ("b", "bcd", "cd")
    ]
    if not implicit:
        rows = [row | {"prompt": user("go") if chat else "go"} for row in rows]
    found = prepared(rows, tokenizer)
    assert [len(row["rejected_ids"]) for row in found] == [1, 3, 2]
    assert len({tuple(row["prompt_ids"]) for row in found}) == 1
    assert tokenizer.decode(found[1]["rejected_ids"][2]).strip(" ").startswith("d")


def test_other_columns_come_along(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [row | {"flipped": i == 1, "row": 77} for i, row in enumerate(ROWS["plain"])]
    assert [(r["flipped"], r["row"]) for r in prepared(rows, tokenizer)] == [(False, 0), (True, 1), (False, 2)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab ", max_size=6), min_size=2, max_size=4), st.text("ab ", max_size=6))
def test_splitting_a_prompt_loses_nothing(ends: list[str], start: str) -> None:
    answers = [start + end for end in ends]
    prompt, rest = split_prompt(answers)
    assert [prompt + answer for answer in rest] == answers
    if len(set(answers)) > 1 and all(rest):
        assert len({answer[:1] for answer in rest}) > 1 or rest[0][0] == " "


def test_rows_may_pass_arguments_to_the_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    talkative = copy.deepcopy(tokenizer)
    talkative.chat_template = "{{ style }}{% if tools %}{{ tools[0].name }}{% endif %}" + str(tokenizer.chat_template)
    row = {"prompt": user("hi"), "chosen": assistant("a"), "rejected": assistant("b")}
    more = {"chat_template_kwargs": {"style": "polite "}, "tools": json.dumps([{"name": "clock"}])}
    (found,) = prepared([row | more], talkative)
    assert tokenizer.decode(found["prompt_ids"]) == "polite clock<user>hi</s><assistant>"


# --- negatives ------------------------------------------------------------------------------------------------


def test_duplicates_and_the_chosen_answer_are_never_negatives(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        {"prompt": "p", "chosen": " a", "rejected": [" b", " a", " c", " b", " a</s>"]},
        {"prompt": "p", "chosen": " a", "rejected": [" a", " a</s>"]},
        {"prompt": "p", "chosen": " a", "rejected": []},
        {"prompt": "", "chosen": " a", "rejected": [" b"]},
    ]
    with caplog.at_level(logging.WARNING):
        (kept,) = prepared(rows, tokenizer)
    assert [tokenizer.decode(ids) for ids in kept["rejected_ids"]] == [" b</s>", " c</s>"]
    assert "3 of 4 rows of the train data are left out" in caplog.text
    assert "row 1: no rejected answer differs from the chosen one; row 2: no rejected" in caplog.text
    assert "row 3: the prompt is empty" in caplog.text


def test_equal_answers_of_a_users_own_tokenisation_are_left_out(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [
        {
            "prompt_ids": [5],
            "chosen_ids": [6],
            "rejected_ids": [[7], [6], [8], [7]],
            "ref_rejected_logps": [-1.0, -2.0, -3.0, -1.0],
        }
    ]
    (kept,) = prepared(rows, tokenizer)
    assert (kept["rejected_ids"], kept["ref_rejected_logps"], kept["row"]) == ([[7], [8]], [-1.0, -3.0], 0)
    without = {"prompt_ids": [5], "chosen_ids": [6], "rejected_ids": [], "ref_rejected_logps": []}
    (kept,) = prepared([without, *rows], tokenizer)
    assert kept["row"] == 1


@pytest.mark.parametrize(
    "more", [{"chosen_ids": [6], "rejected_ids": [7]}, {"chosen_ids": [6]}, {"rejected_ids": [[7]]}]
)
def test_a_users_own_tokenisation_of_another_shape_is_refused(more: dict[str, Any], tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="a list of such lists"):
        prepared([{"prompt_ids": [5], **more}], tokenizer)


def test_prepared_data_stays_as_it_is(make_preferences: Callable[..., Dataset], tokenizer: Any) -> None:
    once = prepare_preferences(make_preferences(8, 3), tokenizer).select([5, 2])
    assert list(prepare_preferences(once, tokenizer)) == list(once)
    assert once["row"][:] == [5, 2]


def candidates(rows: int = 6, count: int = 8) -> Dataset:
    return Dataset.from_list(
        [
            {"row": n, "prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [[10 * n + k] for k in range(count)]}
            | {"ref_rejected_logps": [-1.0 * (10 * n + k) for k in range(count)]}
            for n in range(rows)
        ]
    )


def drawn(sampler: NegativeSampler, epoch: int) -> list[list[list[int]]]:
    sampler.set_epoch(epoch)
    return [sampler[i]["rejected_ids"] for i in range(len(sampler))]


def test_negatives_are_drawn_anew_every_epoch_and_the_same_for_one_seed() -> None:
    sampler = NegativeSampler(candidates(), 3, resample=True, seed=1)
    epochs = [drawn(sampler, e) for e in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert drawn(NegativeSampler(candidates(), 3, resample=True, seed=1), 2) == epochs[2]
    assert drawn(NegativeSampler(candidates(), 3, resample=True, seed=2), 2) != epochs[2]
    for negatives in (n for epoch in epochs for n in epoch):
        assert len(negatives) == len({tuple(ids) for ids in negatives}) == 3


def test_negatives_are_fixed_without_resampling_and_belong_to_their_row() -> None:
    sampler = NegativeSampler(candidates(), 3, resample=False, seed=1)
    assert drawn(sampler, 0) == drawn(sampler, 5)
    moved = NegativeSampler(candidates().select([4, 0]), 3, resample=False, seed=1)
    assert drawn(moved, 0) == [drawn(sampler, 0)[4], drawn(sampler, 0)[0]]


def test_reference_log_probs_follow_their_negative() -> None:
    row = NegativeSampler(candidates(), 3, resample=True, seed=0)[4]
    assert row["ref_rejected_logps"] == [-1.0 * ids[0] for ids in row["rejected_ids"]]


def test_rows_with_few_candidates_keep_them_all() -> None:
    assert len(NegativeSampler(candidates(count=2), 3, resample=True, seed=0)[0]["rejected_ids"]) == 2


def test_workers_that_outlive_an_epoch_see_it_change() -> None:
    sampler = NegativeSampler(candidates(2), 2, resample=True, seed=0)
    loader = DataLoader(sampler, 2, num_workers=1, persistent_workers=True, collate_fn=lambda rows: rows)
    found = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        found.append([row["rejected_ids"] for row in next(iter(loader))])
    assert found == [drawn(sampler, 0), drawn(sampler, 1)]


def test_every_candidate_is_drawn_at_the_same_rate() -> None:
    sampler = NegativeSampler(candidates(1, 4), 2, resample=True, seed=0)
    counts = [0] * 4
    for epoch in range(400):
        for (token,) in drawn(sampler, epoch)[0]:
            counts[token] += 1
    assert all(160 < count < 240 for count in counts)  # 200 expected, deviation 10


# --- truncation -----------------------------------------------------------------------------------------------

LONG = {"prompt": "0123456789", "chosen": "abcdefgh", "rejected": ["uvw", "ABCDEFGHIJKL"]}


@pytest.mark.parametrize(
    ("mode", "max_length", "texts"),
    [
        ("keep_start", 14, ["0123456789", "abcd", "uvw</s>", "ABCD"]),
        ("keep_start", 19, ["0123456789", "abcdefgh</s>", "uvw</s>", "ABCDEFGHI"]),
        ("keep_end", 20, ["3456789", "abcdefgh</s>", "uvw</s>", "ABCDEFGHIJKL</s>"]),
        ("keep_end", 8, ["9", "abcdefg", "uvw</s>", "ABCDEFG"]),
        ("keep_end", None, ["0123456789", "abcdefgh</s>", "uvw</s>", "ABCDEFGHIJKL</s>"]),
    ],
)
def test_truncation_keeps_one_prompt_for_all_answers(
    mode: str, max_length: int | None, texts: list[str], tokenizer: PreTrainedTokenizerFast
) -> None:
    (row,) = prepared([LONG], tokenizer, max_length=max_length, truncation_mode=mode)
    assert [tokenizer.decode(ids) for ids in (row["prompt_ids"], row["chosen_ids"], *row["rejected_ids"])] == texts


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=2, max_size=4),
    st.integers(2, 20),
    st.sampled_from(["keep_start", "keep_end"]),
)
def test_truncated_rows_fit_and_lose_nothing_else(
    prompt: list[int], answers: list[list[int]], max_length: int, mode: str
) -> None:
    kept, cut = _truncate(prompt, answers, max_length, mode)
    if not kept:
        assert mode == "keep_start"
        assert len(prompt) >= max_length
        return
    assert max(len(kept) + len(answer) for answer in cut) == min(max_length, len(prompt) + max(map(len, answers)))
    assert all(whole[: len(short)] == short and short for whole, short in zip(answers, cut, strict=True))
    assert prompt[-len(kept) :] == kept
    assert mode == "keep_end" or kept == prompt


def test_truncation_is_the_same_whatever_the_other_rows_and_labels(tokenizer: PreTrainedTokenizerFast) -> None:
    pair = {"prompt": LONG["prompt"], "chosen": "abcdefgh", "rejected": "ABCDEFGHIJKL"}
    swapped = pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]}
    for mode in ("keep_start", "keep_end"):
        clean, flipped = prepared([pair, swapped], tokenizer, max_length=15, truncation_mode=mode)
        assert clean["prompt_ids"] == flipped["prompt_ids"]
        assert clean["chosen_ids"] == flipped["rejected_ids"][0]
        assert clean["rejected_ids"][0] == flipped["chosen_ids"]


def test_answers_equal_after_truncation_are_no_pair(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [LONG | {"chosen": "abcdX", "rejected": ["abcdY"]}]
    with pytest.raises(ValueError, match=r"row 0: no rejected answer differs.*none is left"):
        prepared(rows, tokenizer, max_length=14)
    with pytest.raises(ValueError, match="fills max_length alone"):
        prepared(rows, tokenizer, max_length=10)


# --- rows that cannot be read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"chosen": None}, r"row 1 of the test data: chosen and rejected are all text .*\(got NoneType, str\)"),
        ({"rejected": None}, r"row 1 of the test data: rejected is an answer or a list .*\(got NoneType\)"),
    ],
)
@pytest.mark.parametrize("implicit", [False, True])
def test_broken_rows_are_named(
    broken: dict[str, Any], reason: str, implicit: bool, tokenizer: PreTrainedTokenizerFast
) -> None:
    good = {"prompt": "p", "chosen": "pa", "rejected": "pb"}
    rows = [{k: v for k, v in row.items() if not (implicit and k == "prompt")} for row in (good, good | broken)]
    with pytest.raises(ValueError, match=reason):
        prepared(rows, tokenizer, name="test")


def test_a_missing_answer_among_several_is_named(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [{"prompt": "p", "chosen": " a", "rejected": [" b", None]}]
    with pytest.raises(ValueError, match=r"row 0 of the train data.*\(got str, str, NoneType\)"):
        prepared(rows, tokenizer)


def test_text_and_messages_do_not_mix(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [{"prompt": "p", "chosen": assistant("a"), "rejected": assistant("b")}]
    with pytest.raises(ValueError, match=r"row 0 of the train data: .*\(got text and messages\)"):
        prepared(rows, tokenizer)


def test_a_failing_chat_template_is_told_with_its_row(tokenizer: PreTrainedTokenizerFast) -> None:
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{% if messages[0].role != 'user' %}{{ raise_exception('no user turn') }}{% endif %}"
    with pytest.raises(ValueError, match="row 0 of the train data: no user turn"):
        prepared([{"prompt": assistant("x"), "chosen": assistant("a"), "rejected": assistant("b")}], strict)


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (Dataset.from_list([{"prompt": "p", "chosen": "a"}]), {}, ValueError, "missing: rejected; got"),
        (Dataset.from_list([LONG]).to_iterable_dataset(), {}, TypeError, "collect a stream with"),
        (Dataset.from_list([LONG]), {"truncation_mode": "middle"}, ValueError, "'keep_start' or 'keep_end'"),
    ],
)
def test_wrong_data_and_options_are_refused(
    data: Any, options: dict[str, Any], error: type[Exception], message: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(error, match=message):
        prepare_preferences(data, tokenizer, **options)


def test_rejected_is_no_number() -> None:
    with pytest.raises(TypeError, match=r"an answer or a list of answers \(got int\)"):
        as_answers(3)


# --- files ----------------------------------------------------------------------------------------------------

HH = [
    {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: go away"},
    {
        "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
        "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: e",
    },
    {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: x\n\nAssistant: b"},
    {"chosen": "no turns", "rejected": "at all"},
]


def test_hh_dialogues_are_split_at_the_last_answer(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = split_dialogues(Dataset.from_list(HH))
    assert list(found) == [
        {"prompt": "\n\nHuman: hi\n\nAssistant:", "chosen": " hello", "rejected": " go away"},
        {
            "prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:",
            "chosen": " d",
            "rejected": " e",
        },
    ]
    assert "2 of 4 dialogues" in caplog.text
    assert "(rows 2, 3)" in caplog.text


def test_hh_dialogues_with_several_rejected_answers() -> None:
    (row,) = split_dialogues(
        Dataset.from_list([HH[0] | {"rejected": [HH[0]["rejected"], "\n\nHuman: hi\n\nAssistant: no"]}])
    )
    assert row["rejected"] == [" go away", " no"]
    with pytest.raises(ValueError, match=r"row 1: a dialogue is text \(got NoneType, text\)"):
        split_dialogues(Dataset.from_list([HH[0], {"chosen": None, "rejected": "x"}]))


def test_real_hh_file(data_dir: Callable[[str], Path], tokenizer: PreTrainedTokenizerFast) -> None:
    data = load_preferences(str(data_dir("hh-helpful-base-test")))
    assert len(data) > 2000
    assert all(prompt.endswith("\n\nAssistant:") for prompt in data["prompt"])
    rows = prepared(data.select(range(20)), tokenizer, max_length=400, truncation_mode="keep_end")
    assert all(len(row["prompt_ids"]) + len(row["chosen_ids"]) <= 400 for row in rows)


@pytest.mark.parametrize("name", ["pairs.json", "pairs.jsonl", "pairs.json.gz", "pairs.jsonl.gz", "pairs.parquet"])
@pytest.mark.parametrize("folder", [False, True])
def test_files_of_every_kind(name: str, folder: bool, tmp_path: Path, make_preferences: Any) -> None:
    data, file = make_preferences(4, 2), tmp_path / name
    if name.endswith("parquet"):
        data.to_parquet(file)
    else:
        text = json.dumps(list(data)) if ".jsonl" not in name else "\n".join(map(json.dumps, data))
        file.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    assert list(load_preferences(str(tmp_path if folder else file))) == list(data)


def test_a_file_may_mix_one_answer_and_several_and_miss_keys(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "a", "rejected": ["c", "d"]}]
    file.write_text("\n".join(map(json.dumps, [rows[0], rows[1] | {"flipped": True}])))
    data = load_preferences(str(file))
    assert data["rejected"][:] == [["b"], ["c", "d"]]
    assert data["flipped"][:] == [None, True]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("pairs.jsonl", '{"chosen": "a", "rejected": "b"}\n{"chosen"', "pairs.jsonl line 2 is not JSON"),
        ("pairs.json", "[1", "pairs.json is not JSON"),
        ("pairs.json", "[]", "no list of rows"),
        ("pairs.json", '{"chosen": "a"}', "no list of rows .got dict, 1"),
        ("pairs.jsonl", '{"chosen": "a", "rejected": "b"}\n3', "line 2 is not an object with keys .got int"),
        ("pairs.csv", "chosen,rejected", "is not JSON, JSON lines or Parquet"),
    ],
)
def test_files_that_cannot_be_read_are_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_preferences(str(tmp_path / name))


def test_missing_and_ambiguous_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_preferences(str(tmp_path / "absent.jsonl"))
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("[]")
    with pytest.raises(ValueError, match="holds 2 JSON or Parquet files"):
        load_preferences(str(tmp_path))
