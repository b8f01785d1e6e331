"""Candidate sets: what they hold, what they depend on, how they are distributed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from predilect.data import RecDataset, SequenceRows, SequenceSplits, UserSequences, sample_candidates


def skewed_splits(users: int = 200, items: int = 40, length: int = 6, seed: int = 0) -> SequenceSplits:
    """Item i is taken in proportion to 1 / i; each user takes `length` distinct ones."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, items + 1)
    taken = np.stack([rng.choice(items, length, replace=False, p=weights / weights.sum()) + 1 for _ in range(users)])
    log = {
        "user_id": np.repeat(np.arange(users), length),
        "item_id": taken.ravel(),
        "timestamp": np.tile(np.arange(length), users),
        "rating": np.ones(users * length, dtype=np.float32),
    }
    catalogue = Dataset.from_dict({"item_id": list(range(1, items + 1))})
    return RecDataset(Dataset.from_dict(log), catalogue, name="skewed").split("leave_one_out")


@pytest.fixture(scope="module")
def splits() -> SequenceSplits:
    return skewed_splits()


@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_set_is_the_target_and_distinct_items_never_taken(splits: SequenceSplits, part: str, negatives: str) -> None:
    sets = sample_candidates(splits, part, size=12, negatives=negatives)
    rows = splits.part(part).to_dataset()
    assert sets.shape == (len(rows), 12)
    assert sets.min() >= 1
    assert sets.max() <= splits.num_items
    for row, candidates in zip(rows, sets.tolist(), strict=True):
        assert len(set(candidates)) == 12
        _, taken = splits.sequences.whole(np.array([row["user_id"]]))
        assert set(candidates) & set(taken.tolist()) == {row["target"]}


@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
def test_training_negatives_may_come_later_and_never_came_before(splits: SequenceSplits, negatives: str) -> None:
    """40 items, 6 of a user: a future item is as likely a negative as any other that was not taken yet."""
    sequences, rows = splits.sequences, splits.train
    future = []
    for seed in range(10):
        sets = sample_candidates(splits, "train", size=12, seed=seed, negatives=negatives)
        for user, position, candidates in zip(rows.user, rows.position, sets.tolist(), strict=True):
            whole = sequences.items[sequences.offsets[user] : sequences.offsets[user + 1]].tolist()
            assert len(set(candidates)) == 12
            assert set(candidates) & set(whole[: position + 1]) == {whole[position]}
            future.append(len(set(candidates) & set(whole[position + 1 :])))
    if negatives == "uniform":
        left = np.array([[5 - p, 39 - p] for p in rows.position])  # later ones, and all that are not taken yet
        expected = 11 * left[:, 0] / left[:, 1]
        assert np.mean(future) == pytest.approx(expected.mean(), rel=0.03)
    else:
        assert sum(future) > 0


def test_a_set_of_few_free_items_holds_just_those(splits: SequenceSplits) -> None:
    """The first row of a user leaves 38 items: with 39 candidates all of them are drawn."""
    first = replace(splits, train=splits.train.select(np.flatnonzero(splits.train.position == 1)))
    sets = sample_candidates(first, "train", size=39)
    taken = splits.sequences.items[splits.sequences.offsets[first.train.user]]
    assert all(set(row) == set(range(1, 41)) - {item} for row, item in zip(sets.tolist(), taken.tolist(), strict=True))
    with pytest.raises(ValueError, match=r"train row 0 \(user 0\) leaves 38 items never taken, 39 negatives"):
        sample_candidates(first, "train", size=40)


def test_the_same_seed_gives_the_same_sets(splits: SequenceSplits) -> None:
    first, second = (sample_candidates(splits, "test", seed=5) for _ in range(2))
    assert np.array_equal(first, second)
    other = sample_candidates(splits, "test", seed=6)
    assert (first == other).mean() < 0.2
    assert not np.array_equal(first, sample_candidates(splits, "validation", seed=5))


def test_a_set_does_not_depend_on_the_other_rows(splits: SequenceSplits) -> None:
    some = replace(splits, test=splits.test.select([3, 50, 7]))
    assert np.array_equal(sample_candidates(some, "test"), sample_candidates(splits, "test")[[3, 50, 7]])


def test_a_set_does_not_depend_on_which_item_is_the_target(splits: SequenceSplits) -> None:
    """Exchange each user's last two items: another target, the same items taken, so the same negatives and place."""
    changed = splits.sequences.items.copy().reshape(-1, 6)
    changed[:, [4, 5]] = changed[:, [5, 4]]
    sequences = replace(splits.sequences, items=changed.ravel())
    other = replace(splits, test=replace(splits.test, sequences=sequences))
    a, b = sample_candidates(splits, "test"), sample_candidates(other, "test")
    target_a, target_b = splits.test.target, other.test.target
    assert (target_a != target_b).all()
    differs = a != b
    assert np.array_equal(differs.sum(axis=1), np.ones(len(a)))
    assert np.array_equal(a[differs], target_a)
    assert np.array_equal(b[differs], target_b)


def test_the_place_of_the_target_is_uniform(splits: SequenceSplits) -> None:
    counts = np.zeros(10)
    target = splits.test.target[:, None]
    for seed in range(50):
        sets = sample_candidates(splits, "test", size=10, seed=seed)
        counts += (sets == target).sum(axis=0)
    expected = counts.sum() / 10
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 27.9  # 99.9 % quantile with 9 degrees of freedom


