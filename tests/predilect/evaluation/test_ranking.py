from __future__ import annotations

import math

import ir_measures
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import RR, Success, nDCG

from predilect.evaluation import RankingMetrics, ranking, target_ranks
from predilect.evaluation.ranking import MISS, rank_metric, top_items

KS = (1, 5, 10, 20, 100)


def naive_ranks(scores: torch.Tensor, targets: torch.Tensor, hidden: set[tuple[int, int]] = frozenset()) -> list[int]:
    """The definition, item by item."""
    ranks = []
    for row, target in enumerate(targets.tolist()):
        own = scores[row, target - 1]
        ranks.append(
            sum(
                bool(scores[row, item - 1] >= own)
                for item in range(1, scores.shape[1] + 1)
                if item == target or (row, item) not in hidden
            )
        )
    return ranks


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    rows, items = draw(st.integers(1, 6)), draw(st.integers(1, 30))
    levels = draw(st.integers(1, 40))  # few levels: many ties
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.integers(0, levels, (rows, items))).float() / 8 - 1
    return scores, torch.from_numpy(rng.integers(1, items + 1, rows))


@given(cases())
@settings(max_examples=150, deadline=None)
def test_agrees_with_ir_measures(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    scores, targets = case
    # trec_eval orders equal scores by document id, descending: "a" puts the target behind its equals.
    qrels, run = {}, {}
    for row, target in enumerate(targets.tolist()):
        names = [("a" if j + 1 == target else "b") + str(j + 1) for j in range(scores.shape[1])]
        qrels[str(row)] = {f"a{target}": 1}
        run[str(row)] = dict(zip(names, scores[row].tolist(), strict=True))
    wanted = {
        **{f"hr@{k}": Success @ k for k in KS},
        **{f"ndcg@{k}": nDCG @ k for k in KS},
        "mrr": RR,
    }
    metrics = RankingMetrics(KS)
    metrics.update(scores, targets)
    theirs = ir_measures.calc_aggregate(list(wanted.values()), qrels, run)
    assert metrics.compute() == pytest.approx({k: theirs[m] for k, m in wanted.items()}, abs=1e-9)
    per_row = metrics.per_row()
    for value in ir_measures.iter_calc(list(wanted.values()), qrels, run):
        name = next(k for k, m in wanted.items() if m == value.measure)
        assert per_row[name][int(value.query_id)] == pytest.approx(value.value, abs=1e-9)


@given(cases(), st.data())
@settings(max_examples=100, deadline=None)
def test_excluded_items_equal_the_definition(case: tuple[torch.Tensor, torch.Tensor], data: st.DataObject) -> None:
    scores, targets = case
    rows, items = scores.shape
    pair = st.tuples(st.integers(0, rows - 1), st.integers(1, items))
    pairs = data.draw(st.lists(pair, max_size=40))  # with repetitions, and with targets
    exclude = ([r for r, _ in pairs], [i for _, i in pairs])
    expected = naive_ranks(scores, targets, set(pairs))
    assert target_ranks(scores, targets, exclude=exclude).tolist() == expected
    candidates = torch.stack([torch.randperm(items) + 1 for _ in range(rows)])
    reordered = scores.gather(1, candidates - 1)
    assert target_ranks(reordered, targets, candidates=candidates, exclude=exclude).tolist() == expected


def test_hand_worked_numbers() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.4, 0.4, 0.4], [0.0, 0.0, 0.0, 0.0]])
    metrics = RankingMetrics(ks=(1, 3))
    metrics.update(scores, torch.tensor([3, 1, 2]))
    assert metrics.per_row()["rank"].tolist() == [2, 4, 4]  # of four equal scores the target is the last
    assert metrics.compute() == pytest.approx(
        {"hr@1": 0, "hr@3": 1 / 3, "ndcg@1": 0, "ndcg@3": 1 / math.log2(3) / 3, "mrr": (1 / 2 + 1 / 4 + 1 / 4) / 3}
    )


def test_one_item_is_always_found() -> None:
    metrics = RankingMetrics()
    metrics.update(torch.zeros(3, 1), torch.ones(3, dtype=torch.int64))
    assert set(metrics.compute().values()) == {1.0}


def test_batches_add_up() -> None:
    scores, targets = torch.randn(11, 9), torch.randint(1, 10, (11,))
    whole, parts = RankingMetrics(), RankingMetrics()
    whole.update(scores, targets)
    for rows in torch.arange(11).split(3):
        parts.update(scores[rows], targets[rows])
    assert len(parts) == 11
    assert parts.compute() == whole.compute()


@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(ranking, "_BLOCK", block)
    scores, targets = torch.randint(0, 4, (10, 6)).float(), torch.randint(1, 7, (10,))
    assert target_ranks(scores, targets).tolist() == naive_ranks(scores, targets)
    assert top_items(scores, 3).tolist() == (scores.argsort(dim=1, descending=True, stable=True) + 1)[:, :3].tolist()


def test_a_target_is_never_hidden_by_itself() -> None:
    assert target_ranks(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([3]), exclude=([0, 0, 0], [3, 1, 1])).item() == 2


def test_padded_candidates_are_never_ranked() -> None:
    scores = torch.tensor([[9.0, 9.0, 1.0, 2.0]])
    ids = torch.tensor([[0, 0, 7, 4]])
    assert target_ranks(scores, torch.tensor([7]), candidates=ids).item() == 2
    with pytest.raises(ValueError, match="0 is padding"):
        target_ranks(scores, torch.tensor([0]), candidates=ids)


