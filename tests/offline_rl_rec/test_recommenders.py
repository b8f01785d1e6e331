from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from offline_rl_rec import CQL, MCRL, SA2C, SNQN, SQN, Agent, RemainingItems
from offline_rl_rec.windows import SessionWindows
from predilect.data.splits import SequenceSplits
from predilect.evaluation import evaluate
from predilect.recommender import available_recommenders, recommender_class

AGENTS = (Agent, RemainingItems, SQN, SNQN, SA2C, CQL, MCRL)
HISTORIES = torch.tensor([[0, 0, 0, 0, 1], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0]])
SMALL = {"hidden_size": 16, "max_epochs": 2, "batch_size": 64, "learning_rate": 0.01, "backbone": "gru4rec"}


@pytest.fixture(scope="module")
def shop(tiny_splits) -> SequenceSplits:
    """The ring of items, on which every fourth item is bought."""
    s = tiny_splits.sequences
    bought = dataclasses.replace(s, event=(s.items % 4 == 0).astype(np.int32), events=("click", "buy"))
    parts = {p: dataclasses.replace(tiny_splits.part(p), sequences=bought) for p in ("train", "validation", "test")}
    return dataclasses.replace(tiny_splits, **parts)


@pytest.mark.parametrize("agent", AGENTS, ids=lambda a: a.name)
def test_learns_the_ring_and_is_loaded_as_it_was(agent, shop, tmp_path, alike):
    fitted = agent(**{**SMALL, "max_epochs": 15, "patience": 10, "learning_rate": 0.02}).fit(shop)
    assert evaluate(fitted, shop, bootstrap=0).metrics["hr@1"] > 0.9
    fitted.save_pretrained(tmp_path)
    loaded = agent.from_pretrained(tmp_path)
    alike(loaded.score(HISTORIES), fitted.score(HISTORIES))
    assert loaded.config == fitted.config
    assert fitted.name in available_recommenders()
    assert recommender_class(fitted.name) is agent


class Killed(TrainerCallback):
    def on_epoch_begin(self, args, state, control, **kwargs):
        if state.epoch >= 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("agent", [SA2C, MCRL], ids=lambda a: a.name)
def test_a_killed_run_ends_as_an_unbroken_one(agent, shop, tmp_path, alike):
    options = {**SMALL, "max_epochs": 3} | ({"advantage_after": 10} if agent is SA2C else {})
    whole = agent(**options).fit(shop, output_dir=tmp_path / "whole")
    broken = agent(**options)
    broken.callbacks = [Killed()]
    with pytest.raises(KeyboardInterrupt):
        broken.fit(shop, output_dir=tmp_path / "broken")
    again = agent(**options).fit(shop, output_dir=tmp_path / "broken", resume=True)
    for (name, a), b in zip(whole.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        alike(b, a), name


def test_windows_hold_what_rows_say(shop):
    from offline_rl_rec import Sessions

    sessions = Sessions.of(shop.train)
    windows = SessionWindows(shop.train, sessions)
    batch = windows.__getitems__(list(range(len(windows))))
    learnt = batch["target"] != 0
    assert learnt.sum() == len(shop.train)
    assert batch["done"][learnt].sum() == shop.train.done.sum()
    expected = torch.where(batch["target"] % 4 == 0, 1.0, 0.2)
    torch.testing.assert_close(batch["reward"][learnt], expected[learnt])
    assert ((batch["remaining"] == 0) == batch["done"])[learnt].all()
    after = (~batch["done"] & learnt)[:, :-1] & learnt[:, 1:]
    assert (batch["remaining"][:, :-1] - batch["remaining"][:, 1:])[after].unique().tolist() == [1.0]


def test_logs_without_rewards_are_refused_in_one_line_and_the_control_needs_none(tiny_splits):
    for agent in (SQN, MCRL):
        said = agent(**SMALL).unsuited(tiny_splits)
        assert said is not None
        assert "no rewards" in said
        assert "\n" not in said
        with pytest.raises(ValueError, match="no rewards"):
            agent(**SMALL).fit(tiny_splits)
    assert Agent(**SMALL).unsuited(tiny_splits) is None
    RemainingItems(**{**SMALL, "max_epochs": 1}).fit(tiny_splits)


def test_sessions_of_one_row_have_no_transitions(shop):
    rows = shop.train.select(np.flatnonzero(shop.train.done))
    with pytest.raises(ValueError, match="every session ends with its first row"):
        CQL(**SMALL).fit(dataclasses.replace(shop, train=rows))


def test_values_are_logged_beside_the_choice_of_the_epoch(shop):
    seen = []

    class Watch(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.extend(logs)

    agent = CQL(**SMALL)
    agent.callbacks = [Watch()]
    agent.fit(shop)
    assert seen.count("eval_max_q") == 2
    torch.testing.assert_close(agent.values(HISTORIES), agent.score(HISTORIES))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"click_reward": -1.0}, "reward of a click"), ({"stride": 0}, "stride"), ({"temperature": 0.0}, "temperature")],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MCRL(**options)
