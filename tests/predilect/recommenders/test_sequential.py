from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import TrainerCallback

from predilect.evaluation import evaluate
from predilect.recommender import Recommender, recommender_class
from predilect.recommenders import (
    CaserRecommender,
    GRU4RecRecommender,
    NextItNetRecommender,
    Popularity,
    SASRecRecommender,
    SequentialRecommender,
)

KINDS = [GRU4RecRecommender, CaserRecommender, NextItNetRecommender, SASRecRecommender]
each_kind = pytest.mark.parametrize("kind", KINDS)
HISTORIES = torch.tensor([[0, 0, 0, 0, 1], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0]])


def make(kind: type[SequentialRecommender], **options) -> SequentialRecommender:
    small = {"hidden_size": 16, "max_epochs": 2, "batch_size": 64, "learning_rate": 0.01, "dropout": 0.1}
    return kind(**{**small, **options})


@pytest.fixture(scope="module")
def fitted(tiny_splits) -> GRU4RecRecommender:
    return make(GRU4RecRecommender).fit(tiny_splits)


@each_kind
def test_is_registered(kind):
    assert recommender_class(kind.name) is kind


@each_kind
def test_learns_the_ring_where_popularity_cannot(kind, tiny_splits):
    recommender = make(kind, max_epochs=15, patience=15, batch_size=32).fit(tiny_splits)
    assert evaluate(recommender, tiny_splits, bootstrap=10).metrics["hr@1"] > 0.9
    assert evaluate(Popularity().fit(tiny_splits), tiny_splits, bootstrap=10).metrics["hr@1"] < 0.5


@each_kind
def test_saves_and_loads_exactly(kind, tiny_splits, tmp_path, alike):
    recommender = make(kind, max_epochs=1, seed=3).fit(tiny_splits)
    recommender.save_pretrained(tmp_path)
    again = Recommender.from_pretrained(tmp_path)
    assert type(again) is kind
    assert again.config == recommender.config
    alike(again.score(HISTORIES), recommender.score(HISTORIES))
    lists = [r.recommend(history, k=3) for r, history in ((again, ["Film number 3", 4]), (recommender, [3, 4]))]
    assert [r[:2] for r in lists[0]] == [r[:2] for r in lists[1]]
    alike([r.score for r in lists[0]], [r.score for r in lists[1]])
    assert again.num_parameters == recommender.num_parameters == sum(p.numel() for p in again.model.parameters())
    assert not list(tmp_path.rglob("*.bin"))


@each_kind
def test_options_reach_the_backbone(kind, tiny_splits):
    config = make(kind, max_epochs=1, hidden_size=8, dropout=0.3).fit(tiny_splits).model.config
    assert (config.num_items, config.max_history, config.hidden_size, config.dropout) == (20, 5, 8, 0.3)


def test_scores_and_candidates(fitted):
    scores = fitted.score(HISTORIES)
    assert scores.shape == (3, 20)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()
    assert not scores.requires_grad
    chosen = fitted.score(HISTORIES, torch.tensor([[20, 1], [3, 3], [2, 5]]))
    assert chosen.tolist() == [[scores[0, 19], scores[0, 0]], [scores[1, 2]] * 2, [scores[2, 1], scores[2, 4]]]


def test_scoring_is_deterministic_and_does_not_depend_on_the_batch(fitted):
    together = fitted.score(HISTORIES)
    assert torch.equal(fitted.score(HISTORIES), together)
    for row, history in enumerate(HISTORIES):
        torch.testing.assert_close(fitted.score(history[None])[0], together[row], rtol=1e-5, atol=1e-6)


def test_same_seed_same_scores(tiny_splits, fitted):
    same, other = (make(GRU4RecRecommender, seed=seed).fit(tiny_splits) for seed in (0, 1))
    assert torch.equal(same.score(HISTORIES), fitted.score(HISTORIES))
    assert not torch.equal(other.score(HISTORIES), fitted.score(HISTORIES))


