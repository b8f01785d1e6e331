from __future__ import annotations

import csv
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from offline_rl_rec.logged_policies import logged_episodes
from offline_rl_rec.off_policy import (
    LoggedEpisodes,
    doubly_robust,
    importance_sampling,
    off_policy_estimates,
    on_policy,
    self_normalised,
)
from offline_rl_rec.simulation.tabular import TabularMDP
from predilect.cli import app
from predilect.recommenders import ItemKNN, Popularity
from predilect.testing import planted_splits


def episodes(reward, behaviour, target, *, steps=None, discount=0.5, **values):
    tables = {name: np.asarray(table, dtype=float) for name, table in values.items()}
    reward = np.asarray(reward, dtype=float)
    there = np.ones(reward.shape, dtype=bool) if steps is None else np.asarray(steps, dtype=bool)
    return LoggedEpisodes(reward, np.asarray(behaviour), np.asarray(target), there, discount, **tables)


# Weights 2, 1 and 0.5, 0.25; the second session is at its end after one step.
HAND = episodes(
    reward=[[1, 2], [4, 99]],
    behaviour=[[0.5, 0.5], [0.5, 0.0]],
    target=[[1.0, 0.25], [0.25, 0.0]],
    steps=[[1, 1], [1, 0]],
    action_value=[[1, 1], [2, 9]],
    state_value=[[3, 1], [1, 9]],
)


def test_hand_worked_numbers():
    assert HAND.weights.tolist() == [[2, 1], [0.5, 0.5]]
    assert on_policy(HAND).value == (1 + 0.5 * 2 + 4) / 2
    plain = importance_sampling(HAND)
    assert plain.sessions.tolist() == [2 * 1 + 1 * 0.5 * 2, 0.5 * 4]
    assert plain.value == 2.5
    assert plain.effective == pytest.approx(1.5**2 / (1 + 0.25))
    half = 12.706204736 * np.std([3, 2], ddof=1) / np.sqrt(2)  # t with one degree of freedom
    assert (plain.low, plain.high) == pytest.approx((2.5 - half, 2.5 + half))
    assert importance_sampling(HAND, clip=1.0).sessions.tolist() == [1 + 1, 2]
    assert self_normalised(HAND).value == pytest.approx((2 * 1 + 0.5 * 4) / 2.5 + 0.5 * (1 * 2) / 1.5)
    last = 1 + 0.5 * (2 - 1)  # V + rho (r - Q)
    assert doubly_robust(HAND).sessions.tolist() == [3 + 2 * (1 + 0.5 * last - 1), 1 + 0.5 * (4 - 2)]


def every_session(mdp: TabularMDP, behaviour: np.ndarray, target: np.ndarray, steps: int):
    """All sessions of a deterministic process without ends, cut after `steps`, each with its probability."""
    q = [mdp.reward]  # of the last step, the one before, ...
    for _ in range(steps - 1):
        value = (target * q[-1]).sum(axis=1)
        q.append(mdp.reward + mdp.discount * mdp.transition @ value)
    rows, chance = [], []
    states, actions = mdp.reward.shape
    for start, *taken in product(range(states), *[range(actions)] * steps):
        state, row = start, []
        for t, a in enumerate(taken):
            left = q[steps - 1 - t]
            row.append(
                (
                    mdp.reward[state, a],
                    behaviour[state, a],
                    target[state, a],
                    left[state, a],
                    target[state] @ left[state],
                )
            )
            state = int(mdp.transition[state, a].argmax())
        rows.append(row)
        chance.append(mdp.start[start] * np.prod([step[1] for step in row]))
    reward, b, pi, action_value, state_value = np.moveaxis(np.array(rows), -1, 0)
    truth = float(mdp.start @ (target * q[-1]).sum(axis=1))
    found = episodes(reward, b, pi, discount=mdp.discount, action_value=action_value, state_value=state_value)
    return found, np.array(chance), truth


@pytest.fixture(scope="module")
def enumerated():
    rng = np.random.default_rng(0)
    behaviour, target = (rng.dirichlet(np.ones(2), size=2) for _ in range(2))
    transition = np.array([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]]])
    mdp = TabularMDP(transition, rng.normal(size=(2, 2)), np.array([0.3, 0.7]), 0.9)
    return every_session(mdp, behaviour, target, 3)


def test_importance_sampling_is_unbiased(enumerated):
    found, chance, truth = enumerated
    assert chance.sum() == pytest.approx(1)
    assert chance @ importance_sampling(found).sessions == pytest.approx(truth)
    assert chance @ on_policy(found).sessions != pytest.approx(truth)


