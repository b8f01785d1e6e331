from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predilect.leaderboard.comparisons import compare_in_groups
from predilect.leaderboard.config import LeaderboardConfig
from predilect.leaderboard.results import ModelResult


def write_ranks(folder: Path, name: str, rare: int, often: np.ndarray) -> None:
    """80 people with a rare and a frequent target, one more with a target never taken."""
    people = np.arange(80)
    columns = {
        "row": np.arange(161),
        "user_id": np.concatenate([people, people, [99]]),
        "position": np.concatenate([np.full(80, 3), np.full(80, 9), [4]]),
        "target": np.ones(161, dtype=int),
        "target_frequency": ["1 to 5"] * 80 + ["more"] * 80 + ["never"],
        "history_length": ["0 to 5"] * 80 + ["6 to 20"] * 80 + ["0 to 5"],
        "rank": np.concatenate([np.full(80, rare), often, [50]]),
    }
    (folder / name).mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / name / "rows.parquet")


def test_who_beats_the_best_counting_method_on_which_rows(tmp_path: Path) -> None:
    often = np.tile([1, 5], 40)
    write_ranks(tmp_path, "knn", 20, often)
    write_ranks(tmp_path, "popularity", 20, often)
    write_ranks(tmp_path, "net", 2, often[::-1])
    models = [
        ModelResult(name, "ok", {"ndcg@10": value}, parameters)
        for name, value, parameters in (("knn", 0.6, 0), ("net", 0.5, 9), ("popularity", 0.4, 0))
    ]
    found = {(c.by, c.group): c for c in compare_in_groups(models, tmp_path, LeaderboardConfig(bootstrap=200))}
    assert {(c.model, c.other) for c in found.values()} == {("net", "knn")}
    assert set(found) == {
        ("target_frequency", "1 to 5"),
        ("target_frequency", "more"),
        ("history_length", "0 to 5"),
        ("history_length", "6 to 20"),
    }  # one person alone is no group
    rare, more = found["target_frequency", "1 to 5"], found["target_frequency", "more"]
    assert rare.difference == pytest.approx(1 / np.log2(3))
    assert (rare.rows, rare.users) == (80, 80)
    assert rare.beats
    assert not rare.loses
    assert more.difference == pytest.approx(0)
    assert not more.beats
    assert not more.loses


def test_few_people_decide_nothing(tmp_path: Path) -> None:
    write_ranks(tmp_path, "knn", 20, np.ones(80, dtype=int))
    write_ranks(tmp_path, "net", 2, np.full(80, 9))
    for name in ("knn", "net"):
        path = tmp_path / name / "rows.parquet"
        pq.write_table(pq.read_table(path).take(list(range(20)) + list(range(80, 160))), path)
    models = [ModelResult("knn", "ok", {"ndcg@10": 0.6}, 0), ModelResult("net", "ok", {"ndcg@10": 0.5}, 9)]
    found = {c.group: c for c in compare_in_groups(models, tmp_path, LeaderboardConfig(bootstrap=200))}
    assert found["1 to 5"].low > 0
    assert not found["1 to 5"].beats  # 20 people
    assert found["more"].loses


def test_without_a_trained_model_there_is_nothing_to_compare(tmp_path: Path) -> None:
    models = [ModelResult("knn", "ok", {"ndcg@10": 0.6}, 0), ModelResult("net", "failed", error="x")]
    assert compare_in_groups(models, tmp_path, LeaderboardConfig()) == []
