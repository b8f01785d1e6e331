from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fair_rec import Lists, dgu, group_unfairness, groups_of, mgu, unfairness_report

ROOT = Path(__file__).parents[2]
SCRIPT = "fair_rec_mitigation"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.claims import fair_rec_mitigation

    return fair_rec_mitigation


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_quick_run_writes_a_result_and_keeps_its_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, threads: None
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(sys, "argv", [SCRIPT, "--quick", "--output", str(tmp_path), "--work", str(tmp_path / "work")])
    results = []
    for _ in range(2):
        runpy.run_module(f"benchmarks.claims.{SCRIPT}", run_name="__main__")
        results.append((capsys.readouterr().out, json.loads((tmp_path / f"{SCRIPT}.json").read_text())))
    (first, result), (again, resumed) = results
    assert "SASRec, both by category, seed 0:" in first
    assert "seed 0:" not in again  # every run was kept
    assert resumed | {"date": result["date"]} == result
    assert result["not_run"] == []
    assert len(result["claims"]) == 6
    assert all(claim["differences"] for claim in result["claims"])
    assert all(d["p"] is None for claim in result["claims"] for d in claim["differences"])  # one seed
    systems = {row["system"] for row in result["rows"]}
    assert "MovieTweetings, item-kNN, programme by popularity" in systems
    assert not [name for name in systems if name.startswith("MovieTweetings, item-kNN, re-weighted")]  # it only counts
    assert {row["metric"] for row in result["rows"]} >= {
        "ndcg@1",
        "ndcg@20",
        "MGU@5 by category",
        "DGU@20 by popularity",
    }
    chosen = {b["system"]: b["chosen"] for b in result["budget"]}
    assert "alpha" in chosen["MovieTweetings, SASRec, both by popularity"]
    assert "tolerance" in chosen["MovieTweetings, SASRec, programme by popularity"]
    assert str(tmp_path) not in "".join(p.read_text() for p in (tmp_path / "runs").rglob("*.json"))


def _people(seed: int = 0) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Groups, lists of 20, whose list each is (some have several), and what shares are compared with."""
    rng = np.random.default_rng(seed)
    groups = groups_of([("a", "b")[: 1 + i % 2] if i % 3 else ("c",) for i in range(30)], "group")
    taste = 1 / np.arange(1, 31)
    items = np.array([rng.choice(30, 20, replace=False, p=taste / taste.sum()) + 1 for _ in range(300)])
    return groups, items, np.sort(rng.integers(0, 200, 300)), np.array([0.2, 0.1, 0.7])


def test_a_linear_value_has_the_metric_as_its_mean_and_survives_json(study: Any) -> None:
    groups, items, user, reference = _people()
    told = json.loads(json.dumps(study.packed(study.counts_of(items, user, groups))))
    counts = study.unpacked(told)
    people = np.unique(user, return_inverse=True)[1]
    for place, k in enumerate(study.KS):
        found = study.linear_values(counts[place], reference, people)
        unfairness = group_unfairness(Lists(items, user, 30), groups, reference, k)
        assert found["MGU"].mean() == pytest.approx(mgu(unfairness))
        assert found["DGU"].mean() == pytest.approx(dgu(unfairness))


def test_its_interval_over_people_is_that_of_the_bootstrap(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    groups, items, user, reference = _people()
    people = np.unique(user, return_inverse=True)[1]
    report = unfairness_report(Lists(items, user, 30), groups, reference, [10], bootstrap=4000).set_index("group")
    values = study.linear_values(study.counts_of(items, user, groups)[2], reference, people)
    for name in ("MGU", "DGU"):
        found = study.estimate(np.stack([values[name]] * 2), user)  # two seeds that agree
        expected = report.loc[name]
        assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.1)
        assert (found.low, found.high) == pytest.approx(
            (expected.low, expected.high), abs=0.2 * (found.high - found.low)
        )


def _point(rule: str, strength: float, ndcg: float, mgu: float) -> dict[str, Any]:
    return {"rule": rule, "strength": strength, "ndcg": ndcg, "mgu": mgu}


def test_strengths_are_chosen_by_fairness_under_a_floor_of_accuracy(study: Any) -> None:
    paper = [
        _point("paper", *p) for p in ((0.0, 0.100, 0.5), (0.01, 0.099, 0.4), (0.05, 0.0951, 0.2), (0.1, 0.09, 0.1))
    ]
    chosen = study.chosen_alpha(paper)
    assert chosen["strength"] == 0.05
    assert study.chosen_alpha([paper[0], paper[3]])["strength"] == 0.1  # none keeps the accuracy: the weakest
    programme = [_point("programme", *p) for p in ((0.1, 0.099, 0.3), (0.05, 0.098, 0.2), (0.01, 0.097, 0.1))]
    assert study.chosen_tolerance([*paper, *programme], chosen)["strength"] == 0.05
    assert study.chosen_tolerance([*paper, programme[0]], chosen)["strength"] == 0.1  # none is as fair: the fairest