def test_doubly_robust_is_unbiased_with_wrong_values_and_exact_with_right_ones(enumerated):
    found, chance, truth = enumerated
    wrong = replace(found, action_value=found.action_value + 1.7, state_value=found.state_value - 0.4)
    assert np.ptp(doubly_robust(wrong).sessions) > 0
    first = found.state_value[:, 0]
    assert doubly_robust(found).sessions == pytest.approx(first)  # no variance but that of the first state
    assert chance @ doubly_robust(found).sessions == pytest.approx(truth)
    # the state's value must be the mean of the actions' for the differences to cancel
    shifted = replace(found, action_value=found.action_value + 1.7, state_value=found.state_value + 1.7)
    assert chance @ doubly_robust(shifted).sessions == pytest.approx(truth)


@given(st.integers(0, 1000))
def test_properties_of_any_log(seed):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(2, 6)), int(rng.integers(1, 5)))
    length = rng.integers(1, shape[1] + 1, size=shape[0])
    steps = np.arange(shape[1]) < length[:, None]
    b, pi, reward = (rng.uniform(0.1, 1, size=shape) for _ in range(3))
    log = episodes(reward, b, pi, steps=steps, discount=1.0)
    nothing = np.zeros(shape)
    valued = replace(log, action_value=nothing, state_value=nothing)
    assert doubly_robust(valued).sessions == pytest.approx(importance_sampling(log).sessions)
    assert importance_sampling(replace(log, target=b)).sessions == pytest.approx(on_policy(log).sessions)
    assert self_normalised(replace(log, target=b)).value == pytest.approx(on_policy(log).value)
    assert 0 <= self_normalised(log).value <= reward.max() * shape[1]
    assert importance_sampling(log, clip=0.5).value <= importance_sampling(log).value + 1e-12
    assert importance_sampling(log, clip=1e9).value == pytest.approx(importance_sampling(log).value)
    behind = replace(log, reward=np.where(steps, reward, np.nan))  # what stands behind the end is not read
    assert off_policy_estimates(behind)["importance"].value == importance_sampling(log).value


def test_intervals_hold_the_truth():
    """200 logs of 150 sessions on the process with a lure; the truth is Bellman's."""
    mdp = TabularMDP.lures()
    rng = np.random.default_rng(0)
    target = np.tile([0.3, 0.3, 0.1, 0.3], (4, 1))
    q = mdp.values(target)
    truth = float(mdp.start @ (target * q).sum(axis=1))
    inside = dict.fromkeys(("importance", "self-normalised", "doubly-robust"), 0)
    stay = mdp.transition.sum(axis=2)
    for _ in range(200):
        state, alive = rng.choice(4, size=150, p=mdp.start), np.ones(150, dtype=bool)
        columns: list[list[np.ndarray]] = []
        for _ in range(30):
            action = rng.integers(4, size=150)
            columns.append(
                [
                    mdp.reward[state, action],
                    target[state, action],
                    q[state, action],
                    (target * q).sum(axis=1)[state],
                    alive,
                ]
            )
            alive, state = alive & (rng.random(150) < stay[state, action]), action
        reward, pi, action_value, state_value, there = np.moveaxis(np.array(columns, dtype=float), 0, -1)
        log = episodes(
            reward,
            np.full(pi.shape, 0.25),
            pi,
            steps=there,
            discount=mdp.discount,
            action_value=action_value,
            state_value=state_value,
        )
        for name, found in off_policy_estimates(log).items():
            if name in inside:
                inside[name] += found.low <= truth <= found.high
    assert min(inside.values()) >= 176  # of 190 expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"behaviour": [[0.0, 0.5], [0.5, 0.5]]}, r"behaviour must be in \(0, 1\] \(got 0.0 in session 0, step 0\)"),
        ({"target": [[0.5, 0.5], [0.5, 1.5]]}, r"target must be in \[0, 1\] \(got 1.5 in session 1, step 1\)"),
        ({"reward": [[1, 1], [1, np.nan]]}, r"reward must be finite \(got nan in session 1, step 1\)"),
        ({"steps": [[0, 1], [1, 1]]}, "steps must be true from a session's first step"),
        ({"steps": [[1, 1, 1], [1, 1, 1]]}, "steps must have the shape of the rewards"),
        ({"discount": 1.5}, r"the discount must be in \[0, 1\] \(got 1.5\)"),
    ],
)
def test_bad_episodes_are_named(change, words):
    right = {"reward": [[1, 1], [1, 1]], "behaviour": [[0.5, 0.5]] * 2, "target": [[0.5, 0.5]] * 2}
    with pytest.raises(ValueError, match=words):
        episodes(**{**right, **change})


