"""The model: sampling, scoring, the loss."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from predilect.training import quiet
from seqrec_diffusion import DreamRecConfig, DreamRecModel, DreamRecRecommenderConfig, Sampling
from seqrec_diffusion.configuration import DENOISERS, ENCODERS, DreamRecOptions
from seqrec_diffusion.schedules import SAMPLERS, SCHEDULES

HISTORY = torch.tensor([[0, 0, 0, 3, 4, 5], [0, 0, 0, 0, 0, 9], [1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0]])
TARGET = torch.tensor([6, 10, 7, 1])
FAST = Sampling(steps=4, guidance=1.5)


def make(**options) -> DreamRecModel:
    torch.manual_seed(0)
    small = {"num_items": 30, "hidden_size": 8, "max_history": 6, "timesteps": 20, "denoiser": "mlp2"}
    small |= {"encoder": "transformer", "dropout": 0.1, "initializer_range": 1.0}
    small |= {"error": "squared", "item_norm": None, "cross_entropy_weight": 0.0}
    return DreamRecModel(DreamRecConfig(**{**small, **options})).eval()


def paper_oracle(model: DreamRecModel, history: torch.Tensor, w: float, seed: int) -> torch.Tensor:
    """The published procedure: two forwards a step, posterior mean and variance from the formulas; our noise."""
    from seqrec_diffusion.noise import row_keys, row_noise
    from seqrec_diffusion.schedules import betas

    keys = row_keys(history, seed)
    x, states = row_noise(keys, 0, 8), model.states(history)
    beta = betas(model.config.schedule, 20).double()
    abar = torch.cumprod(1 - beta, 0)
    for step, t in enumerate(range(19, -1, -1)):
        before = abar[t - 1] if t else torch.tensor(1.0, dtype=torch.float64)
        times = torch.full((len(history),), t)
        clean = (1 + w) * model.denoiser(x, states, times) - w * model.denoiser(
            x, model.null_state.expand_as(x), times
        )
        c1 = beta[t] * before.sqrt() / (1 - abar[t])
        c2 = (1 - before) * (1 - beta[t]).sqrt() / (1 - abar[t])
        spread = (beta[t] * (1 - before) / (1 - abar[t])).sqrt()
        x = (c1 * clean + c2 * x + spread * row_noise(keys, step + 1, 8)).float()
    return x


@torch.no_grad()
@pytest.mark.parametrize("denoiser", DENOISERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddpm_equals_the_published_procedure(denoiser, schedule):
    model = make(denoiser=denoiser, schedule=schedule)
    ours = model.oracle(HISTORY, Sampling("ddpm", None, guidance=2.0, seed=3))
    torch.testing.assert_close(ours, paper_oracle(model, HISTORY, 2.0, 3), rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_normalised_items_are_generated_at_their_length(sampler):
    """Every prediction, and so the last, lies where the items are: the loss does not teach its length."""
    model = make(item_norm=2.0, error="cosine", cross_entropy_weight=1.0)
    lengths = model.oracle(HISTORY, Sampling(sampler, 10, guidance=1.5)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((4,), 2.0), rtol=1e-3, atol=1e-3)
    free = make(error="cosine", cross_entropy_weight=1.0)
    assert not torch.allclose(free.oracle(HISTORY, Sampling(sampler, 10, guidance=1.5)).norm(dim=1), lengths, rtol=0.1)


def test_scores_are_products_with_the_oracle():
    model = make()
    oracle, items = model.oracle(HISTORY, FAST), model.encoder.item_embeddings[1:]
    torch.testing.assert_close(model.scores(HISTORY, FAST), oracle @ items.T)
    cosine = model.scores(HISTORY, Sampling(steps=4, guidance=1.5, similarity="cosine"))
    torch.testing.assert_close(cosine, F.cosine_similarity(oracle[:, None], items[None], dim=2))
    assert cosine.abs().max() <= 1 + 1e-6
    assert cosine.shape == (4, 30)  # no column for padding


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("encoder", ["transformer", "gru4rec"])
def test_results_do_not_depend_on_the_batch(sampler, encoder):
    model = make(encoder=encoder, num_items=300, hidden_size=16)
    generator = torch.Generator().manual_seed(1)
    histories = torch.randint(1, 301, (300, 6), generator=generator)
    histories[torch.arange(6) < torch.randint(0, 7, (300, 1), generator=generator)] = 0
    sampling = Sampling(sampler, 5, draws=2)
    whole = model.scores(histories, sampling)
    for size in (1, 7, 100):
        parts = [model.scores(some, sampling) for some in histories[:100].split(size)]
        assert torch.equal(torch.cat(parts), whole[:100])
    order = torch.randperm(300, generator=generator)
    torch.testing.assert_close(model.scores(histories[order], sampling), whole[order], rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing():
    model = make()
    assert torch.equal(model.scores(F.pad(HISTORY, (3, 0)), FAST), model.scores(HISTORY, FAST))
    assert torch.equal(model.scores(HISTORY[:2, 3:], FAST), model.scores(HISTORY[:2], FAST))


def test_without_guidance_sampling_is_conditional():
    model = make(schedule="cosine")
    conditional = model.oracle(HISTORY, Sampling(steps=4, guidance=0))
    with torch.no_grad():
        model.null_state.add_(1)
    assert torch.equal(model.oracle(HISTORY, Sampling(steps=4, guidance=0)), conditional)
    assert not torch.allclose(model.oracle(HISTORY, FAST), conditional)


def test_seeds_and_draws():
    model = make()
    for sampler in SAMPLERS:
        one = model.oracle(HISTORY, Sampling(sampler, 4, seed=1))
        assert torch.equal(model.oracle(HISTORY, Sampling(sampler, 4, seed=1)), one)
        assert not torch.equal(model.oracle(HISTORY, Sampling(sampler, 4, seed=2)), one)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    model.scores(HISTORY, Sampling("ddpm", 4))
    assert torch.equal(torch.get_rng_state(), before)  # nothing is drawn from the generator of the training
    few = model.oracle(HISTORY, Sampling("ddpm", 4, draws=1))
    many = [model.oracle(HISTORY, Sampling("ddpm", 4, draws=200, seed=s)) for s in (0, 1)]
    assert (many[0] - many[1]).norm() < 0.5 * (few - many[1]).norm()


def test_nearest_equals_a_full_sort_in_any_chunks():
    model = make(item_norm=2.0)
    with torch.no_grad():
        model.encoder.items.weight[20] = model.encoder.items.weight[4]  # a tie across chunks
    oracle = model.oracle(HISTORY, FAST)
    for similarity in ("dot", "cosine"):
        scores = model.scores(HISTORY, Sampling(steps=4, guidance=1.5, similarity=similarity))
        order = scores.argsort(dim=1, descending=True, stable=True)
        for chunk_size in (1, 7, 30, 1000):
            for k in (1, 12, 99):
                best, ids = model.nearest(oracle, k, similarity=similarity, chunk_size=chunk_size)
                torch.testing.assert_close(best, scores.gather(1, order[:, :k]), rtol=1e-5, atol=1e-5)
                assert (ids >= 1).all()
                assert best.shape == (4, min(k, 30))
                torch.testing.assert_close(scores.gather(1, ids - 1), best, rtol=1e-5, atol=1e-5)
                assert all(len(set(row)) == len(row) for row in ids.tolist())
    ids = model.nearest(oracle, 30, chunk_size=8)[1].tolist()
    assert all(row.index(4) + 1 == row.index(20) for row in ids)


def test_candidates_have_the_scores_of_the_full_ranking():
    candidates = torch.tensor([[30, 1, 5], [2, 2, 9], [7, 8, 3], [4, 5, 6]])
    for options in ({}, {"item_norm": 2.0}, {"objective": "softmax"}):
        model = make(**options)
        full = model.scores(HISTORY, FAST)
        chosen = model.scores(HISTORY, FAST, candidates=candidates)
        torch.testing.assert_close(chosen, full.gather(1, candidates - 1), rtol=1e-4, atol=1e-5)


def test_empty_and_no_histories():
    model = make()
    assert model.scores(torch.zeros(0, 6, dtype=torch.int64), FAST).shape == (0, 30)
    torch.testing.assert_close(model.states(HISTORY)[3], model.empty_state)
    one = model.oracle(torch.zeros(1, 1, dtype=torch.int64), FAST)
    assert torch.equal(one, model.oracle(HISTORY, FAST)[3:])
    assert one.isfinite().all()


def test_plain_loss_is_the_squared_error_of_the_denoised_target():
    model = make(null_probability=0.0)
    torch.manual_seed(5)
    loss = model(HISTORY, TARGET).loss
    torch.manual_seed(5)
    torch.rand(4, 1)
    times, noise = torch.randint(20, (4,)), torch.randn(4, 8)
    clean = model.encoder.item_embeddings[TARGET]
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 20, dtype=torch.float64), 0).float()[times, None]
    noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
    expected = ((clean - model.denoiser(noisy, model.states(HISTORY), times)) ** 2).mean()
    torch.testing.assert_close(loss, expected)


def test_terms_add_up():
    def loss(**options) -> float:
        model = make(null_probability=0.0, **options)
        torch.manual_seed(5)
        return float(model(HISTORY, TARGET).loss.detach())

    squared = loss()
    both = loss(error_weight=2.0, cross_entropy_weight=0.5)
    entropy = loss(error_weight=0.0, cross_entropy_weight=1.0)
    assert both == pytest.approx(2 * squared + 0.5 * entropy, rel=1e-5)
    preference = loss(error_weight=0.0, preference_weight=1.0)
    assert loss(preference_weight=3.0) == pytest.approx(squared + 3 * preference, rel=1e-5)
    assert preference > 0
    hot = loss(error_weight=0.0, cross_entropy_weight=1.0, temperature=1e6)
    assert hot == pytest.approx(math.log(30), rel=1e-4)


@pytest.mark.parametrize("objective", ["diffusion", "softmax"])
def test_weights_one_and_zero_have_the_gradient_of_the_first_row_alone(objective, monkeypatch):
    """Each row draws the same noise, time and dropped states in any batch."""
    generator = torch.Generator().manual_seed(1)
    noise, times, chance = torch.randn(4, 8, generator=generator), torch.tensor([3, 11, 0, 7]), torch.tensor([[0.9]])
    monkeypatch.setattr(torch, "randn_like", lambda clean: noise[: len(clean)])
    monkeypatch.setattr(torch, "randint", lambda high, size, device: times[: size[0]])
    monkeypatch.setattr(torch, "rand", lambda rows, _, device: chance.expand(rows, 1))

    def gradient(rows: slice, weight: list[float] | None) -> torch.Tensor:
        model = make(objective=objective, cross_entropy_weight=0.5, preference_weight=0.7, dropout=0.0)
        given = None if weight is None else torch.tensor(weight)
        model(HISTORY[rows], TARGET[rows], given).loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    alone = gradient(slice(1), None)
    assert alone.abs().max() > 1e-3
    torch.testing.assert_close(gradient(slice(2), [1.0, 0.0]), alone, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient(slice(4), [3.0] * 4), gradient(slice(4), None), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(gradient(slice(2), [1.0, 2.0]), gradient(slice(2), None))


def test_refuses_weights_of_another_shape():
    with pytest.raises(ValueError, match=r"weight must have the shape of target \(4,\) \(got \(3,\)\)"):
        make()(HISTORY, TARGET, torch.ones(3))


def test_null_states_replace_a_share_of_the_states():
    model = make(null_probability=0.999)
    with torch.no_grad():
        model.null_state.fill_(torch.nan)
    assert model(HISTORY, TARGET).loss.isnan()
    model.config.null_probability = 0.0
    assert not model(HISTORY, TARGET).loss.isnan()


def test_a_detached_target_gets_no_gradient():
    untouched = torch.tensor([30])
    for detached in (False, True):
        model = make(detach_target=detached, null_probability=0.0)
        model(HISTORY[:1], untouched).loss.backward()
        assert bool(model.encoder.items.weight.grad[30].any()) is not detached
        assert model.encoder.items.weight.grad[4].any()


def test_normalised_items_have_one_length():
    vectors = make(item_norm=2.0).item_vectors
    torch.testing.assert_close(vectors.norm(dim=1), torch.full((30,), 2.0))
    assert torch.equal(make().item_vectors, make().encoder.item_embeddings[1:])


@pytest.mark.parametrize("options", [{}, {"denoiser": "residual", "encoder": "sasrec"}, {"objective": "softmax"}])
def test_every_parameter_is_trained(options):
    model = make(dropout=0.0, null_probability=0.5, **options).train()
    for _ in range(10):  # null states are drawn at random
        model(HISTORY, TARGET).loss.backward()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    untouched = [name for name, p in trained if p.grad is None or not p.grad.any()]
    assert [name for name in untouched if not name.endswith("key.bias")] == []  # it cannot change a softmax
    left = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert left == ([] if options.get("objective") == "softmax" else ["encoder.item_bias"])


def test_padding_embedding_stays_zero():
    model = make(cross_entropy_weight=1.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        model(HISTORY, TARGET).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not model.encoder.item_embeddings[0].any()


def test_the_control_is_the_encoder_with_its_softmax_head():
    model = make(objective="softmax")
    torch.testing.assert_close(model.scores(HISTORY), model.encoder.scores(HISTORY))
    torch.testing.assert_close(model(HISTORY, TARGET).loss, model.encoder(HISTORY, TARGET).loss)
    assert not hasattr(model, "denoiser")
    with pytest.raises(ValueError, match="generates no oracle items"):
        model.oracle(HISTORY)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_saves_and_loads_exactly(encoder, tmp_path: Path):
    options = {} if encoder in ("transformer", "caser", "nextitnet") else {"encoder_options": {"num_layers": 2}}
    model = make(encoder=encoder, **options)
    with quiet():
        model.save_pretrained(tmp_path)
        again = DreamRecModel.from_pretrained(tmp_path).eval()
    assert torch.equal(again.scores(HISTORY, FAST), model.scores(HISTORY, FAST))
    assert [p.name for p in tmp_path.glob("*.safetensors")] == ["model.safetensors"]
    assert not again.encoder.item_bias.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 7}, r"hidden_size must be even and at least 4 \(got 7\)"),
        ({"hidden_size": 2}, r"hidden_size must be even and at least 4 \(got 2\)"),
        ({"num_items": 0}, r"num_items .* at least 1 \(got 0\)"),
        ({"timesteps": 0}, r"timesteps .* at least 1 \(got 0\)"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\) \(got 1.0\)"),
        ({"null_probability": -0.1}, r"null_probability must be in \[0, 1\) \(got -0.1\)"),
        ({"temperature": 0.0}, r"temperature must be a positive number \(got 0.0\)"),
        ({"item_norm": 0.0}, r"item_norm must be a positive number \(got 0.0\)"),
        ({"cross_entropy_weight": math.nan}, r"cross_entropy_weight .* at least 0 \(got nan\)"),
        ({"denoiser": "unet"}, "denoiser must be one of mlp1, mlp2, residual .got 'unet'"),
        ({"schedule": "log"}, "schedule must be one of linear, cosine, exp, sqrt .got 'log'"),
        ({"encoder": "bert"}, "encoder must be one of transformer, .*got 'bert'"),
        ({"objective": "plain"}, "objective must be one of diffusion, softmax .got 'plain'"),
        ({"error_weight": 0.0}, "are all 0: nothing is left to learn"),
        ({"encoder_options": {"layers": 3}}, "the encoder 'transformer' has no option layers"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "euler"}, "sampler must be one of ddpm, ddim, dpm-solver.. .got 'euler'"),
        ({"similarity": "l2"}, "similarity must be one of dot, cosine .got 'l2'"),
        ({"steps": 0}, r"steps must be a number of at least 1 \(got 0\)"),
        ({"guidance": -1.0}, r"guidance must be a number of at least 0 \(got -1.0\)"),
        ({"guidance": math.nan}, r"guidance must be a number of at least 0 \(got nan\)"),
        ({"draws": 0}, r"draws must be a number of at least 1 \(got 0\)"),
    ],
)
def test_refuses_sampling(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.scores(HISTORY, Sampling(steps=21)), r"steps must be in 1..20, .*got 21"),
        (lambda m: m.scores(HISTORY[0], FAST), r"history must have the shape .*got \(6,\)"),
        (lambda m: m.scores(HISTORY + 30, FAST), r"histories must hold ids in 0..30"),
        (lambda m: m.scores(HISTORY.flip(1), FAST), "padded with 0 on the left only"),
        (lambda m: m.scores(HISTORY.float(), FAST), "integer ids"),
        (lambda m: m(HISTORY, TARGET * 0), r"target must hold ids in 1..30 \(got 0..0\)"),
        (lambda m: m(HISTORY, TARGET[:2]), r"target must have one row per history \(got 2 for 4\)"),
        (lambda m: m(HISTORY, TARGET[:, None]), r"target must have shape \(4,\)"),
        (lambda m: m.scores(HISTORY, FAST, candidates=HISTORY), r"candidates must hold ids in 1..30 \(got 0..9\)"),
        (lambda m: m.nearest(torch.zeros(1, 8), 0), r"k and chunk_size must be at least 1 \(got 0"),
    ],
)
def test_refuses_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(make())


def test_refuses_guidance_without_null_states():
    model = make(null_probability=0.0)
    with pytest.raises(ValueError, match=r"trained with null_probability 0 \(got guidance 1.5\): set guidance=0"):
        model.scores(HISTORY, FAST)
    assert model.scores(HISTORY, Sampling(steps=4, guidance=0)).isfinite().all()


def test_the_models_config_and_the_recommenders_are_one_source() -> None:
    model, recommender = DreamRecConfig(), DreamRecRecommenderConfig()
    shared = [field.name for field in dataclasses.fields(DreamRecOptions)]
    assert len(shared) == 18
    assert {name: getattr(model, name) for name in shared} == {name: getattr(recommender, name) for name in shared}
    with pytest.raises(ValueError, match="hidden_size must be even"):
        DreamRecConfig(hidden_size=5)
