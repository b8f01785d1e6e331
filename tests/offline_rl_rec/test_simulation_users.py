from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from offline_rl_rec import RewardRule
from offline_rl_rec.simulation import Leaving, LogitChoice, TransitionChoice, Users
from offline_rl_rec.simulation.logit import _conditional_logit, _logistic
from offline_rl_rec.simulation.users import draw
from predilect.data.rows import SequenceRows, UserSequences
from predilect.testing import planted_splits

KINDS = (LogitChoice, TransitionChoice)


@pytest.fixture(scope="module")
def splits():
    return planted_splits()


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def simulator(request, splits):
    return request.param().fit(splits.train, splits.num_items)


def test_leaving_by_hand():
    """Two sessions of one event, one of three: 2 of 3 leave after the first, none of 1 after the second, then 1 of 1;
    overall 3 of 5."""
    found = Leaving.of(np.array([1, 3, 1]))
    np.testing.assert_allclose(found.hazard, [0, (2 + 0.6) / 4, 0.6 / 2, (1 + 0.6) / 2, 0.6])
    np.testing.assert_allclose(found.after(np.array([0, 1, 99])), [0, 0.65, 0.6])


def test_simulated_lengths_have_the_logs_distribution(splits):
    lengths = np.repeat([1, 2, 5, 9], [100, 300, 500, 100])
    leaving, rng = Leaving.of(lengths), np.random.default_rng(0)
    alive, events, found = np.ones(20_000, dtype=bool), np.zeros(20_000, dtype=int), np.zeros(20_000)
    while alive.any():
        events += alive
        gone = alive & (rng.random(20_000) < leaving.after(events))
        found[gone] = events[gone]
        alive &= ~gone
    for length in (1, 2, 5, 9):
        assert np.mean(found == length) == pytest.approx(np.mean(lengths == length), abs=0.015)


def test_columns_are_drawn_in_proportion():
    weights = np.tile([2.0, 0.0, 1.0, 1.0], (40_000, 1))
    found = np.bincount(draw(weights, np.random.default_rng(0).random(40_000)), minlength=4) / 40_000
    np.testing.assert_allclose(found, [0.5, 0, 0.25, 0.25], atol=0.01)


def test_weights_of_a_known_choice_model_are_found():
    rng, truth = np.random.default_rng(0), np.array([1.5, -0.7, 0.4])
    features = rng.normal(size=(8_000, 6, 3)).astype(np.float32)
    chosen = draw(np.exp(features @ truth), rng.random(8_000))
    rows = np.arange(8_000)
    features[rows, 0], features[rows, chosen] = features[rows, chosen].copy(), features[rows, 0].copy()
    np.testing.assert_allclose(_conditional_logit(features), truth, atol=0.07)
    inputs = features[:, 0].astype(np.float64)
    label = rng.random(8_000) < 1 / (1 + np.exp(-(inputs @ truth) - 0.5))
    np.testing.assert_allclose(_logistic(inputs, label), [*truth, 0.5], atol=0.15)


def test_transitions_of_the_ring_are_likeliest(splits):
    simulator = TransitionChoice().fit(splits.train, splits.num_items)
    histories = np.tile(np.arange(1, 21)[:, None], (1, 5))
    everything = np.tile(np.arange(1, 21), (20, 1))
    utilities = simulator.utilities(histories, everything)
    assert (utilities.argmax(axis=1) + 1).tolist() == [*range(2, 21), 1]
    few = np.stack([np.arange(1, 21), np.roll(np.arange(1, 21), -1)], axis=1)  # by bisection, not by whole rows
    np.testing.assert_allclose(simulator.utilities(histories, few), np.take_along_axis(utilities, few - 1, axis=1))
    np.testing.assert_allclose(np.exp(utilities).sum(axis=1), 1, rtol=1e-2)  # probabilities, up to the habit


def test_probabilities_sum_to_one_and_a_second_place_counts_for_nothing(simulator):
    histories = simulator.starts[:4]
    found = simulator.choice_probabilities(histories, np.tile([3, 7, 3, 9], (4, 1)))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found[:, 3] == 0).all()
    once = simulator.choice_probabilities(histories, np.tile([3, 7, 9], (4, 1)))
    np.testing.assert_allclose(found[:, [0, 1, 2, 4]], once, rtol=1e-5)


def test_a_slate_with_the_reluctant_share_is_taken_from_half_of_the_time(splits):
    simulator = TransitionChoice(reluctance=0.2).fit(splits.train, splits.num_items)
    everything = np.arange(1, splits.num_items + 1)[None].repeat(30, axis=0)
    nothing = simulator.choice_probabilities(simulator.starts[:30], everything)[:, 0]
    np.testing.assert_allclose(nothing, 0.2 / 1.2, rtol=1e-2)


