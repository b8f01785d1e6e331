"""Speed scripts, run as people run them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def quick_speed(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Run a script of `benchmarks.speed` with `--quick` in a process of its own; returns what it wrote."""

    def run(script: str) -> dict[str, Any]:
        command = ["-m", f"benchmarks.speed.{script}", "--quick", "--output", tmp_path]
        forked.run(command, cwd=ROOT, check=True)
        result: dict[str, Any] = json.loads((tmp_path / f"{script}.json").read_text())
        return result

    return run
