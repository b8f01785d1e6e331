from __future__ import annotations

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from offline_rl_rec import LogitChoice, TransitionChoice
from offline_rl_rec.simulation.realism import QUANTITIES, SessionSample, logged_sessions, realism, simulated_sessions
from predilect.cli import app
from predilect.data.rows import SequenceRows, UserSequences
from predilect.testing import planted_splits


@pytest.fixture(scope="module")
def simulators():
    splits = planted_splits()
    return [kind().fit(splits.train, splits.num_items) for kind in (LogitChoice, TransitionChoice)]


def test_quantities_by_hand():
    sample = SessionSample(
        session=np.array([0, 0, 1]),
        item=np.array([2, 2, 1]),
        reward=np.array([0.2, 1.0, 0.2]),
        repeat=np.array([False, True, False]),
    )
    counts = np.array([0, 1, 2])
    expected = {"length": [2, 1], "reward": [1.2, 0.2], "repeats": [0.5, 0], "popularity": np.log([3, 3, 2])}
    for quantity in QUANTITIES:
        np.testing.assert_allclose(sample.values(quantity, counts), expected[quantity])
    assert sample.where(np.array([False, True])).session.tolist() == [0]


def test_logged_sessions_by_hand():
    """Two users; the second one's first event is a start, and its third repeats the first."""
    sequences = UserSequences(
        np.array([1, 2, 3, 1, 3], dtype=np.int32),
        np.array([0, 2, 5]),
        event=np.array([0, 1, 0, 0, 1], dtype=np.int32),
        events=("click", "buy"),
    )
    rows = SequenceRows.at(sequences, np.array([1, 1, 0]), np.array([2, 1, 1]), max_history=5)
    found = logged_sessions(rows, 5)
    assert found.session.tolist() == [0, 1, 1]
    assert found.item.tolist() == [2, 1, 3]
    np.testing.assert_allclose(found.reward, [1.0, 0.2, 1.0])
    assert found.repeat.tolist() == [False, False, True]
    assert not logged_sessions(rows, 1).repeat.any()  # a user who remembers one item


def test_sessions_of_the_fit_are_closer_than_others(simulators):
    splits = planted_splits()
    found = realism(simulators, splits.train, sessions=400)
    rows = {row["quantity"]: row for row in found.rows}
    assert list(rows) == [*QUANTITIES, "items"]
    for name in ("logit", "transition"):
        assert rows["length"][name] < 0.15 * rows["length"]["logged"]
        assert rows["reward"][f"{name}_mean"] == pytest.approx(rows["reward"]["logged"], rel=0.15)
        assert rows["repeats"][name] < 0.1  # nobody comes back to an item on the ring
        assert 0 <= rows["items"][name] <= 0.2
    other = realism(simulators, splits.test, sessions=400)
    assert other.rows[0]["logit"] > found.rows[0]["logit"]  # two events a person in test time


def test_equal_seeds_give_equal_sessions(simulators):
    for simulator in simulators:
        a, b = (simulated_sessions(simulator, 50, seed=1) for _ in range(2))
        np.testing.assert_array_equal(a.item, b.item)
        assert np.unique(a.session).tolist() == list(range(50))


def test_plots_are_written(simulators, tmp_path):
    pytest.importorskip("matplotlib")
    paths = realism(simulators, planted_splits().train, sessions=20).plots(tmp_path)
    assert [path.name for path in paths] == [f"realism-{quantity}.png" for quantity in QUANTITIES]
    assert all(path.stat().st_size > 5_000 for path in paths)


def test_bad_input(simulators):
    rows = planted_splits().train
    with pytest.raises(ValueError, match="no simulator to compare"):
        realism([], rows)
    with pytest.raises(ValueError, match=r"at least two sessions of the log \(got 1\)"):
        realism(simulators, rows.select([0]))
    with pytest.raises(ValueError, match=r"sessions must be at least 1 \(got 0\)"):
        simulated_sessions(simulators[0], 0)


def test_the_command_writes_table_and_plots(tmp_path):
    pytest.importorskip("matplotlib")
    options = ["--k-core", "20", "--ratios", ".5,.25,.25", "--liked", "8", "--sessions", "50"]
    command = ["rl", "realism", "movietweetings-100k", *options, "--output-dir", str(tmp_path)]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, found.output
    with (tmp_path / "realism.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["quantity"] for row in rows] == [*QUANTITIES, "items"]
    assert len(list(tmp_path.glob("*.png"))) == 4
