from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_quick_run_writes_every_case(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.speed.offline_rl", "--quick", "--output", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    result = json.loads((tmp_path / "offline_rl.json").read_text())
    goals = [(row["case"].split(",")[0], row["goal"]) for row in result["rows"]]
    assert goals == [
        ("a step of MCRL on sasrec", 0.5),
        ("a step of MCRL on gru4rec", 0.5),
        ("memory of the conservative loss by its states", 20),
        ("8 environments of logit users", 20),
        ("8 environments of logit users", 1),
        ("8 environments of transition users", 20),
        ("8 environments of transition users", 1),
    ]
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in result["rows"])
