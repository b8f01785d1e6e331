from __future__ import annotations

import csv
import dataclasses

import gymnasium
import numpy as np
import pytest
from typer.testing import CliRunner

import predilect
from offline_rl_rec import LogitChoice, RewardRule, TransitionChoice, UserSimulator
from offline_rl_rec.simulation import Users
from predilect.cli import app
from predilect.testing import planted_splits

KINDS = (LogitChoice, TransitionChoice)


@pytest.fixture(scope="module")
def splits():
    return planted_splits()


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def simulator(request, splits):
    return request.param(patience=2, reluctance=0.2).fit(splits.train, splits.num_items, RewardRule(0.1, 3.0))


def sessions(simulator: UserSimulator) -> list[np.ndarray]:
    users, rng = Users(simulator, 30), np.random.default_rng(0)
    users.begin(rng)
    found = []
    for _ in range(8):
        found += list(users.step(np.tile([1, 5, 9], (30, 1)), rng))
    return [*found, users.histories]


def test_saved_users_decide_as_they_did(simulator, splits, tmp_path):
    simulator.save_pretrained(tmp_path / "users", splits.catalogue)
    for kind in (UserSimulator, type(simulator)):
        loaded = kind.from_pretrained(tmp_path / "users", splits.catalogue)
        assert type(loaded) is type(simulator)
        assert (loaded.rule, loaded.patience, loaded.reluctance) == (RewardRule(0.1, 3.0), 2, 0.2)
        for a, b in zip(sessions(loaded), sessions(simulator), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_environment_takes_a_folder(simulator, splits, tmp_path):
    simulator.save_pretrained(tmp_path / "users", splits.catalogue)
    made = [
        gymnasium.make("predilect/SessionRec-v0", users=tmp_path / "users"),
        gymnasium.make("predilect/SessionRec-v0", simulator=simulator),
    ]
    observed = [environment.reset(seed=3)[0] for environment in made]
    np.testing.assert_array_equal(*observed)
    rewards = [[environment.step(1 + step % 5)[1] for step in range(2)] for environment in made]
    assert rewards[0] == rewards[1]
    with pytest.raises(ValueError, match="are two kinds of users: give one"):
        gymnasium.make("predilect/SessionRec-v0", simulator="logit", users=tmp_path / "users")


def test_what_does_not_fit_is_refused(simulator, splits, tmp_path):
    folder = tmp_path / "users"
    with pytest.raises(ValueError, match="were not fitted: call fit"):
        type(simulator)().save_pretrained(folder, splits.catalogue)
    with pytest.raises(FileNotFoundError, match="holds no saved users"):
        UserSimulator.from_pretrained(folder)
    simulator.save_pretrained(folder, splits.catalogue)
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        simulator.save_pretrained(folder, splits.catalogue)
    other = dataclasses.replace(splits.catalogue, raw_ids=tuple(f"x{raw}" for raw in splits.catalogue.raw_ids))
    with pytest.raises(ValueError, match="were fitted on another catalogue of 20 items"):
        UserSimulator.from_pretrained(folder, other)
    second = next(kind for kind in KINDS if kind is not type(simulator))
    with pytest.raises(ValueError, match=f"holds {simulator.name} users, where {second.name} can be read"):
        second.from_pretrained(folder)
    tables = folder / "users.safetensors"
    tables.write_bytes(tables.read_bytes()[:40])
    with pytest.raises(ValueError, match="are damaged"):
        UserSimulator.from_pretrained(folder)


def run(*arguments: object):
    return CliRunner().invoke(app, ["rl", "simulate", *map(str, arguments)], env={"COLUMNS": "200"})


def test_the_command_keeps_users_and_takes_them_again(splits, tmp_path):
    s = splits.sequences
    user = np.repeat(np.arange(len(s.offsets) - 1), np.diff(s.offsets))
    lines = [",".join(map(str, row)) for row in zip(user, s.items, s.timestamp, s.rating, strict=True)]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(["user_id,item_id,timestamp,rating", *lines]) + "\n")
    assert predilect.load(log).counts[0].items == 20
    small = (log, "--model", "random", "--sessions", 30, "--slate-size", 3, "--max-history", 5, "--bootstrap", 10)
    kept = run(*small, "--keep-users", tmp_path / "users", "--output", tmp_path / "a.csv")
    assert kept.exit_code == 0, kept.output
    folders = f"{tmp_path / 'users' / 'logit'},{tmp_path / 'users' / 'transition'}"
    again = run(*small, "--users", folders, "--output", tmp_path / "b.csv")
    assert again.exit_code == 0, again.output
    first, second = (list(csv.DictReader((tmp_path / name).open())) for name in ("a.csv", "b.csv"))
    assert first == second
    for options, message in (
        (("--users", folders, "--patience", 5), "were saved with what they were fitted with: patience does not apply"),
        (("--users", tmp_path / "nobody"), "holds no saved users"),
        (("--users", folders, "--k-core", 30), "were fitted on another catalogue"),
    ):
        refused = run(*small, *options)
        assert refused.exit_code == 2, refused.output
        if options[2:] != ("--k-core", 30) or "catalogue" in refused.output:
            assert message in " ".join(refused.output.split())
