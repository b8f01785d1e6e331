from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F

from predilect.evaluation import evaluate
from predilect.recommender import Recommender, recommender_class
from predilect.recommenders import ItemKNN, Popularity, Random, RecentPopularity
from predilect.recommenders.baselines import RecentPopularityConfig

BASELINES = [Random, Popularity, RecentPopularity, ItemKNN]
each_baseline = pytest.mark.parametrize("kind", BASELINES)

HISTORIES = torch.tensor([[0, 0, 1], [3, 4, 5], [0, 0, 0], [5, 4, 3]])


def with_log(splits, items: list[int], times: list[int], users: list[int] | None = None):
    log = {
        "user_id": users or list(range(len(items))),
        "item_id": items,
        "timestamp": times,
        "rating": [1.0] * len(items),
    }
    return replace(splits, train_interactions=Dataset.from_dict(log))


@each_baseline
def test_is_registered(kind):
    assert recommender_class(kind.name) is kind


@each_baseline
def test_scores_are_finite_float32_of_the_right_shape(kind, tiny_splits):
    recommender = kind().fit(tiny_splits)
    scores = recommender.score(HISTORIES)
    assert scores.shape == (4, 20)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()
    assert recommender.num_parameters == 0


@each_baseline
def test_candidates_are_columns_of_the_full_scores(kind, tiny_splits):
    recommender = kind().fit(tiny_splits)
    candidates = torch.tensor([[20, 1], [2, 2], [3, 4], [7, 19]])
    full = recommender.score(HISTORIES)
    expected = [[full[row, c - 1].item() for c in chosen] for row, chosen in enumerate(candidates.tolist())]
    assert recommender.score(HISTORIES, candidates).tolist() == expected


@each_baseline
def test_neither_padding_nor_the_batch_matters(kind, tiny_splits):
    recommender = kind().fit(tiny_splits)
    together = recommender.score(HISTORIES)
    for row, history in enumerate(HISTORIES):
        alone = recommender.score(F.pad(history[None], (4, 0)))
        torch.testing.assert_close(alone[0], together[row])


@each_baseline
def test_saved_and_loaded_scores_are_equal(kind, tiny_splits, tmp_path):
    recommender = kind(seed=3).fit(tiny_splits)
    recommender.save_pretrained(tmp_path)
    again = Recommender.from_pretrained(tmp_path)
    assert type(again) is kind
    assert again.config == recommender.config
    assert torch.equal(again.score(HISTORIES), recommender.score(HISTORIES))


@each_baseline
@pytest.mark.parametrize(
    ("histories", "candidates", "message"),
    [
        (torch.tensor([[21]]), None, r"histories must hold ids in 0\.\.20 \(got 21\.\.21\)"),
        (torch.tensor([[-1]]), None, "histories"),
        (torch.tensor([1, 2]), None, r"got \(2,\)"),
        (torch.tensor([[1.0]]), None, "float32"),
        (torch.tensor([[1]]), torch.tensor([[0]]), r"candidates must hold ids in 1\.\.20"),
        (torch.tensor([[1]]), torch.tensor([[21]]), "candidates"),
        (torch.tensor([[1]]), torch.tensor([[1], [2]]), "one row per history"),
    ],
)
def test_refuses_bad_input(kind, histories, candidates, message, tiny_splits):
    recommender = kind().fit(tiny_splits)
    with pytest.raises(ValueError, match=message):
        recommender.score(histories, candidates)


@each_baseline
def test_refuses_to_score_before_fit(kind):
    with pytest.raises(RuntimeError, match=f"{kind.name} is not fitted"):
        kind().score(HISTORIES)


@each_baseline
def test_recommends_for_a_person_without_history(kind, tiny_splits):
    assert len(kind().fit(tiny_splits).recommend([], k=20)) == 20


# Random


def test_random_differs_by_seed_history_and_item(tiny_splits):
    scores = Random(seed=0).fit(tiny_splits).score(HISTORIES)
    assert not torch.equal(scores, Random(seed=1).fit(tiny_splits).score(HISTORIES))
    assert len({tuple(row) for row in scores.tolist()}) == 4  # the same items in another order are another history
    assert len(set(scores[0].tolist())) == 20


def test_random_is_uniform_and_independent(tiny_splits):
    histories = torch.cartesian_prod(*[torch.arange(1, 21)] * 3)
    scores = Random().fit(tiny_splits).score(histories)  # (8000, 20)
    counts = torch.histc(scores, bins=10, min=0, max=1)
    assert (counts / scores.numel() - 0.1).abs().max() < 0.005
    correlation = torch.corrcoef(scores.T) - torch.eye(20)
    assert correlation.abs().max() < 0.06
    assert (torch.bincount(scores.argmax(1), minlength=20) / 8000 - 0.05).abs().max() < 0.01


def test_random_leaves_the_global_random_state_alone(tiny_splits):
    before = torch.random.get_rng_state()
    Random().fit(tiny_splits).score(HISTORIES)
    assert torch.equal(torch.random.get_rng_state(), before)


# Popularity


def test_popularity_counts_the_training_part(tiny_splits):
    splits = with_log(tiny_splits, [3, 3, 3, 1, 1, 20], [0] * 6)
    scores = Popularity().fit(splits).score(HISTORIES)
    assert scores[0].tolist() == [2.0, 0.0, 3.0] + [0.0] * 16 + [1.0]
    assert torch.equal(scores[0], scores[3])


def test_popularity_knows_nothing_of_the_ring(tiny_splits):
    assert evaluate(Popularity().fit(tiny_splits), tiny_splits, bootstrap=10).metrics["hr@1"] < 0.5


# Recent popularity


def test_recent_popularity_by_hand(tiny_splits):
    items = [1, 1, 1, 2, 3, 4, 5, 6, 7, 8]
    times = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    scores = RecentPopularity(fraction=0.2).fit(with_log(tiny_splits, items, times)).score(HISTORIES)[0]
    assert scores[6:8].tolist() == [1.0, 1.0]  # the newest two of ten
    assert scores[0].item() == pytest.approx(3 * 0.05)  # the rest in the order of all counts
    assert scores[1].item() == pytest.approx(0.05)
    assert scores[8] == 0


def test_recent_popularity_does_not_depend_on_the_order_of_rows(tiny_splits):
    rng = np.random.default_rng(0)
    items, times = rng.integers(1, 21, 200).tolist(), rng.integers(0, 30, 200).tolist()
    order = rng.permutation(200)
    one = with_log(tiny_splits, items, times)
    other = with_log(tiny_splits, [items[i] for i in order], [times[i] for i in order])
    scores = [RecentPopularity(fraction=0.1).fit(s).score(HISTORIES) for s in (one, other)]
    torch.testing.assert_close(scores[0], scores[1])


def test_recent_popularity_of_everything_is_popularity(tiny_splits):
    whole = RecentPopularity(fraction=1.0).fit(tiny_splits).score(HISTORIES)
    assert torch.equal(whole, Popularity().fit(tiny_splits).score(HISTORIES))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_recent_popularity_refuses_bad_fractions(fraction):
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\]"):
        RecentPopularityConfig(fraction=fraction)
