from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.slow
def test_quick_run_writes_every_case(quick_speed: Callable[[str], dict[str, Any]]) -> None:
    result = quick_speed("llm_rec")  # it stops where two sides differ
    assert set(result) == {"name", "command", "date", "hardware", "versions", "data", "rows"}
    goals = [(row["case"].split(",")[0], row["baseline_is"].split(",")[0], row["goal"]) for row in result["rows"]]
    assert goals == [
        ("20 candidates ranked", "one row per candidate", 8),
        ("20 candidates ranked", "published procedure", 0.8),
        ("20 candidates ranked", "published procedure", 0.8),
        ("one title by greedy search", "published procedure", 1.3),
        ("one title by greedy search", "published procedure", 1.3),
        ("72 films ranked for one person", "one row per film (72 timed", 10),
        ("72 films ranked for one person", "one row per film (72 timed", 10),
        ("72 films", "every title computed by itself", 1),
        ("10 beams along 72 titles", "beams without constraint", 0.769),
    ]
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in result["rows"])
