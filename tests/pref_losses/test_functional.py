"""The losses against numbers worked out by hand, and the identities that tie them to DPO and SimPO."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from pref_losses import LossOutput, Moments, alpha_dpo_loss, beta_dpo_loss, dr_dpo_loss, softmax_dpo_loss
from pref_losses.functional import (
    batch_moments,
    dynamic_beta,
    flip_corrected_link,
    keep_near_mean,
    robust_mean,
    robust_weights,
    sigmoid_link,
    softmax_link,
    standardise,
)

LOSSES = {
    "alpha": partial(alpha_dpo_loss, alpha=0.2),
    "alpha_paper": partial(alpha_dpo_loss, alpha=0.2, convention="paper"),
    "beta": beta_dpo_loss,
    "dr": dr_dpo_loss,
    "softmax": softmax_dpo_loss,
}
AVERAGES = ([-1, -1.2, -0.8, -1.5], [-1.4, -1.1, -1.3, -1.6], [-1.1, -1, -1, -1.4], [-1.3, -1.2, -1.2, -1.7])
GAPS = torch.tensor([0.5, 1.5, -0.5, 4.0])  # beta-DPO's M
USUAL = Moments(torch.tensor(1.0), torch.tensor(1.5))
LOGITS = torch.tensor([0.3, -0.5, 2.0, -3.0])  # Dr. DPO's, already times beta
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def tensors(rows: tuple[list[float], ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.tensor(row, dtype=dtype) for row in rows]


def against_zero(gaps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities whose log-ratio gap is `gaps`."""
    zero = torch.zeros_like(gaps)
    return gaps, zero, zero, zero


