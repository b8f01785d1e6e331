from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from offline_rl_rec.simulation import ENVIRONMENT, LogitChoice, SessionRec, TransitionChoice, VectorSessionRec
from offline_rl_rec.simulation.tabular import TabularEnv, TabularMDP
from predilect.testing import planted_splits


@pytest.fixture(scope="module", params=[LogitChoice, TransitionChoice], ids=lambda kind: kind.name)
def simulator(request):
    splits = planted_splits()
    return request.param(patience=2).fit(splits.train, splits.num_items)


@pytest.mark.parametrize("slate_size", [1, 3])
def test_gymnasiums_own_check(simulator, slate_size):
    environment = gymnasium.make(ENVIRONMENT, simulator=simulator, slate_size=slate_size)
    check_env(environment.unwrapped)


def test_importing_the_package_registers_it():
    code = "import offline_rl_rec, gymnasium; print(gymnasium.spec('predilect/SessionRec-v0').id)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "predilect/SessionRec-v0\n"


def test_by_default_the_packaged_films():
    environment = gymnasium.make(ENVIRONMENT)
    state, info = environment.reset(seed=0)
    assert state.shape == (10,)
    assert info["action_mask"].shape == (environment.action_space.n,)
    with pytest.raises(ValueError, match=r"simulators are logit, transition \(got 'markov'\)"):
        SessionRec("markov")


def test_alone_and_vectorised_are_the_same_process(simulator):
    """Until the first end, after which a vector environment begins anew by itself."""
    alone = SessionRec(simulator, slate_size=3)
    many = VectorSessionRec(1, simulator, slate_size=3)
    for seed in range(20):
        state, info = alone.reset(seed=seed)
        states, infos = many.reset(seed=seed)
        ended = False
        while not ended:
            np.testing.assert_array_equal(state, states[0])
            np.testing.assert_array_equal(info["action_mask"], infos["action_mask"][0])
            assert (info["taken"], info["purchase"]) == (infos["taken"][0], infos["purchase"][0])
            action = state[-1] % 20 + np.array([1, 2, 3])
            action = (action - 1) % 20 + 1
            state, reward, terminated, truncated, info = alone.step(action)
            states, rewards, left, cut, infos = many.step(action[None])
            assert (reward, terminated, truncated) == (rewards[0], left[0], cut[0])
            ended = terminated or truncated


def test_equal_seeds_give_equal_episodes(simulator):
    def run(seed):
        vector = gymnasium.make_vec(ENVIRONMENT, 16, vectorization_mode="vector_entry_point", simulator=simulator)
        vector.action_space.seed(1)
        vector.reset(seed=seed)
        return np.stack([vector.step(vector.action_space.sample())[0] for _ in range(30)])

    np.testing.assert_array_equal(run(3), run(3))
    assert (run(3) != run(4)).any()


def test_an_episode_that_ended_begins_anew_in_the_next_step(simulator):
    vector = VectorSessionRec(64, simulator, slate_size=2, max_steps=5)
    vector.reset(seed=0)
    vector.action_space.seed(0)
    ended, steps, seen = np.zeros(64, dtype=bool), np.zeros(64, dtype=int), set()
    starts = {tuple(start) for start in simulator.starts}
    for _ in range(60):
        states, rewards, terminated, truncated, info = vector.step(vector.action_space.sample())
        assert (rewards[ended] == 0).all()
        assert not (terminated | truncated)[ended].any()
        assert all(tuple(state) in starts for state in states[ended])
        assert vector.observation_space.contains(states)
        steps = np.where(ended, 0, steps + 1)
        assert (truncated == ((steps == 5) & ~terminated)).all()
        assert (info["_taken"] & info["_action_mask"]).all()
        seen |= {"terminated"} if terminated.any() else set()
        seen |= {"truncated"} if truncated.any() else set()
        ended = terminated | truncated
    assert seen == {"terminated", "truncated"}


