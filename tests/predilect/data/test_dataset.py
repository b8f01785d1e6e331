"""`RecDataset`: numbering, k-core, saving, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from predilect.data import DataError, RecDataset, StepCount, load


def test_ids_are_numbered_in_the_order_of_the_raw_ids() -> None:
    log = pa.table({"user_id": ["b", "a", "b"], "item_id": ["10", "9", "010"], "timestamp": [3, 1, 2]})
    items = pa.table({"item_id": ["9", "10", "010", "11"], "title": ["Nine", "Ten", "Ten again", "Never taken"]})
    data = RecDataset.from_raw(log, items)
    assert data.interactions["user_id"][:] == [1, 0, 1]
    assert data.interactions["item_id"][:] == [3, 1, 2]  # 9 < 10 as numbers; 010 before 10 as text
    assert data.interactions["rating"][:] == [1.0, 1.0, 1.0]
    assert data.catalogue.raw_ids == ("9", "010", "10")
    assert data.catalogue.titles == ("Nine", "Ten again", "Ten")
    assert data.catalogue.popularity == (1, 1, 1)
    text = RecDataset.from_raw(pa.table({"user_id": [1, 2], "item_id": ["10", "9a"], "timestamp": [1, 2]}))
    assert text.catalogue.raw_ids == ("10", "9a")
    assert not text.catalogue.has_titles


def test_tables_may_be_datasets_in_any_order() -> None:
    log = Dataset.from_dict({"user_id": [5, 6], "item_id": [7, 8], "timestamp": [1, 2]}).select([1, 0])
    assert RecDataset.from_raw(log).interactions["timestamp"][:] == [2, 1]


def test_a_finer_clock_orders_events_of_one_second() -> None:
    log = pa.table({"user_id": [1, 1, 1], "item_id": ["c", "a", "b"], "timestamp": [5.9, 5.1, 5.5]})
    data = RecDataset.from_raw(log)
    assert data.interactions["timestamp"][:] == [5, 5, 5]
    assert [data.catalogue.raw_ids[i - 1] for i in data.interactions["item_id"]] == ["a", "b", "c"]


def test_without_a_clock_the_rows_are_the_order() -> None:
    data = RecDataset.from_raw(pa.table({"user_id": [1, 1, 1], "item_id": [3, 3, 1]}))
    assert data.interactions["timestamp"][:] == [0, 1, 2]
    assert data.report.find("no time") is not None


def test_skip_drops_and_counts() -> None:
    log = pa.table({"user_id": [1, 1, 2, 2], "item_id": [1, 1, 2, 3], "timestamp": [1, 1, 2, -3]})
    with pytest.raises(DataError, match=r'data has 2 errors:\n(.|\n)*on_error="skip"') as caught:
        RecDataset.from_raw(log)
    assert caught.value.report.find("negative time").count == 1
    data = RecDataset.from_raw(log, on_error="skip")
    assert data.counts == (StepCount("read", 4, 2, 3), StepCount("without errors", 2, 2, 2))
    assert data.report.find("duplicate row").count == 1
    with pytest.raises(DataError, match="no interactions without an error"):
        RecDataset.from_raw(log.slice(3), on_error="skip")
    with pytest.raises(ValueError, match=r"got 'ignore'"):
        RecDataset.from_raw(log, on_error="ignore")


def dense(users: list[int], items: list[int]) -> tuple[Dataset, Dataset]:
    n = len(users)
    log = {"user_id": users, "item_id": items, "timestamp": list(range(n)), "rating": [1.0] * n}
    return Dataset.from_dict(log), Dataset.from_dict({"item_id": list(range(1, max([*items, 1]) + 1))})


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        ([0, 2], [1, 2], "user ids of d must be 0..U-1 without a gap: RecDataset.from_raw"),
        ([-1, 0], [1, 2], "user ids of d"),
        ([0, 1], [0, 1], r"outside 1\.\.1"),
        ([], [], "no interactions"),
    ],
)
def test_ids_that_are_not_dense_are_refused(users: list[int], items: list[int], message: str) -> None:
    log, catalogue = dense(users, items)
    with pytest.raises(DataError, match=message):
        RecDataset(log, catalogue, name="d")


def test_bad_tables_are_refused() -> None:
    log, catalogue = dense([0, 1], [1, 2])
    with pytest.raises(DataError, match=r"lacks the column rating \(got user_id, item_id, timestamp\)"):
        RecDataset(log.remove_columns("rating"), catalogue, name="d")
    with pytest.raises(DataError, match=r"must be 1\.\.2 in order"):
        RecDataset(log, Dataset.from_dict({"item_id": [2, 1]}), name="d")


def test_k_core_of_movietweetings() -> None:
    data = load()
    assert data.counts == (StepCount("read", 100_000, 16_554, 10_506),)
    core = data.k_core(5)
    assert core.counts == (*data.counts, StepCount("5-core", 68_055, 4_333, 2_414))
    assert core.split().protocol["k_core"] == 5
    toy = core.catalogue.resolve(["Man of Steel (2013)"])[0]
    assert core.items[toy - 1]["year"] == 2013
    assert core.catalogue.popularity[toy - 1] == core.interactions["item_id"][:].count(toy)


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 7)), min_size=1, max_size=60, unique=True),
    k=st.integers(1, 4),
)
def test_k_core_is_the_largest_fixpoint(pairs: list[tuple[int, int]], k: int) -> None:
    log = pa.table({"user_id": [p[0] for p in pairs], "item_id": [p[1] for p in pairs]})
    data = RecDataset.from_raw(log)
    kept = set(pairs)
    while True:  # an oracle that removes one pair at a time
        low = [(u, i) for u, i in kept if sum(p[0] == u for p in kept) < k or sum(p[1] == i for p in kept) < k]
        if not low:
            break
        kept.discard(low[0])
    if not kept:
        with pytest.raises(ValueError, match=f"{k}-core of data is empty"):
            data.k_core(k)
        return
    core = data.k_core(k)
    assert len(core.interactions) == len(kept)
    users, items = np.array(core.interactions["user_id"][:]), np.array(core.interactions["item_id"][:])
    assert set(users) == set(range(len({u for u, _ in kept})))
    assert set(items) == set(range(1, len({i for _, i in kept}) + 1))
    assert set(core.catalogue.raw_ids) == {str(i) for _, i in kept}
    assert [core.catalogue.raw_ids[i - 1] for i in items] == [str(i) for u, i in pairs if (u, i) in kept]
    assert core.k_core(k).counts[-1] == core.counts[-1]


def test_k_core_refuses_zero() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        load().k_core(0)


def test_saved_data_comes_back_identically(tmp_path: Path) -> None:
    log = pa.table(
        {
            "user_id": ["a", "a", "b"],
            "item_id": ["x", "y", "x"],
            "timestamp": [1, 2, 3],
            "rating": [4.5, 1.0, 2.0],
            "event": ["click", "buy", "click"],
            "split": ["train", "validation", "test"],
        }
    )
    items = pa.table(
        {"item_id": ["x", "y"], "title": ["Film", "Film"], "categories": [["a", "b"], []], "year": [1, 2]}
    )
    data = RecDataset.from_raw(log, items, name="kept").k_core(1)
    data.save(tmp_path / "data")
    back = load(tmp_path / "data")
    assert back.interactions.to_dict() == data.interactions.to_dict()
    assert back.interactions.features == data.interactions.features
    assert back.items.to_dict() == data.items.to_dict()
    assert back.items.features == data.items.features
    assert (back.name, back.counts, back.report, back.k) == (data.name, data.counts, data.report, data.k)
    assert back.catalogue == data.catalogue
    assert back.report.find("two items with one title").count == 2
