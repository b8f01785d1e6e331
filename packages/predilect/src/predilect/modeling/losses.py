r"""Next-item losses: which of N items comes after a state.

All return :math:`\sum_i w_i \ell_i / \sum_i w_i` over targets :math:`t_i` of weight :math:`w_i`, with the logits
:math:`z_{ij} = s_i \cdot e_j + b_j` of states, item table and item bias. A target of weight 0 has no part in the
gradient.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def softmax_loss(
    states: Tensor,
    table: Tensor,
    bias: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    chunk_size: int | None = None,
) -> Tensor:
    r"""Cross-entropy over all items, :math:`\ell_i = \log \sum_j e^{z_{ij}} - z_{i t_i}`, exact, a chunk at a time.

    Gradients are computed with the loss, while a chunk's logits exist: nothing of size (T, N) is ever kept, and memory
    is that of one chunk and of the gradients themselves. Cannot be differentiated twice.

    Args:
        states: s, (T, d).
        table: e, (N + 1, d); row 0 is padding.
        bias: b, (N,).
        target: (T,) item ids 1..N.
        weight: w, (T,), at least 0; None: all alike.
        chunk_size: targets whose logits exist at once; None: as many as fit a processor's cache (on an accelerator,
            256 MiB), 64 at least.

    Raises:
        ValueError: `chunk_size` < 1.
    """
    if chunk_size is None:
        logits_at_once = 2**20 if states.device.type == "cpu" else 2**26
        chunk_size = max(64, logits_at_once // len(bias))
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1 (got {chunk_size})")
    loss: Tensor = _ChunkedSoftmax.apply(states, table, bias, target, _shares(states, weight), chunk_size)
    return loss


def sampled_softmax_loss(
    states: Tensor,
    table: Tensor,
    bias: Tensor,
    target: Tensor,
    negatives: Tensor,
    log_expected: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    r"""Cross-entropy whose partition function is estimated from sampled items, with the log-Q correction.

    .. math:: \ell_i = \log\Bigl(e^{z_{i t_i}} + \sum_{j \in S, j \neq t_i} e^{z_{ij} - \log(m q_j)}\Bigr) - z_{i t_i}

    for a sample :math:`S` of m items drawn with probability :math:`q_j`, shared by all targets. The sum in the
    logarithm is an unbiased estimate of the full one.

    Source: Bengio and Senecal, "Adaptive Importance Sampling", IEEE TNN 2008; Khrylchenko et al., "Correcting the LogQ
    Correction", RecSys 2025: the target is not sampled, so its own logit is left as it is.

    Args:
        states: s, (T, d).
        table: e, (N + 1, d); row 0 is padding.
        bias: b, (N,).
        target: (T,) item ids 1..N.
        negatives: (m,) item ids 1..N; a target's own draws are left out.
        log_expected: (m,) how often each is expected in the sample, log(m q_j).
        weight: w, (T,), at least 0; None: all alike.
    """
    own, others = _logits(states, table, bias, target, negatives)
    partition = torch.logaddexp(own, torch.logsumexp(others - log_expected, dim=1))
    return ((partition - own) * _shares(states, weight)).sum()


def gbce_loss(
    states: Tensor,
    table: Tensor,
    bias: Tensor,
    target: Tensor,
    negatives: Tensor,
    calibration: float,
    weight: Tensor | None = None,
) -> Tensor:
    r"""Generalised binary cross-entropy: the target against sampled items, each as a yes or no of its own.

    .. math:: \ell_i = -\frac{1}{m + 1}\Bigl(\beta \log\sigma(z_{i t_i}) + \sum_{j \in S, j \neq t_i}
        \log(1 - \sigma(z_{ij}))\Bigr), \quad \beta = 1 - t (1 - \alpha), \quad
        \alpha = \frac{m}{N - 1}

    With t = 0 this is binary cross-entropy, which sampling makes overconfident; with t = 1 the scores are calibrated.

    Source: Petrov and Macdonald, "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative
    Sampling", RecSys 2023 (arXiv 2308.07192), equations 9 to 14. Not as there: one sample is shared by all targets.

    Args:
        states: s, (T, d).
        table: e, (N + 1, d); row 0 is padding.
        bias: b, (N,).
        target: (T,) item ids 1..N.
        negatives: (m,) item ids 1..N, drawn uniformly; a target's own draws are left out.
        calibration: t, in [0, 1].
        weight: w, (T,), at least 0; None: all alike.
    """
    own, others = _logits(states, table, bias, target, negatives)
    rate = min(1.0, len(negatives) / max(1, len(bias) - 1))
    beta = 1 - calibration * (1 - rate)
    losses = beta * F.softplus(-own) + F.softplus(others).sum(1)
    return (losses / (len(negatives) + 1) * _shares(states, weight)).sum()


def draw_negatives(num_items: int, count: int, frequency: Tensor | None, power: float) -> tuple[Tensor, Tensor]:
    """Items drawn with replacement, with probability proportional to (frequency + 1) ** power.

    Args:
        num_items: N.
        count: m, number of draws.
        frequency: (N,) how often each item occurs; None: uniform. Its device is that of the draws.
        power: in [0, 1]; 0: uniform.

    Returns:
        The ids 1..N, (m,), and how often each is expected among m draws, as its logarithm, (m,).
    """
    if frequency is None or power == 0:
        device = None if frequency is None else frequency.device
        ids = torch.randint(num_items, (count,), device=device)
        return ids + 1, torch.full((count,), math.log(count / num_items), device=device)
    mass = (frequency.double() + 1) ** power
    sums = mass.cumsum(0)
    ids = torch.searchsorted(sums, torch.rand(count, dtype=torch.float64, device=mass.device) * sums[-1], right=True)
    ids = ids.clamp(max=num_items - 1)
    return ids + 1, (count * mass[ids] / sums[-1]).log().float()


class _ChunkedSoftmax(torch.autograd.Function):
    """Weighted sum of cross-entropies; see `softmax_loss`."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, table: Tensor, bias: Tensor, target: Tensor, weight: Tensor, chunk_size: int
    ) -> Tensor:
        kind = torch.promote_types(table.dtype, torch.float32)
        inputs = (states, table, bias)
        total = torch.zeros((), dtype=kind, device=states.device)
        of_states, of_table, of_bias = (
            torch.zeros_like(x, dtype=kind) if needed else None
            for x, needed in zip(inputs, ctx.needs_input_grad, strict=False)
        )
        with torch.autocast(states.device.type, enabled=False):
            items, offset = table[1:].to(kind), bias.to(kind)
            for start in range(0, len(states), chunk_size):
                chunk = slice(start, start + chunk_size)
                some, column, share = states[chunk].to(kind), target[chunk, None] - 1, weight[chunk, None]
                z = torch.addmm(offset, some, items.T)
                of_target, highest = z.gather(1, column), z.amax(1, keepdim=True)
                partition = z.sub_(highest).exp_().sum(1, keepdim=True)
                total += ((highest + partition.log() - of_target) * share).sum()
                by_logit = z.mul_(share / partition).scatter_add_(1, column, -share)
                if of_states is not None:
                    of_states[chunk] = by_logit @ items
                if of_table is not None:
                    of_table[1:].addmm_(by_logit.T, some)
                if of_bias is not None:
                    of_bias += by_logit.sum(0)
        ctx.gradients = tuple(
            g if g is None else g.to(x.dtype) for g, x in zip((of_states, of_table, of_bias), inputs, strict=True)
        )
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("softmax_loss has no gradients for a second backward pass: compute the loss again")
        gradients, ctx.gradients = ctx.gradients, None  # scaled in place: the table's is as large as the table
        return (*(g if g is None else g.mul_(upstream.to(g.dtype)) for g in gradients), None, None, None)


def weighted_mean(losses: Tensor, weight: Tensor | None) -> Tensor:
    r""":math:`\sum_i w_i \ell_i / \sum_i w_i`; 0 where all weights are; the mean where there are none.

    Examples:
        >>> weighted_mean(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0]))
        tensor(2.)
    """
    return losses.mean() if weight is None else (losses * _shares(losses, weight)).sum()


def _shares(states: Tensor, weight: Tensor | None) -> Tensor:
    """(T,) what each target counts of the mean; all 0 where no target counts."""
    kind = torch.promote_types(states.dtype, torch.float32)
    if weight is None:
        return torch.full((len(states),), 1 / max(1, len(states)), dtype=kind, device=states.device)
    weight = weight.to(kind)
    return weight / weight.sum().clamp(min=torch.finfo(kind).tiny)


def _logits(states: Tensor, table: Tensor, bias: Tensor, target: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """(T,) of the targets and (T, m) of the negatives, minus infinity where one is the target itself."""
    own = (states * table[target]).sum(1) + bias[target - 1]
    others = F.linear(states, table[negatives], bias[negatives - 1])
    kind = torch.promote_types(states.dtype, torch.float32)
    return own.to(kind), others.to(kind).masked_fill(target[:, None] == negatives, -math.inf)
