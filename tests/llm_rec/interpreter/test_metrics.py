from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from llm_rec.interpreter.metrics import histogram, kendall_tau, naming_row, recovery_row, summary
from llm_rec.interpreter.titles import Reading


def test_recovery_by_hand() -> None:
    # history 1 2 3 4; the text names 4, 9, 2, 1, 9 and one entry that is no title: recovered 4 2 1, invented 9
    row = recovery_row([1, 2, 3, 4], Reading([4, 9, 2, 1, 9], entries=6, unknown=1))
    assert row["recovered"] == 3
    assert row["recovered_share"] == 0.75
    assert row["named"] == 4
    assert row["hallucinated"] == 0.25
    assert row["unknown"] == pytest.approx(1 / 6)
    assert row["order"] == -1.0  # places 3, 1, 0: all three pairs the wrong way round
    assert row["exact"] == 0


def test_a_perfect_text_and_an_empty_one() -> None:
    perfect = recovery_row([5, 2, 9], Reading([5, 2, 9], 3, 0))
    assert perfect == {
        "recovered": 3, "recovered_share": 1, "named": 3, "hallucinated": 0, "unknown": 0, "order": 1, "exact": 1
    }  # fmt: skip
    silent = recovery_row([5, 2, 9], Reading([], 0, 0))
    assert [silent[name] for name in ("recovered", "named", "exact")] == [0, 0, 0]
    assert all(math.isnan(silent[name]) for name in ("hallucinated", "unknown", "order"))


def test_items_that_come_again_count_once_at_their_first_place() -> None:
    row = recovery_row([7, 8, 7], Reading([8, 7, 8], 3, 0))
    assert (row["recovered"], row["recovered_share"], row["named"], row["order"]) == (2, 1.0, 2, -1.0)
    assert recovery_row([7, 8, 7], Reading([7, 8, 7], 3, 0))["exact"] == 1


def test_the_order_of_one_item_is_not_defined_and_an_empty_history_refused() -> None:
    assert math.isnan(recovery_row([1, 2], Reading([2], 1, 0))["order"])
    with pytest.raises(ValueError, match="nothing to recover"):
        recovery_row([], Reading([2], 1, 0))


@pytest.mark.parametrize(
    ("places", "tau"), [([0, 1, 2, 3], 1.0), ([3, 2, 1, 0], -1.0), ([1, 0, 3, 2], 1 / 3), ([2, 0, 1], -1 / 3)]
)
def test_kendall_by_hand(places: list[int], tau: float) -> None:
    assert kendall_tau(places) == pytest.approx(tau)


@given(st.permutations(range(7)))
def test_kendall_equals_scipy(places: list[int]) -> None:
    assert kendall_tau(places) == pytest.approx(kendalltau(range(7), places).statistic)


def test_naming_by_hand() -> None:
    assert naming_row(3, 3, Reading([3], 1, 0)) == {"exact": 1, "contained": 1, "valid": 1}
    assert naming_row(3, 4, Reading([4], 1, 0)) == {"exact": 0, "contained": 0, "valid": 1}
    assert naming_row(3, None, Reading([5, 3], 1, 0)) == {"exact": 0, "contained": 1, "valid": 0}


def test_summary_leaves_undefined_rows_out_and_says_how_many_remain() -> None:
    rows = [{"a": 1.0, "b": math.nan}, {"a": 3.0, "b": 0.5}, {"a": 2.0, "b": 1.0}]
    found = summary(rows, np.array([1, 2, 3]), resamples=200)
    assert (found["a"], found["b"], found["b_rows"]) == (2.0, 0.75, 2)
    assert "a_rows" not in found
    assert found["a_low"] < 2.0 < found["a_high"]
    assert 0.5 <= found["b_low"] < found["b_high"] <= 1.0
    assert set(summary(rows, np.array([1, 2, 3]), resamples=0)) == {"a", "b", "b_rows"}


def test_a_metric_without_rows_is_nan_and_one_of_a_single_user_has_no_interval() -> None:
    rows = [{"a": math.nan, "b": math.nan}, {"a": math.nan, "b": 0.5}]
    found = summary(rows, np.array([1, 2]))
    assert math.isnan(found["a"])
    assert (found["a_rows"], found["b"], found["b_rows"]) == (0, 0.5, 1)
    assert "b_low" not in found


def test_intervals_resample_users() -> None:
    values = [0.0] * 30 + [1.0] * 30
    rows = [{"a": value} for value in values]
    by_row = summary(rows, np.arange(60))
    by_user = summary(rows, np.repeat(np.arange(6), 10))
    assert by_user["a_high"] - by_user["a_low"] > 1.5 * (by_row["a_high"] - by_row["a_low"])


def test_histogram_by_hand() -> None:
    assert histogram([0, 2, 2, 1], 3) == {"recovered=0": 1, "recovered=1": 1, "recovered=2": 2, "recovered=3": 0}
