from __future__ import annotations

from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fair_rec import (
    GroupReranker,
    GroupReweighting,
    IFairLRS,
    Programme,
    category_groups,
    frontier,
    group_proportions,
    item_counts,
    item_prices,
    lists_of,
    popularity_groups,
    reference_proportions,
    solve,
)
from fair_rec.reference import history_counts
from fair_rec.reranking import relative_unfairness
from predilect.data import load
from predilect.modeling.losses import weighted_mean
from predilect.recommender import Recommender, available_recommenders
from predilect.recommenders import ItemKNN, SASRecRecommender


@pytest.fixture(scope="module")
def splits() -> Any:
    return load("movietweetings-100k").k_core(20).split("temporal", max_history=10)


@pytest.fixture(scope="module")
def knn(splits: Any) -> ItemKNN:
    return ItemKNN().fit(splits)


@pytest.fixture(scope="module")
def groups(splits: Any) -> Any:
    return popularity_groups(item_counts(splits), 5)


# --- references and weights -----------------------------------------------------------------------------------


def test_history_counts_are_those_of_the_histories(splits: Any) -> None:
    for part in (splits.train, splits.test):
        counted = np.bincount(part.histories().numpy().ravel(), minlength=splits.num_items + 1)
        assert history_counts(part, splits.num_items)[1:].tolist() == counted[1:].tolist()


def test_references_by_source(splits: Any, groups: Any) -> None:
    assert reference_proportions(groups, "catalogue") == pytest.approx(groups.membership.sum(0) / splits.num_items)
    given = dict(zip(groups.labels, [0.1, 0.2, 0.3, 0.4, 0.0], strict=True))
    assert reference_proportions(groups, given).tolist() == [0.1, 0.2, 0.3, 0.4, 0.0]
    with pytest.raises(ValueError, match="sum to 1"):
        reference_proportions(groups, dict.fromkeys(groups.labels, 0.5))
    with pytest.raises(ValueError, match="train, validation, test, catalogue"):
        reference_proportions(groups, "tests", splits)


def test_weights_are_the_ratio_of_shares_averaged_over_the_items_groups(splits: Any) -> None:
    genres = category_groups(splits.catalogue)
    plain = GroupReweighting(genres, smoothing=0.0)
    history = history_counts(splits.train, splits.num_items) @ genres.membership
    target = np.bincount(splits.train.target, minlength=splits.num_items + 1) @ genres.membership
    wanted = (history / history.sum()) / (target / target.sum())
    assert plain.group_weights(splits.train) == pytest.approx(wanted)
    row = 17
    own = wanted[genres.membership[splits.train.target[row]] > 0]
    assert plain.weights(splits.train)[row] == pytest.approx(own.mean())
    weighted = plain.apply(splits)
    assert weighted.train.weight == pytest.approx(plain.weights(splits.train), rel=1e-6)
    assert weighted.validation.weight is None


def test_weights_act_on_each_row_of_a_batch() -> None:
    """Not on the batch as a whole, as in the authors' code."""
    losses = torch.tensor([1.0, 3.0], requires_grad=True)
    weighted_mean(losses, torch.tensor([3.0, 1.0])).backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == [0.75, 0.25]


def test_weighted_rows_train_another_model(splits: Any, groups: Any) -> None:
    small = {"hidden_size": 8, "max_epochs": 1, "num_layers": 1}
    plain = SASRecRecommender(**small).fit(splits)
    weighted = SASRecRecommender(**small).fit(GroupReweighting(groups).apply(splits))
    assert not torch.equal(plain.model.item_embeddings, weighted.model.item_embeddings)


# --- the programme --------------------------------------------------------------------------------------------


