"""Objectives composed of parts against straightforward implementations, and the combinations that are refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pref_losses import Moments, Objective, alpha_dpo_loss, beta_dpo_loss, dr_dpo_loss, softmax_dpo_loss
from pref_losses.functional import batch_moments
from pref_losses.objective import AnswerLogps

METHODS = {
    "alpha": (Objective(score="mean_logp", beta=4.0, gamma_beta_ratio=0.4, margin_alpha=0.2), alpha_dpo_loss),
    "beta": (Objective(beta_alpha=0.6, keep=0.5), beta_dpo_loss),
    "dr": (Objective(reduction="robust", beta_prime=0.3), dr_dpo_loss),
    "softmax": (Objective(beta=0.5, link="softmax"), softmax_dpo_loss),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "alpha": {"beta": 4.0, "gamma_beta_ratio": 0.4, "alpha": 0.2},
    "beta": {"alpha": 0.6, "keep": 0.5},
    "dr": {"beta_prime": 0.3},
    "softmax": {"beta": 0.5},
}


def answers(rows: int = 6, negatives: int = 1, *, ragged: bool = False, seed: int = 0) -> AnswerLogps:
    generator = torch.Generator().manual_seed(seed)
    chosen, ref_chosen = -4 * torch.rand(2, rows, generator=generator, dtype=torch.float64)
    rejected, ref_rejected = -4 * torch.rand(2, rows, negatives, generator=generator, dtype=torch.float64)
    mask = torch.ones(rows, negatives, dtype=torch.bool)
    if ragged:
        mask[::2, 1:] = False
    return AnswerLogps(
        chosen, torch.where(mask, rejected, 0.0), ref_chosen, torch.where(mask, ref_rejected, 0.0), mask
    )


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def moments_of(objective: Objective, logps: AnswerLogps) -> Moments | None:
    return batch_moments(objective.gaps(logps)) if objective.uses_gap_moments else None


def gradient(objective: Objective, logps: AnswerLogps, *, split: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Value, and gradients by the chosen and rejected log-probs, as the trainer computes them: a plan of the whole
    batch, then weighted losses, of all examples at once or of two shares.
    """
    chosen, rejected = logps.chosen.clone().requires_grad_(), logps.rejected.clone().requires_grad_()
    logps = replace(logps, chosen=chosen, rejected=rejected)
    plan = objective.plan(logps.detach(), moments_of(objective, logps.detach()), generator())
    shares = [slice(None)] if split is None else [slice(0, split), slice(split, None)]
    for share in shares:
        (plan.weights[share] * objective.losses(logps[share], plan.beta, plan.moments)).sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    return plan.loss, chosen.grad, rejected.grad


def direct(objective: Objective, logps: AnswerLogps) -> tuple[Tensor, Tensor, Tensor]:
    """The formula of the design page written down pair by pair, differentiated by autograd."""
    o = objective
    chosen, rejected = logps.chosen.clone().requires_grad_(), logps.rejected.clone().requires_grad_()
    pairs = [(i, k) for i, k in product(range(len(chosen)), range(rejected.shape[1])) if logps.mask[i, k]]
    gap = {(i, k): (chosen[i] - logps.ref_chosen[i]) - (rejected[i, k] - logps.ref_rejected[i, k]) for i, k in pairs}
    score = {p: gap[p] if o.score == "log_ratio" else chosen[p[0]] - rejected[p] for p in pairs}
    own = [[p for p in pairs if p[0] == i] for i in range(len(chosen))]
    example_gap = torch.stack([torch.stack([gap[p] for p in mine]).mean() for mine in own]).detach()
    plan = o.plan(logps, moments_of(o, logps), generator())  # the draw of the filter only
    kept = [i for i in range(len(chosen)) if plan.weights[i] > 0]
    beta = torch.tensor(o.beta).double()
    if o.beta_alpha:
        pool = torch.stack([gap[p] for p in pairs]).detach() if o.margin_alpha and o.margin_normalise else example_gap
        scale = o.beta if o.beta_convention == "paper" else 1.0
        usual = pool.mean() * scale
        beta = o.beta * (1 + o.beta_alpha * (example_gap[kept].mean() * scale - usual))
    margin = {p: torch.tensor(o.beta * o.gamma_beta_ratio).double() for p in pairs}
    if o.margin_alpha:
        everything = torch.stack([gap[p] for p in pairs]).detach()
        for p in pairs:
            g = gap[p].detach() if o.margin_stop_gradient else gap[p]
            raw = g if o.margin_convention == "code" else o.beta * g
            z = (g - everything.mean()) / everything.std() if o.margin_normalise else raw
            margin[p] = margin[p] + o.margin_alpha * z * (o.beta if o.margin_convention == "code" else 1)
    losses = []
    for i in kept:
        x = torch.stack([beta * score[p] - margin[p] for p in own[i]])
        e = o.label_smoothing
        if o.link == "softmax":
            losses.append(F.cross_entropy(torch.cat([torch.zeros(1), -x])[None], torch.tensor([0])))
        elif o.link == "sigmoid":
            losses.append((-(1 - e) * F.logsigmoid(x) - e * F.logsigmoid(-x)).mean())
        else:
            losses.append(((-(1 - e) * F.logsigmoid(x) + e * F.logsigmoid(-x)) / (1 - 2 * e)).mean())
    stacked = torch.stack(losses)
    loss = stacked.mean()
    if o.reduction == "robust":
        loss = -o.beta_prime * torch.log(torch.exp(-stacked / o.beta_prime).mean())
    loss.backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    return loss.detach(), chosen.grad, rejected.grad


