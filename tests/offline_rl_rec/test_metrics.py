from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from datasets import Dataset

from offline_rl_rec import CQL, RewardRule, with_returns
from predilect.evaluation import Evaluation, evaluate
from predilect.recommenders import Popularity


@pytest.fixture(scope="module")
def shop(tiny_splits):
    s = tiny_splits.sequences
    bought = dataclasses.replace(s, event=(s.items % 4 == 0).astype(np.int32), events=("click", "buy"))
    parts = {p: dataclasses.replace(tiny_splits.part(p), sequences=bought) for p in ("train", "validation", "test")}
    return dataclasses.replace(tiny_splits, **parts)


def test_what_lists_earn_by_hand(shop):
    """Every second row of the part is found, at rank 1; lists stay the same."""
    part = shop.test
    rank = np.where(np.arange(len(part)) % 2, 1, 99)
    rows = {"row": np.arange(len(part)), "target": part.target, "rank": rank, "top": [[1, 2]] * len(part)}
    made = Evaluation("made", {"part": "test"}, {"hr@5": 0.5}, Dataset.from_dict(rows))
    found = with_returns(made, shop, RewardRule(0.5, 2.0), discount=0.5, ks=(5,)).results
    reward = np.where(part.target % 4 == 0, 2.0, 0.5) * (rank == 1)
    returns = []
    for user in np.unique(part.user):
        mine = np.flatnonzero(part.user == user)
        mine = mine[np.argsort(part.position[mine])]
        returns.append(sum(0.5**t * reward[i] for t, i in enumerate(mine)))
    assert found["hr@5"] == 0.5
    assert found["reward@5"] == pytest.approx(reward.mean())
    assert found["return@5"] == pytest.approx(np.mean(returns))
    assert found["repetition@2"] == 1.0


def test_values_are_compared_with_the_returns_that_followed(shop):
    agent = CQL(hidden_size=8, max_epochs=1, backbone="gru4rec").fit(shop)
    found = with_returns(evaluate(agent, shop, bootstrap=0), shop, agent=agent).results
    highest = agent.values(shop.test.histories()).amax(1).mean()
    assert found["max_q"] == pytest.approx(float(highest), rel=1e-4)
    assert found["overestimation"] == pytest.approx(found["max_q"] - found["realised_return"])
    assert 0.2 <= found["realised_return"] <= 2.0


def test_other_rows_are_refused(shop):
    drawn = evaluate(Popularity().fit(shop), shop, bootstrap=0, max_rows=10)
    with pytest.raises(ValueError, match=r"10 rows and the part 'test' of these splits"):
        with_returns(drawn, shop)
