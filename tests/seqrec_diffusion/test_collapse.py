from __future__ import annotations

import math

import pytest
import torch

from seqrec_diffusion import item_table_metrics


def test_hand_worked_numbers():
    """Three points on a line and one off it: singular values from a 2 x 2 covariance that is diagonal."""
    table = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    metrics = item_table_metrics(table)
    assert metrics["variance"] == pytest.approx((4.5 + 0.5) / 2)
    shares = [3 / 4, 1 / 4]  # of the singular values sqrt(18) and sqrt(2)
    assert metrics["effective_rank"] == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))
    nearest = (2 * math.sqrt(10) + 2 * 2) / 4
    squares = [36, 4, *[10] * 4]
    assert metrics["margin"] == pytest.approx(nearest / math.sqrt(sum(squares) / 6), rel=1e-6)


def test_a_random_table_is_healthy():
    metrics = item_table_metrics(torch.randn(3000, 16, generator=torch.Generator().manual_seed(0)))
    assert metrics["variance"] == pytest.approx(1, abs=0.05)
    assert 15.9 < metrics["effective_rank"] <= 16
    assert 0.3 < metrics["margin"] < 1


def test_each_number_sees_its_own_collapse():
    table = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
    healthy = item_table_metrics(table)
    shrunk = item_table_metrics(0.01 * table + 5)
    assert shrunk["variance"] == pytest.approx(1e-4 * healthy["variance"], rel=1e-3)
    assert shrunk["effective_rank"] == pytest.approx(healthy["effective_rank"], rel=1e-3)
    flat = item_table_metrics(table * torch.tensor([1.0, *[1e-3] * 15]))
    assert flat["effective_rank"] < 1.2
    twins = item_table_metrics(torch.cat((table, table)))
    assert twins["margin"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("table", [torch.ones(4, 3), torch.randn(1, 3)])
def test_equal_rows_and_single_items_are_collapsed(table):
    assert item_table_metrics(table) == {"variance": 0.0, "effective_rank": 0.0, "margin": 0.0}
