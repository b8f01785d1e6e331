from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.slow
def test_quick_run_writes_every_case(quick_speed: Callable[[str], dict[str, Any]]) -> None:
    result = quick_speed("dreamrec")  # it stops where two sides differ
    assert set(result) == {"name", "command", "date", "hardware", "versions", "data", "rows"}
    goals = [(row["case"].split(",")[0], row["baseline_is"].split(",")[0], row["goal"]) for row in result["rows"]]
    assert goals == [
        ("sampling", "published procedure", 30),
        ("sampling", "published procedure", 3),
        ("training step", "published procedure", 1.5),
        ("training step", "published procedure", 1.5),
        ("ranking 2000 items for 256 histories in chunks", "limit", 1),
    ]
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in result["rows"])
