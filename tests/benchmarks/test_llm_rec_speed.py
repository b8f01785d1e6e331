from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_quick_run_writes_every_case(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.speed.llm_rec", "--quick", "--output", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # it stops where two sides differ
    result = json.loads((tmp_path / "llm_rec.json").read_text())
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
