"""The schema check finds each planted fault, and nothing in clean tables."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from predilect.data import DataError, SchemaReport
from predilect.data.schema import Problem, check, require

LOG: dict[str, list[Any]] = {
    "user_id": [1, 1, 2, 2],
    "item_id": ["a", "b", "a", "c"],
    "timestamp": [10, 20, 10, 30],
    "rating": [5.0, 4.0, 3.0, 2.0],
}
ITEMS: dict[str, list[Any]] = {"item_id": ["a", "b", "c", "d"], "title": ["A", "B", "C", ""], "categories": [[]] * 4}


def test_clean_tables_have_no_problem() -> None:
    """An untitled item that nobody took is none."""
    report = check(pa.table(LOG), pa.table(ITEMS))
    assert report.problems == ()
    assert str(report) == "no problems found"


@pytest.mark.parametrize(
    ("log", "items", "kind", "severity", "count", "example"),
    [
        ({"user_id": [1, None, 2, 2]}, {}, "missing user_id", "error", 1, "row 2: user_id None, item_id 'b'"),
        ({"item_id": ["a", " ", "a", "c"]}, {}, "missing item_id", "error", 1, "row 2"),
        ({"timestamp": [10.0, float("nan"), 10.0, 30.0]}, {}, "missing time", "error", 1, "row 2"),
        ({"timestamp": [10, 20, None, 30]}, {}, "missing time", "error", 1, "row 3"),
        ({"timestamp": [-5, 20, 10, 30]}, {}, "negative time", "error", 1, "timestamp -5"),
        ({"timestamp": [10, 20, 10, 1_400_000_000_000]}, {}, "time beyond the year 5000", "error", 1, "row 4"),
        ({"timestamp": [20, 10, 10, 30]}, {}, "time goes back within a user", "warning", 1, "row 2"),
        ({"rating": [5.0, float("nan"), 3.0, 2.0]}, {}, "missing rating", "error", 1, "row 2"),
        ({"item_id": ["a", "a", "a", "c"], "timestamp": [1, 1, 1, 1]}, {}, "duplicate row", "error", 1, "row 2"),
        (
            {"item_id": ["a", "z", "z", "c"]},
            {},
            "item not in the item table",
            "error",
            2,
            "row 2: user_id 1, item_id 'z'",
        ),
        ({}, {"title": ["A", "", "C", "D"]}, "item without a title", "error", 1, "item_id 'b'"),
        ({}, {"title": ["A", None, "C", "D"]}, "item without a title", "error", 1, "item_id 'b'"),
        ({}, {"title": ["A", "B", "A", "B"]}, "two items with one title", "warning", 2, "row 1: title 'A'"),
        ({}, {"item_id": ["a", "b", "c", "c"]}, "id twice in the item table", "error", 1, "row 4: item_id 'c'"),
        ({}, {"item_id": ["a", "b", "c", None]}, "missing item_id", "error", 1, "row 4"),
        ({}, {"title": [""] * 4}, "no titles", "warning", 1, "no titles"),
    ],
)
def test_each_fault_is_found_alone(
    log: dict[str, list[Any]], items: dict[str, list[Any]], kind: str, severity: str, count: int, example: str
) -> None:
    report = check(pa.table({**LOG, **log}), pa.table({**ITEMS, **items}))
    assert [p.kind for p in report.problems] == [kind]
    problem = report.problems[0]
    assert (problem.severity, problem.count) == (severity, count)
    assert example in problem.examples[0]
    assert kind in str(report)


def test_an_unknown_item_is_not_taken_for_an_untitled_one() -> None:
    items = {**ITEMS, "item_id": ["d", "a", "b", "z"], "title": ["", "A", "B", "Z"]}
    report = check(pa.table(LOG), pa.table(items))
    assert [(p.kind, p.count) for p in report.problems] == [("item not in the item table", 1)]


def test_events_at_one_time_are_no_duplicates_if_they_differ_in_kind() -> None:
    log = {"user_id": [1, 1, 1], "item_id": [1, 1, 1], "timestamp": [5, 5, 5]}
    assert check(pa.table(log)).find("duplicate row").rows.tolist() == [1, 2]
    assert check(pa.table({**log, "event": ["view", "buy", "view"]})).find("duplicate row").rows.tolist() == [2]


def test_a_missing_column_is_named_with_the_way_out() -> None:
    with pytest.raises(DataError, match=r"interactions lack the column item_id \(got user_id, sku\): .*columns=") as e:
        check(pa.table({"user_id": [1], "sku": [2]}))
    assert e.value.report.find("missing column").examples == ("item_id",)
    with pytest.raises(DataError, match="items lack the column item_id"):
        check(pa.table(LOG), pa.table({"title": ["x"]}))


def test_the_report_puts_errors_first_and_collects_rows() -> None:
    log = {**LOG, "timestamp": [20, 10, -1, None]}
    broken = Problem("broken line", "error", 2, ("x.csv line 7: why",))
    report = check(pa.table(log), pa.table(ITEMS), found=[broken])
    assert [p.severity for p in report.problems] == ["error", "error", "error", "warning"]
    assert report.faulty_rows("interactions").tolist() == [2, 3]
    assert report.faulty_rows("items").tolist() == []
    assert {p.kind for p in report.warnings} == {"time goes back within a user"}
    with pytest.raises(DataError, match=r"mine has 4 errors:\n(.|\n)*x.csv line 7: why(.|\n)*repair the files"):
        require(report, "mine")


def test_only_the_first_examples_are_kept() -> None:
    log = pa.table({"user_id": [1] * 30, "item_id": list(range(30)), "timestamp": [-1] * 30})
    problem = check(log).find("negative time")
    assert problem.count == 30
    assert len(problem.examples) == 5


def test_nothing_found_by_kind() -> None:
    assert SchemaReport().find("broken line") is None
