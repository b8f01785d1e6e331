from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from fair_rec import (
    ItemGroups,
    Lists,
    as_lists,
    average_popularity,
    column_groups,
    compare_unfairness,
    coverage,
    dgu,
    exposure,
    gini,
    group_proportions,
    group_unfairness,
    groups_of,
    mgu,
    popularity_groups,
    unfairness_report,
)
from predilect.data import Catalogue

GENRES = groups_of([("a", "b"), ("a",), ("c",), ("b", "c"), None], "genre")
LISTS = Lists(np.array([[1, 3, 2], [4, 5, 0]]), np.array([7, 9]), 5)


def test_a_hand_counted_example_with_several_genres() -> None:
    # first list at k = 2: 1 (a, b), 3 (c); second: 4 (b, c), 5 (none): a 1, b 2, c 2
    assert group_proportions(LISTS, GENRES, 2).tolist() == [1 / 5, 2 / 5, 2 / 5]
    # at k = 3 item 2 (a) is added, and the end of the second list counts nothing
    assert group_proportions(LISTS, GENRES, 3).tolist() == [2 / 6, 2 / 6, 2 / 6]
    unfairness = group_unfairness(LISTS, GENRES, np.array([0.5, 0.25, 0.25]), 2)
    assert unfairness == pytest.approx([-0.3, 0.15, 0.15])
    assert mgu(unfairness) == pytest.approx(0.2)
    assert dgu(unfairness) == pytest.approx(0.45)


def test_fractional_counting_gives_every_item_one_vote() -> None:
    parts = groups_of([("a", "b"), ("a",), ("c",), ("b", "c"), None], "genre", counting="fractional")
    assert group_proportions(LISTS, parts, 2) == pytest.approx([0.5 / 3, 1 / 3, 1.5 / 3])


def test_exposure_discounts_places() -> None:
    first, second = 1.0, 1 / np.log2(3)
    mass = np.array([first, first + first, second + first])  # 1: a, b; 3: c at place 2; 4: b, c
    assert exposure(LISTS, GENRES, 2) == pytest.approx(mass / mass.sum())


def test_what_else_is_asked_of_lists() -> None:
    assert coverage(LISTS, 1) == 2 / 5
    assert average_popularity(LISTS, np.array([10, 20, 30, 40, 50]), 2) == (10 + 30 + 40 + 50) / 4
    assert gini(LISTS, 1) == pytest.approx(((2 * 4 - 6) + (2 * 5 - 6)) / (5 * 2))
    assert gini(Lists(np.array([[1, 2, 3, 4, 5]]), np.array([0]), 5), 5) == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_unfairness_sums_to_zero_and_the_order_of_users_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(8)[:4] + 1 for _ in range(6)])
    groups = groups_of([["x", "y", "z"][i] for i in np.r_[0, 1, 2, rng.integers(3, size=5)]], "g")
    reference = rng.dirichlet(np.ones(3))
    lists = Lists(items, np.arange(6), 8)
    unfairness = group_unfairness(lists, groups, reference, 3)
    assert unfairness.sum() == pytest.approx(0, abs=1e-12)
    order = rng.permutation(6)
    again = Lists(items[order], order, 8)
    assert group_unfairness(again, groups, reference, 3) == pytest.approx(unfairness)


def test_lists_that_mirror_the_reference_are_fair() -> None:
    groups = popularity_groups(np.arange(10), 5)
    lists = Lists(np.arange(1, 11)[None, :], np.array([0]), 10)
    assert mgu(group_unfairness(lists, groups, np.full(5, 0.2), 10)) == pytest.approx(0)


def test_popularity_groups_are_equally_large_and_ascending() -> None:
    groups = popularity_groups(np.array([5, 1, 9, 9, 0, 3, 2]), 3)
    assert groups.membership[1:].sum(axis=0).tolist() == [3, 2, 2]
    assert np.flatnonzero(groups.membership[:, 0]).tolist() == [2, 5, 7]
    assert np.flatnonzero(groups.membership[:, 2]).tolist() == [3, 4]


def test_intersections_multiply() -> None:
    both = GENRES & popularity_groups(np.array([1, 2, 3, 4, 5]), 2)
    assert both.labels == ("a & 1 least popular", "b & 1 least popular", "b & 2 most popular", "c & 1 least popular",
                           "c & 2 most popular")  # fmt: skip
    assert both.membership[4].tolist() == [0, 0, 1, 0, 1]


def by_resampling(lists: Lists, groups: ItemGroups, k: int, draws: int, seed: int) -> np.ndarray:
    """The slow way: resample users, write their lists out, count."""
    rng, users = np.random.default_rng(seed), np.unique(lists.user)
    found = []
    for _ in range(draws):
        rows = np.concatenate([np.flatnonzero(lists.user == u) for u in rng.choice(users, len(users))])
        counted = groups.membership[lists.items[rows, :k]].sum(axis=(0, 1))
        found.append(counted / counted.sum())
    return np.array(found)


