from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import TrainerCallback

from predilect.evaluation import evaluate
from predilect.recommender import Recommender
from predilect.recommenders import Popularity
from seqrec_diffusion import DreamRec, DreamRecRecommenderConfig, PreferDiff, item_table_metrics

HISTORIES = torch.tensor([[0, 0, 0, 0, 1], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0]])
PLAIN = {"encoder": "transformer", "dropout": 0.1, "initializer_range": 1.0, "guidance": 2.0}
PLAIN |= {"error": "squared", "item_norm": None, "cross_entropy_weight": 0.0}
STABLE = {name: getattr(DreamRecRecommenderConfig(), name) for name in PLAIN}


def make(**options) -> DreamRec:
    small = {"hidden_size": 16, "timesteps": 50, "schedule": "exp", "max_epochs": 2, "steps": 5}
    return DreamRec(**{**small, **PLAIN, "batch_size": 64, "learning_rate": 0.01, **options})


@pytest.fixture(scope="module")
def fitted(tiny_splits) -> DreamRec:
    return make().fit(tiny_splits)


@pytest.fixture(scope="module")
def popularity(tiny_splits) -> float:
    return evaluate(Popularity().fit(tiny_splits), tiny_splits, bootstrap=0).metrics["hr@1"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"denoiser": "mlp2", "encoder": "gru4rec"},
        STABLE,
        {**STABLE, "cross_entropy_weight": 0.1, "detach_target": True},
        {"preference_weight": 1.0},
        {"error_weight": 0.0, "cross_entropy_weight": 1.0},
        {"objective": "softmax"},
    ],
    ids=["plain", "gru4rec", "stable", "detached", "preference", "cross-entropy", "softmax"],
)
def test_learns_the_ring_where_popularity_cannot(options, tiny_splits, popularity):
    recommender = make(max_epochs=40, patience=15, batch_size=32, **options).fit(tiny_splits)
    assert evaluate(recommender, tiny_splits, bootstrap=0).metrics["hr@1"] > 0.9
    assert popularity < 0.5
    if options.get("objective") != "softmax":
        for changed in ({"sampler": "ddpm", "steps": None}, {"sampler": "dpm-solver++"}, {"guidance": 0.0}):
            again = recommender.set_sampling(**changed)
            assert evaluate(again, tiny_splits, bootstrap=0).metrics["hr@1"] > 0.6, changed


def test_preferdiff_learns_the_ring_and_is_found_by_its_name(tiny_splits, popularity, tmp_path, alike):
    small = {"hidden_size": 16, "timesteps": 50, "schedule": "exp", "steps": 10, "learning_rate": 0.01}
    recommender = PreferDiff(**small, max_epochs=40, patience=15, batch_size=32).fit(tiny_splits)
    assert recommender.model.config.preference_weight + recommender.model.config.error_weight == 1
    assert evaluate(recommender, tiny_splits, bootstrap=0).metrics["hr@1"] > 0.8
    recommender.save_pretrained(tmp_path)
    again = Recommender.from_pretrained(tmp_path)
    assert isinstance(again, PreferDiff)
    alike(again.score(HISTORIES), recommender.score(HISTORIES))


def test_metrics_do_not_depend_on_the_batch_size(fitted, tiny_splits):
    fitted = make().fit(tiny_splits).set_sampling(sampler="ddpm")
    results = [evaluate(fitted, tiny_splits, batch_size=size, bootstrap=0) for size in (1, 7, 100, 1000)]
    assert all(other.results == results[0].results for other in results)
    assert all(other.rows["rank"] == results[0].rows["rank"] for other in results)


class Watched(TrainerCallback):
    def __init__(self):
        self.seen = []

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.seen.append(metrics["eval_ndcg@10"])


