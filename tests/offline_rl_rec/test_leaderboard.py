from __future__ import annotations

import dataclasses
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

from offline_rl_rec import ReturnsOfLists, with_behaviours, with_returns
from predilect.data import SequenceSplits
from predilect.evaluation import evaluate
from predilect.evaluation.further import further_measures
from predilect.leaderboard import LeaderboardConfig, run_leaderboard
from predilect.recommenders import Popularity
from predilect.registry import METRICS


@pytest.fixture(scope="module")
def shop(tiny_splits) -> SequenceSplits:
    s = tiny_splits.sequences
    bought = dataclasses.replace(s, event=(s.items % 4 == 0).astype(np.int32), events=("click", "buy"))
    parts = {p: dataclasses.replace(tiny_splits.part(p), sequences=bought) for p in ("train", "validation", "test")}
    return dataclasses.replace(tiny_splits, **parts)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_columns_are_those_of_the_evaluation(shop, part):
    labelled = with_behaviours(shop)
    whole = evaluate(Popularity().fit(labelled), labelled, part, bootstrap=0, group_by=["behaviour"])
    found = {metric.name: metric.value for metric in ReturnsOfLists(shop)(whole.rows)}
    assert found["return@10"] == pytest.approx(with_returns(whole, shop).results["return@10"])
    for behaviour, metrics in whole.groups["behaviour"].items():
        for kind in ("hr@10", "ndcg@10"):
            assert found[f"{kind} {behaviour}"] == pytest.approx(metrics[kind])
    assert any(name.startswith("repetition@") for name in found)


def test_drawn_rows_have_no_return(shop):
    drawn = evaluate(Popularity().fit(shop), shop, bootstrap=0, max_rows=len(shop.test) - 1)
    names = {metric.name for metric in ReturnsOfLists(shop)(drawn.rows)}
    assert names
    assert not any(name.startswith(("return", "repetition")) for name in names)


def test_a_log_without_rewards_shows_nothing_and_notes_nothing(tiny_splits):
    said: list[str] = []
    measure = further_measures(tiny_splits, said.append)["returns"]
    assert measure(evaluate(Popularity().fit(tiny_splits), tiny_splits, bootstrap=0).rows) == []
    assert not [note for note in said if "returns" in note]


def test_it_is_registered_and_in_the_leaderboard(tmp_path: Path):
    assert "returns" in {entry.name for entry in entry_points(group=METRICS)}
    rows = [
        f"{u},{(u + s) % 9},{100 * s + u},{'buy' if (u + s) % 3 == 2 else 'click'}"
        for u in range(20)
        for s in range(9)
    ]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,event", *rows]) + "\n")
    config = LeaderboardConfig(
        data=str(tmp_path / "log.csv"), models=("popularity",), output_dir=tmp_path / "run", bootstrap=10, k_core=0
    )
    board = run_leaderboard(config)
    assert {"return@10", "ndcg@10 purchase", "ndcg@10 click"} <= set(board.ranked[0].metrics)
    assert "return@10" in board.further
