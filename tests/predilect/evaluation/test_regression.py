from __future__ import annotations

import math

import pytest
import torch

from predilect.evaluation import RegressionMetrics

NAN = float("nan")


def test_hand_worked_numbers() -> None:
    metrics = RegressionMetrics(fallback=5.0)
    metrics.update(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.0]))
    metrics.update([NAN, 7.0], [1.0, 5.0])
    # errors -1, 0, -, 2; parsed targets 2, 2, 5 with mean 3; imputed error 4
    assert metrics.compute() == pytest.approx(
        {
            "coverage": 0.75,
            "mae": 1.0,
            "rmse": math.sqrt(5 / 3),
            "r2": 1 - 5 / 6,
            "mae_imputed": 7 / 4,
            "rmse_imputed": math.sqrt(21 / 4),
        }
    )
    assert metrics.per_row()["coverage"].tolist() == [1, 1, 0, 1]
    assert metrics.per_row()["mae"].tolist() == pytest.approx([1, 0, NAN, 2], nan_ok=True)
    assert metrics.per_row()["mae_imputed"].tolist() == [1, 0, 4, 2]


def test_not_answering_does_not_pay_in_imputed_errors() -> None:
    targets = [0.0, 10.0, 4.0]
    brave, shy = RegressionMetrics(fallback=100.0), RegressionMetrics(fallback=100.0)
    brave.update([0.0, 7.0, 4.0], targets)
    shy.update([0.0, NAN, 4.0], targets)
    assert shy.compute()["mae"] < brave.compute()["mae"]
    assert shy.compute()["mae_imputed"] > brave.compute()["mae_imputed"]


def test_nothing_parsed_and_constant_targets() -> None:
    metrics = RegressionMetrics()
    metrics.update([NAN, NAN], [1.0, 2.0])
    result = metrics.compute()
    assert result.pop("coverage") == 0
    assert set(result) == {"mae", "rmse", "r2"}
    assert all(math.isnan(value) for value in result.values())
    constant = RegressionMetrics()
    constant.update([1.0, 2.0], [3.0, 3.0])
    assert math.isnan(constant.compute()["r2"])


def test_predicting_the_mean_has_no_r2() -> None:
    metrics = RegressionMetrics()
    metrics.update([2.0, 2.0, 2.0], [1.0, 2.0, 3.0])
    assert metrics.compute()["r2"] == pytest.approx(0)


def test_bad_input_is_refused() -> None:
    metrics = RegressionMetrics()
    with pytest.raises(ValueError, match=r"targets must be finite .got nan in row 1"):
        metrics.update([1.0, 2.0], [1.0, NAN])
    with pytest.raises(ValueError, match=r"predictions must be finite .got inf"):
        metrics.update([float("inf")], [1.0])
    with pytest.raises(ValueError, match="same number of rows"):
        metrics.update([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="one value per row"):
        metrics.update(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="fallback"):
        RegressionMetrics(fallback=NAN)