@pytest.mark.parametrize(
    "options",
    [{"sampler": "ddpm", "steps": None, "guidance": 2.0}, {"similarity": "cosine", "draws": 2, "sampling_seed": 3}],
)
def test_the_epoch_is_selected_by_the_sampling_that_ranks(options, tiny_splits):
    recommender, watched = make(max_epochs=4, **options), Watched()
    recommender.callbacks = [watched]
    recommender.fit(tiny_splits)
    ranked = evaluate(recommender, tiny_splits, "validation", bootstrap=0).metrics["ndcg@10"]
    assert ranked == pytest.approx(max(watched.seen), abs=1e-12)
    assert len(set(watched.seen)) > 1
    other = evaluate(recommender.set_sampling(sampler="ddim", steps=2, sampling_seed=0), tiny_splits, "validation")
    assert other.metrics["ndcg@10"] != pytest.approx(ranked)  # another sampling would have told another number


def test_padding_is_never_recommended(fitted):
    assert fitted.score(HISTORIES).shape == (3, 20)
    listed = fitted.recommend([3, 4], k=100, exclude_history=False)
    assert sorted(r.item_id for r in listed) == list(range(1, 21))


def test_saves_and_loads_exactly(tiny_splits, tmp_path, alike):
    recommender = make(max_epochs=1, seed=3, encoder="sasrec", encoder_options={"num_layers": 1}).fit(tiny_splits)
    recommender.set_sampling(sampler="dpm-solver++", guidance=1.0, similarity="cosine")
    recommender.save_pretrained(tmp_path)
    again = DreamRec.from_pretrained(tmp_path)
    assert again.config == recommender.config
    alike(again.score(HISTORIES), recommender.score(HISTORIES))
    lists = [r.recommend(history, k=3) for r, history in ((again, ["Film number 3", 4]), (recommender, [3, 4]))]
    assert [r[:2] for r in lists[0]] == [r[:2] for r in lists[1]]
    alike([r.score for r in lists[0]], [r.score for r in lists[1]])
    assert again.num_parameters == recommender.num_parameters
    assert not list(tmp_path.rglob("*.bin"))
    (tmp_path / "model" / "model.safetensors").unlink()
    (tmp_path / "model" / "config.json").unlink()
    (tmp_path / "model").rmdir()
    with pytest.raises(FileNotFoundError, match="incomplete"):
        DreamRec.from_pretrained(tmp_path)


def test_parameters_that_are_not_learned_do_not_count(fitted):
    frozen = fitted.model.encoder.item_bias.numel()
    assert fitted.num_parameters == sum(p.numel() for p in fitted.model.parameters()) - frozen


def test_options_reach_the_model(tiny_splits):
    options = {"hidden_size": 8, "dropout": 0.3, "schedule": "exp", "timesteps": 30, "null_probability": 0.2}
    options |= {"item_norm": 0.5, "error": "cosine", "cross_entropy_weight": 0.1}
    model = make(max_epochs=1, **options).fit(tiny_splits).model
    assert (model.config.num_items, model.config.max_history) == (20, 5)
    for name, value in options.items():
        assert getattr(model.config, name) == value
    assert model.encoder.config.dropout == 0.3


def test_candidates(fitted):
    scores = fitted.score(HISTORIES)
    chosen = fitted.score(HISTORIES, torch.tensor([[20, 1], [3, 3], [2, 5]]))
    expected = torch.tensor([[scores[0, 19], scores[0, 0]], [scores[1, 2]] * 2, [scores[2, 1], scores[2, 4]]])
    torch.testing.assert_close(chosen, expected)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad


def test_oracle_embeddings_rank_items(fitted):
    oracle = fitted.oracle_embeddings(HISTORIES)
    assert oracle.shape == (3, 16)
    torch.testing.assert_close(oracle @ fitted.model.item_vectors.T.to(oracle.device), fitted.score(HISTORIES))


def test_sampling_changes_without_training(fitted):
    before, weights = fitted.config, {n: p.clone() for n, p in fitted.model.named_parameters()}
    plain = fitted.score(HISTORIES)
    for changed in ({"sampler": "ddpm"}, {"steps": 7}, {"guidance": 5.0}, {"draws": 3}, {"similarity": "cosine"}):
        fitted.config = before
        assert not torch.allclose(fitted.set_sampling(**changed).score(HISTORIES), plain), changed
    fitted.config = before
    assert torch.equal(fitted.score(HISTORIES), plain)
    assert all(torch.equal(p, weights[n]) for n, p in fitted.model.named_parameters())
    with pytest.raises(TypeError, match="hidden_size cannot be changed without training; sampler, steps,"):
        fitted.set_sampling(hidden_size=8)
    with pytest.raises(ValueError, match=r"steps must be at most timesteps, 50 \(got 51\)"):
        fitted.set_sampling(steps=51)
    assert fitted.config == before