def test_what_estimators_cannot_do_is_said():
    never = episodes([[1.0], [1.0]], [[0.5], [0.5]], [[0.0], [0.0]])
    with pytest.raises(ValueError, match="no logged session agrees with the target policy up to step 0"):
        self_normalised(never)
    with pytest.raises(ValueError, match="needs action_value and state_value"):
        doubly_robust(never)
    with pytest.raises(ValueError, match="clip must be above 0"):
        importance_sampling(never, clip=0)
    with pytest.raises(ValueError, match=r"of two sessions at least \(got the shape \(1, 2\)\)"):
        episodes([[1, 1]], [[0.5, 0.5]], [[0.5, 0.5]])


# --- from a log ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def splits():
    return planted_splits()


def test_a_log_judges_lists(splits):
    """The log walks along a ring, which neighbours follow and popularity does not."""
    rows = splits.test
    found = {kind: logged_episodes(kind().fit(splits), splits, k=3, max_steps=4) for kind in (ItemKNN, Popularity)}
    for log in found.values():
        assert log.reward.shape[0] == len(np.unique(rows.user))
        assert log.steps.sum() == sum(min(4, n) for n in np.unique(rows.user, return_counts=True)[1])
        assert (log.target[log.steps] >= 0.5 * log.behaviour[log.steps] - 1e-12).all()
    values = {kind: self_normalised(log).value for kind, log in found.items()}
    assert importance_sampling(found[ItemKNN]).value > importance_sampling(found[Popularity]).value
    assert values[ItemKNN] > 0


def test_all_to_the_log_is_the_log(splits):
    log = logged_episodes(Popularity().fit(splits), splits, mix=1.0)
    assert importance_sampling(log).sessions == pytest.approx(on_policy(log).sessions)


def test_a_policy_is_a_distribution(splits):
    """Summed over all targets that could have been, both policies give 1."""
    some = splits.test.select(slice(0, 1))
    total = {"behaviour": 0.0, "target": 0.0}
    from offline_rl_rec.logged_policies import _policies
    from offline_rl_rec.simulation import TransitionChoice

    behaviour = TransitionChoice().fit(splits.train, splits.num_items)
    recommender = Popularity().fit(splits)
    values = np.arange(splits.num_items + 1.0)

    class Row:
        def __init__(self, target):
            self.target = np.array([target])

        def __len__(self):
            return 1

        def select(self, index):
            return self

        def histories(self):
            return some.histories()

    mean = 0.0
    for item in range(1, splits.num_items + 1):
        found = _policies(recommender, behaviour, Row(item), values, 3, 0.25, True)
        mean += float(found["target"][0] * found["action_value"][0])
        for name in total:
            total[name] += float(found[name][0])
    assert total == pytest.approx({"behaviour": 1, "target": 1})
    assert mean == pytest.approx(found["state_value"][0])


@pytest.mark.parametrize(
    ("options", "words"),
    [({"mix": 0.0}, "mix must be in"), ({"k": 0}, "k must be in 1"), ({"max_steps": 0}, "max_steps")],
)
def test_options_outside_their_ranges(splits, options, words):
    with pytest.raises(ValueError, match=words):
        logged_episodes(Popularity().fit(splits), splits, **options)


def test_the_command_writes_a_table(tmp_path):
    rows = [
        f"{u},{(u + s) % 12},{100 * s + u},{'buy' if s % 3 == 0 else 'click'}" for u in range(20) for s in range(10)
    ]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,event", *rows]) + "\n")
    common = ["--k-core", "0", "--max-history", "3", "--output", str(tmp_path / "ope.csv")]
    command = ["rl", "ope", str(tmp_path / "log.csv"), "--model", "popularity,item-knn", *common, "--k", "3"]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    table = list(csv.DictReader((tmp_path / "ope.csv").open()))
    names = ["importance", "clipped", "self-normalised", "doubly-robust"]
    assert [(row["model"], row["estimator"]) for row in table] == [
        ("the log", "logged"),
        *(("popularity", name) for name in names),
        *(("item-knn", name) for name in names),
    ]
    assert all(float(row["low"]) <= float(row["return"]) <= float(row["high"]) for row in table)
    wrong = CliRunner().invoke(app, [*command, "--mix", "0"])
    assert wrong.exit_code == 2
    assert "mix must be in (0, 1]" in " ".join(wrong.output.split())
