"""Noise is normal, and belongs to a history."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seqrec_diffusion.noise import row_keys, row_noise

HISTORIES = torch.randint(1, 1000, (2000, 5), generator=torch.Generator().manual_seed(0))
KEYS = row_keys(HISTORIES, seed=0)
MASK = (1 << 64) - 1


def mix(z: int) -> int:
    """SplitMix64's finaliser in Python's whole numbers."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def test_keys_equal_those_of_unsigned_arithmetic():
    golden = 0x9E3779B97F4A7C15
    history, seed, draw = [7, 123_456, 1], 2**63 + 5, 3
    key = mix(mix(seed * golden + golden & MASK) + mix(draw * golden + golden & MASK) * golden & MASK)
    for item in history:
        key = mix(key * golden + item & MASK)
    (ours,) = row_keys(torch.tensor([[0, 0, *history]]), seed, draw).tolist()
    assert ours % (1 << 64) == key


def test_is_standard_normal():
    values = row_noise(KEYS, 0, 64).double()
    assert float(values.mean()) == pytest.approx(0, abs=0.01)
    assert float(values.var()) == pytest.approx(1, abs=0.02)
    assert float((values**4).mean()) == pytest.approx(3, abs=0.1)
    ordered = values.flatten().sort().values
    expected = (torch.arange(len(ordered)) + 0.5) / len(ordered)
    assert (torch.special.ndtr(ordered) - expected).abs().max() < 1.95 / len(ordered) ** 0.5  # Kolmogorov, 0.1 %


def test_dimensions_rows_steps_draws_and_seeds_are_uncorrelated():
    first = row_noise(KEYS, 0, 32)
    limit = 6 / len(KEYS) ** 0.5
    between = torch.corrcoef(first.T) - torch.eye(32)
    assert between.abs().max() < limit
    others = [
        row_noise(KEYS, 1, 32),
        row_noise(KEYS.roll(1), 0, 32),
        row_noise(row_keys(HISTORIES, 1), 0, 32),
        row_noise(row_keys(HISTORIES, 0, draw=1), 0, 32),
        row_noise(row_keys(HISTORIES.flip(1), 0), 0, 32),
    ]
    for other in others:
        assert ((first * other).mean(0)).abs().max() < limit


def test_similar_histories_and_seeds_have_different_keys():
    rows = torch.cat([torch.stack((torch.full((100,), a), torch.arange(1, 101)), dim=1) for a in range(1, 50)])
    keys = torch.cat([row_keys(rows, seed, draw) for seed in (0, 1, -1) for draw in (0, 1)])
    assert len(torch.unique(keys)) == 6 * len(rows)


@settings(max_examples=30, deadline=None)
@given(items=st.lists(st.integers(1, 10**6), max_size=8), padding=st.integers(0, 5), seed=st.integers(0, 2**40))
def test_padding_changes_nothing(items, padding, seed):
    alone = torch.tensor([items or [0]])
    assert torch.equal(row_keys(F.pad(alone, (padding, 0)), seed), row_keys(alone, seed))


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 90), size=st.integers(1, 10), width=st.integers(1, 9), step=st.integers(0, 1000))
def test_any_part_can_be_had_alone(start, size, width, step):
    part = slice(start, start + size)
    assert torch.equal(row_noise(KEYS[part], step, width), row_noise(KEYS, step, width)[part])


def test_equal_histories_have_equal_noise():
    keys = row_keys(torch.tensor([[1, 2], [1, 2], [2, 1]]), 0)
    assert keys[0] == keys[1] != keys[2]
    assert row_keys(torch.zeros(0, 3, dtype=torch.int64), 0).shape == (0,)
