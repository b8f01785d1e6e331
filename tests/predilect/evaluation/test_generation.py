from __future__ import annotations

import math

import pytest
import torch

from predilect.evaluation import GenerationMetrics


def test_the_three_numbers() -> None:
    metrics = GenerationMetrics()
    metrics.update([1, 2, None, 0], [1, 3, 4, 5])
    metrics.update(torch.tensor([7]), torch.tensor([7]))
    assert metrics.compute() == pytest.approx({"hr@1": 2 / 5, "valid_ratio": 3 / 5, "hr@1_given_valid": 2 / 3})
    assert metrics.per_row()["hr@1"].tolist() == [1, 0, 0, 0, 1]
    assert metrics.per_row()["valid_ratio"].tolist() == [1, 1, 0, 0, 1]


def test_no_valid_answer() -> None:
    metrics = GenerationMetrics()
    metrics.update([None, 0], [1, 2])
    result = metrics.compute()
    assert (result["hr@1"], result["valid_ratio"]) == (0, 0)
    assert math.isnan(result["hr@1_given_valid"])


def test_bad_input_is_refused() -> None:
    metrics = GenerationMetrics()
    with pytest.raises(ValueError, match="same number of rows"):
        metrics.update([1], [1, 2])
    with pytest.raises(ValueError, match="0 is padding"):
        metrics.update([None], [0])
    with pytest.raises(ValueError, match="got -1"):
        metrics.update([-1], [2])
    with pytest.raises(RuntimeError, match="no rows yet"):
        metrics.compute()
