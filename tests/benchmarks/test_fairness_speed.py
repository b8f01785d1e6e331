from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.slow
def test_quick_run_writes_every_case(quick_speed: Callable[[str], dict[str, Any]]) -> None:
    result = quick_speed("fairness")  # it stops where shares are no shares
    goals = [(row["case"].split(",")[0].split(" at ")[0], row["baseline_is"], row["goal"]) for row in result["rows"]]
    assert goals == [
        ("all metrics", "making the lists from scores of 500 items", 1),
        ("intervals of 1", "one pass without intervals", 0.05),
        ("re-ranking 200 lists of 100 candidates by prices", "sorting the candidates", 0.1),
    ]
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in result["rows"])