COMBINATIONS = [
    {},
    {"link": "softmax", "reduction": "robust", "beta_alpha": 0.6, "keep": 0.5},
    {"link": "softmax", "reduction": "robust", "margin_alpha": 0.3, "score": "mean_logp", "gamma_beta_ratio": 0.4},
    {"score": "mean_logp", "margin_alpha": 0.2, "gamma_beta_ratio": 0.3, "beta": 4.0},
    {"score": "mean_logp", "margin_alpha": 0.2, "margin_convention": "paper", "beta": 4.0},
    {"score": "mean_logp", "margin_alpha": 0.2, "margin_stop_gradient": False},
    {"score": "mean_logp", "margin_alpha": 0.2, "margin_normalise": False, "margin_convention": "paper"},
    {"score": "mean_logp", "gamma_beta_ratio": 0.5, "beta": 2.5},
    {"margin_alpha": 0.5, "beta_alpha": 0.6, "keep": 0.7, "label_smoothing": 0.1},
    {"beta_alpha": 2.0, "beta_convention": "paper", "reduction": "robust", "beta_prime": 0.2},
    {"keep": 0.5, "reduction": "robust"},
    {"link": "flip_corrected", "label_smoothing": 0.2, "beta_alpha": 0.3},
]


@pytest.mark.parametrize("parts", COMBINATIONS, ids=lambda p: "+".join(f"{k}={v}" for k, v in p.items()) or "dpo")
@pytest.mark.parametrize(("negatives", "ragged"), [(1, False), (3, True)])
def test_value_and_gradient_equal_autograd_of_the_formula(parts: dict[str, Any], negatives: int, ragged: bool) -> None:
    objective, logps = Objective(**parts), answers(6, negatives, ragged=ragged)
    for mine, expected in zip(gradient(objective, logps), direct(objective, logps), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("parts", COMBINATIONS, ids=range(len(COMBINATIONS)))
def test_gradient_of_two_shares_is_that_of_the_whole(parts: dict[str, Any]) -> None:
    objective, logps = Objective(**parts), answers(7, 3, ragged=True)
    for mine, expected in zip(gradient(objective, logps, split=3), gradient(objective, logps), strict=True):
        torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("negatives", [1, 4])
def test_objective_equals_the_functional_loss(name: str, negatives: int) -> None:
    objective, function = METHODS[name]
    logps = answers(8, negatives)
    more = {"generator": generator()} if name == "beta" else {}
    out = function(logps.chosen, logps.rejected, logps.ref_chosen, logps.ref_rejected, **OPTIONS[name], **more)
    plan = objective.plan(logps, moments_of(objective, logps), generator())
    torch.testing.assert_close(plan.loss, out.loss)
    torch.testing.assert_close(plan.weights * 8, out.diagnostics["weights"])
    torch.testing.assert_close(plan.beta, out.diagnostics["beta"])


@pytest.mark.parametrize("convention", ["code", "paper"])
def test_running_moments_have_one_unit_in_both_conventions(convention: Any) -> None:
    logps, usual = answers(8), Moments(torch.tensor(0.1).double(), torch.tensor(1.9).double())
    four = (logps.chosen, logps.rejected, logps.ref_chosen, logps.ref_rejected)
    options: dict[str, Any] = {"beta": 0.2, "keep": 0.5}
    objective = Objective(beta_alpha=0.3, beta_convention=convention, **options)
    out = beta_dpo_loss(*four, **options, alpha=0.3, moments=usual, convention=convention, generator=generator())
    plan = objective.plan(logps, usual, generator())
    torch.testing.assert_close((plan.loss, plan.beta), (out.loss, out.diagnostics["beta"]))
    kept_gap = logps.example_gaps()[out.diagnostics["kept"]].mean()
    expected = 0.2 * (1 + 0.3 * (0.2 if convention == "paper" else 1.0) * (kept_gap - 0.1))
    torch.testing.assert_close(plan.beta, expected)

    margin = Objective(score="mean_logp", beta=4.0, margin_alpha=0.3, margin_convention=convention)
    out = alpha_dpo_loss(*four, beta=4.0, gamma_beta_ratio=0.0, alpha=0.3, moments=usual, convention=convention)
    torch.testing.assert_close(margin.plan(logps, usual).loss, out.loss)


def test_dpo_is_a_point_of_the_space() -> None:
    logps = answers()
    expected = -F.logsigmoid(0.1 * (logps.chosen - logps.ref_chosen - (logps.rejected - logps.ref_rejected)[:, 0]))
    objective = Objective()
    torch.testing.assert_close(objective.losses(logps, torch.tensor(0.1).double(), None), expected)
    assert not objective.couples_examples
    assert objective.needs_reference


def test_simpo_is_a_point_of_the_space_and_needs_no_reference() -> None:
    objective = Objective(score="mean_logp", beta=2.0, gamma_beta_ratio=0.5)
    logps = replace(answers(), ref_chosen=None, ref_rejected=None)
    expected = -F.logsigmoid(2.0 * (logps.chosen - logps.rejected[:, 0]) - 1.0).mean()
    torch.testing.assert_close(objective.plan(logps, None).loss, expected)
    assert not objective.needs_reference
    assert not objective.couples_examples


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"link": "softmax", "label_smoothing": 0.1}, "use link='sigmoid' or label_smoothing=0"),
        ({"link": "flip_corrected", "label_smoothing": 0.2, "reduction": "robust"}, "choose one of the two"),
        ({"score": "mean_logp", "beta_alpha": 0.6}, "use score='log_ratio'"),
        ({"score": "mean_logp", "keep": 0.8}, "use score='log_ratio'"),
        ({"beta": 0.0}, r"beta must be positive \(got 0.0\)"),
        ({"keep": 1.2}, r"lies in \(0, 1\] \(got 1.2\)"),
        ({"beta_prime": -1.0}, "beta_prime must be positive"),
        ({"label_smoothing": 0.5}, r"lies in \[0, 0.5\)"),
        ({"score": "sum"}, "score is one of log_ratio, mean_logp"),
        ({"link": "hinge"}, "link is one of sigmoid, flip_corrected, softmax"),
        ({"reduction": "sum"}, "reduction is one of mean, robust"),
        ({"margin_convention": "x"}, "margin_convention is one of code, paper"),
        ({"beta_convention": "x"}, "beta_convention is one of code, paper"),
    ],
)
def test_senseless_parts_are_refused_with_the_reason(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(**parts)


def test_evaluation_takes_examples_one_by_one() -> None:
    objective = Objective(link="softmax", reduction="robust", beta_alpha=0.6, keep=0.5, margin_alpha=0.2)
    logps, moments = answers(6, 3, ragged=True), Moments(torch.tensor(0.5), torch.tensor(1.0))
    whole = objective.plain(logps, moments)
    alone = torch.stack([objective.plain(logps[i : i + 1], moments).loss for i in range(6)])
    torch.testing.assert_close(whole.loss, alone.mean())
    assert float(whole.beta) == pytest.approx(0.1)
    torch.testing.assert_close(whole.weights, torch.full((6,), 1 / 6, dtype=torch.float64))


def test_batches_of_different_width_join() -> None:
    parts = [answers(2, 1), answers(3, 4, ragged=True, seed=1)]
    joined = AnswerLogps.concatenate(parts)
    assert joined.mask.shape == (5, 4)
    assert joined.mask[:2].sum(1).tolist() == [1, 1]
    torch.testing.assert_close(joined.example_gaps(), torch.cat([p.example_gaps() for p in parts]))
    for objective in (Objective(), Objective(link="softmax")):
        beta = torch.tensor(0.1).double()
        expected = torch.cat([objective.losses(p, beta, None) for p in parts])
        torch.testing.assert_close(objective.losses(joined, beta, None), expected)


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_only_the_filter_gives_no_weight(keep: float) -> None:
    logps = answers(8)
    logps = replace(logps, chosen=-1e3 * torch.arange(8.0), rejected=torch.zeros(8, 1))
    plan = Objective(reduction="robust", beta_prime=1e-3, keep=keep).plan(logps, batch_moments(logps.example_gaps()))
    assert int((plan.weights > 0).sum()) == 8 * keep
    assert float(plan.weights.sum()) == pytest.approx(1)


def test_plan_follows_the_order_of_examples() -> None:
    objective, logps = Objective(reduction="robust", beta_alpha=0.6), answers(6, 3, ragged=True)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    moments = moments_of(objective, logps)
    plan, moved = objective.plan(logps, moments), objective.plan(logps[order], moments)
    torch.testing.assert_close(moved.loss, plan.loss)
    torch.testing.assert_close(moved.weights, plan.weights[order])
    assert float(plan.weights.sum()) == pytest.approx(1)
