from __future__ import annotations

import pytest
import torch

from llm_rec.injection import Injection, fit_injection


def planted(weights: list[float], rows: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets drawn from the softmax of a weighted sum of random features."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(rows, 6, len(weights), generator=generator) * torch.tensor([3.0, 1.0, 0.2])
    chances = (features @ torch.tensor(weights)).softmax(dim=1)
    return features, torch.multinomial(chances, 1, generator=generator).squeeze(1)


def test_planted_weights_are_found_in_the_scale_of_the_features() -> None:
    features, targets = planted([0.5, 1.0, -4.0])
    found = fit_injection(features, targets, Injection._fields)
    assert found.language == pytest.approx(0.5, rel=0.1)
    assert found.popularity == pytest.approx(1.0, rel=0.1)
    assert found.retriever == pytest.approx(-4.0, rel=0.15)


def test_a_language_model_that_says_the_opposite_gets_no_weight() -> None:
    features, targets = planted([-0.5, 1.0, 4.0])
    found = fit_injection(features, targets, Injection._fields)
    assert found.language == 0
    assert found == fit_injection(features[..., 1:], targets, ("popularity", "retriever"))


def test_a_constant_feature_gets_no_weight_and_a_shift_of_rows_changes_nothing() -> None:
    features, targets = planted([0.5, 1.0, 2.0])
    features[..., 1] = 7.0
    found = fit_injection(features, targets, Injection._fields)
    assert found.popularity == 0
    shifted = features + torch.randn(len(features), 1, 3, generator=torch.Generator().manual_seed(1)) * 100
    again = fit_injection(shifted, targets, Injection._fields)
    assert again.language == pytest.approx(found.language, rel=1e-3)


def test_the_sum_by_hand() -> None:
    score = Injection(2.0, 0.5, 10.0)(torch.tensor([[-1.0]]), torch.tensor([[4.0]]), torch.tensor([[0.1]]))
    assert score.item() == pytest.approx(-2.0 + 2.0 + 1.0)


def test_scores_that_are_not_finite_are_refused() -> None:
    features, targets = planted([0.5, 1.0, 2.0])
    features[3, 2, 0] = float("nan")
    with pytest.raises(ValueError, match="must be finite"):
        fit_injection(features, targets, Injection._fields)
