from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import predilect
from offline_rl_rec import LogitChoice, TransitionChoice, simulate
from offline_rl_rec.simulation.users import Leaving
from predilect.cli import app
from predilect.recommender import Recommender, RecommenderConfig
from predilect.recommenders import ItemKNN, Popularity, Random
from predilect.testing import planted_splits


class Ahead(Recommender[RecommenderConfig]):
    """The best next item of the ring first."""

    name = "ahead"

    def _fit(self, data, folder) -> None:
        pass

    def _score(self, histories):
        items = torch.arange(1, len(self.catalogue) + 1)
        return -((items - histories[:, -1:] - 1) % len(items)).float()

    def _save(self, folder) -> None:
        pass

    def _load(self, folder) -> None:
        pass


@pytest.fixture(scope="module")
def splits():
    return planted_splits()


@pytest.fixture(scope="module", params=[LogitChoice, TransitionChoice], ids=lambda kind: kind.name)
def simulator(request, splits):
    return request.param().fit(splits.train, splits.num_items)


def test_who_recommends_what_comes_next_earns_more(splits, simulator):
    best = simulate(Ahead().fit(splits), simulator, sessions=300, slate_size=3)
    drawn = simulate(Random().fit(splits), simulator, sessions=300, slate_size=3)
    found = best.minus(drawn)
    assert found.low > 0
    assert found.difference == pytest.approx(best.results["return"] - drawn.results["return"])
    assert best.results["return_low"] < best.results["return"] < best.results["return_high"]
    assert best.results["acceptance"] > drawn.results["acceptance"]


def test_returns_are_sums_of_rewards(splits, simulator):
    recommender = Ahead().fit(splits)
    found = {
        discount: simulate(recommender, simulator, sessions=50, slate_size=3, discount=discount, bootstrap=0).sessions
        for discount in (0.0, 0.5, 1.0)
    }
    sessions = found[1.0]
    np.testing.assert_allclose(sessions["return"], 0.2 * sessions["taken"] + 0.8 * sessions["purchases"])
    np.testing.assert_allclose(sessions["discounted_return"], sessions["return"])
    assert set(np.round(found[0.0]["discounted_return"], 6)) <= {0.0, 0.2, 1.0}  # of the first step alone
    assert (found[0.5]["discounted_return"] <= sessions["return"]).all()
    np.testing.assert_array_equal(found[0.5]["return"], sessions["return"])


def test_discounting_by_hand(splits):
    """Two items each, always taken: the return is r + r', the discounted one r + r' / 2."""
    simulator = TransitionChoice(reluctance=1e-12).fit(splits.train, splits.num_items)
    simulator.leaving = Leaving(np.array([0.0, 0.0, 1.0]))
    found = simulate(Ahead().fit(splits), simulator, sessions=40, slate_size=3, discount=0.5)
    assert (found.sessions["steps"] == 2).all()
    assert (found.sessions["taken"] == 2).all()
    first = 2 * found.sessions["discounted_return"] - found.sessions["return"]
    assert set(np.round(first, 6)) == {0.2, 1.0}
    assert found.results["acceptance"] == 1


def test_lists_without_change_repeat(splits, simulator):
    found = simulate(Popularity().fit(splits), simulator, sessions=20, slate_size=15, exclude_history=False)
    assert found.results["repetition"] == 1
    assert found.results["coverage"] == 15 / 20


def test_a_session_is_cut_off(splits, simulator):
    found = simulate(Ahead().fit(splits), simulator, sessions=20, slate_size=3, max_steps=1)
    assert (found.sessions["steps"] == 1).all()


def test_equal_seeds_meet_equal_users(splits, simulator):
    a, b, other = (simulate(ItemKNN().fit(splits), simulator, sessions=30, slate_size=3, seed=s) for s in (0, 0, 1))
    for name, values in a.sessions.items():
        np.testing.assert_array_equal(values, b.sessions[name])
    with pytest.raises(ValueError, match="compared under one simulator and setting"):
        a.minus(other)
    with pytest.raises(ValueError, match=r"sessions have the columns return, .*\(got 'length'\)"):
        a.minus(b, "length")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slate_size": 16}, r"slate_size must be in 1..15, .* \(got 16\)"),
        ({"slate_size": 21, "exclude_history": False}, r"slate_size must be in 1..20, .* \(got 21\)"),
        ({"discount": 1.1}, r"discount must be in \[0, 1\] \(got 1.1\)"),
        ({"sessions": 1}, r"sessions must be at least 2 \(got 1\)"),
        ({"max_steps": 0}, r"max_steps must be at least 1 \(got 0\)"),
    ],
)
def test_bad_options(splits, simulator, options, message):
    with pytest.raises(ValueError, match=message):
        simulate(Popularity().fit(splits), simulator, **{"slate_size": 3, **options})


def test_another_catalogue_is_refused(simulator):
    other = planted_splits(items=25)
    with pytest.raises(ValueError, match="popularity knows 25 items and the simulator 20: fit both on the same data"):
        simulate(Popularity().fit(other), simulator, slate_size=3)


@pytest.fixture
def log(tmp_path, splits):
    """The planted log as a table of a person's own."""
    sequences = splits.sequences
    user = np.repeat(np.arange(len(sequences.offsets) - 1), np.diff(sequences.offsets))
    path = tmp_path / "log.csv"
    rows = zip(user, sequences.items, sequences.timestamp, sequences.rating, strict=True)
    path.write_text("user_id,item_id,timestamp,rating\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n")
    return path


def run(*arguments: object):
    return CliRunner().invoke(app, ["rl", *map(str, arguments)])


def test_the_command_writes_a_table_under_both_simulators(log, tmp_path):
    saved = tmp_path / "saved"
    ItemKNN().fit(predilect.load(log).k_core(5).split(max_history=5)).save_pretrained(saved)
    output = tmp_path / "out.csv"
    options = ("--sessions", 50, "--slate-size", 3, "--max-history", 5, "--bootstrap", 50, "--output", output)
    found = run("simulate", log, "--model", f"random,{saved}", *options)
    assert found.exit_code == 0, found.output
    assert "logit users" in found.output
    assert "transition users" in found.output
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["simulator"] for row in rows] == ["logit", "transition"] * 2
    assert rows[0]["model"] == "random"
    assert float(rows[2]["return_minus_first"]) > 0  # neighbours on the ring against chance


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name at least one recommender"),
        (("--model", "nobody"), "--model nobody is neither a folder nor a recommender"),
        (("--model", "random", "--simulators", "markov"), "simulators are logit, transition (got markov)"),
        (("--model", "random", "--protocol", "candidates"), "No such option: --protocol"),
        (("--model", "random", "--format", "llara"), "the format llara holds rows with candidates"),
        (("--model", "random", "--bootstrap", "5"), "bootstrap must be at least 10 (got 5)"),
        (("--model", "random", "--data", "ratings.csv"), "are two data sets: give one"),
        (("--model", "random", "--recommenders", "sqn.max_epochs=1"), "options for sqn, which --model does not name"),
        (("--model", "random", "--liked", 1), "the log has one behaviour only, purchase"),
    ],
)
def test_bad_commands_end_with_one_line(log, options, message):
    found = run("simulate", log, "--max-history", 5, *options)
    assert found.exit_code == 2, found.output
    assert message in found.output.replace("\n", " ")
