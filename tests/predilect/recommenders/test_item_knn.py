from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from predilect.evaluation import evaluate
from predilect.recommenders import ItemKNN, Popularity, item_knn
from predilect.recommenders.item_knn import ItemKNNConfig


def fit(splits, pairs: list[tuple[int, int]], **options) -> ItemKNN:
    users, items = zip(*pairs, strict=True)
    log = {"user_id": users, "item_id": items, "timestamp": [0] * len(users), "rating": [1.0] * len(users)}
    return ItemKNN(**options).fit(replace(splits, train_interactions=Dataset.from_dict(log)))


def dense(pairs: list[tuple[int, int]], histories: torch.Tensor, num_items: int, config: ItemKNNConfig) -> np.ndarray:
    """The formula of the class on a full matrix users x items."""
    taken = np.zeros((max(u for u, _ in pairs) + 1, num_items))
    for user, item in pairs:
        taken[user, item - 1] = 1
    together = taken.T @ taken
    counts = np.diag(together).copy()
    similarity = np.zeros_like(together)
    for i in range(num_items):
        for j in range(num_items):
            if i != j and together[i, j]:
                similarity[i, j] = together[i, j] / (np.sqrt(counts[i] * counts[j]) + config.shrinkage)
    scores = np.zeros((len(histories), num_items))
    for row, history in enumerate(histories.tolist()):
        for place, item in enumerate(reversed(history)):
            if item:
                scores[row] += config.recency**place * similarity[item - 1]
    return scores


def test_by_hand(tiny_splits):
    # Item 1: users 0, 1, 2; item 2: users 0, 1; item 3: user 2.
    pairs = [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 3)]
    scores = fit(tiny_splits, pairs, shrinkage=1.0, recency=0.5).score(torch.tensor([[0, 1], [1, 2]]))
    one_two, one_three = 2 / (6**0.5 + 1), 1 / (3**0.5 + 1)
    assert scores[0, :4].tolist() == pytest.approx([0, one_two, one_three, 0])
    assert scores[1, :4].tolist() == pytest.approx([one_two, 0.5 * one_two, 0.5 * one_three, 0])


events = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 20)), min_size=1, max_size=80)


@settings(max_examples=40, deadline=None)
@given(pairs=events, shrinkage=st.floats(0, 50), recency=st.floats(0.1, 1), budget=st.sampled_from([1, 70, 10**7]))
def test_equals_the_dense_computation_for_any_block_size(tiny_splits, pairs, shrinkage, recency, budget):
    config = ItemKNNConfig(num_neighbours=20, shrinkage=shrinkage, recency=recency)
    histories = torch.randint(0, 21, (6, 4), generator=torch.Generator().manual_seed(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_knn, "_BUDGET", budget)
        ours = fit(tiny_splits, pairs, num_neighbours=20, shrinkage=shrinkage, recency=recency).score(histories)
    np.testing.assert_allclose(ours.numpy(), dense(pairs, histories, 20, config), rtol=1e-4, atol=1e-6)


def test_keeps_only_the_nearest_neighbours(tiny_splits):
    pairs = [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 3)]
    scores = fit(tiny_splits, pairs, num_neighbours=1, shrinkage=0.0).score(torch.tensor([[1]]))
    assert torch.nonzero(scores[0]).flatten().tolist() == [1]


def test_a_pair_that_occurs_twice_counts_once(tiny_splits):
    pairs = [(0, 1), (0, 2), (1, 1)]
    once, twice = (fit(tiny_splits, p).score(torch.tensor([[1]])) for p in (pairs, pairs * 2))
    assert torch.equal(once, twice)


def test_unknown_items_and_empty_histories_score_zero(tiny_splits):
    recommender = fit(tiny_splits, [(0, 1), (0, 2)])
    assert not recommender.score(torch.tensor([[0, 0], [19, 20]])).any()


def test_beats_popularity_on_the_ring(tiny_splits):
    ours, theirs = (
        evaluate(kind().fit(tiny_splits), tiny_splits, bootstrap=10).metrics["ndcg@10"]
        for kind in (ItemKNN, Popularity)
    )
    assert ours > theirs


@pytest.mark.parametrize(
    ("option", "value"),
    [("num_neighbours", 0), ("shrinkage", -1.0), ("shrinkage", float("nan")), ("recency", 0.0), ("recency", 1.5)],
)
def test_refuses_bad_options(option, value):
    with pytest.raises(ValueError, match=option):
        ItemKNNConfig(**{option: value})
