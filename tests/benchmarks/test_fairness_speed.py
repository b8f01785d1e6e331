from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_quick_run_writes_every_case(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.speed.fairness", "--quick", "--output", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # it stops where shares are no shares
    result = json.loads((tmp_path / "fairness.json").read_text())
    goals = [(row["case"].split(",")[0].split(" at ")[0], row["baseline_is"], row["goal"]) for row in result["rows"]]
    assert goals == [
        ("all metrics", "making the lists from scores of 500 items", 1),
        ("intervals of 1", "one pass without intervals", 0.05),
        ("re-ranking 200 lists of 100 candidates by prices", "sorting the candidates", 0.1),
    ]
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in result["rows"])
