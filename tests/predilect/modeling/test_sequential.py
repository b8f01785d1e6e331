"""What all backbones promise."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from predilect.modeling import Caser, GRU4Rec, NextItNet, SASRec, SequentialModel

BACKBONES = [GRU4Rec, Caser, NextItNet, SASRec]
HISTORY = torch.tensor([[0, 0, 0, 3, 4, 5], [0, 0, 0, 0, 0, 9], [1, 2, 3, 4, 5, 6]])

each_backbone = pytest.mark.parametrize("backbone", BACKBONES)


def make(backbone: type[SequentialModel], seed: int = 0, **options) -> SequentialModel:
    options = {"num_items": 30, "hidden_size": 16, "max_history": 6, **options}
    torch.manual_seed(seed)
    model = backbone(backbone.config_class(**options))
    with torch.no_grad():
        model.item_bias.normal_()  # zero at the start: it must be seen to be used
    return model.eval()


@each_backbone
def test_shapes(backbone):
    model = make(backbone)
    assert model.encode(HISTORY).shape == (3, 6, 16)
    assert model.last_state(HISTORY).shape == (3, 16)
    assert model.item_embeddings.shape == (31, 16)
    assert model.scores(HISTORY).shape == (3, 30)
    output = model(HISTORY)
    assert output.loss is None
    assert torch.equal(output.scores, model.scores(HISTORY))


@each_backbone
def test_last_state_is_the_last_encoded_state(backbone):
    model = make(backbone)
    torch.testing.assert_close(model.encode(HISTORY)[:, -1], model.last_state(HISTORY), rtol=1e-5, atol=1e-6)


@each_backbone
@settings(max_examples=20, deadline=None)
@given(items=st.lists(st.integers(1, 30), max_size=9), padding=st.integers(0, 12))
def test_padding_changes_nothing(backbone, items, padding):
    model = make(backbone)
    alone = torch.tensor([items or [0]])
    padded = F.pad(alone, (padding, 0))
    torch.testing.assert_close(model.scores(padded), model.scores(alone), rtol=1e-5, atol=1e-6)
    states, padded_states = model.encode(alone), model.encode(padded)
    torch.testing.assert_close(padded_states[:, padding:], states, rtol=1e-5, atol=1e-6)
    assert not padded_states[:, :padding].any()


@each_backbone
def test_rows_of_a_batch_do_not_touch_each_other(backbone):
    model = make(backbone)
    together = model.scores(HISTORY)
    for row, history in enumerate(HISTORY):
        torch.testing.assert_close(model.scores(history[None])[0], together[row], rtol=1e-5, atol=1e-6)


@each_backbone
def test_only_the_last_max_history_items_count(backbone):
    model = make(backbone, max_history=4)
    torch.testing.assert_close(model.scores(HISTORY), model.scores(HISTORY[:, 2:]), rtol=1e-5, atol=1e-6)
    assert not model.encode(HISTORY)[:, :2].any()


@each_backbone
def test_states_do_not_see_the_future(backbone):
    model = make(backbone)
    changed = HISTORY.clone()
    changed[:, -1] = 20
    torch.testing.assert_close(model.encode(changed)[:, :-1], model.encode(HISTORY)[:, :-1], rtol=1e-5, atol=1e-6)


@each_backbone
@pytest.mark.parametrize("place", [0, 3, 5])
def test_the_state_sees_every_item_of_the_window(backbone, place):
    model = make(backbone)
    changed = HISTORY[2:].clone()
    changed[0, place] = 20
    assert (model.last_state(changed) - model.last_state(HISTORY[2:])).abs().max() > 1e-4


@each_backbone
def test_the_state_sees_the_order(backbone):
    model = make(backbone)
    assert (model.last_state(HISTORY[2:]) - model.last_state(HISTORY[2:].flip(1))).abs().max() > 1e-4


@each_backbone
def test_empty_history_is_ranked_by_the_item_bias(backbone):
    model = make(backbone)
    torch.testing.assert_close(model.scores(torch.zeros(1, 6, dtype=torch.long))[0], model.item_bias)


@each_backbone
def test_loss_is_cross_entropy_over_all_items(backbone):
    model = make(backbone)
    target = torch.tensor([1, 30, 7])
    scores = model.last_state(HISTORY) @ model.item_embeddings[1:].T + model.item_bias
    by_hand = [
        math.log(sum(math.exp(x) for x in row)) - row[t - 1]
        for row, t in zip(scores.tolist(), target.tolist(), strict=True)
    ]
    assert model(HISTORY, target).loss.item() == pytest.approx(sum(by_hand) / 3, abs=1e-5)


@each_backbone
def test_padding_embedding_stays_zero(backbone):
    model = make(backbone).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        model(HISTORY, torch.tensor([1, 2, 3])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not model.item_embeddings[0].any()
    assert model.item_embeddings[1:].all(dim=1).all()


@each_backbone
def test_every_parameter_is_trained(backbone):
    model = make(backbone, dropout=0.0).train()
    model(HISTORY, torch.tensor([1, 2, 3])).loss.backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias added to all keys alike cannot change a softmax
    assert [name for name in untouched if not name.endswith("key.bias")] == []


@each_backbone
def test_saves_and_loads_exactly(backbone, tmp_path: Path):
    model = make(backbone, dropout=0.3)
    model.save_pretrained(tmp_path)
    again = backbone.from_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    for rows in (HISTORY, HISTORY[:1], HISTORY[2:, :2]):
        assert torch.equal(again.scores(rows), model.scores(rows))
    ours, theirs = (
        {
            k: v
            for k, v in m.config.to_dict().items()
            if k not in {"_name_or_path", "architectures", "transformers_version", "dtype"}
        }
        for m in (model, again)
    )
    assert ours == theirs
    assert not again.training


@each_backbone
def test_is_reproducible_by_seed(backbone):
    first, same, other = (make(backbone, seed) for seed in (1, 1, 2))
    assert torch.equal(first.scores(HISTORY), same.scores(HISTORY))
    assert not torch.equal(first.scores(HISTORY), other.scores(HISTORY))


@each_backbone
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_runs_in_other_precisions(backbone, dtype):
    model = make(backbone)
    scores = model.scores(HISTORY)
    converted = make(backbone).to(dtype)
    assert converted.scores(HISTORY).dtype == dtype
    torch.testing.assert_close(converted.scores(HISTORY).float(), scores, rtol=0.1, atol=0.1)
    assert converted(HISTORY, torch.tensor([1, 2, 3])).loss.isfinite()


@each_backbone
@pytest.mark.parametrize(
    ("history", "message"),
    [
        (torch.tensor([[1, 31]]), r"ids in 0\.\.30 \(got 1\.\.31\)"),
        (torch.tensor([[-1, 3]]), r"got -1\.\.3"),
        (torch.tensor([1, 2]), r"\(batch, length >= 1\).*got \(2,\)"),
        (torch.zeros(2, 0, dtype=torch.long), r"got \(2, 0\)"),
        (torch.tensor([[1.0, 2.0]]), "float32"),
        (torch.tensor([[1, 0]]), "on the left only"),
        (torch.tensor([[1, 0, 2]]), "on the left only"),
    ],
)
def test_refuses_bad_histories(backbone, history, message):
    with pytest.raises(ValueError, match=message):
        make(backbone).scores(history)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0, 1, 2]), r"targets must hold ids in 1\.\.30 \(got 0\.\.2\)"),
        (torch.tensor([1, 31, 2]), r"got 1\.\.31"),
        (torch.tensor([1, 2]), r"shape \(3,\)"),
        (torch.tensor([[1], [2], [3]]), r"got \(3, 1\)"),
    ],
)
def test_refuses_bad_targets(target, message):
    with pytest.raises(ValueError, match=message):
        make(GRU4Rec)(HISTORY, target)


@each_backbone
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_items", 0),
        ("hidden_size", 0),
        ("max_history", 0),
        ("dropout", math.nan),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("initializer_range", math.nan),
        ("initializer_range", 0.0),
    ],
)
def test_refuses_bad_configs(backbone, option, value):
    with pytest.raises(ValueError, match=option):
        backbone.config_class(**{option: value})
