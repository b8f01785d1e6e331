from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_quick_run_writes_every_case(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.speed.dreamrec", "--quick", "--output", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # it stops where two sides differ
    result = json.loads((tmp_path / "dreamrec.json").read_text())
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
