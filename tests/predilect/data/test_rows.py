"""Rows are places in sequences: what is cut from them, by hand and against plain Python."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from predilect.data import RecDataset, SequenceRows, UserSequences
from predilect.data.rows import first_places


def two_users() -> UserSequences:
    """User 0 takes 5, 6, 5, 7; user 1 takes 8, 9."""
    return UserSequences(
        np.array([5, 6, 5, 7, 8, 9], dtype=np.int32),
        np.array([0, 4, 6]),
        timestamp=np.array([10, 20, 30, 40, 15, 25]),
        rating=np.array([1, 2, 3, 4, 5, 0.5], dtype=np.float32),
        event=np.array([0, 1, 0, -1, 1, 0], dtype=np.int32),
        events=("click", "purchase"),
    )


def rows() -> SequenceRows:
    return SequenceRows.at(two_users(), np.array([0, 0, 1, 0]), np.array([1, 3, 1, 2]), max_history=2)


def test_columns_of_the_targets() -> None:
    given = rows()
    assert given.target.tolist() == given.targets().tolist() == [6, 7, 9, 5]
    assert given.timestamp.tolist() == [20, 40, 25, 30]
    assert given.rating.tolist() == [2, 4, 0.5, 3]
    assert given.column("event").tolist() == ["purchase", "", "click", "click"]
    assert given.repeat.tolist() == [False, False, False, True]
    bare = replace(given, sequences=UserSequences(given.sequences.items, given.sequences.offsets))
    assert (bare.rating.tolist(), bare.event, "event" in bare.columns) == ([1] * 4, None, False)
    assert bare.timestamp.tolist() == [1, 3, 5, 2]  # an order


def test_histories_and_next_states() -> None:
    given = rows()
    assert given.histories().tolist() == [[0, 5], [6, 5], [0, 8], [5, 6]]
    assert given.next_histories().tolist() == [[5, 6], [5, 7], [8, 9], [6, 5]]
    assert given.histories([3, 0]).tolist() == [[5, 6], [0, 5]]
    assert given.next_histories(slice(1, 3)).tolist() == [[5, 7], [8, 9]]
    assert given.histories().dtype == torch.int64


def test_the_last_row_of_a_user_is_done_and_stays_so_in_a_selection() -> None:
    given = rows()
    assert given.done.tolist() == [False, True, True, False]
    assert given.select([0, 3]).done.tolist() == [False, False]


def test_selected_rows_bring_all_their_columns() -> None:
    given = replace(rows(), candidates=np.arange(8).reshape(4, 2)).with_weights(np.array([0, 1, 2, 3]))
    given = given.with_column("genre", list("abcd"))
    some = given.select([2, 0])
    assert (some.weight.tolist(), some.candidates.tolist()) == ([2, 0], [[4, 5], [0, 1]])
    assert some.column("genre").tolist() == ["c", "a"]
    assert some.seen()[0].tolist() == [0, 1]
    assert some.seen()[1].tolist() == [8, 5]
    table = some.to_dataset().to_list()
    assert table[0] == {
        "user_id": 1, "history": [8], "target": 9, "timestamp": 25, "position": 1, "rating": 0.5, "event": "click",
        "weight": 2.0, "genre": "c", "candidates": [4, 5],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.with_weights(np.ones(3)), r"weights must be one per row, shape \(4,\) \(got \(3,\)\)"),
        (lambda r: r.with_weights(np.array([1, -1, 1, 1])), r"finite and at least 0 \(got -1.0 in row 1\)"),
        (lambda r: r.with_weights(np.array([1, 1, np.nan, 1])), r"got nan in row 2"),
        (lambda r: r.with_column("genre", [1]), r"values of genre must be one per row"),
        (lambda r: r.with_column("rating", np.ones(4)), r"have a column 'rating': choose another name"),
        (lambda r: r.column("colour"), r"rows have the columns user_id, .*event \(got 'colour'\)"),
    ],
)
def test_bad_columns_are_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call(rows())


def test_events_of_a_log_keep_their_names_in_the_order_of_time() -> None:
    log = {
        "user_id": [0, 0, 0, 0], "item_id": [1, 2, 3, 4], "timestamp": [4, 3, 2, 1], "rating": [1.0, 2.0, 3.0, 4.0],
        "event": ["buy", "view", None, "view"],
    }  # fmt: skip
    data = RecDataset(Dataset.from_dict(log), Dataset.from_dict({"item_id": [1, 2, 3, 4]}), name="shop")
    splits = data.split("leave_one_out")
    assert splits.sequences.items.tolist() == [4, 3, 2, 1]
    names = [*splits.sequences.events, None]
    assert [names[code] for code in splits.sequences.event] == ["view", None, "view", "buy"]
    assert splits.train.column("event").tolist() == [""]
    assert splits.test.column("event").tolist() == ["buy"]
    assert splits.test.rating.tolist() == [1.0]


@settings(max_examples=60, deadline=None)
@given(lists=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=9), min_size=1, max_size=5))
def test_first_places_and_repeats_are_those_of_plain_python(lists: list[list[int]]) -> None:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])])
    sequences = UserSequences(np.array([i for one in lists for i in one], dtype=np.int32), offsets)
    expected = [start + one.index(item) for start, one in zip(offsets, lists, strict=False) for item in one]
    assert first_places(sequences).tolist() == expected
    places = [(user, position) for user, one in enumerate(lists) for position in range(len(one))]
    chosen = np.random.default_rng(0).permutation(len(places))[: max(1, len(places) // 2)]
    user, position = np.array(places)[chosen].T
    found = SequenceRows.at(sequences, user, position, 3).repeat
    assert found.tolist() == [lists[u][p] in lists[u][:p] for u, p in zip(user, position, strict=True)]
