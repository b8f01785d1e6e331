from __future__ import annotations

import math

import pytest
import torch

from seqrec_diffusion.objective import catalogue_cross_entropy, others_mean, preference_loss, reconstruction_error

PREDICTED = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
TARGET = torch.tensor([[3.0, 2.0], [0.0, 2.0]])


def test_squared_error_is_the_mean_over_all_entries():
    error = reconstruction_error(PREDICTED, TARGET, "squared")
    assert error.tolist() == [2.0, 4.5]
    assert error.mean() == torch.nn.functional.mse_loss(PREDICTED, TARGET)


def test_cosine_error_ignores_lengths():
    error = reconstruction_error(PREDICTED, TARGET, "cosine")
    assert error.tolist() == pytest.approx([(1 - 7 / math.sqrt(5 * 13)) ** 2, 4.0], rel=1e-5)
    torch.testing.assert_close(reconstruction_error(7 * PREDICTED, TARGET / 3, "cosine"), error)


def test_cross_entropy_by_hand():
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    scale = 2.0
    logits = [[1 / scale, 2 / scale, 3 / scale], [0, -1 / scale, -1 / scale]]
    expected = [math.log(sum(map(math.exp, row))) - row[t] for row, t in zip(logits, (2, 0), strict=True)]
    loss = catalogue_cross_entropy(PREDICTED, items, torch.tensor([3, 1]), 2.0)
    assert loss.tolist() == pytest.approx(expected)
    assert float(loss.mean()) == pytest.approx(sum(expected) / 2)


def test_preference_by_hand():
    loss = preference_loss(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.0]), 3.0)
    assert loss.tolist() == pytest.approx([math.log1p(math.exp(-3)), math.log(2)])
    assert float(loss.mean()) == pytest.approx((math.log1p(math.exp(-3)) + math.log(2)) / 2)


def test_the_mean_of_others_by_weights():
    vectors = torch.tensor([[1.0], [2.0], [6.0]])
    assert others_mean(vectors, torch.tensor([1.0, 3.0, 1.0])).tolist() == [[3.0], [3.5], [1.75]]
    assert others_mean(vectors, torch.tensor([5.0, 0.0, 0.0])).tolist() == [[1.0], [1.0], [1.0]]
