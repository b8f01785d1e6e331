from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from fair_rec import FairnessOfLists
from predilect.data import RecDataset, SequenceSplits
from predilect.leaderboard import LeaderboardConfig, run_leaderboard
from predilect.registry import METRICS

STEPS = 12


def _walks(categories: list[list[str]]) -> SequenceSplits:
    """Two people who take item 1, 2, ... in turn; the last two are of validation and test."""
    items = range(1, len(categories) + 1)
    log = {
        "user_id": [user for user in (0, 1) for _ in items],
        "item_id": [*items, *items],
        "timestamp": [100 * step + user for user in (0, 1) for step in items],
        "rating": [1.0] * 2 * len(categories),
    }
    table = {
        "item_id": list(items),
        "raw_id": [f"r{i}" for i in items],
        "title": [f"Item {i}" for i in items],
        "categories": categories,
    }
    data = RecDataset(Dataset.from_dict(log), Dataset.from_dict(table), name="walks")
    return data.split("leave_one_out", max_history=STEPS)


def _rows(top: list[int]) -> Dataset:
    return Dataset.from_dict({"user_id": [0, 1], "top": [top, top]})


def test_a_hand_counted_example() -> None:
    # Histories of the training rows (targets 2 to 10): item i stands in 10 - i of them, 45 in all. a: items 1 to 3.
    splits = _walks([["a"]] * 3 + [["b"]] * 9)
    found = FairnessOfLists(splits)(_rows(list(range(1, 11))))
    values = {metric.name: metric.value for metric in found}
    assert list(values) == ["mgu@10 popularity", "dgu@10 popularity", "mgu@10 category", "dgu@10 category"]
    # a: 3 / 10 of the places, (9 + 8 + 7) / 45 of the histories
    assert values["mgu@10 category"] == pytest.approx(24 / 45 - 3 / 10)
    assert values["dgu@10 category"] == pytest.approx(2 * (24 / 45 - 3 / 10))
    # Items 11 and 12 are not in training: groups (11, 12, 1), (2, 3, 4), (5, 6), (7, 8), (9, 10)
    unfairness = [1 / 10 - 9 / 45, 3 / 10 - 21 / 45, 2 / 10 - 9 / 45, 2 / 10 - 5 / 45, 2 / 10 - 1 / 45]
    assert values["mgu@10 popularity"] == pytest.approx(sum(map(abs, unfairness)) / 5)
    assert values["dgu@10 popularity"] == pytest.approx(max(unfairness) - min(unfairness))
    assert all(metric.lower_is_better for metric in found)


def test_what_cannot_be_measured_has_no_column() -> None:
    without = FairnessOfLists(_walks([[]] * 12))(_rows(list(range(1, 11))))
    assert [metric.name for metric in without] == ["mgu@10 popularity", "dgu@10 popularity"]
    assert FairnessOfLists(_walks([["a"]] * 12))(_rows([1, 2, 3])) == []
    assert FairnessOfLists(_walks([[]] * 4))(_rows([1, 2, 3])) == []


def test_shorter_lists_count_the_places_that_they_have() -> None:
    splits = _walks([["a"]] * 3 + [["b"]] * 9)
    rows = Dataset.from_dict({"user_id": [0, 1], "top": [list(range(1, 11)), [4, 5]]})
    values = {metric.name: metric.value for metric in FairnessOfLists(splits)(rows)}
    assert values["mgu@10 category"] == pytest.approx(24 / 45 - 3 / 12)


def test_the_leaderboard_shows_them_for_every_model(tmp_path: Path, tiny_splits: Any) -> None:
    assert "fairness" in {entry.name for entry in entry_points(group=METRICS)}
    config = LeaderboardConfig(models=("popularity", "item-knn"), output_dir=tmp_path / "run", bootstrap=20)
    board = run_leaderboard(config, splits=tiny_splits, command="test")
    names = ["mgu@10 popularity", "dgu@10 popularity", "mgu@10 category", "dgu@10 category"]
    assert list(board.further) == names
    assert all(0 <= model.metrics[name] <= 2 for model in board.models for name in names)
