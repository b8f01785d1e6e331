"""Windows hold the rows of a split, each once, and train what the rows would train."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predilect.data.splits import UserSequences
from predilect.modeling import Caser, GRU4Rec, NextItNet, SASRec, SequentialModel
from predilect.training import NextItemWindows

BACKBONES = [GRU4Rec, Caser, NextItNet, SASRec]
each_backbone = pytest.mark.parametrize("backbone", BACKBONES)


def sequences_of(lengths: list[int], seed: int = 0, items: int = 30) -> UserSequences:
    rng = np.random.default_rng(seed)
    return UserSequences(
        rng.integers(1, items + 1, sum(lengths)).astype(np.int32), np.concatenate([[0], np.cumsum(lengths)])
    )


def windows_of(sequences: UserSequences, rows: list[tuple[int, int]], **options) -> NextItemWindows:
    user, position = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    return NextItemWindows(sequences, user.astype(np.int32), position.astype(np.int32), **options)


def rows_in(windows: NextItemWindows, max_history: int) -> list[tuple[tuple[int, ...], int]]:
    """(history, target) of every position that a window trains, one window at a time."""
    found = []
    for index in range(len(windows)):
        batch = windows[index]
        assert batch["history"].shape == batch["target"].shape
        assert batch["history"].shape[1] <= max_history
        for column, target in enumerate(batch["target"][0].tolist()):
            if target:
                history = batch["history"][0, : column + 1].tolist()
                found.append((tuple(i for i in history if i), target))
    return found


def make(backbone: type[SequentialModel], **options) -> SequentialModel:
    torch.manual_seed(0)
    options = {"num_items": 30, "hidden_size": 16, "max_history": 6, "dropout": 0.0, **options}
    model = backbone(backbone.config_class(**options))
    with torch.no_grad():
        model.item_bias.normal_()
    return model


@settings(max_examples=60, deadline=None)
@given(data=st.data(), max_history=st.integers(1, 7))
def test_every_row_is_a_target_once_and_nothing_else_is(data, max_history):
    lengths = data.draw(st.lists(st.integers(1, 25), min_size=1, max_size=4))
    sequences = sequences_of(lengths)
    every = [(user, position) for user, length in enumerate(lengths) for position in range(length)]
    rows = data.draw(st.lists(st.sampled_from(every), min_size=1, unique=True))
    stride = data.draw(st.none() | st.integers(1, max_history))
    windows = windows_of(sequences, rows, max_history=max_history, stride=stride)
    found = rows_in(windows, max_history)
    assert windows.num_targets == len(rows) == len(found)
    whole = Counter()
    for user, position in rows:
        own = sequences.items[sequences.offsets[user] :][: position + 1].tolist()
        whole[tuple(own[:-1])[-max_history:], own[-1]] += 1
    shortest = max_history - (stride or (max_history + 1) // 2) + 1
    for history, target in found:
        of = [w for w in whole if w[1] == target and w[0][len(w[0]) - len(history) :] == history and whole[w]]
        assert of, (history, target)
        best = min(of, key=lambda w: len(w[0]))
        whole[best] -= 1
        assert len(history) >= min(len(best[0]), shortest)
    assert not any(whole.values())


def test_windows_by_hand():
    sequences = UserSequences(np.arange(1, 12, dtype=np.int32), np.array([0, 9, 11]))
    rows = [(0, p) for p in range(1, 9) if p != 6] + [(1, 1)]  # 6 belongs to another part
    windows = windows_of(sequences, rows, max_history=4, stride=2)
    # Targets at 1..3; at 4 and 5 after at least three; at 7 alone after four; at 8 after four; the second user.
    assert [w["history"].tolist() for w in (windows[i] for i in range(len(windows)))] == [
        [[1, 2, 3]],
        [[2, 3, 4, 5]],
        [[4, 5, 6, 7]],
        [[5, 6, 7, 8]],
        [[10]],
    ]
    assert [w["target"].tolist() for w in (windows[i] for i in range(len(windows)))] == [
        [[2, 3, 4]],
        [[0, 0, 5, 6]],
        [[0, 0, 0, 8]],
        [[0, 0, 0, 9]],
        [[11]],
    ]
    batch = windows.__getitems__([4, 1])
    assert batch["history"].tolist() == [[0, 0, 0, 10], [2, 3, 4, 5]]
    assert batch["target"].tolist() == [[0, 0, 0, 11], [0, 0, 5, 6]]
    assert "weight" not in batch


def test_the_first_event_is_a_target_of_the_empty_history():
    windows = windows_of(sequences_of([3]), [(0, 0), (0, 1)], max_history=5)
    items = windows.items.tolist()
    assert windows[0]["history"].tolist() == [[0, items[0]]]
    assert windows[0]["target"].tolist() == [items[:2]]


def test_weights_go_with_their_rows_and_those_of_weight_zero_are_none():
    sequences = UserSequences(np.arange(1, 7, dtype=np.int32), np.array([0, 6]))
    weight = np.array([0.5, 0.0, 2.0])
    windows = windows_of(sequences, [(0, 1), (0, 2), (0, 3)], max_history=6, weight=weight)
    assert windows.num_targets == 2
    assert windows[0]["target"].tolist() == [[2, 0, 4]]
    assert windows[0]["weight"].tolist() == [[0.5, 0.0, 2.0]]
    twice = windows_of(sequences, [(0, 1), (0, 1), (0, 3)], max_history=6)
    assert twice[0]["weight"].tolist() == [[2.0, 0.0, 1.0]]


@pytest.mark.parametrize("stride", [0, 5])
def test_refuses_strides_that_skip_or_stand(stride):
    with pytest.raises(ValueError, match=rf"stride must lie in 1\.\.max_history = 4 \(got {stride}\)"):
        windows_of(sequences_of([3]), [(0, 1)], max_history=4, stride=stride)


@each_backbone
def test_a_state_in_a_window_is_that_of_the_history_cut_there(backbone):
    model = make(backbone).eval()
    windows = windows_of(sequences_of([20, 4]), [(0, p) for p in range(1, 20)] + [(1, 2)], max_history=6)
    history = windows.__getitems__(list(range(len(windows))))["history"]
    states = model.encode(history)
    for column in range(history.shape[1]):
        cut = model.last_state(history[:, : column + 1])
        torch.testing.assert_close(states[:, column], cut, rtol=1e-5, atol=1e-6)


@each_backbone
@pytest.mark.parametrize("loss", ["softmax", "gbce"])
def test_a_window_of_one_target_is_a_row(backbone, loss):
    model = make(backbone, loss=loss).train()
    windows = windows_of(sequences_of([12]), [(0, 11)], max_history=6)
    batch = windows[0]
    row = {"history": batch["history"], "target": batch["target"][:, -1]}
    losses = []
    for inputs in (batch, row):
        torch.manual_seed(1)  # of the negatives
        losses.append(model(**inputs).loss)
    torch.testing.assert_close(*losses)
    of_window, of_row = (torch.autograd.grad(x, list(model.parameters())) for x in losses)
    for a, b in zip(of_window, of_row, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@each_backbone
@pytest.mark.parametrize("weighted", [False, True])
def test_an_epoch_of_whole_windows_has_the_gradient_of_its_rows(backbone, weighted):
    lengths = [7, 3, 6, 2]
    sequences = sequences_of(lengths)
    rows = [(user, p) for user, length in enumerate(lengths) for p in range(1, length)]
    weight = np.arange(1, len(rows) + 1) / 8 if weighted else None  # exact in single precision
    windows = windows_of(sequences, rows, max_history=6, weight=weight)
    assert len(windows) == 5  # the first user's last target, after its six items, is one of its own
    model = make(backbone).double().train()
    total = len(rows) if weight is None else weight.sum()
    for indices in ([0, 3], [1], [2, 4]):
        batch = windows.__getitems__(indices)
        share = float(batch["weight"].sum() if weighted else (batch["target"] > 0).sum())
        (model(**batch).loss * share / total).backward()
    of_windows = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for number, (user, position) in enumerate(rows):
        own = torch.from_numpy(sequences.items[sequences.offsets[user] :][: position + 1].astype(np.int64))
        share = 1.0 if weight is None else float(weight[number])
        (model(own[None, :-1], own[-1:]).loss * share / total).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(of_windows[name], p.grad, rtol=1e-8, atol=1e-10, msg=name)


@each_backbone
def test_a_batch_of_weights_one_and_zero_is_its_first_row(backbone):
    model = make(backbone).train()
    history, target = torch.tensor([[0, 3, 4], [5, 6, 7]]), torch.tensor([9, 10])
    both = model(history, target, torch.tensor([1.0, 0.0])).loss
    first = model(history[:1], target[:1]).loss
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(both, parameters), torch.autograd.grad(first, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_refuses_weights_of_another_shape():
    with pytest.raises(ValueError, match=r"weight must have the shape of target \(2,\) \(got \(3,\)\)"):
        make(GRU4Rec)(torch.ones(2, 3).long(), torch.tensor([1, 2]), torch.ones(3))


@pytest.mark.parametrize("strategy", ["temporal", "leave_one_out", "by_user"])
@pytest.mark.parametrize("min_history", [0, 1, 3])
def test_the_targets_of_a_split_are_its_training_rows(planted_log, strategy, min_history):
    from datasets import Dataset

    from predilect.data import RecDataset

    ids = list(range(1, 21))
    items = Dataset.from_dict(
        {"item_id": ids, "raw_id": [str(i) for i in ids], "title": [str(i) for i in ids], "categories": [["a"]] * 20}
    )
    log = Dataset.from_dict({**planted_log, "rating": [1.0] * len(planted_log["user_id"])})
    splits = RecDataset(log, items, name="planted").split(strategy, max_history=5, min_history=min_history)
    user, position = splits.train.user, splits.train.position
    windows = NextItemWindows(splits.sequences, user, position, max_history=5)
    wanted = Counter(tuple(pair) for pair in zip(user.tolist(), position.tolist(), strict=True))
    found = Counter()
    for index in range(len(windows)):
        columns = windows[index]["target"][0]
        last = int(windows.last[index])
        owner = int(np.searchsorted(splits.sequences.offsets, last, side="right")) - 1
        for back, target in enumerate(columns.flip(0).tolist()):
            if target:
                assert target == splits.sequences.items[last - back]
                found[owner, last - back - int(splits.sequences.offsets[owner])] += 1
    assert found == wanted
