from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RENDER = ROOT / "benchmarks" / "render.py"


def render(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(RENDER), *options], capture_output=True, text=True, check=False)


def test_the_committed_pages_agree_with_the_results() -> None:
    result = render("--check")
    assert result.returncode == 0, result.stderr


ORIGIN = {
    "command": "python x",
    "date": "2026-01-02",
    "hardware": "a laptop",
    "versions": {"torch": "9"},
    "data": "toy",
}
SPEED: dict[str, Any] = {
    "name": "toy",
    **ORIGIN,
    "rows": [
        {"case": "sort", "ours": 0.5, "baseline": 1, "unit": "s", "ratio": 2.0, "goal": 3, "baseline_is": "a | b"},
        {"case": "sum", "ours": 1, "baseline": 4, "unit": "s", "ratio": 4.0, "goal": 3, "baseline_is": "numpy"},
    ],
}
CLAIM: dict[str, Any] = {
    "name": "claim",
    **ORIGIN,
    "paper": "Somebody 2024",
    "claims": [{"claim": "A beats B.", "verdict": "does not hold", "differences": {"A - B": [-0.2, -0.3, -0.1]}}],
    "environments": [{"hardware": "a cluster", "versions": {"torch": "8"}}],
    "seeds": [0, 1],
    "rows": [{"system": "A", "metric": "hr@1", "mean": 0.5, "low": 0.4, "high": 0.6, "per_seed": [0.4, 0.6]}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind, result in (("speed", SPEED), ("claims", CLAIM)):
        (tmp_path / "results" / kind).mkdir(parents=True)
        (tmp_path / "results" / kind / f"{result['name']}.json").write_text(json.dumps(result))
    return tmp_path


def test_pages_say_what_the_results_say(folder: Path) -> None:
    assert render("--folder", str(folder)).returncode == 0
    speed, claims = (folder / "SPEED.md").read_text(), (folder / "CLAIMS.md").read_text()
    assert "| sort | 0.5 s | 1 s | a \\| b | **2** | 3 | not met |" in speed
    assert "| sum | 1 s | 4 s | numpy | **4** | 3 | met |" in speed
    assert "`python x`, 2026-01-02. a laptop. torch 9. Data: toy." in speed
    assert "- A beats B. **Does not hold** here. A - B: -0.2000 (-0.3000 to -0.1000)." in claims
    assert "a cluster. torch 8. Data" in claims
    assert "| A | hr@1 | 0.5 | 0.4 to 0.6 |" in claims
    assert "Seeds: 0, 1." in claims


def test_check_finds_a_page_that_is_not_current(folder: Path) -> None:
    assert render("--check", "--folder", str(folder)).returncode == 1  # no pages yet
    render("--folder", str(folder))
    assert render("--check", "--folder", str(folder)).returncode == 0
    page = folder / "SPEED.md"
    page.write_text(page.read_text().replace("**2**", "**20**"))
    failed = render("--check", "--folder", str(folder))
    assert failed.returncode == 1
    assert "SPEED.md" in failed.stderr
    assert "CLAIMS.md" not in failed.stderr
    assert "**20**" in page.read_text()  # check writes nothing


def test_without_results_the_pages_say_so(tmp_path: Path) -> None:
    render("--folder", str(tmp_path))
    assert "Nothing was run yet" in (tmp_path / "CLAIMS.md").read_text()
