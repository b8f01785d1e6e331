"""The paper's block, padded on the left."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seqrec_diffusion.configuration import ENCODERS
from seqrec_diffusion.encoder import TransformerEncoder, TransformerEncoderConfig, make_encoder

HISTORY = torch.tensor([[0, 0, 0, 3, 4, 5], [0, 0, 0, 0, 0, 9], [1, 2, 3, 4, 5, 6]])


def make(**options) -> TransformerEncoder:
    torch.manual_seed(0)
    model = TransformerEncoder(
        TransformerEncoderConfig(**{"num_items": 30, "hidden_size": 8, "max_history": 6, **options})
    )
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases start trivial: they must be seen to be used
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.items.weight[0] = 0
    return model.eval()


def plain(model: TransformerEncoder, items: list[int]) -> torch.Tensor:
    """The block for one history without padding, an item at a time."""
    x = torch.stack([model.items.weight[i] + model.positions.weight[p] for p, i in enumerate(items)])
    q = model.input_norm(x)
    states = []
    for p in range(len(items)):
        products = torch.stack([model.query(q[p]) @ model.key(x[j]) / 8**0.5 for j in range(p + 1)])
        weights = torch.softmax(products, 0)
        attended = sum(w * model.value(x[j]) for j, w in enumerate(weights))
        y = model.attention_norm(q[p] + attended)
        states.append(model.output_norm(model.inner_norm(y + model.outer(torch.relu(model.inner(y))))))
    return torch.stack(states)


@pytest.mark.parametrize("row", range(3))
def test_equals_a_plain_computation(row):
    model = make()
    items = [i for i in HISTORY[row].tolist() if i]
    states = model.encode(HISTORY[row : row + 1])[0]
    torch.testing.assert_close(states[6 - len(items) :], plain(model, items), rtol=1e-4, atol=1e-5)
    assert not states[: 6 - len(items)].any()


def test_last_state_is_the_last_encoded_state():
    model = make()
    torch.testing.assert_close(model.last_state(HISTORY), model.encode(HISTORY)[:, -1], rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(items=st.lists(st.integers(1, 30), max_size=9), padding=st.integers(0, 12))
def test_padding_changes_nothing(items, padding):
    model = make()
    alone = torch.tensor([items or [0]])
    torch.testing.assert_close(
        model.last_state(F.pad(alone, (padding, 0))), model.last_state(alone), rtol=1e-4, atol=1e-5
    )


def test_table_and_positions_start_standard_normal():
    torch.manual_seed(0)
    model = TransformerEncoder(TransformerEncoderConfig(num_items=2000, hidden_size=64, max_history=50))
    assert float(model.items.weight[1:].detach().std()) == pytest.approx(1, abs=0.01)
    assert float(model.positions.weight.detach().std()) == pytest.approx(1, abs=0.05)
    assert not model.items.weight[0].any()
    assert float(model.query.weight.detach().abs().max()) == pytest.approx(1 / 8, rel=0.01)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_is_made_by_name(name):
    encoder = make_encoder(name, num_items=7, hidden_size=8, max_history=5)
    assert encoder.last_state(HISTORY[:2, -5:].clamp(max=7)).shape == (2, 8)


def test_refuses():
    with pytest.raises(ValueError, match=r"encoder must be one of transformer, .*got 'bert'"):
        make_encoder("bert")
    with pytest.raises(ValueError, match="the encoder 'gru4rec' has no option num_heads"):
        make_encoder("gru4rec", num_heads=2)