def test_masked_items_are_those_of_the_history(simulator):
    vector = VectorSessionRec(8, simulator, exclude_history=True)
    states, info = vector.reset(seed=0)
    for state, mask in zip(states, info["action_mask"], strict=True):
        assert set(np.flatnonzero(mask == 0) + 1) == set(state[state > 0])
    with pytest.raises(ValueError, match=r"is masked, it is in the history \(environment 0\)"):
        vector.step(states[:, -1])
    alone = SessionRec(simulator, exclude_history=True)
    _, info = alone.reset(seed=0)
    for _ in range(20):
        state, _, terminated, truncated, info = alone.step(alone.action_space.sample(info["action_mask"]))
        if terminated or truncated:
            _, info = alone.reset()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.array([0, 1]), r"item ids in 1..20 \(got 0\)"),
        (np.array([21, 1]), r"item ids in 1..20 \(got 21\)"),
        (np.array([1, 2, 3]), r"2 item ids for each of 1 environments \(got the shape \(3,\), int64\)"),
        (np.array([1.0, 2.0]), r"got the shape \(2,\), float64"),
    ],
)
def test_bad_actions(simulator, action, message):
    environment = SessionRec(simulator, slate_size=2)
    environment.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        environment.step(action)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slate_size": 21}, r"slate_size must be in 1..20, the number of items \(got 21\)"),
        ({"slate_size": 18, "exclude_history": True}, "leaves at least 15 of 20 items, fewer than slate_size 18"),
        ({"max_steps": 0}, r"max_steps must be at least 1 \(got 0\)"),
        ({"num_envs": 0}, r"num_envs must be at least 1 \(got 0\)"),
    ],
)
def test_bad_options(simulator, options, message):
    with pytest.raises(ValueError, match=message):
        VectorSessionRec(**{"num_envs": 2, "simulator": simulator, **options})


def test_the_optimum_of_the_toy_leaves_the_lure():
    mdp = TabularMDP.lures()
    optimum = mdp.optimal_values()
    assert (mdp.reward.argmax(axis=1) == 2).all()
    assert optimum.argmax(axis=1).tolist() == [1, 3, 0, 0]
    np.testing.assert_allclose(mdp.values(np.eye(4)[optimum.argmax(axis=1)]), optimum, atol=1e-9)
    assert (mdp.values(np.full((4, 4), 0.25)) <= optimum + 1e-12).all()


def test_returns_of_the_toy_are_the_values():
    mdp = TabularMDP.lures(discount=0.5)
    environment = TabularEnv(mdp)
    check_env(environment)
    policy, returns = np.full((4, 4), 0.25), []
    expected = mdp.start @ (policy * mdp.values(policy)).sum(axis=1)
    rng = np.random.default_rng(0)
    environment.reset(seed=0)
    for _ in range(3000):
        environment.reset()
        ended, total, weight = False, 0.0, 1.0
        while not ended:
            _, reward, ended, _, _ = environment.step(rng.integers(4))
            total, weight = total + weight * reward, weight * 0.5
        returns.append(total)
    assert np.mean(returns) == pytest.approx(expected, abs=0.03)
    with pytest.raises(ValueError, match=r"a number in 0..3 \(got 4\)"):
        environment.step(4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"start": np.ones(4)}, "starts ones that sum to 1"),
        ({"reward": np.full((4, 4), np.nan)}, r"rewards must be finite \(got nan\)"),
        ({"discount": 1.0}, r"discount must be in \[0, 1\) \(got 1.0\)"),
        ({"transition": np.ones((4, 4, 3))}, r"need transitions \(4, 4, 4\)"),
    ],
)
def test_bad_tables(changed, message):
    mdp = TabularMDP.lures()
    tables = {"transition": mdp.transition, "reward": mdp.reward, "start": mdp.start, "discount": mdp.discount}
    with pytest.raises(ValueError, match=message):
        TabularMDP(**{**tables, **changed})