def test_what_is_taken_moves_the_user_on(simulator):
    users = Users(simulator, 500)
    users.begin(np.random.default_rng(0))
    before, slates = users.histories.copy(), np.tile([2, 5, 8], (500, 1))
    active = np.arange(500) % 5 > 0
    step = users.step(slates, np.random.default_rng(1), active)
    took = step.taken > 0
    assert set(step.taken) == {0, 2, 5, 8}
    assert not took[~active].any()
    assert not step.left[~active].any()
    assert (users.histories[took, -1] == step.taken[took]).all()
    assert (users.histories[took, :-1] == before[took, 1:]).all()
    assert (users.histories[~took] == before[~took]).all()
    assert (users.events == took).all()
    assert (users.idle == (active & ~took)).all()
    assert (step.reward == np.where(step.purchase, 1.0, 0.2) * took).all()
    assert step.purchase[took].any()
    assert not step.purchase[took].all()


def test_who_takes_nothing_leaves_when_patience_ends(splits):
    simulator = TransitionChoice(patience=2, reluctance=0.999).fit(splits.train, splits.num_items)
    users, rng = Users(simulator, 300), np.random.default_rng(0)
    users.begin(rng)
    slates = users.histories[:, -1:]  # the last item again: nobody does that on the ring
    first = users.step(slates, rng)
    second = users.step(slates, rng)
    idle = (first.taken == 0) & (second.taken == 0)
    assert idle.sum() > 250
    assert not first.left[first.taken == 0].any()
    assert second.left[idle].all()


def test_users_without_a_recommender_walk_the_ring(splits):
    simulator = TransitionChoice().fit(splits.train, splits.num_items)
    users, rng = Users(simulator, 2000), np.random.default_rng(0)
    users.begin(rng)
    last = users.histories[:, -1].copy()
    assert np.mean(users.browse(rng).taken == last % 20 + 1) > 0.3  # of 20; the counts hold longer steps as well


def test_equal_seeds_give_equal_users(splits):
    def run(kind):
        users, rng = Users(kind(seed=3).fit(splits.train, splits.num_items), 50), np.random.default_rng(7)
        users.begin(rng)
        return [users.step(np.tile([1, 2, 3], (50, 1)), rng).reward for _ in range(5)]

    for kind in KINDS:
        np.testing.assert_array_equal(run(kind), run(kind))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_empty_histories_and_one_item_sessions_are_fitted(kind, splits):
    rows = splits.train.select(np.flatnonzero(splits.train.position <= 2))
    rows = dataclasses.replace(rows, position=np.zeros_like(rows.position))
    simulator = kind().fit(rows.select(np.arange(20)), splits.num_items)
    assert (simulator.starts == 0).all()
    assert np.isfinite(simulator.utilities(simulator.starts, np.tile([1, 20], (len(simulator.starts), 1)))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, r"patience must be at least 1 step \(got 0\)"),
        ({"reluctance": 1.0}, r"reluctance must be a share between 0 and 1 \(got 1.0\)"),
        ({"max_history": 0}, r"max_history must be at least 1 \(got 0\)"),
        ({"decay": 0.0}, r"decay must be in \(0, 1\] \(got 0.0\)"),
        ({"dimension": 0}, r"dimension and alternatives must be at least 1 \(got 0 and 50\)"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        LogitChoice(**options)


def test_bad_logs(splits):
    with pytest.raises(ValueError, match=r"at least two sessions \(got 1\)"):
        TransitionChoice().fit(splits.train.select([0]), splits.num_items)
    with pytest.raises(ValueError, match="one behaviour only"):
        TransitionChoice().fit(splits.train, splits.num_items, RewardRule(liked=1))
    with pytest.raises(ValueError, match="at least one event each"):
        Leaving.of(np.zeros(0, dtype=int))


def test_the_share_of_repeats_is_that_of_the_log():
    """Everybody goes back and forth between an item of their own and new ones: half of the events are repeats."""
    rng, people, length = np.random.default_rng(0), 60, 9
    new = rng.permuted(np.tile(np.arange(1, 41), (people, 1)), axis=1)[:, :length]
    items = np.where(np.arange(length) % 2, new[:, :1], new)
    sequences = UserSequences(
        items.ravel().astype(np.int32),
        np.arange(people + 1) * length,
        rating=rng.integers(1, 6, people * length).astype(np.float32),
    )
    user, position = np.repeat(np.arange(people), length - 1), np.tile(np.arange(1, length), people)
    rows = SequenceRows.at(sequences, user, position, max_history=6)
    simulator = TransitionChoice().fit(rows, 40)
    users, generator = Users(simulator, 3000), np.random.default_rng(0)
    users.histories = np.resize(rows.histories().numpy(), users.histories.shape)
    before = users.histories.copy()
    taken = users.browse(generator).taken
    assert np.mean((before == taken[:, None]).any(axis=1)) == pytest.approx(rows.repeat.mean(), abs=0.03)
