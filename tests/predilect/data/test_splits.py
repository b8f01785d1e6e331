"""Splits on hand-made and generated logs: parts, histories, no leak."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from predilect.data import RecDataset, SequenceSplits
from predilect.data.splits import PARTS


def make(users: list[int], items: list[int], times: list[int], split: list[str] | None = None) -> RecDataset:
    """A data set whose raw ids are renumbered densely."""
    user = np.unique(users, return_inverse=True)[1].tolist()
    item = (np.unique(items, return_inverse=True)[1] + 1).tolist()
    columns = {"user_id": user, "item_id": item, "timestamp": times, "rating": [1.0] * len(user)}
    if split is not None:
        columns["split"] = split
    n = max(item)
    catalogue = {"item_id": list(range(1, n + 1)), "raw_id": [f"r{i}" for i in range(1, n + 1)]}
    return RecDataset(Dataset.from_dict(columns), Dataset.from_dict(catalogue), name="made")


def ten_events() -> RecDataset:
    """Two users; user 0 takes items 1..6 at even times, user 1 items 7..10 at odd times; rows are shuffled."""
    rows = [(0, i + 1, 2 * i) for i in range(6)] + [(1, 7 + i, 2 * i + 1) for i in range(4)]
    order = [3, 9, 0, 5, 7, 1, 2, 8, 6, 4]
    return make(*(list(column) for column in zip(*(rows[i] for i in order), strict=True)))


def rows_of(splits: SequenceSplits, part: str) -> list[tuple[int, list[int], int, int, int]]:
    return [
        (r["user_id"], r["history"], r["target"], r["timestamp"], r["position"])
        for r in splits.part(part).to_dataset()
    ]


def test_temporal_by_hand() -> None:
    splits = ten_events().split("temporal", ratios=(0.6, 0.2, 0.2), max_history=3)
    # the events in order of time have times 0 1 2 3 4 5 | 6 7 | 8 10
    assert rows_of(splits, "train") == [
        (0, [1], 2, 2, 1),
        (0, [1, 2], 3, 4, 2),
        (1, [7], 8, 3, 1),
        (1, [7, 8], 9, 5, 2),
    ]
    assert rows_of(splits, "validation") == [(0, [1, 2, 3], 4, 6, 3), (1, [7, 8, 9], 10, 7, 3)]
    assert rows_of(splits, "test") == [(0, [2, 3, 4], 5, 8, 4), (0, [3, 4, 5], 6, 10, 5)]
    assert sorted(splits.train_interactions["timestamp"]) == [0, 1, 2, 3, 4, 5]
    assert splits.sequences.items.tolist() == list(range(1, 11))
    assert splits.sequences.offsets.tolist() == [0, 6, 10]
    assert splits.catalogue.popularity == (1, 1, 1, 0, 0, 0, 1, 1, 1, 0)  # training only
    assert [(c.step, c.interactions, c.users, c.items) for c in splits.counts] == [
        ("read", 10, 2, 10),
        ("temporal: train", 4, 2, 4),
        ("temporal: validation", 2, 2, 2),
        ("temporal: test", 2, 1, 2),
    ]


def test_a_temporal_boundary_never_falls_within_one_time() -> None:
    times = [0, 1, 2, 5, 5, 5, 5, 5, 5, 9]
    splits = make([0] * 10, list(range(10)), times).split("temporal", ratios=(0.4, 0.4, 0.2))
    assert splits.train.timestamp.tolist() == [1, 2]
    assert splits.validation.timestamp.tolist() == [5] * 6
    assert splits.test.timestamp.tolist() == [9]


def test_equal_times_keep_the_order_of_the_rows() -> None:
    splits = make([0] * 5, [3, 1, 2, 5, 4], [7, 7, 7, 8, 9]).split("leave_one_out")
    assert splits.test.to_dataset()[0]["history"] == [3, 1, 2, 5]


def test_leave_one_out_by_hand() -> None:
    splits = ten_events().split("leave_one_out")
    assert [(r[0], r[2]) for r in rows_of(splits, "test")] == [(0, 6), (1, 10)]
    assert [(r[0], r[2]) for r in rows_of(splits, "validation")] == [(0, 5), (1, 9)]
    assert [(r[0], r[2]) for r in rows_of(splits, "train")] == [(0, 2), (0, 3), (0, 4), (1, 8)]
    assert sorted(splits.train_interactions["item_id"]) == [1, 2, 3, 4, 7, 8]
    assert splits.protocol["ratios"] is None


def test_by_user_keeps_users_whole_and_follows_the_seed() -> None:
    users = [u for u in range(50) for _ in range(3)]
    data = make(users, list(range(150)), list(range(150)))
    splits = data.split("by_user", seed=3)
    owners = [set(splits.part(p).user.tolist()) for p in PARTS]
    assert [len(o) for o in owners] == [40, 5, 5]
    assert len(set.union(*owners)) == 50
    assert set(splits.train_interactions["user_id"]) == owners[0]
    again, other = data.split("by_user", seed=3), data.split("by_user", seed=4)
    assert again.test.user.tolist() == splits.test.user.tolist()
    assert other.test.user.tolist() != splits.test.user.tolist()
    assert splits.protocol["split_seed"] == 3


def test_official_follows_the_column() -> None:
    data = make([0, 0, 0, 0], [1, 2, 3, 4], [1, 2, 3, 4], ["train", "train", "validation", "test"])
    splits = data.split("official")
    assert [splits.part(p).target.tolist() for p in PARTS] == [[2], [3], [4]]
    with pytest.raises(ValueError, match="no column split"):
        ten_events().split("official")
    bad = make([0, 0], [1, 2], [1, 2], ["train", "holdout"])
    with pytest.raises(ValueError, match=r"may hold train, validation, test \(got holdout\)"):
        bad.split("official")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "random"}, r"temporal, leave_one_out, by_user, official \(got 'random'\)"),
        ({"ratios": (0.8, 0.1, 0.2)}, "sum to 1"),
        ({"ratios": (0.9, 0.1)}, "three positive shares"),
        ({"ratios": (1.0, 0.0, 0.0)}, "three positive shares"),
        ({"max_history": 0}, "max_history must be at least 1"),
        ({"min_history": -1}, "min_history at least 0"),
        ({"min_history": 5, "strategy": "leave_one_out"}, "train part of made has no rows.*min_history 5: give it"),
        ({"strategy": "by_user"}, "part of made has no rows"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ten_events().split(**options)


def test_one_time_for_all_has_no_temporal_split() -> None:
    with pytest.raises(ValueError, match="all events have one time"):
        make([0, 0, 0], [1, 2, 3], [5, 5, 5]).split()


def test_protocol_and_description_name_everything() -> None:
    splits = ten_events().k_core(1).split("temporal", ratios=(0.6, 0.2, 0.2), max_history=3, min_history=2)
    assert splits.protocol == {
        "data": "made",
        "strategy": "temporal",
        "ratios": [0.6, 0.2, 0.2],
        "split_seed": None,
        "k_core": 1,
        "ties": None,
        "max_history": 3,
        "min_history": 2,
    }
    table = splits.describe()
    assert table.row_count == 5
    assert "strategy temporal" in str(table.caption)


events = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 12)), min_size=12, max_size=80)


@settings(max_examples=40, deadline=None)
@given(
    log=events,
    strategy=st.sampled_from(["temporal", "leave_one_out", "by_user"]),
    max_history=st.integers(1, 4),
    min_history=st.integers(0, 2),
)
def test_every_event_is_one_row_and_sees_only_its_past(
    log: list[tuple[int, int, int]], strategy: str, max_history: int, min_history: int
) -> None:
    """An oracle in plain Python: per user, in stable order of time, event p has the history of the items before p."""
    data = make(*(list(column) for column in zip(*log, strict=True)))
    try:
        splits = data.split(strategy, max_history=max_history, min_history=min_history)
    except ValueError:  # too small a log for three parts
        return
    sequences: dict[int, list[tuple[int, int]]] = {}
    rows = list(zip(*(data.interactions[c][:] for c in ("timestamp", "user_id", "item_id")), strict=True))
    for time, user, item in sorted(rows, key=lambda r: r[0]):  # sorted is stable
        sequences.setdefault(user, []).append((time, item))
    expected = {}
    for user, sequence in sequences.items():
        for place in range(min_history, len(sequence)):
            history = [item for _, item in sequence[max(0, place - max_history) : place]]
            expected[user, place] = (history, sequence[place][1], sequence[place][0])
    parts = {p: {(r[0], r[4]): (r[1], r[2], r[3]) for r in rows_of(splits, p)} for p in PARTS}
    assert sum(len(p) for p in parts.values()) == len(expected)
    assert {**parts["train"], **parts["validation"], **parts["test"]} == expected
    if strategy == "temporal":
        last = [max(r[2] for r in parts[p].values()) for p in PARTS]
        first = [min(r[2] for r in parts[p].values()) for p in PARTS]
        assert last[0] < first[1]
        assert last[1] < first[2]
        assert max(splits.train_interactions["timestamp"]) < first[1]
    if strategy == "leave_one_out":
        lengths = {u: len(s) for u, s in sequences.items()}
        assert set(parts["test"]) == {(u, n - 1) for u, n in lengths.items() if n - 1 >= min_history}
        assert set(parts["validation"]) == {(u, n - 2) for u, n in lengths.items() if n - 2 >= min_history}


def test_tensors_pad_on_the_left() -> None:
    rows = ten_events().split("temporal", ratios=(0.6, 0.2, 0.2), max_history=4).train
    assert rows.histories().tolist() == [[0, 0, 0, 1], [0, 0, 1, 2], [0, 0, 0, 7], [0, 0, 7, 8]]
    assert rows.targets().tolist() == [2, 3, 8, 9]
    assert rows.candidate_sets() is None
    assert len(rows) == 4


def test_past_and_whole_of_users() -> None:
    sequences = ten_events().split("leave_one_out").sequences
    row, item = sequences.past(np.array([1, 0]), np.array([2, 1]))
    assert (row.tolist(), item.tolist()) == ([0, 0, 1], [7, 8, 1])
    row, item = sequences.whole(np.array([1]))
    assert (row.tolist(), item.tolist()) == ([0] * 4, [7, 8, 9, 10])


def test_unknown_part() -> None:
    with pytest.raises(ValueError, match=r"got 'valid'"):
        ten_events().split("leave_one_out").part("valid")


def test_no_rows_are_tensors_of_no_rows(tiny_splits) -> None:
    rows = tiny_splits.with_candidates(5).test.select([])
    assert rows.histories().shape == rows.next_histories().shape == (0, rows.max_history)
    assert rows.candidate_sets().shape == (0, 5)
    assert len(rows.seen()[0]) == len(rows.repeat) == 0
