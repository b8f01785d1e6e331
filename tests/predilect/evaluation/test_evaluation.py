from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from predilect.data.catalogue import Catalogue
from predilect.data.rows import SequenceRows, UserSequences
from predilect.data.splits import SequenceSplits
from predilect.evaluation import Evaluation, bootstrap_interval, compare, evaluate, paired_bootstrap, paired_difference
from predilect.evaluation.kinds import kinds_of_rows
from predilect.evaluation.ranking import MISS
from predilect.recommender import Recommender

ITEMS = 12


def make_splits(seed: int = 0, users: int = 20, candidates: bool = True) -> SequenceSplits:
    """Users of 4 to 9 steps over 12 items, with repetitions; the last three steps of each are test rows."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 10, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = rng.integers(1, ITEMS + 1, offsets[-1]).astype(np.int32)
    sequences = UserSequences(items, offsets.astype(np.int64))
    user, position, sets = [], [], []
    for one in range(users):
        whole = items[offsets[one] : offsets[one + 1]].tolist()
        for place in range(len(whole) - 3, len(whole)):
            others = [i for i in range(1, ITEMS + 1) if i not in whole][:3]
            user.append(one)
            position.append(place)
            sets.append(rng.permutation([whole[place], *others]))
    test = SequenceRows.at(
        sequences, np.array(user), np.array(position), 5, candidates=np.array(sets) if candidates else None
    )
    names = tuple(str(i) for i in range(1, ITEMS + 1))
    protocol: dict[str, Any] = {"data": "made", "strategy": "leave_one_out", "ratios": None, "max_history": 5}
    if candidates:
        protocol |= {"candidates": 4, "candidate_seed": 3, "negatives": "uniform"}
    return SequenceSplits(
        test.select([]), test.select(range(3)), test, Dataset.from_dict({"item_id": [1] * 60 + [2] * 3}),
        Catalogue(names, names, ((),) * ITEMS), protocol, (),
    )  # fmt: skip


class Fixed(Recommender):
    """Scores from a table, shifted by the last item, with many ties; every sum is exact in float32."""

    name = "fixed"

    catalogue = Catalogue(*(tuple(map(str, range(1, ITEMS + 1))),) * 2, ((),) * ITEMS)

    def _fit(self, data: SequenceSplits, folder: Path) -> None: ...

    def table(self, histories: torch.Tensor) -> torch.Tensor:
        items = torch.arange(1, ITEMS + 1)
        return ((items * 7 + histories[:, -1:] * 5 + histories[:, :1]) % 6).float()

    def _score(self, histories: torch.Tensor) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        return self.table(histories)

    def _save(self, folder: Path) -> None: ...

    def _load(self, folder: Path) -> None: ...


class Oracle(Fixed):
    """Puts the item after the largest of the history first."""

    name = "oracle"

    def table(self, histories: torch.Tensor) -> torch.Tensor:
        return torch.arange(1, ITEMS + 1).expand(len(histories), -1).float()


@pytest.fixture(scope="module")
def splits() -> SequenceSplits:
    return make_splits()


def expected_rank(splits: SequenceSplits, row: dict[str, Any], scores: list[float], ids: list[int], mask: bool) -> int:
    start = splits.sequences.offsets[row["user_id"]]
    seen = set(splits.sequences.items[start : start + row["position"]].tolist()) if mask else set()
    if row["target"] in seen:
        return MISS  # a masked target cannot be recommended
    by_item = dict(zip(ids, scores, strict=True))
    own = by_item[row["target"]]
    return sum(s >= own for i, s in by_item.items() if i == row["target"] or i not in seen)


@pytest.mark.parametrize("protocol", ["full", "candidates"])
@pytest.mark.parametrize("mask", [True, False])
def test_ranks_equal_the_definition(splits: SequenceSplits, protocol: str, mask: bool) -> None:
    found = evaluate(Fixed(), splits, protocol=protocol, mask_seen=mask, bootstrap=0)
    histories = splits.test.histories()
    scores = Fixed().table(histories)
    for row, source, row_scores in zip(found.rows, splits.test.to_dataset(), scores, strict=True):
        ids = list(range(1, ITEMS + 1)) if protocol == "full" else source["candidates"]
        values = [row_scores[i - 1].item() for i in ids]
        assert row["rank"] == expected_rank(splits, source, values, ids, mask)
        assert (row["user_id"], row["position"], row["target"]) == (
            source["user_id"], source["position"], source["target"],
        )  # fmt: skip


@pytest.mark.parametrize("protocol", ["full", "candidates"])
def test_batch_size_changes_nothing(splits: SequenceSplits, protocol: str) -> None:
    results = [evaluate(Fixed(), splits, protocol=protocol, batch_size=size, bootstrap=50) for size in (1, 7, 1000)]
    assert results[0].metrics == results[1].metrics == results[2].metrics
    assert results[0].rows[:] == results[1].rows[:] == results[2].rows[:]


def test_drawn_rows_are_ranked_as_among_all_and_are_the_same_for_everyone(splits: SequenceSplits) -> None:
    whole = evaluate(Fixed(), splits, bootstrap=20)
    some, fewer = (evaluate(Fixed(), splits, bootstrap=20, max_rows=n) for n in (25, 10))
    assert some.metrics["rows"] == 25
    assert some.rows["row"] == sorted(some.rows["row"])
    ranks = dict(zip(whole.rows["row"], whole.rows["rank"], strict=True))
    assert [ranks[row] for row in some.rows["row"]] == list(some.rows["rank"])
    assert set(fewer.rows["row"]) < set(some.rows["row"])
    assert list(evaluate(Oracle(), splits, bootstrap=20, max_rows=25).rows["row"]) == list(some.rows["row"])
    assert list(evaluate(Oracle(), splits, bootstrap=20, max_rows=25, seed=1).rows["row"]) != list(some.rows["row"])
    assert "coverage@10" in whole.metrics
    assert "coverage@10" not in some.metrics  # it grows with the number of lists
    assert evaluate(Fixed(), splits, bootstrap=20, max_rows=60).metrics == whole.metrics
    with pytest.raises(ValueError, match="are not comparable: they differ in rows_drawn"):
        compare({"whole": whole, "some": some})
    with pytest.raises(ValueError, match=r"max_rows must be at least 2.*got 1"):
        evaluate(Fixed(), splits, max_rows=1)


def test_metrics_name_their_protocol(splits: SequenceSplits) -> None:
    full = evaluate(Fixed(), splits, ks=(1, 3), bootstrap=20).metrics
    assert {k: full[k] for k in list(full)[:9]} == {
        "protocol": "full", "part": "test", "seen": "masked", "negatives": "all items", "candidates": ITEMS,
        "candidate_seed": None, "data": "made", "strategy": "leave_one_out", "ratios": None,
    }  # fmt: skip
    assert (full["rows"], full["users"]) == (60, 20)
    headline = {"hr@1", "hr@3", "ndcg@1", "ndcg@3", "mrr"}
    assert headline | {f"{m}_{end}" for m in headline for end in ("low", "high")} <= set(full)
    few = evaluate(Fixed(), splits, protocol="candidates", mask_seen=False, bootstrap=0).metrics
    assert (few["protocol"], few["seen"], few["negatives"], few["candidates"], few["candidate_seed"]) == (
        "candidates", "kept", "uniform", 4, 3,
    )  # fmt: skip
    assert "coverage@10" not in few
    assert not any(name.endswith(("_low", "_high")) for name in few)
    json.dumps(full)


def test_intervals_resample_users(splits: SequenceSplits) -> None:
    found = evaluate(Fixed(), splits, bootstrap=200, seed=5)
    hits = (np.array(found.rows["rank"][:]) <= 5).astype(float)
    users = np.array(found.rows["user_id"][:])
    interval = bootstrap_interval(hits, groups=users, resamples=200, seed=5)
    assert (found.metrics["hr@5"], found.metrics["hr@5_low"], found.metrics["hr@5_high"]) == pytest.approx(interval)


def test_seen_items_are_not_shown_and_repeats_are_counted(splits: SequenceSplits) -> None:
    repeats = 0
    found = evaluate(Fixed(), splits, bootstrap=0)
    scores = Fixed().table(splits.test.histories())
    for row, row_scores in zip(found.rows, scores, strict=True):
        start = splits.sequences.offsets[row["user_id"]]
        seen = set(splits.sequences.items[start : start + row["position"]].tolist())
        repeats += row["target"] in seen
        left = [i for i in range(1, ITEMS + 1) if i not in seen]  # the target too: a list must not know it
        assert row["top"] == sorted(left, key=lambda i: (-row_scores[i - 1].item(), i))[:10]
    assert found.metrics["repeat_targets"] == repeats > 0
    kept = evaluate(Fixed(), splits, mask_seen=False, bootstrap=0)
    assert kept.metrics["repeat_targets"] == repeats
    assert all(len(top) == 10 for top in kept.rows["top"])


def test_repeats_and_new_items_are_given_apart(splits: SequenceSplits) -> None:
    repeat = splits.test.repeat
    for mask in (True, False):
        found = evaluate(Fixed(), splits, mask_seen=mask, bootstrap=100)
        apart = found.groups["repeat"]
        assert (apart["repeat"]["rows"], apart["new"]["rows"]) == (repeat.sum(), (~repeat).sum())
        ranks = np.array(found.rows["rank"])
        users = splits.test.user[~repeat]
        hits = (ranks[~repeat] <= 5).astype(float)
        low_high = bootstrap_interval(hits, groups=users, resamples=100, seed=0)
        assert (apart["new"]["hr@5"], apart["new"]["hr@5_low"], apart["new"]["hr@5_high"]) == pytest.approx(low_high)
        whole = found.metrics["mrr"] * len(repeat)
        assert sum(group["mrr"] * group["rows"] for group in apart.values()) == pytest.approx(whole)
        assert list(found.rows["repeat"]) == repeat.tolist()
        if mask:  # even of a list as long as the catalogue: what is hidden is not found
            assert apart["repeat"]["hr@20"] == apart["repeat"]["ndcg@20"] == 0
            assert apart["repeat"]["mrr"] < 1e-9


def test_kinds_of_rows_are_given_apart(splits: SequenceSplits) -> None:
    found = evaluate(Fixed(), splits, bootstrap=0)
    ranks = np.array(found.rows["rank"])
    for by, kinds in kinds_of_rows(splits.test, splits).items():
        assert list(found.rows[by]) == list(kinds.values)
        groups = found.groups[by]
        assert list(groups) == [name for name in kinds.names if name in set(kinds.values)]
        for name, group in groups.items():
            mine = ranks[kinds.values == name]
            assert (group["rows"], group["hr@5"]) == (len(mine), pytest.approx((mine <= 5).mean()))


def test_masked_repeats_are_left_out_by_name(splits: SequenceSplits) -> None:
    new = np.flatnonzero(~splits.test.repeat)
    whole, some = (evaluate(Fixed(), splits, repeats=repeats, bootstrap=0) for repeats in ("miss", "left out"))
    assert some.rows["row"] == new.tolist()
    assert list(some.rows["rank"]) == [whole.rows["rank"][row] for row in new]
    assert (some.metrics["repeats"], some.metrics["repeat_targets"]) == ("left out", 0)
    assert some.metrics["mrr"] == pytest.approx(whole.groups["repeat"]["new"]["mrr"])
    assert set(some.groups["repeat"]) == {"new"}
    assert evaluate(Fixed(), splits, mask_seen=False, bootstrap=0).metrics["repeats"] is None
    with pytest.raises(ValueError, match=r"repeats must be one of miss, left out \(got 'drop'\)"):
        evaluate(Fixed(), splits, repeats="drop")
    with pytest.raises(ValueError, match="differ in repeats"):
        compare({"whole": whole, "some": some})
    only = replace(splits, test=splits.test.select(np.flatnonzero(splits.test.repeat)))
    with pytest.raises(ValueError, match="every target of the part 'test' was taken before: pass mask_seen=False"):
        evaluate(Fixed(), only, repeats="left out")


def test_results_are_grouped_by_columns_of_the_rows(splits: SequenceSplits, tmp_path: Path) -> None:
    parity = splits.test.target % 2
    labelled = replace(splits, test=splits.test.with_column("parity", np.where(parity, "odd", "even")))
    found = evaluate(Fixed(), labelled, bootstrap=100, group_by=["parity", "user_id"])
    plain = evaluate(Fixed(), splits, bootstrap=100)
    assert found.metrics == plain.metrics
    odd = found.groups["parity"]["odd"]
    alone = evaluate(Fixed(), replace(splits, test=splits.test.select(np.flatnonzero(parity))), bootstrap=100)
    own = {name: alone.metrics[name] for name in odd}
    assert odd == pytest.approx(own)
    assert "ndcg@10_low" in odd
    assert sum(group["rows"] for group in found.groups["parity"].values()) == 60
    users = found.groups["user_id"]
    assert [users[str(user)]["rows"] for user in range(20)] == [3] * 20
    assert "mrr_low" not in users["0"]  # one user cannot be resampled
    some = evaluate(Fixed(), labelled, bootstrap=0, max_rows=25, group_by=["parity"])
    assert some.groups["parity"]["odd"]["rows"] == parity[some.rows["row"]].sum()
    found.save(tmp_path)
    assert Evaluation.load(tmp_path).groups == found.groups
    with pytest.raises(ValueError, match=r"rows have the columns user_id, .*\(got 'genre'\)"):
        evaluate(Fixed(), splits, group_by=["genre"])


def test_events_are_groups(splits: SequenceSplits) -> None:
    codes = np.arange(len(splits.sequences.items), dtype=np.int32) % 2
    sequences = replace(splits.sequences, event=codes, events=("click", "buy"))
    parts = {part: replace(splits.part(part), sequences=sequences) for part in ("train", "validation", "test")}
    found = evaluate(Fixed(), replace(splits, **parts), bootstrap=0, group_by=["event"])
    buys = splits.test.target_place % 2 == 1
    assert {name: group["rows"] for name, group in found.groups["event"].items()} == {
        "buy": buys.sum(), "click": (~buys).sum(),
    }  # fmt: skip


@pytest.mark.parametrize("protocol", ["full", "candidates"])
@pytest.mark.parametrize("top", [1, 3, 50])
def test_lists_of_any_length_are_kept(splits: SequenceSplits, protocol: str, top: int) -> None:
    found = evaluate(Fixed(), splits, protocol=protocol, top=top, bootstrap=0)
    scores = Fixed().table(splits.test.histories())
    for number, row in enumerate(found.rows):
        ids = range(1, ITEMS + 1) if protocol == "full" else splits.test.candidates[number].tolist()
        left = set(ids) - set(splits.test.seen([number])[1].tolist())
        assert row["top"] == sorted(left, key=lambda i, own=scores[number]: (-own[i - 1].item(), i))[:top]
    assert (f"coverage@{top}" in found.metrics) == (protocol == "full")


def test_no_lists(splits: SequenceSplits) -> None:
    found = evaluate(Fixed(), splits, top=0, bootstrap=0)
    assert "top" not in found.rows.column_names
    assert not any(name.startswith("coverage") for name in found.metrics)
    with pytest.raises(ValueError, match="top at least 0"):
        evaluate(Fixed(), splits, top=-1)


def test_coverage_is_the_share_of_items_shown(splits: SequenceSplits) -> None:
    found = evaluate(Oracle(), splits, mask_seen=False, bootstrap=0)
    assert found.metrics["coverage@10"] == 10 / 12  # everybody gets the same ten items
    masked = evaluate(Oracle(), splits, bootstrap=0)
    assert masked.metrics["coverage@10"] == len({i for top in masked.rows["top"] for i in top}) / ITEMS


def test_never_more_than_a_batch_of_histories(splits: SequenceSplits) -> None:
    sizes = []

    class Counting(Fixed):
        def _score(self, histories: torch.Tensor) -> torch.Tensor:
            sizes.append(len(histories))
            return super()._score(histories)

    evaluate(Counting(), splits, batch_size=16, bootstrap=0)
    assert sizes == [16, 16, 16, 12]


def test_scores_of_a_view_stay_as_they_are(splits: SequenceSplits) -> None:
    scores = torch.arange(float(ITEMS))

    class Popular(Fixed):
        def _score(self, histories: torch.Tensor) -> torch.Tensor:
            return scores.expand(len(histories), -1)

    evaluate(Popular(), splits, bootstrap=0)
    assert torch.equal(scores, torch.arange(float(ITEMS)))


def test_save_and_load(splits: SequenceSplits, tmp_path: Path) -> None:
    for protocol in ("full", "candidates"):
        found = evaluate(Fixed(), splits, protocol=protocol, bootstrap=20)
        found.save(tmp_path / protocol)
        again = Evaluation.load(tmp_path / protocol)
        assert again.metrics == found.metrics
        assert again.rows[:] == found.rows[:]
        assert again.recommender == "fixed"
    (tmp_path / "full" / "rows.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"no rows\.parquet"):
        Evaluation.load(tmp_path / "full")


def test_bad_scores_name_the_recommender(splits: SequenceSplits) -> None:
    class Padded(Fixed):
        def table(self, histories: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(histories), ITEMS + 1)

    class Broken(Fixed):
        def table(self, histories: torch.Tensor) -> torch.Tensor:
            return torch.full((len(histories), ITEMS), torch.nan)

    with pytest.raises(ValueError, match=r"fixed.score must return the shape \(60, 12\).*padding.*got \(60, 13\)"):
        evaluate(Padded(), splits)
    with pytest.raises(ValueError, match="fixed: scores must not be NaN"):
        evaluate(Broken(), splits)
    with pytest.raises(ValueError, match="fixed: scores must not be NaN"):
        evaluate(Broken(), splits, protocol="candidates")


def test_bad_options_are_refused(splits: SequenceSplits) -> None:
    with pytest.raises(ValueError, match=r"protocol must be one of full, candidates .got 'sampled'"):
        evaluate(Fixed(), splits, protocol="sampled")
    with pytest.raises(ValueError, match="'train' has no rows"):
        evaluate(Fixed(), splits, "train")
    with pytest.raises(ValueError, match="got 'dev'"):
        evaluate(Fixed(), splits, "dev")
    with pytest.raises(ValueError, match=r"pass splits.with_candidates"):
        evaluate(Fixed(), make_splits(candidates=False), protocol="candidates")
    with pytest.raises(ValueError, match="batch_size"):
        evaluate(Fixed(), splits, batch_size=0)
    with pytest.raises(ValueError, match="at least two groups"):
        evaluate(Fixed(), splits, "validation")  # three rows of one user
    assert evaluate(Fixed(), splits, "validation", bootstrap=0).metrics["rows"] == 3


def test_compare_is_a_paired_bootstrap_against_the_best(splits: SequenceSplits) -> None:
    a, b = evaluate(Fixed(), splits, bootstrap=0), evaluate(Oracle(), splits, bootstrap=0)
    found = compare({"a": a, "b": b}, "mrr", seed=2)
    best, other = ("a", "b") if a.metrics["mrr"] > b.metrics["mrr"] else ("b", "a")
    assert found.baseline == best
    assert list(found.differences) == [other]
    results = {"a": a, "b": b}
    reciprocal = {k: 1 / np.array(e.rows["rank"][:]) for k, e in results.items()}
    users = np.array(a.rows["user_id"][:])
    assert found.differences[other] == paired_bootstrap(reciprocal[other], reciprocal[best], groups=users, seed=2)
    assert found.differences[other].difference < 0
    turned = compare(results, "mrr", baseline=other)
    assert turned.differences[best].difference == pytest.approx(-found.differences[other].difference)


def test_a_difference_is_taken_on_the_rows_that_both_ranked(splits: SequenceSplits) -> None:
    whole, some = evaluate(Fixed(), splits, bootstrap=0), evaluate(Oracle(), splits, bootstrap=0, max_rows=40, seed=3)
    rows = some.rows["row"][:]
    users = np.array(some.rows["user_id"][:])
    a, b = 1 / np.array(whole.rows["rank"][:])[rows], 1 / np.array(some.rows["rank"][:])
    found = paired_difference(whole.rows, some.rows, "mrr", seed=2)
    assert found == paired_bootstrap(a, b, groups=users, seed=2)
    assert paired_difference(some.rows, whole.rows, "mrr", seed=2).difference == pytest.approx(-found.difference)
    shuffled = some.rows.select(np.random.default_rng(0).permutation(len(rows)))
    assert paired_difference(whole.rows, shuffled, "mrr", seed=2) == found
    with pytest.raises(ValueError, match="hold different rows: position differs first in row"):
        paired_difference(evaluate(Fixed(), make_splits(seed=1), bootstrap=0).rows, some.rows, "mrr")


def test_compare_refuses_what_is_not_comparable(splits: SequenceSplits) -> None:
    a = evaluate(Fixed(), splits, bootstrap=0)
    with pytest.raises(ValueError, match=r"differ in .*protocol \('full' and 'candidates'\)"):
        compare({"a": a, "b": evaluate(Fixed(), splits, protocol="candidates", bootstrap=0)})
    with pytest.raises(ValueError, match=r"seen \('masked' and 'kept'\)"):
        compare({"a": a, "b": evaluate(Fixed(), splits, mask_seen=False, bootstrap=0)})
    with pytest.raises(ValueError, match="different rows: position differs first in row"):
        compare({"a": a, "b": evaluate(Fixed(), make_splits(seed=1), bootstrap=0)})
    with pytest.raises(ValueError, match="60 and 30 rows"):
        compare({"a": a, "b": evaluate(Fixed(), make_splits(users=10), bootstrap=0)})
    with pytest.raises(ValueError, match="at least two"):
        compare({"a": a})
    with pytest.raises(ValueError, match="baseline must be one of a, b"):
        compare({"a": a, "b": a}, baseline="c")
    with pytest.raises(ValueError, match="ranking metric is"):
        compare({"a": a, "b": a}, "accuracy")
