from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_quick_run_writes_one_result_beside_the_committed_ones(tmp_path: Path) -> None:
    committed = ROOT / "benchmarks" / "results" / "speed" / "ranking_metrics.json"
    before = committed.read_text()
    command = [sys.executable, "-m", "benchmarks.speed.ranking_metrics", "--quick", "--output", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert committed.read_text() == before
    result = json.loads((tmp_path / "ranking_metrics.json").read_text())
    assert set(result) == {"name", "command", "date", "hardware", "versions", "data", "rows"}
    assert result["command"] == "python -m benchmarks.speed.ranking_metrics --quick"
    assert len(result["rows"]) == 3
    for row in result["rows"]:
        assert set(row) == {"case", "ours", "baseline", "unit", "ratio", "goal", "baseline_is"}
        assert abs(row["ratio"] / (row["baseline"] / row["ours"]) - 1) < 0.01