def many_rows(splits: SequenceSplits, count: int) -> tuple[SequenceSplits, int]:
    """`count` users who took what user 0 took, in the same order: each has a stream of its own."""
    taken = splits.sequences.whole(np.array([0]))[1]
    sequences = UserSequences(np.tile(taken, count), np.arange(count + 1) * len(taken))
    rows = SequenceRows.at(sequences, np.arange(count), np.full(count, len(taken) - 1), 5)
    return replace(splits, test=rows), int(taken[-1])


def test_negatives_are_uniform_over_the_items_never_taken(splits: SequenceSplits) -> None:
    many, _ = many_rows(splits, 5000)
    taken = set(splits.sequences.whole(np.array([0]))[1].tolist())
    free = [i for i in range(1, 41) if i not in taken]
    counts = np.bincount(sample_candidates(many, "test", size=4).ravel(), minlength=41)
    expected = 5000 * 3 / len(free)
    chi_square = ((counts[free] - expected) ** 2 / expected).sum()
    assert chi_square < 65.2  # 99.9 % quantile with 34 degrees of freedom (without replacement it is smaller)


def test_popularity_negatives_follow_the_training_counts(splits: SequenceSplits) -> None:
    """A single negative is drawn in proportion to the counts of the items never taken."""
    many, target = many_rows(splits, 5000)
    counts = np.bincount(np.array(splits.train_interactions["item_id"][:]), minlength=41).astype(float)
    counts[splits.sequences.whole(np.array([0]))[1]] = 0
    expected = counts / counts.sum() * 5000
    sets = sample_candidates(many, "test", size=2, negatives="popularity")
    drawn = np.bincount(sets[sets != target], minlength=41)
    likely = expected >= 5
    chi_square = ((drawn - expected)[likely] ** 2 / expected[likely]).sum()
    assert likely.sum() > 20
    assert chi_square < likely.sum() + 4 * np.sqrt(2 * likely.sum())
    assert drawn[expected == 0].sum() == 0


def test_items_that_training_never_saw_come_last() -> None:
    """7 items, one user took 3; of the other 4 only items 1 and 2 occur in training."""
    log = {
        "user_id": [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2],
        "item_id": [3, 4, 5, 1, 2, 6, 7, 1, 2, 6, 7],
        "timestamp": [0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3],
        "rating": [1.0] * 11,
    }
    data = RecDataset(Dataset.from_dict(log), Dataset.from_dict({"item_id": list(range(1, 8))}), name="small")
    splits = data.split("leave_one_out", min_history=1)
    one = replace(splits, test=splits.test.select([0]))
    for seed in range(20):
        two = sample_candidates(one, "test", size=3, seed=seed, negatives="popularity")[0].tolist()
        assert sorted(two) == [1, 2, 5]
        three = sample_candidates(one, "test", size=4, seed=seed, negatives="popularity")[0].tolist()
        assert {1, 2, 5} < set(three) <= {1, 2, 5, 6, 7}
        four = sample_candidates(one, "test", size=5, seed=seed)[0].tolist()
        assert sorted(four) == [1, 2, 5, 6, 7]
    with pytest.raises(ValueError, match=r"test row 0 \(user 0\) leaves 4 items never taken, 5 negatives"):
        sample_candidates(one, "test", size=6)


def test_a_rare_item_comes_before_those_that_training_never_saw(splits: SequenceSplits) -> None:
    """Nearly all the weight lies on what the user took, so that nearly every draw is rejected."""
    taken = splits.sequences.whole(np.array([0]))[1].tolist()
    rare = next(i for i in range(1, 41) if i not in taken)
    many, target = many_rows(splits, 20)
    popularity = np.zeros(40, dtype=int)
    popularity[[taken[0] - 1, rare - 1]] = 5000, 1
    many = replace(many, catalogue=replace(many.catalogue, popularity=tuple(popularity.tolist())))
    sets = sample_candidates(many, "test", size=3, negatives="popularity")
    assert all({target, rare} < set(row) for row in sets.tolist())
    assert len(np.unique(sets)) > 10  # the third is one of those never seen


@pytest.mark.parametrize(
    ("options", "message"),
    [({"negatives": "hard"}, r"uniform, popularity \(got 'hard'\)"), ({"size": 1}, r"at least 2.*\(got 1\)")],
)
def test_bad_options_are_refused(splits: SequenceSplits, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_candidates(splits, "test", **options)


def test_with_candidates_adds_the_column_and_says_so(splits: SequenceSplits) -> None:
    with_sets = splits.with_candidates(size=8, seed=2, negatives="popularity")
    expected = sample_candidates(splits, "test", size=8, seed=2, negatives="popularity")
    assert with_sets.test.to_dataset()["candidates"][:] == expected.tolist()
    assert with_sets.test.candidate_sets().tolist() == expected.tolist()
    assert with_sets.validation.candidates is not None
    assert with_sets.train.candidates is None
    assert splits.test.candidates is None
    added = {k: v for k, v in with_sets.protocol.items() if k not in splits.protocol}
    assert added == {"candidates": 8, "candidate_seed": 2, "negatives": "popularity"}
    again = with_sets.with_candidates(size=5)
    assert again.test.candidates.shape[1] == 5
