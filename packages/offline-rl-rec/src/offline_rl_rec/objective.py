r"""The parts of an agent's loss; each is a mean over T transitions :math:`(s, a, r, s', done)`."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from predilect.modeling.losses import sampled_softmax_loss, softmax_loss, weighted_mean

_LOGITS_AT_ONCE = 2**20


def td_target(reward: Tensor, done: Tensor, next_value: Tensor, discount: float) -> Tensor:
    r""":math:`y = r + \gamma (1 - done) \bar Q(s', a^*)`, without a gradient; a terminal step bootstraps nothing.

    Args:
        reward: r, (T,).
        done: (T,) bool.
        next_value: value of the best next action, of the target copy, (T,); where `done`, it may be anything.
        discount: gamma.
    """
    return reward + discount * next_value.detach().masked_fill(done, 0)


def td_error_loss(value: Tensor, target: Tensor, kind: str, weight: Tensor | None = None) -> Tensor:
    r""":math:`\tfrac12 (Q - y)^2` ("squared"), or its Huber form with slope 1 from an error of 1 on ("huber").

    Args:
        value: Q(s, a), (T,).
        target: y, (T,); no gradient flows through it.
        kind: "squared" or "huber".
        weight: (T,) in the mean; None: all alike.
    """
    if kind == "huber":
        return weighted_mean(F.huber_loss(value, target.detach(), reduction="none"), weight)
    return weighted_mean(0.5 * (value - target.detach()) ** 2, weight)


def best_actions(states: Tensor, table: Tensor, bias: Tensor, among: Tensor | None = None) -> Tensor:
    r"""(T,) ids :math:`\arg\max_a s \cdot e_a + b_a`, a chunk of rows at a time; padding is no action.

    Args:
        states: projected states, (T, d).
        table: e, (N + 1, d); row 0 is padding.
        bias: b, (N,).
        among: (m,) ids to choose from; None: all items.
    """
    with torch.no_grad():
        ids = torch.arange(1, len(table), device=table.device) if among is None else among
        items, offset = (table[1:], bias) if among is None else (table[ids], bias[ids - 1])
        size = max(64, _LOGITS_AT_ONCE // len(ids))
        chosen = [torch.addmm(offset, part, items.T).argmax(1) for part in torch.split(states, size)]
        return ids[torch.cat(chosen)] if chosen else ids[:0]


def conservative_loss(
    states: Tensor,
    table: Tensor,
    bias: Tensor,
    action: Tensor,
    weight: Tensor | None = None,
    negatives: Tensor | None = None,
) -> Tensor:
    r"""Conservative value learning, CQL(H): :math:`\log\sum_a e^{Q(s, a)} - Q(s, a_t)`.

    Over the whole catalogue it is the softmax cross-entropy with Q for logits, and is computed as that, in chunks.
    Over uniformly sampled `negatives` and the action, the sum is estimated with the log-Q correction, in memory that
    does not grow with the items.

    Source: Kumar et al., "Conservative Q-Learning for Offline Reinforcement Learning", NeurIPS 2020 (arXiv
    2006.04779), equation 4.

    Args:
        states: projected states, (T, d): Q(s, a) is their product with a's row of `table`, plus `bias`.
        table: (N + 1, d); row 0 is padding.
        bias: (N,).
        action: a_t, (T,) ids 1..N.
        weight: (T,) in the mean; None: all alike.
        negatives: (m,) ids drawn uniformly with replacement; None: the whole catalogue.
    """
    if negatives is None:
        return softmax_loss(states, table, bias, action, weight)
    expected = torch.full((len(negatives),), math.log(len(negatives) / len(bias)), device=states.device)
    return sampled_softmax_loss(states, table, bias, action, negatives, expected, weight)


def contrast(own: Tensor, others: Tensor, same: Tensor, temperature: float) -> Tensor:
    r"""(T,) :math:`-\log \frac{e^{x^+ / \tau}}{e^{x^+ / \tau} + \sum_- e^{x^- / \tau}}` of similarities.

    Args:
        own: of the positive pairs, (T,).
        others: of the negative pairs, (T, m).
        same: (T, m) bool, "negatives" that are the positive itself, which are left out.
        temperature: tau.
    """
    negative = (others / temperature).masked_fill(same, -math.inf)
    return torch.logsumexp(torch.cat([own[:, None] / temperature, negative], 1), 1) - own / temperature


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """(T, m) cosines of rows (T, d) with rows (m, d)."""
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T


def reward_contrast(
    states: Tensor,
    table: Tensor,
    action: Tensor,
    reward: Tensor,
    negatives: Tensor,
    others: Tensor,
    temperature: float,
    weight: Tensor | None = None,
) -> Tensor:
    r"""The contrastive reward model: a pair that earned a reward scores above pairs that did not.

    Negatives of (s, a) are (s, a') with sampled items and (s', a) with other states of the batch; a positive counts in
    proportion to its reward, :math:`w = r / \bar r`, so that a purchase of 1.0 counts five clicks of 0.2. The score is
    the cosine of the projected state with the item's embedding.

    Args:
        states: projected states, (T, d).
        table: (N + 1, d).
        action: (T,) ids.
        reward: (T,).
        negatives: a', (m,) ids.
        others: (m',) rows of the batch whose states are the s'.
        temperature: tau.
        weight: (T,) in the mean; None: all alike.
    """
    taken = table[action]
    own = F.cosine_similarity(states, taken, dim=-1)
    scores = torch.cat([cosine(states, table[negatives]), cosine(taken, states[others])], 1)
    same = torch.cat([action[:, None] == negatives, action[:, None] == action[others]], 1)
    share = reward / reward.mean().clamp(min=torch.finfo(reward.dtype).tiny)
    return weighted_mean(share * contrast(own, scores, same, temperature), weight)


def transition_contrast(
    predicted: Tensor,
    reached: Tensor,
    wrong: Tensor,
    wrong_is_taken: Tensor,
    others: Tensor,
    temperature: float,
    weight: Tensor | None = None,
) -> Tensor:
    r"""The contrastive transition model: :math:`g(s, a)` is near the state that was reached, and far from others.

    Negatives are other reached states of the batch against g(s, a), and g(s, a') of wrong actions against the state
    that was reached.

    Args:
        predicted: g(s, a), (T, d), of transitions that are not terminal.
        reached: the target copy's states s', (T, d); no gradient flows through them.
        wrong: g(s, a'), (T, k, d).
        wrong_is_taken: (T, k) bool, a' that are the action itself.
        others: (m,) rows of the batch whose reached states are negatives.
        temperature: tau.
        weight: (T,) in the mean; None: all alike.
    """
    reached = reached.detach()
    own = F.cosine_similarity(predicted, reached, dim=-1)
    by_action = F.cosine_similarity(wrong, reached[:, None], dim=-1)
    alike = cosine(reached, reached[others]) > 1 - 1e-6  # the same state, reached elsewhere
    scores = torch.cat([cosine(predicted, reached[others]), by_action], 1)
    return weighted_mean(contrast(own, scores, torch.cat([alike, wrong_is_taken], 1), temperature), weight)
