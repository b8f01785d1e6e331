from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from offline_rl_rec.objective import (
    best_actions,
    conservative_loss,
    contrast,
    reward_contrast,
    td_error_loss,
    td_target,
    transition_contrast,
)
from offline_rl_rec.simulation import TabularMDP

T, N, D = 7, 9, 4


@pytest.fixture
def parts():
    g = torch.Generator().manual_seed(0)
    states, table, bias = (
        torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((T, D), (N + 1, D), (N,))
    )
    return (
        states.requires_grad_(),
        table.requires_grad_(),
        bias.requires_grad_(),
        torch.randint(1, N + 1, (T,), generator=g),
    )


def test_cql_over_the_catalogue_is_softmax_cross_entropy(parts):
    states, table, bias, action = parts
    ours = conservative_loss(*parts)
    found = torch.autograd.grad(ours, (states, table, bias))
    q = states @ table[1:].T + bias
    plain = (torch.logsumexp(q, 1) - q.gather(1, action[:, None] - 1).squeeze(1)).mean()
    torch.testing.assert_close(plain, F.cross_entropy(q, action - 1))
    torch.testing.assert_close(ours, plain)
    for a, b in zip(found, torch.autograd.grad(plain, (states, table, bias)), strict=True):
        torch.testing.assert_close(a, b)


def test_sampled_cql_estimates_that_of_the_catalogue(parts):
    negatives = torch.randint(1, N + 1, (200_000,), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        conservative_loss(*parts, negatives=negatives), conservative_loss(*parts), rtol=0.01, atol=0
    )


def test_a_terminal_step_bootstraps_nothing_and_targets_have_no_gradient():
    value = torch.tensor([3.0, math.inf], requires_grad=True)
    y = td_target(torch.tensor([1.0, 0.2]), torch.tensor([False, True]), value, 0.5)
    assert y.tolist() == pytest.approx([2.5, 0.2])
    assert not y.requires_grad


@pytest.mark.parametrize(("kind", "expected"), [("squared", (0.5 * 9 + 0.5 * 0.25) / 2), ("huber", (2.5 + 0.125) / 2)])
def test_errors_by_hand(kind, expected):
    target = torch.tensor([0.0, 0.5], requires_grad=True)
    value = torch.tensor([3.0, 1.0], requires_grad=True)
    loss = td_error_loss(value, target, kind)
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert target.grad is None
    assert value.grad is not None


def test_padding_is_no_action_however_long_its_vector(parts):
    states, table, bias, _ = parts
    with torch.no_grad():
        table[0] = 100 * states[0]
        q = states @ table[1:].T + bias
    assert best_actions(states, table, bias).tolist() == (q.argmax(1) + 1).tolist()
    among = torch.tensor([3, 7])
    assert best_actions(states, table, bias, among).tolist() == [[3, 7][int(x)] for x in q[:, [2, 6]].argmax(1)]


def test_contrast_by_hand():
    found = contrast(torch.tensor([1.0]), torch.tensor([[0.0, 0.5]]), torch.tensor([[False, True]]), 0.5)
    assert found.item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_a_purchase_counts_five_clicks_in_the_reward_model(parts):
    states, table, _, action = parts
    negatives, others = torch.tensor([1, 2]), torch.tensor([0, 3])

    def gradient(reward):
        loss = reward_contrast(states, table, action, reward, negatives, others, 0.1)
        return torch.autograd.grad(loss, states)[0]

    one = torch.zeros(T, dtype=torch.float64)
    rows = [gradient(one.index_fill(0, torch.tensor([i]), 1.0)) for i in range(T)]
    reward = torch.tensor([1.0] + [0.2] * (T - 1), dtype=torch.float64)
    share = reward / reward.sum()  # a single rewarded row counts alone
    torch.testing.assert_close(gradient(reward), sum(w * r for w, r in zip(share, rows, strict=True)))


def test_transition_model_recovers_a_deterministic_process():
    """Five states in a ring, two actions: a step ahead, a step back. What is learnt says where every pair leads."""
    torch.manual_seed(0)
    states, actions = F.normalize(torch.randn(5, 8), dim=1), torch.randn(2, 8)
    pairs = [(s, a) for s in range(5) for a in range(2)]
    s, a = (torch.tensor(x) for x in zip(*pairs, strict=True))
    leads = (s + torch.where(a == 0, 1, -1)) % 5
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        moved = model(torch.cat([states[s], actions[a]], 1))
        wrong = model(torch.cat([states[s], actions[1 - a]], 1))[:, None]
        loss = transition_contrast(
            moved, states[leads], wrong, torch.zeros(10, 1, dtype=torch.bool), torch.arange(10), 0.1
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (F.normalize(moved, dim=1) @ states.T).argmax(1).tolist() == leads.tolist()


def test_values_of_a_tabular_process_order_all_actions_as_the_optimum_does():
    """Three states, three actions, all pairs logged: fitted by the agent's own target, loss and best action."""
    torch.manual_seed(0)
    leads = torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    reward = torch.tensor([[0.2, 0.0, 1.0], [0.2, 0.3, 0.0], [0.0, 0.2, 0.5]])
    done = torch.tensor([[False, False, True], [False, False, False], [False, True, False]])
    discount = 0.8
    transition = torch.eye(3)[leads] * ~done[..., None]
    mdp = TabularMDP(transition.numpy(), reward.numpy(), np.full(3, 1 / 3), discount)
    optimum = torch.from_numpy(mdp.optimal_values()).float()
    table = nn.Parameter(torch.zeros(4, 3))  # with one-hot states, Q(s, a) = table[a, s]
    bias, copied = torch.zeros(3), torch.zeros(4, 3)
    s, a = (x.flatten() for x in torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij"))
    state, reached = torch.eye(3)[s], torch.eye(3)[leads[s, a]]
    optimizer = torch.optim.Adam([table], 0.02)
    for _ in range(1_500):
        best = best_actions(reached, table, bias)
        y = td_target(reward[s, a], done[s, a], (reached * copied[best]).sum(1), discount)
        loss = td_error_loss((state * table[a + 1]).sum(1), y, "squared")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        copied = torch.lerp(copied, table.detach(), 0.05)
    learnt = table[1:].T.detach()
    torch.testing.assert_close(learnt, optimum, atol=0.02, rtol=0)
    assert learnt.argsort(1).tolist() == optimum.argsort(1).tolist()