@pytest.mark.parametrize(
    ("target", "match"), [(0, "0 is padding .got 0, row 1"), (4, "in 1..3.*got 4"), (-1, "got -1")]
)
def test_targets_that_are_no_items_are_refused(target: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        target_ranks(torch.zeros(2, 3), torch.tensor([1, target]))


@pytest.mark.parametrize("column", [0, 1, 2])
def test_nan_is_refused_wherever_it_is(column: int) -> None:
    scores = torch.zeros(5, 3)
    scores[3, column] = torch.nan
    with pytest.raises(ValueError, match=f"NaN first in row 3, column {column}"):
        target_ranks(scores, torch.full((5,), 2))


def test_infinite_scores_are_ordered() -> None:
    scores = torch.tensor([[torch.inf, 0.0, -torch.inf]])
    assert [target_ranks(scores, torch.tensor([t])).item() for t in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_other_types_of_scores(dtype: torch.dtype) -> None:
    assert target_ranks(torch.tensor([[3, 1, 2]]).to(dtype), torch.tensor([3])).item() == 2


def test_wrong_shapes_are_refused() -> None:
    scores, targets = torch.zeros(2, 3), torch.tensor([1, 2])
    with pytest.raises(ValueError, match=r"shape \(B, N\)"):
        target_ranks(scores[0], targets)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        target_ranks(scores, targets[:1])
    with pytest.raises(ValueError, match="item ids of shape"):
        target_ranks(scores, targets.float())
    with pytest.raises(ValueError, match="candidates must be"):
        target_ranks(scores, targets, candidates=torch.ones(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"exactly once .* item 2 0 times in row 1"):
        target_ranks(scores, targets, candidates=torch.tensor([[1, 2, 3], [1, 3, 4]]))
    with pytest.raises(ValueError, match=r"exactly once .* item 1 2 times in row 0"):
        target_ranks(scores, targets, candidates=torch.tensor([[1, 1, 3], [1, 2, 4]]))


@pytest.mark.parametrize("exclude", [([2], [1]), ([-1], [1]), ([0], [0]), ([0], [4])])
def test_pairs_that_do_not_exist_are_refused(exclude: tuple[list[int], list[int]]) -> None:
    with pytest.raises(ValueError, match=r"rows 0..1 and items 1..3"):
        target_ranks(torch.zeros(2, 3), torch.tensor([1, 2]), exclude=exclude)


def test_pairs_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="equal length"):
        target_ranks(torch.zeros(2, 3), torch.tensor([1, 2]), exclude=([0, 1], [1]))


def test_the_scores_are_not_changed() -> None:
    scores = torch.randn(1, 6).expand(4, 6)  # a popularity model may return a view of one row
    before = scores.clone()
    target_ranks(scores, torch.tensor([1, 2, 3, 4]), exclude=([0, 1], [2, 3]))
    top_items(scores, 3, exclude=([0, 1], [2, 3]))
    assert torch.equal(scores, before)


@given(cases(), st.integers(1, 12), st.data())
@settings(max_examples=100, deadline=None)
def test_top_items_equal_a_stable_sort(case: tuple[torch.Tensor, torch.Tensor], k: int, data: st.DataObject) -> None:
    scores, _ = case
    rows, items = scores.shape
    pairs = data.draw(st.sets(st.tuples(st.integers(0, rows - 1), st.integers(1, items)), max_size=30))
    top = top_items(scores, k, exclude=([r for r, _ in pairs], [i for _, i in pairs]))
    for row in range(rows):
        left = [i for i in range(1, items + 1) if (row, i) not in pairs]
        best = sorted(left, key=lambda i: (-scores[row, i - 1].item(), i))[:k]
        assert top[row].tolist() == best + [0] * (min(k, items) - len(best))


@pytest.mark.parametrize("name", ["hr", "hr@0", "ndcg@x", "recall@5", "mrr@10", ""])
def test_unknown_metrics_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="ranking metric is"):
        rank_metric(np.array([1]), name)


def test_bad_ranks_and_cutoffs_are_refused() -> None:
    metrics = RankingMetrics()
    with pytest.raises(ValueError, match=r"at least 1 .got 0"):
        metrics.update_ranks(torch.tensor([1, 0]))
    with pytest.raises(ValueError, match="integers"):
        metrics.update_ranks(torch.tensor([1.0]))
    with pytest.raises(RuntimeError, match="no rows yet"):
        metrics.compute()
    with pytest.raises(ValueError, match="ks must"):
        RankingMetrics(ks=(0, 5))
    with pytest.raises(ValueError, match="ks must"):
        RankingMetrics(ks=())


def test_a_hidden_target_is_a_miss_where_it_is_asked_for() -> None:
    scores, targets = torch.tensor([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1]]), torch.tensor([2, 2])
    seen = ([0, 0, 1], [2, 3, 1])
    assert target_ranks(scores, targets, exclude=seen).tolist() == [2, 1]
    assert target_ranks(scores, targets, exclude=seen, hide_targets=True).tolist() == [MISS, 1]
    candidates = torch.tensor([[3, 2, 1], [3, 2, 1]])
    hidden = target_ranks(scores, targets, candidates=candidates, exclude=seen, hide_targets=True)
    assert hidden.tolist() == [MISS, 2]  # item 3 is before it in the second row
    assert target_ranks(scores, targets, hide_targets=True).tolist() == [2, 2]


def test_the_best_candidates_by_hand() -> None:
    scores = torch.tensor([[0.2, 0.9, 0.2, 5.0], [0.1, 0.3, 0.2, 0.0]])
    candidates = torch.tensor([[7, 4, 3, 0], [5, 6, 9, 1]])
    assert top_items(scores, 3, candidates=candidates).tolist() == [[4, 3, 7], [6, 9, 5]]
    left = top_items(scores, 9, candidates=candidates, exclude=([0, 1, 1], [3, 6, 2]))
    assert left.tolist() == [[4, 7, 0, 0], [9, 5, 1, 0]]
