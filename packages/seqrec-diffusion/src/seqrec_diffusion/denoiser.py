"""The denoiser: a noisy item, the state of a history and a time to the item without noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoids(timesteps: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of the timesteps (B,) at width / 2 frequencies from 1 down to 1e-4: (B, width).

    Examples:
        >>> sinusoids(torch.tensor([0]), 4)
        tensor([[0., 0., 1., 1.]])
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=timesteps.device) * (-math.log(1e4) / (half - 1)))
    angles = timesteps[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=1)


class Denoiser(nn.Module):
    r"""Predicts :math:`\hat x_0 = f(x_t, h, t)`.

    With :math:`\tau` the time embedding (sinusoids, d to 2d, GELU, 2d to d) and :math:`u = W [x_t; h; \tau] + b`,

    - `mlp1`: :math:`\hat x_0 = u`,
    - `mlp2`: :math:`\hat x_0 = V gelu(u) + c`, u of width 2d,
    - `residual`: :math:`\hat x_0 = V (gelu(u) + x_t + h + \tau) + c`, u of width d.

    Source: DreamRec (arXiv 2310.20453), after the official code.

    Args:
        kind: "mlp1", "mlp2" or "residual".
        width: d, even, at least 4.
    """

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind, self.width = kind, width
        inner = 2 * width if kind == "mlp2" else width
        self.time = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.input = nn.Linear(3 * width, inner)
        self.output = None if kind == "mlp1" else nn.Linear(inner, width)

    def forward(self, noisy: Tensor, state: Tensor, timesteps: Tensor) -> Tensor:
        """All (B, d), timesteps (B,), to the predicted x_0 (B, d)."""
        time = self.time(sinusoids(timesteps, self.width))
        first: Tensor = self.input(torch.cat((noisy, state, time), dim=1))
        if self.output is None:
            return first
        inner = F.gelu(first)
        if self.kind == "residual":
            inner = inner + noisy + state + time
        clean: Tensor = self.output(inner)
        return clean

    def guided(
        self, states: Tensor, null: Tensor, guidance: float, timesteps: Tensor
    ) -> Callable[[Tensor, int], Tensor]:
        r"""The guided prediction :math:`(1 + w) f(x, h, t) - w f(x, null, t)` of one sampling run.

        What depends on the states and on the times is computed once; the first layer's share of x once per step for
        both branches. All that follows the activation is affine, and the weights of the branches add up to 1: they are
        joined before the last layer, and for `mlp1`, which is affine in h, in the state itself.

        Args:
            states: h, (B, d).
            null: the null state, (d,).
            guidance: w.
            timesteps: of the run, (S,).

        Returns:
            A function of x (B, d) and the number of the step, 0..S-1, to the predicted x_0.
        """
        of_noisy, of_state, of_time = torch.split(self.input.weight, self.width, dim=1)
        time = self.time(sinusoids(timesteps.to(states.device), self.width))
        time_part = F.linear(time, of_time, self.input.bias)
        mixed = states if guidance == 0 else torch.lerp(null, states, 1 + guidance)
        own, free = F.linear(states, of_state), F.linear(null, of_state)
        affine = F.linear(mixed, of_state)

        def denoise(x: Tensor, step: int) -> Tensor:
            shared = F.linear(x, of_noisy) + time_part[step]
            if self.output is None:
                return shared + affine
            inner = F.gelu(shared + own)
            if guidance != 0:
                inner = torch.lerp(F.gelu(shared + free), inner, 1 + guidance)
            if self.kind == "residual":
                inner = inner + x + mixed + time[step]
            clean: Tensor = self.output(inner)
            return clean

        return denoise
