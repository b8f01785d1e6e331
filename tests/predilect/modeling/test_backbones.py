"""What is particular to one backbone."""

from __future__ import annotations

import pytest
import torch

from predilect.modeling import (
    Caser,
    CaserConfig,
    GRU4Rec,
    GRU4RecConfig,
    NextItNet,
    NextItNetConfig,
    SASRec,
    SASRecConfig,
)


def test_gru4rec_equals_a_gru_run_over_each_unpadded_history():
    torch.manual_seed(0)
    model = GRU4Rec(GRU4RecConfig(num_items=9, hidden_size=8, num_layers=2)).eval()
    for items in ([5], [3, 1, 2]):
        hidden, _ = model.gru(model.items(torch.tensor([items])))
        padded = torch.tensor([[0] * (4 - len(items)) + items])
        torch.testing.assert_close(model.last_state(padded), model.output(hidden[:, -1]))


def test_caser_by_hand():
    config = CaserConfig(
        num_items=3, hidden_size=2, max_history=3, filter_heights=(2,), num_horizontal=1, num_vertical=1
    )
    model = Caser(config).eval()
    with torch.no_grad():
        model.items.weight[1:] = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 1.0]])
        model.horizontal[0].weight[:] = torch.tensor([[[1.0, 10.0], [2.0, 20.0]]])  # (filter, embedding, time)
        model.vertical.weight[:] = torch.tensor([[1.0, 2.0, 3.0]])
        model.output.weight[:] = torch.tensor(
            [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
        )  # features: vertical (2), horizontal (1)
    # Window: 0 0 | 1 2 | 3 -1. Vertical, first column: 2 * 1 + 3 * 3 = 11.
    # Horizontal: times 0-1: 10 * 1 + 20 * 2 = 50; times 1-2: 1 * 1 + 2 * 2 + 10 * 3 + 20 * -1 = 15; maximum 50.
    assert model.last_state(torch.tensor([[1, 2]])).tolist() == [[11.0, 50.0]]


@pytest.mark.parametrize("heights", [(), (0,), (2, 7)])
def test_caser_refuses_filters_that_do_not_fit(heights):
    with pytest.raises(ValueError, match="filter_heights"):
        CaserConfig(max_history=6, filter_heights=heights)


def test_nextitnet_sees_as_far_as_its_dilations_reach():
    torch.manual_seed(0)
    model = NextItNet(
        NextItNetConfig(num_items=9, hidden_size=8, max_history=12, dilations=(1,), kernel_size=3)
    ).eval()
    reach = 1 + 2 * (1 + 2)
    history = torch.ones(1, 12, dtype=torch.long)
    inside, outside = history.clone(), history.clone()
    inside[0, -reach] = outside[0, -reach - 1] = 2
    assert (model.last_state(inside) - model.last_state(history)).abs().max() > 1e-5
    assert torch.equal(model.last_state(outside), model.last_state(history))


@pytest.mark.parametrize("dilations", [(), (1, 0)])
def test_nextitnet_refuses_bad_dilations(dilations):
    with pytest.raises(ValueError, match="dilations"):
        NextItNetConfig(dilations=dilations)


def test_sasrec_knows_how_long_ago():
    torch.manual_seed(0)
    model = SASRec(SASRecConfig(num_items=9, hidden_size=8)).eval()
    first = model.last_state(torch.tensor([[2, 3, 1]]))
    swapped = model.last_state(torch.tensor([[3, 2, 1]]))
    assert (first - swapped).abs().max() > 1e-4
    with torch.no_grad():
        model.positions.weight.zero_()  # without positions, attention is a set
    first = model.last_state(torch.tensor([[2, 3, 1]]))
    one_block = SASRec(SASRecConfig(num_items=9, hidden_size=8, num_layers=1)).eval()
    with torch.no_grad():
        one_block.positions.weight.zero_()
    torch.testing.assert_close(
        one_block.last_state(torch.tensor([[2, 3, 1]])), one_block.last_state(torch.tensor([[3, 2, 1]]))
    )


def test_sasrec_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="3 heads, hidden_size 64"):
        SASRecConfig(num_heads=3)


@pytest.mark.parametrize("kind", [GRU4Rec, Caser, NextItNet, SASRec])
def test_an_empty_batch_gives_an_empty_result(kind) -> None:
    model = kind(kind.config_class(num_items=5, hidden_size=8, max_history=4)).eval()
    assert model.scores(torch.zeros(0, 4, dtype=torch.long)).shape == (0, 5)
