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
    "claims": [
        {
            "claim": "A beats B.",
            "differences": [
                {"name": "here: A - B", "mean": -0.2, "low": -0.3, "high": -0.1, "p": 0.001},
                {"name": "there: A - B", "mean": 0.2, "low": 0.1, "high": 0.3, "p": 0.02},
                {"name": "elsewhere: A - B", "mean": 0.1, "low": 0.01, "high": 0.2, "p": 0.06},
                {"name": "once: A - B", "mean": 0.1, "low": None, "high": None, "p": None},
            ],
        },
        {"claim": "A beats C.", "differences": []},
    ],
    "budget": [{"system": "A", "training": "5 steps", "trainings": 2, "chosen": "hr@1 on validation rows"}],
    "not_run": ["C, seed 0"],
    "groups": [
        {"data": "toy", "by": "target_frequency", "group": g, "rows": 7, "system": "A", "metric": "hr@1"}
        | {"mean": m, "low": 0.0, "high": 0.9, "per_seed": []}
        for g, m in (("never", 0.125), ("more", 0.75))
    ],
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
    assert "- A beats B.\n    - here: A - B: **does not hold**, -0.2000 (-0.3000 to -0.1000)\n" in claims
    assert "there: A - B: **holds**, +0.2000" in claims  # .02 * 2
    assert "elsewhere: A - B: **undecided**" in claims
    assert "once: A - B: **not tested**, +0.1000 (one seed)" in claims
    assert "- A beats C.\n    - not run" in claims
    assert "all 3 tested differences" in claims
    assert "| A | 5 steps | 2 | hr@1 on validation rows |" in claims
    assert "Not run: C, seed 0." in claims
    assert "toy, hr@1 by how often the target was taken in training:" in claims
    assert "| system | never (7 rows) | more (7 rows) |" in claims
    assert "| A | 0.125 (0 to 0.9) | 0.75 (0 to 0.9) |" in claims
    assert "a cluster. torch 8. Data" in claims
    assert "| A | hr@1 | 0.5 | 0.4 to 0.6 |" in claims
    assert "Seeds: 0, 1." in claims


def test_holms_correction_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import render as pages

    assert pages.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert pages.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert pages.holm([]) == []


def test_withdrawn_claims_are_listed_with_their_reason(folder: Path) -> None:
    entry = {"study": "s", "claim": "A beats D.", "before": "holds", "why": "no control", "decides": "a control"}
    (folder / "results" / "withdrawn.json").write_text(json.dumps([entry]))
    render("--folder", str(folder))
    assert "| s | A beats D. | holds | no control | a control |" in (folder / "CLAIMS.md").read_text()


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