def test_intervals_are_those_of_resampled_lists() -> None:
    rng = np.random.default_rng(0)
    items = np.stack([rng.permutation(20)[:5] + 1 for _ in range(90)])
    lists, groups = Lists(items, np.arange(90) // 3, 20), popularity_groups(np.arange(20), 2)
    report = unfairness_report(lists, groups, np.array([0.5, 0.5]), [5], bootstrap=4000)
    slow = by_resampling(lists, groups, 5, 4000, 1) - 0.5
    row = report[report.group == groups.labels[0]].iloc[0]
    assert (row.low, row.high) == pytest.approx(np.quantile(slow[:, 0], [0.025, 0.975]), abs=0.006)
    fairest = report[report.group == "MGU"].iloc[0]
    assert (fairest.low, fairest.high) == pytest.approx(np.quantile(np.abs(slow).mean(1), [0.025, 0.975]), abs=0.006)


def test_paired_differences_of_equal_lists_are_zero() -> None:
    rng = np.random.default_rng(1)
    items = np.stack([rng.permutation(10)[:4] + 1 for _ in range(30)])
    one, groups = Lists(items, np.arange(30), 10), popularity_groups(np.arange(10), 5)
    same = compare_unfairness(one, one, groups, np.full(5, 0.2), 4)
    assert (same[["difference", "low", "high"]] == 0).all(axis=None)
    skewed = Lists(np.tile(np.arange(7, 11), (30, 1)), np.arange(30), 10)
    worse = compare_unfairness(skewed, one, groups, np.full(5, 0.2), 4)
    assert (worse.low > 0).all()


@pytest.mark.parametrize("kind", ["dict", "arrow", "datasets", "pandas", "long"])
def test_lists_come_from_any_table(kind: str) -> None:
    rows = {"user_id": [7, 9], "top": [[1, 3, 2], [4, 5]]}
    long = {"user_id": [9, 7, 7, 9, 7], "item_id": [5, 2, 1, 4, 3], "rank": [2, 3, 1, 1, 2]}
    table: Any = {
        "dict": lambda: rows,
        "arrow": lambda: pa.table(rows),
        "datasets": lambda: Dataset.from_dict(rows),
        "pandas": lambda: pa.table(rows).to_pandas(),
        "long": lambda: long,
    }[kind]()
    lists = as_lists(table, num_items=5)
    order = np.argsort(lists.user)
    assert lists.items[order].tolist() == LISTS.items.tolist()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Lists(np.array([[1, 1]]), np.array([3]), 5), "user 3.*holds the item 1 twice"),
        (lambda: Lists(np.array([[1, 6]]), np.array([3]), 5), "item 6, which is not in 1..5"),
        (lambda: Lists(np.array([[0, 1]]), np.array([3]), 5), "has a gap"),
        (lambda: as_lists({"user_id": [1], "list": [[1]]}, num_items=5), "lacks a column of items.*user_id, list"),
        (lambda: as_lists([[1]]), "Pass catalogue or num_items"),
        (lambda: group_proportions(LISTS, GENRES, 4), "k must be in 1..3"),
        (lambda: group_unfairness(LISTS, GENRES, np.array([0.5, 0.5, 0.5]), 2), "sum to 1"),
        (lambda: unfairness_report(Lists(np.array([[1]]), np.array([0]), 5), GENRES, np.full(3, 1 / 3), [1]),
         "at least two users"),
        (lambda: groups_of({1: "a", 9: "b"}, "mine", num_items=2), "mine lacks items .2."),
        (lambda: groups_of([None, None], "mine"), "no item has a group in mine"),
        (lambda: popularity_groups(np.arange(3), 9), "in 2..3"),
        (lambda: ItemGroups("x", ("a", "b"), np.array([[0, 0], [1, 0]])), "groups of x without items: b"),
    ],
)  # fmt: skip
def test_bad_input_is_named(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_resample_without_any_group_is_drawn_without_it() -> None:
    lists = Lists(np.array([[1], [5], [5]]), np.arange(3), 5)  # only one of three users has an item with a group
    report = unfairness_report(lists, GENRES, np.full(3, 1 / 3), [1], bootstrap=200)
    assert report[["low", "high"]].notna().all(axis=None)


def test_a_group_is_a_cell_or_rows_of_its_item() -> None:
    import pandas as pd

    catalogue = Catalogue(("x", "y", "z"), ("", "", ""), ((), (), ()))
    table = pd.DataFrame({"item_id": ["y", "x", "x", "z"], "by": ["b", "a", "b", None]})
    long = column_groups(table, "by", catalogue)
    assert long.labels == ("a", "b")
    assert long.membership.tolist() == [[0, 0], [1, 1], [0, 1], [0, 0]]
    cells = pd.DataFrame({"item_id": ["y", "x", "z"], "by": ["b", "a; b", ""]})
    short = column_groups(cells, "by", catalogue, separator=";", counting="fractional")
    assert short.membership.tolist() == [[0, 0], [0.5, 0.5], [0, 1], [0, 0]]
    lists = pd.DataFrame({"item_id": ["y", "x", "z"], "by": [["b"], ["a", "b"], []]})
    assert column_groups(lists, "by", catalogue).membership.tolist() == long.membership.tolist()
