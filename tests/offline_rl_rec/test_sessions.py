from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_rl_rec import RewardRule, Sessions, discounted_returns, with_behaviours
from predilect.data.rows import SequenceRows, UserSequences
from predilect.evaluation import evaluate
from predilect.recommenders import Popularity


def log(**columns) -> UserSequences:
    return UserSequences(np.arange(1, 6, dtype=np.int32), np.array([0, 3, 5]), **columns)


EVENTS = {"event": np.array([0, 0, 1, 0, -1], dtype=np.int32), "events": ("view", "addtocart")}


@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=8), min_size=1, max_size=5),
    st.floats(0, 1),
)
def test_returns_are_the_sums_written_out(episodes, discount):
    reward = np.array([r for e in episodes for r in e])
    done = np.array([i == len(e) - 1 for e in episodes for i in range(len(e))])
    expected = [sum(discount**k * r for k, r in enumerate(e[i:])) for e in episodes for i in range(len(e))]
    np.testing.assert_allclose(discounted_returns(reward, done, discount), expected, atol=1e-9)


def test_no_events_have_no_returns():
    assert discounted_returns(np.zeros(0), np.zeros(0, dtype=bool), 0.5).shape == (0,)


@pytest.mark.parametrize(
    ("reward", "done", "discount", "message"),
    [
        ([1.0, np.nan], [False, True], 0.5, r"rewards must be finite \(got nan in event 1\)"),
        ([1.0, 1.0], [True, False], 0.5, "has no end"),
        ([1.0], [True], 1.5, r"discount must be in \[0, 1\] \(got 1.5\)"),
        ([1.0, 2.0], [True], 0.5, "alike"),
    ],
)
def test_bad_returns(reward, done, discount, message):
    with pytest.raises(ValueError, match=message):
        discounted_returns(np.array(reward), np.array(done), discount)


def test_events_say_what_a_purchase_is():
    rule = RewardRule(click=0.5, purchase=2.0)
    rows = SequenceRows.at(log(**EVENTS), np.array([0, 1, 0]), np.array([2, 1, 1]), max_history=3)
    sessions = Sessions.of(rows, rule)
    assert sessions.reward.tolist() == [0.5, 0.5, 2.0, 0.5, 0.5]  # what is not known is no purchase
    assert sessions.behaviours(rows).tolist() == ["purchase", "click", "click"]
    assert sessions.returns(rows, 0.5).tolist() == [2.0, 0.5, 0.5 + 0.5 * 2.0]  # in the order of the rows


@pytest.mark.parametrize(("liked", "expected"), [(None, [0, 1, 1, 0, 0]), (3, [1, 1, 1, 0, 1])])
def test_ratings_by_an_explicit_rule(liked, expected):
    rating = np.array([3, 4, 5, 1, 3], dtype=np.float32)
    assert RewardRule(liked=liked).is_purchase(log(rating=rating)).tolist() == [bool(x) for x in expected]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "the log has no rewards"),
        ({"rating": np.ones(5, dtype=np.float32)}, "the log has no rewards"),
        ({"rating": np.array([1, np.nan, 2, 3, 4], dtype=np.float32)}, "NaN .got one in event 1"),
        (
            {"event": np.zeros(5, dtype=np.int32), "events": ("view",)},
            "one behaviour only, click: the behaviours view",
        ),
        ({"event": np.zeros(5, dtype=np.int32), "events": ("buy",)}, "one behaviour only, purchase"),
    ],
)
def test_logs_without_rewards(columns, message):
    with pytest.raises(ValueError, match=message):
        RewardRule().is_purchase(log(**columns))


@pytest.mark.parametrize(
    "options", [{"click": np.nan}, {"purchase": -1}, {"click": 0, "purchase": 0}, {"liked": np.nan}]
)
def test_bad_rules(options):
    with pytest.raises(ValueError, match=r"click|purchase|liked"):
        RewardRule(**options)


def test_metrics_apart_for_clicks_and_purchases():
    from predilect import load

    splits = with_behaviours(load("movietweetings-100k").k_core(20).split(), RewardRule(liked=8))
    found = evaluate(Popularity().fit(splits), splits, bootstrap=0, group_by=["behaviour"])
    groups = found.groups["behaviour"]
    bought = splits.test.rating >= 8
    assert groups["purchase"]["rows"] == bought.sum()
    assert groups["click"]["rows"] == (~bought).sum()
    for k in (5, 10, 20):
        mean = sum(g["rows"] * g[f"ndcg@{k}"] for g in groups.values()) / len(splits.test)
        assert mean == pytest.approx(found.metrics[f"ndcg@{k}"])
