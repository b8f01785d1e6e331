from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from predilect.evaluation import PreferenceMetrics


def test_hand_worked_numbers() -> None:
    metrics = PreferenceMetrics()
    # rewards: chosen (1, -1); rejected (0, 2) and (-2, -1): margins (1, -1) and (1, 0)
    metrics.update(
        torch.tensor([-4.0, -6.0]),
        torch.tensor([[-5.0, -3.0], [-7.0, -6.0]]),
        torch.tensor([-5.0, -5.0]),
        torch.tensor([[-5.0, -5.0], [-5.0, -5.0]]),
    )
    assert metrics.compute() == pytest.approx(
        {"accuracy": 0.5, "accuracy_all": 0.0, "margin": 0.25, "kl_estimate": (-3 / 3 + 4 / 3) / 2}
    )
    assert metrics.per_row()["margin"].tolist() == [0.0, 0.5]


def test_one_negative_in_either_shape() -> None:
    chosen, rejected = torch.randn(5), torch.randn(5)
    flat, column = PreferenceMetrics(), PreferenceMetrics()
    flat.update(chosen, rejected, torch.zeros(5), torch.zeros(5))
    column.update(chosen, rejected[:, None], torch.zeros(5), torch.zeros(5, 1))
    assert flat.compute() == column.compute()
    assert flat.compute()["accuracy"] == flat.compute()["accuracy_all"] == (chosen > rejected).double().mean()


def test_a_policy_equal_to_its_reference_prefers_nothing() -> None:
    logps = torch.randn(4), torch.randn(4, 3)
    metrics = PreferenceMetrics()
    metrics.update(*logps, *logps)
    assert metrics.compute() == {"accuracy": 0, "accuracy_all": 0, "margin": 0, "kl_estimate": 0}


def test_kl_estimate_is_unbiased_on_samples_of_the_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    ref = torch.tensor([0.5, 0.3, 0.2]).log()
    policy = torch.tensor([0.2, 0.3, 0.5]).log()
    exact = (ref.exp() * (ref - policy)).sum().item()
    y = torch.multinomial(ref.exp(), 80_000, replacement=True, generator=generator).view(2, -1)
    metrics = PreferenceMetrics()
    metrics.update(policy[y[0]], policy[y[1]], ref[y[0]], ref[y[1]])
    assert metrics.compute()["kl_estimate"] == pytest.approx(exact, abs=0.01)


def test_length_bias_is_a_correlation_over_pairs() -> None:
    generator = torch.Generator().manual_seed(1)
    chosen_lengths = torch.randint(1, 30, (50,), generator=generator)
    rejected_lengths = torch.randint(1, 30, (50, 2), generator=generator)
    chosen, rejected = torch.randn(50, generator=generator), torch.randn(50, 2, generator=generator)
    zeros = torch.zeros(50), torch.zeros(50, 2)

    def bias(chosen: torch.Tensor, rejected: torch.Tensor) -> float:
        metrics = PreferenceMetrics()
        for rows in (slice(0, 20), slice(20, 50)):
            metrics.update(
                chosen[rows], rejected[rows], zeros[0][rows], zeros[1][rows],
                chosen_lengths=chosen_lengths[rows], rejected_lengths=rejected_lengths[rows],
            )  # fmt: skip
        return metrics.compute()["length_bias"]

    longer = (chosen_lengths[:, None] - rejected_lengths).flatten().numpy()
    expected = np.corrcoef(longer, (chosen[:, None] - rejected).flatten().numpy())[0, 1]
    assert bias(chosen, rejected) == pytest.approx(expected, abs=1e-6)
    assert bias(0.1 * chosen_lengths, 0.1 * rejected_lengths) == pytest.approx(1)
    assert bias(-0.1 * chosen_lengths, -0.1 * rejected_lengths) == pytest.approx(-1)
    assert math.isnan(bias(torch.zeros(50), torch.zeros(50, 2)))


def test_bad_input_is_refused() -> None:
    metrics = PreferenceMetrics()
    one, two = torch.zeros(2), torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"ref_rejected_logps must have the shape \(2, K\) with K = 3"):
        metrics.update(one, two, one, one)
    with pytest.raises(ValueError, match="ref_chosen_logps must have"):
        metrics.update(one, two, torch.zeros(3), two)
    with pytest.raises(ValueError, match=r"policy_chosen_logps must be finite .got nan"):
        metrics.update(torch.tensor([0.0, torch.nan]), two, one, two)
    with pytest.raises(ValueError, match="both the chosen and the rejected"):
        metrics.update(one, two, one, two, chosen_lengths=torch.ones(2))
    metrics.update(one, two, one, two)
    with pytest.raises(ValueError, match="all batches or in none"):
        metrics.update(one, two, one, two, chosen_lengths=torch.ones(2), rejected_lengths=torch.ones(2, 3))
    assert len(metrics) == 2
