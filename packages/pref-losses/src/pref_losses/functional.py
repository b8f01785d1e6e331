r"""The four losses as functions of log-probabilities, and the parts they are made of.

Every loss here is one formula with other parts:

    loss = reduce_i  link( beta_i * (s(chosen_i) - s(rejected_ik)) - margin_ik )

    score     s = log pi - log ref (summed over tokens)        DPO, beta-DPO, Dr. DPO, S-DPO
              s = log pi (mean per token)                      SimPO, alpha-DPO
    margin    0 | gamma | gamma + alpha * z                    alpha-DPO: adaptive, without gradient
    beta      beta | beta * (1 + alpha * (mean gap - M0))      beta-DPO: one per batch, without gradient
    link      -log sigmoid, pair by pair | softmax over K      S-DPO
    reduce    mean | -beta' * log mean exp(-loss / beta')      Dr. DPO

Tensors only, usable from any training loop. Shapes: B examples, K rejected answers (K = 1 may be written as shape
(B,)). Half-precision inputs are computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Convention = Literal["code", "paper"]
EPSILON = 1e-6  # a batch whose gaps spread less than this has no outliers to speak of: z = 0
MINIMUM_BETA = 1e-3


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of the gaps, as plain numbers or 0-d tensors."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class LossOutput:
    """What every loss returns.

    Attributes:
        loss: scalar, differentiable.
        losses: (B,) before the reduction, differentiable.
        chosen_rewards: (B,) implicit reward `beta * (log pi - log ref)` with the beta in force, detached.
        rejected_rewards: (B,) or (B, K), like the rejected log-probabilities, detached.
        diagnostics: detached: `beta`, `margin`, `weights` (of the examples in the gradient, mean 1), and the method's
            own.
    """

    loss: Tensor
    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)


# --- parts ----------------------------------------------------------------------------------------------------


def preference_gaps(chosen_scores: Tensor, rejected_scores: Tensor) -> Tensor:
    """`s(chosen) - s(rejected_k)`, (B, K)."""
    if rejected_scores.dim() == 1:
        rejected_scores = rejected_scores.unsqueeze(1)
    return chosen_scores.unsqueeze(1) - rejected_scores


def batch_moments(gaps: Tensor, mask: Tensor | None = None) -> Moments:
    """Mean and unbiased standard deviation of the gaps of a batch; the deviation of a single gap is 0, not NaN."""
    values = (gaps if mask is None else gaps[mask]).detach().flatten()
    return Moments(values.mean(), values.std() if values.numel() > 1 else values.new_zeros(()))


def standardise(gaps: Tensor, moments: Moments) -> Tensor:
    """`(gap - mean) / std`, and 0 where the deviation vanishes (policy equal to reference, batch of one)."""
    std = torch.as_tensor(moments.std, device=gaps.device, dtype=gaps.dtype)
    mean = torch.as_tensor(moments.mean, device=gaps.device, dtype=gaps.dtype)
    return torch.where(std < EPSILON, torch.zeros_like(gaps), (gaps - mean) / std.clamp_min(EPSILON))


def adaptive_margin(
    gaps: Tensor,
    moments: Moments | None,
    *,
    beta: float,
    gamma_beta_ratio: float,
    alpha: float,
    convention: Convention = "code",
) -> tuple[Tensor, Tensor]:
    """alpha-DPO's target margin, and the z in it: code `beta * (ratio + alpha * z)`, paper `beta * ratio + alpha * z`.

    The published values of alpha belong to the code's convention: with beta = 10 the same alpha is ten times weaker in
    the paper's.

    Args:
        gaps: of the log-ratios, any shape; detached where no gradient is to reach the margin.
        moments: of the log-ratio gaps, which z standardises; None: z is the gap itself, in the paper's convention as a
            reward (the paper's ablation), which makes the two conventions one.
        beta: scale of the score.
        gamma_beta_ratio: the fixed part.
        alpha: strength of the adaptive part.
        convention: "code" or "paper".
    """
    unit = _gap_unit(beta, convention)
    z = unit * gaps if moments is None else standardise(gaps, moments)
    return beta * gamma_beta_ratio + beta / unit * alpha * z, z


def keep_near_mean(gaps: Tensor, moments: Moments, keep: float, generator: torch.Generator | None = None) -> Tensor:
    """beta-DPO's filter: a mask (B,) of `max(1, round(keep * B))` examples drawn without replacement.

    An example is drawn with probability proportional to `exp(-z^2 / 2)` of its gap. Drawing is Gumbel top-k on log
    weights, which is exactly sampling without replacement and cannot underflow, as the authors' `multinomial` does.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"the kept fraction lies in (0, 1] (got {keep})")
    count = max(1, round(keep * len(gaps)))
    log_weights = -0.5 * standardise(gaps, moments) ** 2
    noise = torch.rand(gaps.shape, generator=generator, dtype=torch.float64).clamp(1e-300, 1 - 1e-16)
    keys = log_weights.double() - torch.log(-torch.log(noise)).to(gaps.device)
    kept = torch.zeros_like(gaps, dtype=torch.bool)
    return kept.index_fill(0, keys.topk(count).indices, True)


def dynamic_beta(
    gaps: Tensor, moments: Moments, *, beta: float, alpha: float, convention: Convention = "code"
) -> Tensor:
    """beta-DPO's batch-level beta, `beta * (1 + alpha * (mean gap - M0))`, at least 1e-3, without gradient. Scalar.

    Gaps and moments are those of the log-ratios in either convention; "paper" measures their difference as a reward,
    times beta.
    """
    mean = torch.as_tensor(moments.mean, device=gaps.device, dtype=gaps.dtype)
    excess = _gap_unit(beta, convention) * (gaps.detach().mean() - mean)
    return (beta * (1 + alpha * excess)).clamp_min(MINIMUM_BETA)


def sigmoid_link(logits: Tensor, mask: Tensor | None = None, *, label_smoothing: float = 0.0) -> Tensor:
    """`-log sigmoid` of every pair, averaged over an example's rejected answers: (B, K) to (B,).

    With `label_smoothing` e: `-(1 - e) log sigmoid(x) - e log sigmoid(-x)` (cDPO).
    """
    losses = F.softplus(-logits)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses + label_smoothing * F.softplus(logits)
    return _mean_over_rejected(losses, mask)


def flip_corrected_link(logits: Tensor, mask: Tensor | None = None, *, label_smoothing: float = 0.0) -> Tensor:
    """rDPO's unbiased loss under a known flip rate e: `((1 - e) l(x) - e l(-x)) / (1 - 2 e)`, averaged over the
    rejected answers.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"the flip rate lies in [0, 0.5) (got {label_smoothing})")
    losses = ((1 - label_smoothing) * F.softplus(-logits) - label_smoothing * F.softplus(logits)) / (
        1 - 2 * label_smoothing
    )
    return _mean_over_rejected(losses, mask)


def _mean_over_rejected(losses: Tensor, mask: Tensor | None) -> Tensor:
    return losses.mean(1) if mask is None else torch.where(mask, losses, 0.0).sum(1) / mask.sum(1)


def softmax_link(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Cross-entropy of the chosen answer against its K rejected ones, `log(1 + sum_k exp(-logit_k))`: (B, K) to (B,).

    One rejected answer gives `-log sigmoid`. `mask` (B, K) is False where an example has fewer than K.
    """
    if mask is not None:
        logits = logits.masked_fill(~mask, torch.inf)
    return F.softplus(torch.logsumexp(-logits, 1))


def robust_mean(losses: Tensor, beta_prime: float) -> Tensor:
    """Dr. DPO's reduction, `-beta' * log mean exp(-loss / beta')`; beta' to infinity is the mean, to 0 the minimum.

    Equal to `min_Q E_Q[loss] + beta' KL(Q || uniform)`: badly fitted examples lose weight. Computed from the distance
    to the smallest loss, through `expm1` and `log1p` where it is nearly a mean and through `logsumexp` where it is
    nearly a minimum, so that beta' from 1e-3 to 1e6 is exact in float32 (the authors' `log(mean(exp))` underflows at
    one end and cancels at the other).
    """
    if not beta_prime > 0:
        raise ValueError(f"beta_prime must be positive (got {beta_prime})")
    if math.isinf(beta_prime):
        return losses.mean()
    least = losses.detach().min()
    distance = (losses - least) / beta_prime
    excess = torch.expm1(-distance).mean()
    near_minimum = torch.logsumexp(-distance, 0) - math.log(len(losses))
    log_mean = torch.where(excess > -0.5, torch.log1p(excess.clamp_min(-0.9)), near_minimum)
    return least - beta_prime * log_mean


def robust_weights(losses: Tensor, beta_prime: float) -> Tensor:
    """The weights (mean 1) of the examples in the gradient of `robust_mean`: `n * softmax(-loss / beta')`,
    detached.
    """
    return torch.softmax(-losses.detach() / beta_prime, 0) * len(losses)


# --- the four losses ------------------------------------------------------------------------------------------


def alpha_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 10.0,
    gamma_beta_ratio: float = 0.4,
    alpha: float = 0.05,
    moments: Moments | None = None,
    convention: Convention = "code",
    normalise: bool = True,
    stop_gradient: bool = True,
) -> LossOutput:
    r"""alpha-DPO: SimPO with a margin that follows how far policy and reference already separate the pair.

    `loss = -log sigmoid(beta * (avg log pi(y_w) - avg log pi(y_l)) - sg[gamma + alpha * z])`, where z standardises the
    gap of the average log-ratios and `gamma = beta * gamma_beta_ratio`. alpha = 0 is SimPO.

    Args:
        policy_chosen_logps: (B,) log-probabilities **per token** (mean over the answer).
        policy_rejected_logps: (B,) or (B, K), per token.
        ref_chosen_logps: (B,), per token.
        ref_rejected_logps: like `policy_rejected_logps`.
        beta: scale of the score, 2 to 10.
        gamma_beta_ratio: the fixed part of the margin, relative to beta.
        alpha: strength of the adaptive part; 0.01 to 0.2 in the code's convention.
        moments: mean and deviation of the log-ratio gaps to standardise with, in either convention; None: this
            batch's. The authors' running moments start at zero, which inflates z tenfold at first and divides 0 by 0
            when policy and reference are equal; see `RunningMoments`.
        convention: "code" multiplies alpha * z by beta, "paper" does not; see `adaptive_margin`.
        normalise: False uses `beta * gap` in place of z (the paper's ablation).
        stop_gradient: False lets the gradient through the margin (the paper's ablation; training collapses).

    Returns:
        LossOutput; the diagnostics hold `z` too.

    Source: arXiv 2410.10148, eq. of L_alpha-DPO; the authors' `simpo_trainer.py` for the convention.

    Raises:
        ValueError: shapes that do not fit together, an empty batch, or a hyper-parameter out of range.

    Examples:
        >>> chosen, rejected = torch.tensor([-1.0, -1.2, -0.8, -1.5]), torch.tensor([-1.4, -1.1, -1.3, -1.6])
        >>> ref_chosen, ref_rejected = torch.tensor([-1.1, -1.0, -1.0, -1.4]), torch.tensor([-1.3, -1.2, -1.2, -1.7])
        >>> out = alpha_dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=10, alpha=0.2)
        >>> round(out.loss.item(), 4)
        1.9398
    """
    pc, pr, rc, rr = _inputs(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    gaps = preference_gaps(pc - rc, pr - rr)
    if stop_gradient:
        gaps = gaps.detach()
    moments = (moments or batch_moments(gaps)) if normalise else None
    margin, z = adaptive_margin(
        gaps, moments, beta=beta, gamma_beta_ratio=gamma_beta_ratio, alpha=alpha, convention=convention
    )
    losses = sigmoid_link(beta * preference_gaps(pc, pr) - margin)
    return _output(losses.mean(), losses, (pc, pr, rc, rr), pc.new_tensor(beta), margin=margin, z=z)


def beta_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    alpha: float = 0.6,
    keep: float = 0.8,
    moments: Moments | None = None,
    convention: Convention = "code",
    generator: torch.Generator | None = None,
) -> LossOutput:
    r"""beta-DPO: DPO with a beta that grows with the batch's mean gap, on the examples near the usual gap.

    `beta_batch = beta * (1 + alpha * (mean kept gap - M0))`, `loss = mean over kept of -log sigmoid(sg[beta_batch] *
    gap)`.

    Args:
        policy_chosen_logps: (B,) log-probabilities, summed over the answer.
        policy_rejected_logps: (B,) or (B, K); with K > 1 an example's gap is its mean over the rejected answers.
        ref_chosen_logps: (B,).
        ref_rejected_logps: like `policy_rejected_logps`.
        beta: beta at the usual gap.
        alpha: how much beta follows the gap; 0 with keep = 1 is DPO.
        keep: fraction of the batch kept, (0, 1]. The authors' `mode_weight` is the fraction **discarded**.
        moments: usual log-ratio gap M0 and its deviation, in either convention; None: this batch's.
        convention: "code" measures the gap from M0 in log-ratios, "paper" in rewards (times beta). The published alpha
            = 0.6 belongs to the code's.
        generator: of the filter's draw.

    Returns:
        LossOutput; the diagnostics hold `kept` (B,) too.

    Source: arXiv 2407.08639; the authors' `trainers.py` for order and convention.

    Raises:
        ValueError: shapes that do not fit together, an empty batch, or a hyper-parameter out of range.

    Examples:
        >>> gaps, zero = torch.tensor([0.5, 1.5, -0.5]), torch.zeros(3)
        >>> usual = Moments(torch.tensor(1.0), torch.tensor(1.5))
        >>> out = beta_dpo_loss(gaps, zero, zero, zero, beta=0.1, alpha=0.6, keep=1.0, moments=usual)
        >>> round(out.diagnostics["beta"].item(), 4), round(out.loss.item(), 4)
        (0.07, 0.6762)
    """
    pc, pr, rc, rr = _inputs(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    pairs = preference_gaps(pc - rc, pr - rr)
    gaps = pairs.detach().mean(1)
    moments = moments or batch_moments(gaps)
    kept = keep_near_mean(gaps, moments, keep, generator)
    beta_now = dynamic_beta(gaps[kept], moments, beta=beta, alpha=alpha, convention=convention)
    losses = sigmoid_link(beta_now * pairs)
    weights = kept.to(losses.dtype) * len(kept) / kept.sum()
    return _output(losses[kept].mean(), losses, (pc, pr, rc, rr), beta_now, weights=weights, kept=kept)


def dr_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    beta_prime: float = 1.0,
) -> LossOutput:
    r"""Dr. DPO: DPO whose batch mean is robust to flipped pairs.

    `loss = -beta' * log mean exp(log sigmoid(beta * gap) / beta')`: a pair's weight in the gradient is
    `exp(-loss / beta')`, normalised, so pairs that the policy cannot fit count less. The weights are bounded by the
    number of examples reduced together: the size of that group is a hyper-parameter.

    Args:
        policy_chosen_logps: (B,) log-probabilities, summed over the answer.
        policy_rejected_logps: (B,) or (B, K).
        ref_chosen_logps: (B,).
        ref_rejected_logps: like `policy_rejected_logps`.
        beta: as in DPO.
        beta_prime: trust in the pairs, > 0; large: DPO; small: the best fitted pairs only.

    Source: arXiv 2407.07880, eq. of L_DrDPO.

    Raises:
        ValueError: shapes that do not fit together, an empty batch, or a hyper-parameter out of range.

    Examples:
        >>> gaps, zero = torch.tensor([0.3, -0.5, 2.0, -3.0]), torch.zeros(4)
        >>> out = dr_dpo_loss(gaps, zero, zero, zero, beta=1.0, beta_prime=1.0)
        >>> round(out.loss.item(), 4), [round(w, 2) for w in out.diagnostics["weights"].tolist()]
        (0.7549, [1.22, 0.8, 1.87, 0.1])
    """
    pc, pr, rc, rr = _inputs(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    losses = sigmoid_link(beta * preference_gaps(pc - rc, pr - rr))
    loss = robust_mean(losses, beta_prime)
    weights = robust_weights(losses, beta_prime)
    return _output(loss, losses, (pc, pr, rc, rr), pc.new_tensor(beta), weights=weights)


def softmax_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 1.0,
    rejected_mask: Tensor | None = None,
) -> LossOutput:
    r"""Softmax-DPO (S-DPO): one chosen answer against K rejected ones under the Plackett-Luce model.

    `loss = log(1 + sum_k exp(r_k - r_chosen))`, `r = beta * (log pi - log ref)`: cross-entropy over K + 1 answers. K =
    1 is DPO.

    Args:
        policy_chosen_logps: (B,) log-probabilities, summed over the answer.
        policy_rejected_logps: (B, K).
        ref_chosen_logps: (B,).
        ref_rejected_logps: (B, K).
        beta: as in DPO; the paper's default is 1.
        rejected_mask: (B, K) bool, False where an example has fewer rejected answers.

    Source: arXiv 2406.09215, eq. of L_S-DPO. The authors' `log(sum(exp))` overflows; ours does not.

    Raises:
        ValueError: shapes that do not fit together, an empty batch, or a hyper-parameter out of range.

    Examples:
        >>> chosen, rejected = torch.tensor([0.7]), torch.tensor([[0.1, -0.4, 1.2]])
        >>> out = softmax_dpo_loss(chosen, rejected, torch.zeros(1), torch.zeros(1, 3))
        >>> round(out.loss.item(), 4)
        1.2614
    """
    pc, pr, rc, rr = _inputs(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    losses = softmax_link(beta * preference_gaps(pc - rc, pr - rr), rejected_mask)
    return _output(losses.mean(), losses, (pc, pr, rc, rr), pc.new_tensor(beta))


def _gap_unit(beta: float, convention: Convention) -> float:
    """What a log-ratio gap is multiplied by: nothing in the code's convention, beta (a reward) in the paper's."""
    if convention not in ("code", "paper"):
        raise ValueError(f"convention is 'code' or 'paper' (got {convention!r})")
    return beta if convention == "paper" else 1.0


def _inputs(*logps: Tensor) -> list[Tensor]:
    chosen, rejected, ref_chosen, ref_rejected = logps
    if chosen.dim() != 1 or ref_chosen.shape != chosen.shape:
        raise ValueError(f"chosen log-probs have shape (B,) (got {tuple(chosen.shape)} and {tuple(ref_chosen.shape)})")
    if rejected.shape != ref_rejected.shape or len(rejected) != len(chosen) or rejected.dim() > 2:
        shapes = f"{tuple(rejected.shape)} and {tuple(ref_rejected.shape)}"
        raise ValueError(f"rejected log-probs have shape (B,) or (B, K) with B = {len(chosen)} (got {shapes})")
    if not len(chosen):
        raise ValueError("an empty batch has no loss")
    return [x if x.dtype in (torch.float32, torch.float64) else x.float() for x in logps]


def _output(
    loss: Tensor, losses: Tensor, logps: tuple[Tensor, ...], beta: Tensor, **diagnostics: Tensor
) -> LossOutput:
    pc, pr, rc, rr = logps
    diagnostics = {"beta": beta, "margin": losses.new_zeros(()), "weights": torch.ones_like(losses)} | diagnostics
    return LossOutput(
        loss,
        losses,
        (beta * (pc - rc)).detach(),
        (beta * (pr - rr)).detach(),
        {name: value.detach() for name, value in diagnostics.items()},
    )
