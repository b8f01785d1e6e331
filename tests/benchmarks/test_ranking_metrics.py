from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def test_quick_run_writes_one_result_beside_the_committed_ones(quick_speed: Callable[[str], dict[str, Any]]) -> None:
    committed = ROOT / "benchmarks" / "results" / "speed" / "ranking_metrics.json"
    before = committed.read_text()
    result = quick_speed("ranking_metrics")
    assert committed.read_text() == before
    assert set(result) == {"name", "command", "date", "hardware", "versions", "data", "rows"}
    assert result["command"] == "python -m benchmarks.speed.ranking_metrics --quick"
    assert len(result["rows"]) == 3
    for row in result["rows"]:
        assert set(row) == {"case", "ours", "baseline", "unit", "ratio", "goal", "baseline_is"}
        assert abs(row["ratio"] / (row["baseline"] / row["ours"]) - 1) < 0.01