def random_logps(rows: int = 6, negatives: int | None = None, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows,), (rows,) if negatives is None else (rows, negatives)] * 2
    return [-5 * torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def dpo(pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
    return F.softplus(-beta * ((pc - rc) - (pr - rr)))


def near(found: Tensor, expected: object, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), atol=tolerance, rtol=0)


# --- oracles --------------------------------------------------------------------------------------------------


def test_oracle_alpha_dpo_gap() -> None:
    pc, pr, rc, rr = tensors(AVERAGES)
    gaps = (pc - rc) - (pr - rr)
    near(gaps, [0.2, -0.3, 0.3, -0.2])
    moments = batch_moments(gaps)
    near(moments.mean, 0.0)
    near(moments.std, 0.294392)


@pytest.mark.parametrize(
    ("convention", "losses", "mean"),
    [
        ("code", [1.587449, 3.012329, 1.341256, 1.818354], 1.939847),
        ("paper", [0.763390, 4.804417, 0.372283, 2.919593], 2.214921),
    ],
)
def test_oracle_alpha_dpo_losses(convention: str, losses: list[float], mean: float) -> None:
    out = alpha_dpo_loss(*tensors(AVERAGES), beta=10, alpha=0.2, gamma_beta_ratio=0.4, convention=convention)
    near(out.losses, losses)
    near(out.loss, mean)


def test_oracle_beta_dpo_weights() -> None:
    expected = torch.tensor([0.359164, 0.359164, 0.230289, 0.051384])
    near(torch.softmax(-0.5 * standardise(GAPS, USUAL) ** 2, 0), expected)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([keep_near_mean(GAPS, USUAL, 0.25, generator) for _ in range(4000)]).float()
    assert (draws.sum(1) == 1).all()
    near(draws.mean(0), expected, tolerance=0.03)  # over three standard errors of 4000 draws


def test_oracle_beta_dpo_beta() -> None:
    kept = GAPS[:3]
    beta = dynamic_beta(kept, USUAL, beta=0.1, alpha=0.6)
    near(beta, 0.07)
    near(sigmoid_link(beta * kept[:, None]).mean(), 0.676208)
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        out = beta_dpo_loss(*against_zero(GAPS), alpha=0.6, keep=0.75, moments=USUAL, generator=generator)
        if out.diagnostics["kept"].tolist() == [True, True, True, False]:
            break
    near(out.diagnostics["beta"], 0.07)
    near(out.loss, 0.676208)
    near(out.diagnostics["weights"], [4 / 3, 4 / 3, 4 / 3, 0])


@pytest.mark.parametrize(
    ("beta_prime", "loss", "weights"),
    [
        (0.1, 0.264154, [0.054913, 0.000826, 3.944262, 0.0]),
        (1.0, 0.754913, [1.222084, 0.80319, 1.873831, 0.100895]),
    ],
)
def test_oracle_dr_dpo(beta_prime: float, loss: float, weights: list[float]) -> None:
    out = dr_dpo_loss(*against_zero(LOGITS), beta=1.0, beta_prime=beta_prime)
    near(out.loss, loss)
    near(out.diagnostics["weights"], weights, tolerance=2e-6)
    near(out.losses.mean(), 1.175987)


def test_oracle_dr_dpo_toy_of_the_paper() -> None:
    near(robust_weights(torch.tensor([0.1, 1.0]), 0.1), [1.99975, 0.00025], tolerance=5e-6)


def test_oracle_softmax_dpo() -> None:
    chosen, rejected = torch.tensor([0.7]), torch.tensor([[0.1, -0.4, 1.2]])
    out = softmax_dpo_loss(chosen, rejected, torch.zeros(1), torch.zeros(1, 3), beta=1.0)
    near(out.loss, 1.261412)
    near(out.loss, float(torch.log1p(torch.exp(rejected - 0.7).sum())))
    near(out.loss, float(F.cross_entropy(torch.cat([chosen[:, None], rejected], 1), torch.tensor([0]))))


# --- identities -----------------------------------------------------------------------------------------------


def test_identity_alpha_zero_is_simpo_bit_exactly() -> None:
    logps = random_logps()
    out = alpha_dpo_loss(*logps, beta=2.5, gamma_beta_ratio=0.6, alpha=0.0)
    simpo = F.softplus(-(2.5 * (logps[0] - logps[1]) - 2.5 * 0.6))
    assert torch.equal(out.losses, simpo)


def test_identity_beta_dpo_without_alpha_and_filter_is_dpo() -> None:
    logps = random_logps()
    out = beta_dpo_loss(*logps, beta=0.3, alpha=0.0, keep=1.0)
    assert torch.equal(out.losses, dpo(*logps, beta=0.3))
    assert torch.equal(out.loss, out.losses.mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta_prime", [1e6, 1e12, float("inf")])
def test_identity_large_beta_prime_is_dpo(dtype: torch.dtype, beta_prime: float) -> None:
    logps = [x.to(dtype) for x in random_logps(64)]
    out = dr_dpo_loss(*logps, beta=1.0, beta_prime=beta_prime)
    near(out.loss, float(dpo(*logps, beta=1.0).mean()), tolerance=2e-6)
    near(out.diagnostics["weights"], torch.ones(64), tolerance=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identity_small_beta_prime_is_the_best_pair(dtype: torch.dtype) -> None:
    logps = [x.to(dtype) for x in random_logps(64)]
    out = dr_dpo_loss(*logps, beta=1.0, beta_prime=1e-4)
    near(out.loss, float(out.losses.min()), tolerance=64 * 1e-4)
    assert out.diagnostics["weights"].argmax() == out.losses.argmin()


def test_identity_one_rejected_answer_is_dpo() -> None:
    pc, pr, rc, rr = random_logps()
    out = softmax_dpo_loss(pc, pr[:, None], rc, rr[:, None], beta=0.7)
    torch.testing.assert_close(out.losses, dpo(pc, pr, rc, rr, beta=0.7), rtol=1e-12, atol=0)


def test_identity_softmax_dpo_ignores_the_order_of_negatives() -> None:
    pc, pr, rc, rr = random_logps(5, 4)
    order = [2, 0, 3, 1]
    shuffled = softmax_dpo_loss(pc, pr[:, order], rc, rr[:, order])
    torch.testing.assert_close(softmax_dpo_loss(pc, pr, rc, rr).losses, shuffled.losses, rtol=1e-12, atol=0)


@pytest.mark.parametrize("x", [-1e4, -3.0, 0.0, 1.3, 1e4])
def test_identity_a_negative_given_twice(x: float) -> None:
    found = softmax_link(torch.full((1, 2), -x, dtype=torch.float64))
    expected = torch.logaddexp(torch.zeros(1, dtype=torch.float64), torch.tensor([x]).double() + torch.tensor(2).log())
    torch.testing.assert_close(found, expected)


@every_loss
@pytest.mark.parametrize("negatives", [None, 3])
def test_identity_policy_equal_to_reference_is_free_of_nan(loss: Callable[..., LossOutput], negatives: int) -> None:
    pc, pr, *_ = (x.requires_grad_() for x in random_logps(4, negatives))
    out = loss(pc, pr, pc.detach().clone(), pr.detach().clone())
    out.loss.backward()
    for value in (out.loss, out.losses, pc.grad, pr.grad, *out.diagnostics.values()):
        assert value is not None
        assert torch.isfinite(value).all()


def test_identity_stopped_gradient_is_zero_by_finite_differences() -> None:
    logps = random_logps()
    moments = Moments(torch.tensor(0.3).double(), torch.tensor(0.7).double())
    options = {"beta": 2.0, "alpha": 0.3, "moments": moments}
    margin = alpha_dpo_loss(*logps, **options).diagnostics["margin"]

    def frozen(policy: Tensor) -> Tensor:
        return sigmoid_link(2.0 * (policy - logps[1])[:, None] - margin).mean()

    def flowing(policy: Tensor) -> Tensor:
        return alpha_dpo_loss(policy, *logps[1:], **options).loss

    def gradient(stop: bool) -> Tensor:
        policy = logps[0].clone().requires_grad_()
        alpha_dpo_loss(policy, *logps[1:], **options, stop_gradient=stop).loss.backward()
        assert policy.grad is not None
        return policy.grad

    def differences(value: Callable[[Tensor], Tensor]) -> Tensor:
        steps = 1e-5 * torch.eye(len(logps[0]), dtype=torch.float64)
        return torch.stack([(value(logps[0] + s) - value(logps[0] - s)) / 2e-5 for s in steps])

    torch.testing.assert_close(gradient(stop=True), differences(frozen), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradient(stop=False), differences(flowing), rtol=1e-6, atol=1e-9)
    assert not torch.allclose(gradient(stop=True), gradient(stop=False), rtol=1e-2)


def test_identity_no_gradient_through_beta_or_the_filter() -> None:
    gaps = random_logps()[0].requires_grad_()
    out = beta_dpo_loss(*against_zero(gaps), alpha=0.6, keep=0.5, generator=torch.Generator().manual_seed(1))
    out.loss.backward()
    kept, beta = out.diagnostics["kept"], out.diagnostics["beta"]
    expected = torch.where(kept, -beta * torch.sigmoid(-beta * gaps.detach()) / kept.sum(), 0.0)
    assert gaps.grad is not None
    torch.testing.assert_close(gaps.grad, expected)


def test_identity_dr_dpo_weights_are_those_of_the_gradient() -> None:
    losses = random_logps(8)[0].neg().requires_grad_()
    robust_mean(losses, 0.5).backward()
    assert losses.grad is not None
    torch.testing.assert_close(losses.grad, robust_weights(losses, 0.5) / 8)


def test_identity_flip_noise_toy_dr_dpo_weights_tell_flipped_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    better, worse = torch.randn(2, 256, 6, generator=generator)
    direction = torch.randn(6, generator=generator)
    swap = ((better - worse) @ direction < 0)[:, None]
    better, worse = torch.where(swap, worse, better), torch.where(swap, better, worse)
    flipped = torch.rand(256, generator=generator) < 0.25
    chosen = torch.where(flipped[:, None], worse, better)
    rejected = torch.where(flipped[:, None], better, worse)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    zero = torch.zeros(256)
    for _ in range(60):
        out = dr_dpo_loss(policy(chosen)[:, 0], policy(rejected)[:, 0], zero, zero, beta=1.0, beta_prime=0.5)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    assert roc_auc_score(~flipped, out.diagnostics["weights"]) > 0.85  # not 1: some pairs are nearly equal


# --- conventions ----------------------------------------------------------------------------------------------


def test_alpha_dpo_paper_convention_is_the_codes_with_alpha_over_beta() -> None:
    logps = random_logps()
    paper = alpha_dpo_loss(*logps, beta=4.0, alpha=0.8, convention="paper")
    code = alpha_dpo_loss(*logps, beta=4.0, alpha=0.2, convention="code")
    torch.testing.assert_close(paper.losses, code.losses)


@pytest.mark.parametrize(("convention", "factor"), [("code", 1.0), ("paper", 5.0)])
def test_alpha_dpo_without_normalisation_takes_the_gap_itself(convention: str, factor: float) -> None:
    pc, pr, rc, rr = random_logps()
    out = alpha_dpo_loss(pc, pr, rc, rr, beta=5.0, alpha=0.1, normalise=False, convention=convention)
    gap = (pc - rc) - (pr - rr)
    torch.testing.assert_close(out.diagnostics["z"].squeeze(1), factor * gap)
    torch.testing.assert_close(out.diagnostics["margin"].squeeze(1), 5.0 * 0.4 + 5.0 * 0.1 * gap)  # the same margin


def test_beta_dpo_gap_in_rewards_is_the_codes_with_alpha_times_beta() -> None:
    logps = random_logps()

    def loss(**options: object) -> LossOutput:
        return beta_dpo_loss(*logps, beta=0.2, keep=0.5, generator=torch.Generator().manual_seed(3), **options)

    paper, code = loss(alpha=2.0, convention="paper"), loss(alpha=0.4, convention="code")
    assert torch.equal(paper.diagnostics["kept"], code.diagnostics["kept"])
    torch.testing.assert_close(paper.loss, code.loss)
    assert not torch.allclose(paper.loss, loss(alpha=2.0, convention="code").loss)


def test_raising_the_gap_raises_beta_and_beta_stays_positive() -> None:
    usual = Moments(torch.tensor(0.0), torch.tensor(1.0))
    betas = [float(dynamic_beta(torch.tensor([g]), usual, beta=0.1, alpha=0.6)) for g in (-100.0, -1.0, 0.0, 1.0)]
    assert betas == pytest.approx([1e-3, 0.04, 0.1, 0.16])


# --- extremes -------------------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("negatives", [None, 1, 4])
def test_extremes_are_finite(loss: Callable[..., LossOutput], scale: float, rows: int, negatives: int | None) -> None:
    logps = [(scale * x).float() for x in random_logps(rows, negatives)]
    policy = [x.requires_grad_() for x in logps[:2]]
    out = loss(*policy, *logps[2:])
    out.loss.backward()
    for value in (out.loss, out.losses, *(p.grad for p in policy), out.chosen_rewards, *out.diagnostics.values()):
        assert value is not None
        assert torch.isfinite(value).all()
    assert out.rejected_rewards.shape == logps[1].shape
    assert out.losses.shape == (rows,)


@pytest.mark.parametrize("beta_prime", [1e-3, 1e-2, 0.1, 1.0, 30.0, 1e3, 1e6])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_robust_mean_is_exact_in_float32(beta_prime: float, scale: float) -> None:
    exact = scale * torch.rand(32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    losses = exact.float().requires_grad_()
    found = robust_mean(losses, beta_prime)
    found.backward()
    exact = losses.detach().double()
    least = exact.min()
    expected = least - beta_prime * torch.log1p(torch.expm1(-(exact - least) / beta_prime).mean())
    torch.testing.assert_close(found.detach().double(), expected, rtol=2e-6, atol=0)
    assert losses.grad is not None
    torch.testing.assert_close(losses.grad.double(), torch.softmax(-exact / beta_prime, 0), rtol=2e-3, atol=1e-7)
    assert float(losses.grad.sum()) == pytest.approx(1, rel=1e-4)


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(loss: Callable[..., LossOutput], dtype: torch.dtype) -> None:
    half = [x.to(dtype).requires_grad_() for x in random_logps(5)]
    out = loss(*half, **_draw(loss))
    full = loss(*(x.detach().float() for x in half), **_draw(loss))
    assert out.loss.dtype == torch.float32
    assert torch.equal(out.loss, full.loss)
    out.loss.backward()
    assert half[0].grad is not None
    assert half[0].grad.dtype == dtype


def _draw(loss: Callable[..., LossOutput]) -> dict[str, object]:
    return {"generator": torch.Generator().manual_seed(0)} if loss is beta_dpo_loss else {}


def test_filter_draws_under_weights_that_underflow() -> None:
    gaps = torch.cat([torch.zeros(2), torch.full((6,), 1e4)])
    kept = keep_near_mean(gaps, Moments(torch.tensor(0.0), torch.tensor(1.0)), 0.5)
    assert kept.sum() == 4
    assert kept[:2].all()


# --- properties -----------------------------------------------------------------------------------------------

finite = st.floats(-50, 50, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(finite, min_size=1, max_size=20), st.floats(1e-3, 1e6))
def test_robust_mean_lies_between_minimum_and_mean(values: list[float], beta_prime: float) -> None:
    losses = torch.tensor(values, dtype=torch.float64).abs()
    found = float(robust_mean(losses, beta_prime))
    assert float(losses.min()) - 1e-9 <= found <= float(losses.mean()) + 1e-9
    assert float(robust_weights(losses, beta_prime).mean()) == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(st.lists(finite, min_size=1, max_size=12), finite, st.integers(0, 3))
def test_softmax_link_bounds(values: list[float], extra: float, missing: int) -> None:
    logits = torch.tensor([values], dtype=torch.float64)
    loss = softmax_link(logits)
    assert loss >= F.softplus(-logits).max() - 1e-9  # at least the hardest pair
    assert loss <= F.softplus(-logits).sum() + 1e-9
    assert softmax_link(torch.cat([logits, logits.new_tensor([[extra]])], 1)) >= loss - 1e-9
    padded = torch.cat([logits, torch.full((1, missing), extra, dtype=torch.float64)], 1)
    mask = torch.arange(padded.shape[1])[None, :] < logits.shape[1]
    torch.testing.assert_close(softmax_link(padded, mask), loss)
    for link in (sigmoid_link, flip_corrected_link):
        torch.testing.assert_close(link(padded, mask, label_smoothing=0.2), link(logits, label_smoothing=0.2))


@settings(max_examples=60, deadline=None)
@given(st.lists(finite, min_size=1, max_size=30), st.floats(0.01, 1.0), st.integers(0, 2**31))
def test_filter_keeps_the_asked_number(values: list[float], keep: float, seed: int) -> None:
    gaps = torch.tensor(values)
    kept = keep_near_mean(gaps, batch_moments(gaps), keep, torch.Generator().manual_seed(seed))
    assert int(kept.sum()) == max(1, round(keep * len(values)))


@settings(max_examples=40, deadline=None)
@given(st.floats(-30, 30), st.sampled_from(["beta", "dr", "softmax"]))
def test_shifting_policy_and_reference_together_changes_nothing(shift: float, name: str) -> None:
    logps = random_logps(5)
    moved = [x + (shift if i in (0, 2) else 0) for i, x in enumerate(logps)]
    draws = [{"generator": torch.Generator().manual_seed(0)} if name == "beta" else {} for _ in range(2)]
    torch.testing.assert_close(LOSSES[name](*logps, **draws[0]).loss, LOSSES[name](*moved, **draws[1]).loss)


@settings(max_examples=40, deadline=None)
@given(st.lists(finite, min_size=2, max_size=20), st.floats(0.1, 10), finite)
def test_standardised_gaps_ignore_scale_and_place(values: list[float], scale: float, shift: float) -> None:
    gaps = torch.tensor(values, dtype=torch.float64)
    z = standardise(gaps, batch_moments(gaps))
    moved = scale * gaps + shift
    if batch_moments(gaps).std > 1e-3:
        torch.testing.assert_close(standardise(moved, batch_moments(moved)), z, atol=1e-6, rtol=1e-6)
        assert float(z.std()) == pytest.approx(1)


# --- what is returned and refused ------------------------------------------------------------------------------


@every_loss
def test_rewards_are_beta_times_log_ratios_without_gradient(loss: Callable[..., LossOutput]) -> None:
    logps = [x.requires_grad_() for x in random_logps(5)]
    out = loss(*logps)
    beta = out.diagnostics["beta"]
    torch.testing.assert_close(out.chosen_rewards, beta * (logps[0] - logps[2]).detach())
    torch.testing.assert_close(out.rejected_rewards, beta * (logps[1] - logps[3]).detach())
    assert out.loss.requires_grad
    assert not any(v.requires_grad for v in (out.chosen_rewards, out.rejected_rewards, *out.diagnostics.values()))
    near(out.diagnostics["weights"].mean(), 1.0)


@every_loss
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 1), (2,), (2, 1), (2,)), r"chosen log-probs have shape \(B,\)"),
        (((2,), (3,), (2,), (3,)), "with B = 2"),
        (((2,), (2, 3), (2,), (2, 2)), r"\(2, 3\) and \(2, 2\)"),
        (((0,), (0,), (0,), (0,)), "empty batch"),
    ],
)
def test_wrong_shapes_are_refused(
    loss: Callable[..., LossOutput], shapes: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        loss(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (alpha_dpo_loss, {"convention": "trl"}, "convention is 'code' or 'paper'"),
        (beta_dpo_loss, {"convention": "trl"}, "convention is 'code' or 'paper'"),
        (beta_dpo_loss, {"keep": 0.0}, r"\(0, 1\]"),
        (dr_dpo_loss, {"beta_prime": 0.0}, "beta_prime must be positive"),
        (dr_dpo_loss, {"beta_prime": float("nan")}, "beta_prime must be positive"),
    ],
)
def test_wrong_hyper_parameters_are_refused(loss: Callable[..., LossOutput], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(*random_logps(3), **options)
