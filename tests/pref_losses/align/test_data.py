"""Splits that keep prompts together, flips that are remembered."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset

from pref_losses.align.data import choose, flip_preferences, load_rows, preferences_fingerprint, with_prompts
from pref_losses.align.options import DataOptions


def rows(count: int = 400, same: int = 4) -> Dataset:
    return Dataset.from_list(
        [{"prompt": f"p{i // same}:", "chosen": f" good {i}", "rejected": f" bad {i}"} for i in range(count)]
    )


def shuffled(data: Dataset) -> Dataset:
    order = list(range(len(data)))
    random.Random(3).shuffle(order)
    return data.select(order)


def test_a_prompt_is_on_one_side_only() -> None:
    train, test = choose(rows(), 0.25, None, 0)
    assert len(train) + len(test) == 400
    assert not set(train["prompt"]) & set(test["prompt"])
    assert 100 <= len(test) < 104


def test_the_parts_depend_on_seed_and_prompts_only() -> None:
    first, again = choose(rows(), 0.25, None, 0)[1], choose(shuffled(rows()), 0.25, None, 0)[1]
    assert set(first["chosen"]) == set(again["chosen"])
    assert set(choose(rows(), 0.25, None, 1)[1]["chosen"]) != set(first["chosen"])


def test_max_rows_counts_both_parts_and_a_number_of_test_rows_may_be_named() -> None:
    train, test = choose(rows(same=1), 10, 50, 0)
    assert (len(train), len(test)) == (40, 10)
    train, test = choose(rows(same=1), 0, 50, 0)
    assert (len(train), len(test)) == (50, 0)


def test_nothing_left_to_train_on_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves none to train on"):
        choose(rows(), 400, None, 0)


def test_flips_exchange_the_answers_of_the_share_asked_for() -> None:
    flipped = flip_preferences(rows(), 0.3, 0)
    share = sum(flipped["flipped"]) / 400
    assert 0.22 < share < 0.38
    for row, before in zip(flipped, rows(), strict=True):
        expected = (before["rejected"], before["chosen"]) if row["flipped"] else (before["chosen"], before["rejected"])
        assert (row["chosen"], row["rejected"]) == expected


def test_flips_do_not_depend_on_the_order_and_grow_with_the_rate() -> None:
    def which(data: Dataset, rate: float, seed: int = 0) -> set[str]:
        return {row["chosen"] for row in flip_preferences(data, rate, seed) if row["flipped"]}

    some = which(rows(), 0.2)
    assert some == which(shuffled(rows()), 0.2)
    assert some < which(rows(), 0.4)
    assert some != which(rows(), 0.2, seed=1)
    assert which(rows(), 0.0) == set()
    assert len(which(rows(), 1.0)) == 400


def test_flips_of_lists() -> None:
    one = Dataset.from_list([{"prompt": "p", "chosen": "a", "rejected": ["b"]}])
    assert flip_preferences(one, 1.0, 0)[0] == {"prompt": "p", "chosen": "b", "rejected": ["a"], "flipped": True}
    two = Dataset.from_list([{"prompt": "p", "chosen": "a", "rejected": ["b", "c"]}])
    with pytest.raises(ValueError, match="2 rejected answers"):
        flip_preferences(two, 1.0, 0)


def test_prompts_are_split_off_whole_dialogues() -> None:
    messages = [{"role": "user", "content": "q"}]
    said = {name: [*messages, {"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    assert with_prompts(Dataset.from_list([said]))[0] == {
        "prompt": messages,
        "chosen": [{"role": "assistant", "content": "chosen"}],
        "rejected": [{"role": "assistant", "content": "rejected"}],
    }


PAIR = '{"prompt": "p:", "chosen": " a", "rejected": " b"}'


@pytest.mark.parametrize(
    ("name", "text", "kind", "told"),
    [
        ("empty.jsonl", "", ValueError, "empty.jsonl .*rows"),
        ("broken.jsonl", f'{PAIR}\n{PAIR}\n{{"prompt": "p:", "cho\n', ValueError, "broken.jsonl line 3"),
        ("other.jsonl", '{"prompt": "p:", "chosen": "a"}', ValueError, "missing: rejected; got prompt, chosen"),
        ("rows.csv", "a,b", ValueError, "is not JSON"),
        (None, "", FileNotFoundError, "absent.jsonl"),
    ],
)
def test_files_without_preferences_are_named(
    tmp_path: Path, name: str | None, text: str, kind: type[Exception], told: str
) -> None:
    if name is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(kind, match=told):
        load_rows(DataOptions(dataset_name=str(tmp_path / (name or "absent.jsonl"))))


def test_json_parquet_and_a_test_file(tmp_path: Path) -> None:
    data = rows(40, same=1)
    data.to_json(tmp_path / "rows.jsonl")
    data.to_parquet(tmp_path / "rows.parquet")
    data.to_json(tmp_path / "rows.json", lines=False)
    digests = set()
    for kind in ("jsonl", "parquet", "json"):
        train, test = load_rows(DataOptions(dataset_name=str(tmp_path / f"rows.{kind}")))
        assert test is not None
        assert (len(train), len(test)) == (36, 4)
        digests.add(preferences_fingerprint(train, test))
    assert len(digests) == 1
    own = DataOptions(dataset_name=str(tmp_path / "rows.json"), test_dataset=str(tmp_path / "rows.parquet"))
    assert [len(part) for part in load_rows(own) if part is not None] == [40, 40]


def test_real_dialogues(data_dir: Callable[[str], Path]) -> None:
    folder = data_dir("hh-helpful-base-test")
    train, test = load_rows(DataOptions(dataset_name=str(folder), max_rows=200))
    assert test is not None
    assert len(train) + len(test) == 200
    for row in [*train, *test]:
        assert row["prompt"].startswith("\n\nHuman:")
        assert row["prompt"].endswith("\n\nAssistant:")
        assert "\n\nAssistant:" not in row["chosen"] + row["rejected"]


def test_the_digest_sees_every_answer_and_the_parts() -> None:
    data = rows(4)
    changed = Dataset.from_list([*data.select(range(3)), {**data[3], "rejected": " bad"}])
    halves = (data.select(range(2)), data.select(range(2, 4)))
    digests = [
        preferences_fingerprint(*parts) for parts in ((data, None), (changed, None), halves, (shuffled(data), None))
    ]
    assert len(set(digests)) == 4
    assert preferences_fingerprint(data, None) == digests[0]