def brute_force(programme: Programme) -> float:
    """The best of all whole lists within the constraints."""
    constraints = programme.constraints()
    lists = list(combinations(range(programme.scores.shape[1]), programme.k))
    best = -np.inf
    for chosen in product(lists, repeat=len(programme.scores)):
        rows = np.arange(len(chosen))[:, None]
        columns = np.array(chosen)
        if (constraints[programme.items[rows, columns]].sum(axis=(0, 1)) <= 1e-9).all():
            best = max(best, float(programme.scores[rows, columns].sum()))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_optimum_of_small_cases_is_that_of_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(4, 4))
    items = np.stack([rng.permutation(4) + 1 for _ in range(4)])
    programme = Programme(scores, items, popularity_groups(np.arange(4), 2), np.array([0.5, 0.5]), 2, 0.0)
    x, value = solve(programme)
    assert x.sum(axis=1) == pytest.approx(np.full(4, 2))
    best = brute_force(programme)
    assert value >= best - 1e-9  # a relaxation
    if np.allclose(x, x.round()):
        assert value == pytest.approx(best)


@pytest.mark.parametrize("seed", range(3))
def test_prices_reach_the_optimum_within_a_hundredth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = popularity_groups(np.arange(60), 5)
    taste = rng.normal(size=(400, 60)) + np.linspace(0, 2, 60)
    items = np.argsort(-taste, axis=1)[:, :40] + 1
    scores = np.take_along_axis(taste, items - 1, axis=1)
    programme = Programme(scores, items, groups, np.full(5, 0.2), 10, 0.01)
    _, optimum = solve(programme)
    priced = scores - item_prices(programme)[items]
    chosen = np.argsort(-priced, axis=1)[:, :10]
    lists = np.take_along_axis(items, chosen, axis=1)
    share = groups.membership[lists].sum(axis=(0, 1)) / lists.size
    assert np.abs(share - 0.2).max() < 0.02
    assert np.take_along_axis(scores, chosen, axis=1).sum() >= 0.99 * optimum
    plain = groups.membership[np.take_along_axis(items, np.argsort(-scores, axis=1)[:, :10], axis=1)]
    assert np.abs(plain.sum(axis=(0, 1)) / lists.size - 0.2).max() > 0.1


def test_targets_out_of_reach_are_said() -> None:
    programme = Programme(np.zeros((2, 2)), np.array([[1, 2], [1, 2]]), popularity_groups(np.arange(4), 2),
                          np.array([0.0, 1.0]), 1)  # fmt: skip
    with pytest.raises(ValueError, match="raise tolerance"):
        solve(programme)


# --- the re-ranker --------------------------------------------------------------------------------------------


def test_relative_unfairness_weighs_long_lists_more() -> None:
    found = relative_unfairness([np.array([0.4, -0.4]), np.array([-0.2, 0.2])], (1, 3))
    assert found == pytest.approx([-1.0, 1.0])  # 0.25 * 0.4 - 0.75 * 0.2 = -0.05
    assert relative_unfairness([np.zeros(2)], (1,)).tolist() == [0, 0]


def test_alpha_zero_leaves_the_order_alone(splits: Any, knn: ItemKNN, groups: Any) -> None:
    plain = lists_of(knn, splits, k=10).items
    same = GroupReranker.over(knn, groups, alpha=0.0).fit(splits)
    assert np.array_equal(lists_of(same, splits, k=10).items, plain)
    none = GroupReranker.over(knn, groups, rule="none").fit(splits)
    assert np.array_equal(lists_of(none, splits, k=10).items, plain)


def test_the_papers_rule_adds_to_normalised_distances(splits: Any, knn: ItemKNN, groups: Any) -> None:
    reranker = GroupReranker.over(knn, groups, alpha=0.1, ks=(5, 10)).fit(splits)
    histories = splits.test.histories(slice(0, 3))
    scores = knn.score(histories)
    low, high = scores.min(dim=1, keepdim=True).values, scores.max(dim=1, keepdim=True).values
    relative = torch.tensor([reranker.unfairness[g] for g in groups.labels]).double()
    price = 0.1 * (torch.from_numpy(groups.membership[1:]) @ relative)
    wanted = -((high - scores) / (high - low) + price)
    torch.testing.assert_close(reranker.score(histories), wanted.float(), atol=1e-5, rtol=1e-5)
    assert max(abs(v) for v in reranker.unfairness.values()) == pytest.approx(1)


