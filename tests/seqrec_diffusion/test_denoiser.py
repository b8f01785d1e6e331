"""Three networks, and their fast guided form."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from seqrec_diffusion.configuration import DENOISERS
from seqrec_diffusion.denoiser import Denoiser, sinusoids

each_kind = pytest.mark.parametrize("kind", DENOISERS)


def make(kind: str) -> tuple[Denoiser, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return Denoiser(kind, 6), *torch.randn(2, 5, 6), torch.randn(6)


def test_sinusoids_by_hand():
    angles = [5 * 10 ** (-4 * i / 2) for i in range(3)]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    torch.testing.assert_close(sinusoids(torch.tensor([5]), 6)[0], torch.tensor(expected))


@each_kind
def test_forward_is_the_formula(kind):
    denoiser, noisy, state, _ = make(kind)
    times = torch.tensor([0, 3, 7, 7, 9])
    first, _, last = denoiser.time
    time = last(F.gelu(first(sinusoids(times, 6))))
    u = torch.cat((noisy, state, time), 1) @ denoiser.input.weight.T + denoiser.input.bias
    if kind == "mlp1":
        expected = u
    else:
        inner = F.gelu(u) + (noisy + state + time if kind == "residual" else 0)
        expected = inner @ denoiser.output.weight.T + denoiser.output.bias
    torch.testing.assert_close(denoiser(noisy, state, times), expected)


@each_kind
@pytest.mark.parametrize("w", [0.0, 0.5, 4.0])
def test_guided_equals_two_forwards(kind, w):
    denoiser, x, states, null = make(kind)
    times = torch.tensor([9, 4, 0])
    guided = denoiser.guided(states, null, w, times)
    for step, t in enumerate(times):
        at = t.expand(5)
        expected = (1 + w) * denoiser(x, states, at) - w * denoiser(x, null.expand(5, 6), at)
        torch.testing.assert_close(guided(x, step), expected, rtol=1e-4, atol=1e-5)