def test_callbacks_and_validation_agree_with_evaluate(tiny_splits):
    class Best(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            self.metric = state.best_metric

    recommender, best = make(GRU4RecRecommender), Best()
    recommender.callbacks = [best]
    recommender.fit(tiny_splits)
    ours = evaluate(recommender, tiny_splits, "validation", bootstrap=10).metrics["ndcg@10"]
    assert best.metric == pytest.approx(ours, abs=1e-6)


def test_resumes_an_interrupted_fit(tiny_splits, tmp_path, fitted):
    class Stop(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            if state.epoch and state.epoch >= 1:
                raise KeyboardInterrupt

    interrupted = make(GRU4RecRecommender)
    interrupted.callbacks = [Stop()]
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(tiny_splits, output_dir=tmp_path, resume=True)
    assert list(tmp_path.glob("checkpoint-*"))
    resumed = make(GRU4RecRecommender).fit(tiny_splits, output_dir=tmp_path, resume=True)
    assert torch.equal(resumed.score(HISTORIES), fitted.score(HISTORIES))


def test_refuses_to_resume_a_run_with_other_options(tiny_splits, tmp_path):
    make(GRU4RecRecommender, max_epochs=1).fit(tiny_splits, output_dir=tmp_path)
    with pytest.raises(ValueError, match=r"another run \(dropout: .* before, 0\.2 now\).*overwrite=True"):
        make(GRU4RecRecommender, max_epochs=1, dropout=0.2).fit(tiny_splits, output_dir=tmp_path, resume=True)
    other = dataclasses.replace(tiny_splits, train=tiny_splits.train.select(slice(100)))
    with pytest.raises(ValueError, match=r"another run \(data: "):
        make(GRU4RecRecommender, max_epochs=1).fit(other, output_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"is not empty: continue that run with resume=True"):
        make(GRU4RecRecommender, max_epochs=1, dropout=0.2).fit(tiny_splits, output_dir=tmp_path)
    make(GRU4RecRecommender, max_epochs=1, dropout=0.2).fit(tiny_splits, output_dir=tmp_path, overwrite=True)


def test_checkpoints_of_an_unknown_run_are_neither_continued_nor_removed(tiny_splits, tmp_path):
    make(GRU4RecRecommender, seed=5).fit(tiny_splits, output_dir=tmp_path)
    (tmp_path / "run.json").unlink()
    for how in ({"resume": True}, {"overwrite": True}, {}):
        with pytest.raises(ValueError, match="was not written by a run of fit"):
            make(GRU4RecRecommender).fit(tiny_splits, output_dir=tmp_path, **how)
    assert list(tmp_path.glob("checkpoint-*"))


def test_quick_is_a_short_run_with_the_same_options():
    config = SASRecRecommender.config_class(seed=7, hidden_size=32).quick()
    assert config == SASRecRecommender.config_class(seed=7, hidden_size=32, max_epochs=config.max_epochs)
    assert config.max_epochs <= 3


@each_kind
def test_every_option_says_what_it_is(kind):
    assert all(field.metadata["help"] for field in dataclasses.fields(kind.config_class))


def test_refuses_to_score_or_save_before_fit(tmp_path):
    with pytest.raises(RuntimeError, match="sasrec is not fitted"):
        SASRecRecommender().score(HISTORIES)
    with pytest.raises(RuntimeError, match="sasrec is not fitted"):
        SASRecRecommender().save_pretrained(tmp_path)


def test_refuses_an_incomplete_folder(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    for file in (tmp_path / "model").iterdir():
        file.unlink()
    (tmp_path / "model").rmdir()
    with pytest.raises(FileNotFoundError, match="incomplete"):
        Recommender.from_pretrained(tmp_path)


def test_refuses_unknown_items(fitted):
    with pytest.raises(ValueError, match=r"0\.\.20 \(got 21\.\.21\)"):
        fitted.score(torch.tensor([[21]]))
    with pytest.raises(ValueError, match="candidates"):
        fitted.score(torch.tensor([[1]]), torch.tensor([[0]]))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_epochs", 0),
        ("patience", 0),
        ("batch_size", 0),
        ("hidden_size", 0),
        ("dropout", 1.0),
        ("dropout", float("nan")),
        ("learning_rate", float("nan")),
        ("learning_rate", 0.0),
        ("weight_decay", -1.0),
    ],
)
def test_refuses_bad_options(option, value):
    with pytest.raises(ValueError, match=option):
        SASRecRecommender.config_class(**{option: value})


def test_prints_nothing(tiny_splits, tmp_path, capfd):
    recommender = make(GRU4RecRecommender, max_epochs=1).fit(tiny_splits)
    recommender.save_pretrained(tmp_path)
    Recommender.from_pretrained(tmp_path)
    assert capfd.readouterr() == ("", "")
