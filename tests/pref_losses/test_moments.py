"""Running moments: worked by hand, and through the trainer's state."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from pref_losses.moments import RunningMoments


def test_first_batch_sets_the_moments_and_later_ones_move_them() -> None:
    moments = RunningMoments(0.9)
    first = moments.update(torch.tensor([1.0, 3.0]))
    assert (float(first.mean), float(first.std)) == pytest.approx((2.0, 2**0.5))
    second = moments.update(torch.tensor([4.0, 4.0]))
    assert (float(second.mean), float(second.std)) == pytest.approx((0.9 * 2 + 0.4, 0.9 * 2**0.5))


def test_single_gap_and_no_gap_yet_are_free_of_nan() -> None:
    moments = RunningMoments(0.9)
    before = moments.current(torch.zeros(3, dtype=torch.float64))
    assert (float(before.mean), float(before.std), before.mean.dtype) == (0.0, 0.0, torch.float64)
    after = moments.update(torch.tensor([2.5]))
    assert (float(after.mean), float(after.std)) == (2.5, 0.0)
    moments.update(torch.tensor([1.0, 4.0]))
    std = moments.std
    moments.update(torch.tensor([9.0]))  # a single gap moves the mean alone
    assert moments.std == std == pytest.approx(4.5**0.5)
    assert moments.mean == pytest.approx(0.9 * 2.5 + 0.1 * 9)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_overflows_does_not_spoil_the_moments(bad: float) -> None:
    moments = RunningMoments(0.9, 1.0, 2.0)
    moments.update(torch.tensor([0.5, bad]))
    assert (moments.mean, moments.std) == (1.0, 2.0)


def test_state_survives_a_checkpoint_and_the_decay_stays_as_configured() -> None:
    moments = RunningMoments(0.9)
    moments.update(torch.tensor([1.0, 2.0, 6.0]))
    restored = RunningMoments.from_state(moments.state())
    assert vars(restored) == vars(moments)
    other = RunningMoments(0.5)
    state = SimpleNamespace(stateful_callbacks={"RunningMoments": moments.state()})
    other.on_train_begin(None, state, None)
    assert (other.decay, other.mean, other.std) == (0.5, moments.mean, moments.std)


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_senseless_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"decay lies in \[0, 1\)"):
        RunningMoments(decay)
