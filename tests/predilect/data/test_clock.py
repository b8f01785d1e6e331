"""Units of times, and the order of rows that share user and time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predilect.data import RecDataset, load
from predilect.data.clock import in_seconds


def tied(users: int = 40, length: int = 6) -> pa.Table:
    """Every user takes `length` items at one moment, in ascending id, then one more."""
    user, item = np.divmod(np.arange(users * (length + 1)), length + 1)
    return pa.table({"user_id": user, "item_id": item, "timestamp": 1000 * user + (item == length)})


def sequences(data: RecDataset) -> list[list[int]]:
    splits = data.split("leave_one_out")
    own = splits.sequences
    return [own.items[a:b].tolist() for a, b in zip(own.offsets[:-1], own.offsets[1:], strict=True)]


def test_ties_keep_the_order_of_the_file_or_get_one_that_is_drawn() -> None:
    kept = RecDataset.from_raw(tied())
    assert sequences(kept) == [[1, 2, 3, 4, 5, 6, 7]] * 40
    drawn = sequences(RecDataset.from_raw(tied(), ties="random"))
    assert all(s[-1] == 7 and sorted(s) == [1, 2, 3, 4, 5, 6, 7] for s in drawn)
    first = Counter(s[0] for s in drawn)
    assert max(first.values()) < 20  # of 40 users; in the file all begin with item 1
    assert drawn == sequences(RecDataset.from_raw(tied(), ties="random"))
    assert drawn != sequences(RecDataset.from_raw(tied(), ties="random", ties_seed=1))
    with pytest.raises(ValueError, match=r"ties must be .* \(got 'first'\)"):
        RecDataset.from_raw(tied(), ties="first")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40), st.integers(0, 5))
def test_a_drawn_order_moves_rows_among_the_places_of_their_ties_only(pairs: list[tuple[int, int]], seed: int) -> None:
    user, time = np.array(pairs).T
    log = pa.table({"user_id": user, "item_id": np.arange(len(pairs)), "timestamp": time})
    before = RecDataset.from_raw(log).interactions.to_dict()
    after = RecDataset.from_raw(log, ties="random", ties_seed=seed).interactions.to_dict()
    assert after["user_id"] == before["user_id"]
    assert after["timestamp"] == before["timestamp"]
    groups = [set(zip(d["user_id"], d["timestamp"], d["item_id"], strict=True)) for d in (before, after)]
    assert groups[0] == groups[1]


def test_many_ties_are_reported_and_results_name_the_order(tmp_path: Path) -> None:
    data = RecDataset.from_raw(tied(), ties="random", ties_seed=3)
    told = data.report.find("equal times")
    assert (told.severity, told.count) == ("warning", 240)
    assert "86% of the rows share user and time" in told.examples[0]
    assert "in which 100% of their item ids ascend" in told.examples[0]
    assert data.k_core(2).split("leave_one_out").protocol["ties"] == "random, seed 3"
    data.save(tmp_path / "saved")
    assert load(tmp_path / "saved").split("leave_one_out").protocol["ties"] == "random, seed 3"
    assert RecDataset.from_raw(tied()).split("leave_one_out").protocol["ties"] == "file"
    few = RecDataset.from_raw(tied(length=1))
    assert (few.ties, few.report.find("equal times")) == ("", None)


def test_a_finer_clock_unties(tmp_path: Path) -> None:
    log = pa.table({"user_id": [1, 1, 1], "item_id": [3, 2, 1], "timestamp": [1.5, 1.25, 1.0]})
    data = RecDataset.from_raw(log, ties="random")
    assert (data.ties, sequences_of_one(data)) == ("", [1, 2, 3])


def sequences_of_one(data: RecDataset) -> list[int]:
    return list(data.interactions["item_id"][:])


@given(st.lists(st.integers(100_000_001, 99_999_999_999), min_size=1, max_size=9))
@pytest.mark.parametrize("factor", [1_000, 1_000_000, 1_000_000_000])
def test_the_unit_is_known_from_1973_to_5138(factor: int, seconds: list[int]) -> None:
    times = [s * factor for s in seconds if s * factor < 2**63] or [100_000_001 * factor]
    log, found = in_seconds(pa.table({"timestamp": pa.array(times, pa.int64())}))
    assert np.allclose(log["timestamp"].to_numpy(), np.array(times) / factor, rtol=1e-12)
    assert len(found) == 1
    small, none = in_seconds(pa.table({"timestamp": seconds}))
    assert (small["timestamp"].to_pylist(), none) == (seconds, [])
