"""Losses: the exact ones against the plain computation, the sampled ones against what they estimate."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from predilect.modeling import SASRec, SASRecConfig
from predilect.modeling.losses import draw_negatives, gbce_loss, sampled_softmax_loss, softmax_loss

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def make_inputs(targets: int = 7, items: int = 11, width: int = 4, dtype: torch.dtype = torch.float64) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator, dtype=dtype)
    states, table, bias = draw(targets, width), draw(items + 1, width), draw(items)
    table[0] = 0
    target = torch.randint(1, items + 1, (targets,), generator=generator)
    return states.requires_grad_(), table.requires_grad_(), bias.requires_grad_(), target


def plain(states: Tensor, table: Tensor, bias: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    losses = F.cross_entropy(F.linear(states, table[1:], bias), target - 1, reduction="none")
    return losses.mean() if weight is None else (losses * weight).sum() / weight.sum()


def gradients(loss: Tensor, inputs: Inputs) -> list[Tensor]:
    return list(torch.autograd.grad(loss, inputs[:3]))


def all_losses(items: int) -> list:
    negatives = torch.arange(1, items + 1).repeat(2)[:9]
    log_expected = torch.linspace(-1, 0, 9)
    return [
        softmax_loss,
        partial(softmax_loss, chunk_size=2),
        partial(sampled_softmax_loss, negatives=negatives, log_expected=log_expected),
        partial(gbce_loss, negatives=negatives, calibration=0.5),
    ]


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 7, 100])
@pytest.mark.parametrize("weighted", [False, True])
def test_chunked_softmax_has_value_and_gradient_of_the_plain_one(chunk_size, weighted):
    inputs = make_inputs()
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 3.0, 0.0]).double() if weighted else None
    ours, theirs = softmax_loss(*inputs, weight, chunk_size=chunk_size), plain(*inputs, weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for a, b in zip(gradients(3 * ours, inputs), gradients(3 * theirs, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_chunked_softmax_does_not_overflow():
    states, table, bias, target = make_inputs(dtype=torch.float32)
    inputs = ((states * 1e3).detach().requires_grad_(), table, bias, target)
    torch.testing.assert_close(softmax_loss(*inputs), plain(*inputs))
    assert all(g.isfinite().all() for g in gradients(softmax_loss(*inputs), inputs))


def test_chunked_softmax_without_gradients_and_of_some_inputs_only():
    states, table, bias, target = make_inputs()
    with torch.no_grad():
        torch.testing.assert_close(softmax_loss(states, table, bias, target), plain(states, table, bias, target))
    fixed = (states, table.detach(), bias.detach(), target)
    torch.testing.assert_close(
        torch.autograd.grad(softmax_loss(*fixed), states), torch.autograd.grad(plain(*fixed), states)
    )


def test_chunked_softmax_in_half_precision_sums_in_single():
    inputs = make_inputs(targets=200, items=50, dtype=torch.float32)
    halves: Inputs = tuple(x.detach().bfloat16().requires_grad_() for x in inputs[:3]) + inputs[3:]  # type: ignore[assignment]
    exact: Inputs = tuple(x.detach().float().requires_grad_() for x in halves[:3]) + inputs[3:]  # type: ignore[assignment]
    ours = softmax_loss(*halves, chunk_size=16)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, plain(*exact))
    for a, b in zip(gradients(ours, halves), gradients(plain(*exact), exact), strict=True):
        assert a.dtype == torch.bfloat16
        torch.testing.assert_close(a.float(), b, rtol=0.01, atol=1e-6)


def test_chunked_softmax_under_autocast():
    inputs = make_inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = softmax_loss(*inputs)
    torch.testing.assert_close(loss, plain(*inputs))
    assert all(g.dtype == torch.float32 for g in gradients(loss, inputs))


def test_chunked_softmax_says_that_its_gradients_are_gone():
    loss = softmax_loss(*make_inputs())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="compute the loss again"):
        loss.backward()
    with pytest.raises(ValueError, match=r"chunk_size must be at least 1 \(got 0\)"):
        softmax_loss(*make_inputs(), chunk_size=0)


def test_chunked_softmax_keeps_nothing_of_targets_times_items():
    """4,000 targets x 5,000 items would be 80 MB; tensors alive between forward and backward are the gradients."""
    inputs = make_inputs(targets=4000, items=5000, dtype=torch.float32)
    largest = 0

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                largest = max(largest, out.numel())
            return out

    with Sizes():
        gradients(softmax_loss(*inputs), inputs)
    assert largest == 209 * 5000  # a chunk: 2**20 logits at most


@pytest.mark.parametrize("number", range(4))
def test_weights_one_and_zero_have_the_gradient_of_the_first_alone(number):
    inputs = make_inputs(targets=2)
    loss = all_losses(items=11)[number]
    first = (inputs[0][:1], inputs[1], inputs[2], inputs[3][:1])
    weighted = loss(*inputs, weight=torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(weighted, loss(*first))
    of_both = torch.autograd.grad(weighted, inputs[:3], retain_graph=True)
    of_first = torch.autograd.grad(loss(*first), inputs[:3])
    for a, b in zip(of_both, of_first, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("number", range(4))
def test_weights_are_those_of_a_mean(number):
    inputs = make_inputs()
    loss = all_losses(items=11)[number]
    same = [loss(*inputs, weight=torch.full((7,), w)) for w in (1.0, 5.0)]
    torch.testing.assert_close(same[0], loss(*inputs))
    torch.testing.assert_close(same[1], loss(*inputs))
    singles = [loss(*(x[i : i + 1] if j in (0, 3) else x for j, x in enumerate(inputs))) for i in range(7)]
    weight = torch.arange(7.0)
    expected = sum(w * one for w, one in zip(weight, singles, strict=True)) / weight.sum()
    torch.testing.assert_close(loss(*inputs, weight=weight), expected)


@pytest.mark.parametrize("number", range(4))
def test_nothing_to_learn_is_a_loss_of_zero(number):
    inputs = make_inputs(targets=3)
    loss = all_losses(items=11)[number](*inputs, weight=torch.zeros(3))
    assert loss.item() == 0
    assert not any(g.any() for g in gradients(loss, inputs))


def test_sampling_every_item_once_gives_the_full_softmax():
    inputs = make_inputs()
    ours = sampled_softmax_loss(*inputs, torch.arange(1, 12), torch.zeros(11))
    torch.testing.assert_close(ours, plain(*inputs))
    for a, b in zip(gradients(ours, inputs), gradients(plain(*inputs), inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_log_q_correction_makes_the_partition_function_unbiased():
    """Samples of two items, all 121 of them with their probabilities: the expectation is the full sum."""
    states, table, bias, target = make_inputs(targets=1)
    frequency = torch.arange(11)
    q = (frequency.double() + 1) ** 0.7
    q /= q.sum()
    logits = F.linear(states, table[1:], bias)[0].detach()
    expectation = 0.0
    for i in range(11):
        for j in range(11):
            sample = torch.tensor([i, j])
            with torch.no_grad():
                loss = sampled_softmax_loss(states, table, bias, target, sample + 1, (2 * q[sample]).log())
                expectation += float(q[i] * q[j] * (loss + logits[target[0] - 1]).exp())
    assert expectation == pytest.approx(float(logits.exp().sum()), rel=1e-9)


def test_gbce_by_hand():
    states, table = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    bias = torch.tensor([0.5, 0.0, -1.0])
    # Logits 1.5, 2 and 2; target 1; negatives 2, 1 (the target itself: left out) of 3 items: alpha = 2 / 2.
    found = gbce_loss(states, table, bias, torch.tensor([1]), torch.tensor([2, 1]), 1.0)
    sigmoid = [1 / (1 + math.exp(-z)) for z in (1.5, 2.0)]
    assert found.item() == pytest.approx(-(math.log(sigmoid[0]) + math.log(1 - sigmoid[1])) / 3)
    # One negative: alpha = 1 / 2, beta = 1 - 0.75 / 2.
    found = gbce_loss(states, table, bias, torch.tensor([1]), torch.tensor([2]), 0.75)
    assert found.item() == pytest.approx(-(0.625 * math.log(sigmoid[0]) + math.log(1 - sigmoid[1])) / 2)


def test_gbce_without_calibration_is_binary_cross_entropy():
    states, table, bias, target = make_inputs(targets=1)
    negatives = torch.tensor([i for i in range(1, 12) if i != int(target)])
    logits = F.linear(states, table[torch.cat((target, negatives))], bias[torch.cat((target, negatives)) - 1])[0]
    truth = F.one_hot(torch.tensor(0), 11).double()
    expected = F.binary_cross_entropy_with_logits(logits, truth)
    torch.testing.assert_close(gbce_loss(states, table, bias, target, negatives, 0.0), expected)


@pytest.mark.parametrize(("frequency", "power"), [(None, 0.5), (torch.tensor([0, 3, 8, 24]), 0.5), (torch.ones(4), 0)])
def test_negatives_are_drawn_as_often_as_expected(frequency, power):
    torch.manual_seed(0)
    ids, log_expected = draw_negatives(4, 40_000, frequency, power)
    expected = torch.zeros(4)
    expected[ids - 1] = log_expected.exp()
    by_hand = torch.tensor([1.0, 2, 3, 5]) if frequency is not None and power else torch.ones(4)
    torch.testing.assert_close(expected, 40_000 * by_hand / by_hand.sum())
    counts = torch.bincount(ids - 1, minlength=4)
    assert ((counts - expected).abs() < 5 * expected.sqrt()).all()


@pytest.mark.parametrize("loss", ["softmax", "sampled", "gbce"])
def test_a_model_learns_by_every_loss(loss):
    torch.manual_seed(0)
    config = SASRecConfig(num_items=12, hidden_size=16, max_history=4, dropout=0.0, loss=loss, num_negatives=6)
    model = SASRec(config)
    model.set_item_frequency(range(12))
    history = torch.arange(1, 13)[:, None]
    target = history[:, 0] % 12 + 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(150):
        model(history, target).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert (model.eval().scores(history).argmax(1) + 1 == target).all()


def test_options_of_the_loss_are_checked():
    for name, value in (("loss", "hinge"), ("num_negatives", 0), ("negative_power", 1.5), ("calibration", math.nan)):
        with pytest.raises(ValueError, match=name):
            SASRecConfig(**{name: value})
    with pytest.raises(ValueError, match=r"each of 3 items \(got 2\)"):
        SASRec(SASRecConfig(num_items=3)).set_item_frequency([1, 2])