def test_same_seed_same_scores(tiny_splits, fitted):
    same, other = (make(seed=seed).fit(tiny_splits) for seed in (0, 1))
    assert torch.equal(same.score(HISTORIES), fitted.score(HISTORIES))
    assert not torch.allclose(other.score(HISTORIES), fitted.score(HISTORIES))
    drawn = [same.set_sampling(sampler="ddpm", sampling_seed=seed).score(HISTORIES) for seed in (0, 1)]
    assert not torch.allclose(*drawn)


def test_validation_agrees_with_evaluate_and_watches_the_table(tiny_splits):
    class Keep(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            self.best, self.log = state.best_metric, state.log_history

    recommender, keep = make(), Keep()
    recommender.callbacks = [keep]
    recommender.fit(tiny_splits)
    ours = evaluate(recommender, tiny_splits, "validation", bootstrap=0).metrics["ndcg@10"]
    assert keep.best == pytest.approx(ours, abs=1e-6)
    watched = [entry for entry in keep.log if "eval_items_variance" in entry]
    assert len(watched) == 2
    best = {f"eval_items_{n}": v for n, v in item_table_metrics(recommender.model.item_vectors).items()}
    assert any(best.items() <= entry.items() for entry in watched)


def test_resumes_an_interrupted_fit(tiny_splits, tmp_path, fitted):
    class Stop(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            if state.epoch and state.epoch >= 1:
                raise KeyboardInterrupt

    interrupted = make()
    interrupted.callbacks = [Stop()]
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(tiny_splits, output_dir=tmp_path, resume=True)
    assert list(tmp_path.glob("checkpoint-*"))
    resumed = make().fit(tiny_splits, output_dir=tmp_path, resume=True)
    assert torch.equal(resumed.score(HISTORIES), fitted.score(HISTORIES))
    with pytest.raises(ValueError, match=r"another run \(timesteps: .* before, 40 now\).*overwrite=True"):
        make(timesteps=40).fit(tiny_splits, output_dir=tmp_path, resume=True)


def test_every_option_says_what_it_is():
    assert all(field.metadata["help"] for field in dataclasses.fields(DreamRecRecommenderConfig))
    quick = DreamRecRecommenderConfig(seed=7, timesteps=100).quick()
    assert quick == DreamRecRecommenderConfig(seed=7, timesteps=100, max_epochs=quick.max_epochs)
    assert quick.max_epochs <= 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 600}, r"steps must be at most timesteps, 500 \(got 600\)"),
        (
            {"null_probability": 0.0, "guidance": 2.0},
            r"guidance needs null_probability above 0 \(got 0\): set guidance=0, not 2.0",
        ),
        ({"learning_rate": 0.0}, r"learning_rate must be a positive number \(got 0.0\)"),
        ({"hidden_size": 5}, r"hidden_size must be even and at least 4 \(got 5\)"),
        ({"sampler": "euler"}, "sampler must be one of ddpm"),
        ({"error": "absolute"}, "error must be one of squared, cosine .got 'absolute'"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        DreamRec(**options)


def test_refuses_to_work_before_fit_and_an_oracle_of_the_control(tiny_splits, tmp_path):
    with pytest.raises(RuntimeError, match="dreamrec is not fitted"):
        DreamRec().score(HISTORIES)
    with pytest.raises(RuntimeError, match="dreamrec is not fitted"):
        DreamRec().save_pretrained(tmp_path)
    control = make(max_epochs=1, objective="softmax").fit(tiny_splits)
    with pytest.raises(ValueError, match="generates no oracle items"):
        control.oracle_embeddings(HISTORIES)


def test_saved_folder_names_its_class(fitted, tmp_path, monkeypatch):
    fitted.save_pretrained(tmp_path)
    monkeypatch.setattr("predilect.recommender.recommender_class", lambda name: {"dreamrec": DreamRec}[name])
    assert type(Recommender.from_pretrained(tmp_path)) is DreamRec
