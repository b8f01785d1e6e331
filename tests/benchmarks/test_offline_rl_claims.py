from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offline_rl_rec import LogitChoice
from predilect.testing import planted_splits

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ope(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.claims import offline_rl_ope

    return offline_rl_ope


def test_a_policy_is_a_distribution_over_what_is_not_in_the_history(ope: Any) -> None:
    policy = ope.Policy(np.array([1, 2, 3]), np.array([1.0, 3.0, 4.0]))
    found = policy.probabilities(np.array([[0, 3], [0, 9]]))
    np.testing.assert_allclose(found, [[0.25, 0.75, 0], [0.125, 0.375, 0.5]])
    np.testing.assert_allclose(policy.probabilities(np.array([[1, 2, 3]])), 1 / 3)


def test_estimates_on_simulated_users_hold_the_truth(ope: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 logs: a coverage of .95 gives fewer than 24 with a chance below 1 in 10,000."""
    splits = planted_splits()
    users = LogitChoice().fit(splits.test, splits.num_items)
    monkeypatch.setattr(ope, "TARGETS", (0.5, 1.0))
    rows = list(ope.rows_of(users, 30, 20_000))
    told = {(row["beta"], row["estimator"]): row for row in rows}
    assert {name for beta, name in told if beta == 1.0} == {
        "importance",
        "clipped",
        "self-normalised",
        "doubly-robust",
    }
    for name in ("importance", "doubly-robust"):
        row = told[1.0, name]
        assert row["coverage"] >= 24 / 30
        assert abs(row["bias"]) < 4 * row["bias_error"]
    same = told[0.5, "logged"]
    assert same["effective"] == pytest.approx(ope.SESSIONS)
    assert told[0.5, "importance"]["bias"] == pytest.approx(same["bias"])


@pytest.mark.slow
def test_the_study_of_agents_keeps_its_runs_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.claims import offline_rl_agents as study

    threads = torch.get_num_threads()
    few = ("backbone alone", "MCRL")
    monkeypatch.setattr(study, "SYSTEMS", {name: study.SYSTEMS[name] for name in few})
    monkeypatch.setattr(study, "CLAIMS", {claim: c for claim, c in study.CLAIMS.items() if set(c[:2]) <= set(few)})
    command = ["study", "--quick", "--output", str(tmp_path), "--work", str(tmp_path / "work")]
    try:
        for argv in (command, [*command, "--kept"]):
            monkeypatch.setattr(sys, "argv", argv)
            study.main()
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().out.count("trained in") == 2  # the second time nothing is run
    result = json.loads((tmp_path / "offline_rl_agents.json").read_text())
    assert {row["metric"] for row in result["rows"]} >= {
        "ndcg@10 of purchases",
        "hr@5 of clicks",
        "return, logit users",
    }
    assert all(claim["differences"] for claim in result["claims"])
    assert "rc15-sample, all systems" not in result["not_run"]
    assert "MovieTweetings, all systems" not in result["not_run"]  # a smoke run is of one data set