def test_the_programme_brings_shares_to_the_reference(splits: Any, knn: ItemKNN, groups: Any) -> None:
    reference = reference_proportions(groups, "train", splits)
    fair = GroupReranker.over(knn, groups, rule="programme", rows=5000).fit(splits)
    before, after = (group_proportions(lists_of(r, splits, "validation", 10), groups, 10) for r in (knn, fair))
    assert np.abs(before - reference).max() > 0.3
    assert np.abs(after - reference).max() < 0.03


def test_saved_and_loaded_it_ranks_the_same(splits: Any, tmp_path: Path) -> None:
    fitted = GroupReranker(base="item-knn", groups="category", rule="programme", rows=100).fit(splits)
    fitted.save_pretrained(tmp_path)
    again = Recommender.from_pretrained(tmp_path)
    histories = splits.test.histories(slice(0, 5))
    assert torch.equal(again.score(histories), fitted.score(histories))
    (tmp_path / "prices.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"prices\.safetensors"):
        Recommender.from_pretrained(tmp_path)


def test_both_stages_by_name(splits: Any) -> None:
    options = {"hidden_size": 8, "max_epochs": 1, "num_layers": 1}
    both = IFairLRS(base="sasrec", base_options=options).fit(splits)
    assert both.base.name == "sasrec"
    assert both.config.reweight
    plain = IFairLRS(base="sasrec", base_options=options, reweight=False).fit(splits)
    assert not torch.equal(both.base.score(splits.test.histories()), plain.base.score(splits.test.histories()))
    assert {"group-reranker", "ifairlrs"} <= set(available_recommenders())
    assert IFairLRS().config.base == "bigrec"


def test_mistakes_are_named(splits: Any, knn: ItemKNN) -> None:
    with pytest.raises(ValueError, match="neither a folder nor a recommender"):
        GroupReranker(base="sasrek").fit(splits)
    with pytest.raises(ValueError, match="alpha must be at least 0"):
        GroupReranker(alpha=-1.0)
    with pytest.raises(ValueError, match="fitted base cannot be re-weighted"):
        GroupReranker.over(knn, reweight=True)
    with pytest.raises(ValueError, match="candidates must be at least k"):
        GroupReranker(rule="programme", candidates=5)
    with pytest.raises(ValueError, match="item-knn counts and has no loss"):
        GroupReranker(base="item-knn", reweight=True, rule="none").fit(splits)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base": "sasrek"}, "base 'sasrek' is neither a folder nor a recommender"),
        ({"base": "popularity", "reweight": True}, "popularity counts and has no loss for weights to act on"),
        ({"base": "sasrec", "base_options": {"hiden_size": 8}}, "did you mean hidden_size"),
        ({"base": "injection", "base_options": {"members": ["nobody"]}}, "member 'nobody' is neither a folder"),
        ({"base": ".", "reweight": True}, "fitted already: leave reweight and base_options out"),
    ],
)
def test_what_a_base_cannot_take_is_refused_before_data_are_read(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GroupReranker(**options).require_ready()


@pytest.mark.parametrize("options", [{"base": "sasrec", "reweight": True}, {"base": "item-knn"}])
def test_what_a_base_can_take_is_ready(options: dict[str, Any], knn: ItemKNN) -> None:
    GroupReranker(**options).require_ready()
    GroupReranker.over(knn).require_ready()


def test_a_frontier_has_a_row_a_setting(splits: Any, knn: ItemKNN, groups: Any) -> None:
    table = frontier(knn, splits, groups, alphas=(0.0, 0.1), tolerances=(0.02,), k=5, max_rows=50)
    assert table.rule.tolist() == ["paper", "paper", "programme"]
    assert table.mgu.iloc[2] < table.mgu.iloc[0]
