"""Noise that belongs to a history and not to its place in a batch.

A counter-based generator: every number is a hash of (seed, draw, history, step, dimension), so any part of the noise
can be had at once, in any order, on any device, for any batch. The hash is the finaliser of SplitMix64 (Steele et al.,
"Fast Splittable Pseudorandom Number Generators", OOPSLA 2014) in the arithmetic of int64, which wraps around.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The int64 with the bits of an unsigned 64-bit number."""
    value %= 1 << 64
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; that of int64 copies the sign."""
    return (value >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    """Scramble the bits, in place."""
    value.bitwise_xor_(_shift(value, 30)).mul_(_FIRST)
    value.bitwise_xor_(_shift(value, 27)).mul_(_SECOND)
    return value.bitwise_xor_(_shift(value, 31))


def row_keys(history: Tensor, seed: int, draw: int = 0) -> Tensor:
    """One 64-bit key per history, (B,) int64: equal for equal histories, whatever the padding on their left.

    Args:
        history: (B, L) item ids, padded with 0 on the left.
        seed: of the whole run.
        draw: number of the draw; each has its own noise.
    """
    start = torch.tensor([_signed(seed), draw], dtype=torch.int64, device=history.device)
    first, second = _mix(start * _GOLDEN + _GOLDEN)
    keys = _mix(first + second * _GOLDEN).expand(len(history))
    for column in history.unbind(1):
        keys = torch.where(column == 0, keys, _mix(keys * _GOLDEN + column))
    return keys


def row_noise(keys: Tensor, step: int, width: int) -> Tensor:
    """Standard normal numbers, (B, width) float32, a function of each key and the step alone.

    Two at a time from one hash (Box and Muller 1958).

    Args:
        keys: of `row_keys`, (B,).
        step: 0, 1, ...; each has its own noise.
        width: d.
    """
    half = (width + 1) // 2
    counter = torch.arange(step * half, (step + 1) * half, device=keys.device) * _GOLDEN
    bits = _mix(keys[:, None] + counter)
    radius = _shift(bits, 40).float().add_(1).mul_(2.0**-24).log_().mul_(-2).sqrt_()  # of a uniform in (0, 1]
    angle = bits.bitwise_and_((1 << 24) - 1).float().mul_(2 * math.pi * 2.0**-24)
    return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)[:, :width]
