from __future__ import annotations

import json
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(p.stem for p in (ROOT / "benchmarks" / "claims").glob("pref_losses_*.py"))


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.claims import _claims

    return _claims


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.claims import _results

    return _results


def assert_whole(result: dict[str, Any]) -> None:
    assert all(claim["verdict"] in ("holds", "does not hold", "undecided") for claim in result["claims"])
    assert all(low <= mean <= high for c in result["claims"] for mean, low, high in c["differences"].values())
    assert all(row["low"] <= row["mean"] <= row["high"] for row in result["rows"])
    assert result["environments"]


@pytest.fixture
def quick_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[[str], str]]:
    """Run a script with `--quick` in this process, which has the libraries loaded; returns what it printed."""
    from datasets import enable_progress_bars

    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)

    def run(script: str) -> str:
        folders = ["--output", str(tmp_path), "--work", str(tmp_path / "work")]
        monkeypatch.setattr(sys, "argv", [script, "--quick", *folders])
        runpy.run_module(f"benchmarks.claims.{script}", run_name="__main__")
        return capsys.readouterr().out

    yield run
    torch.set_num_threads(threads)
    enable_progress_bars()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_quick_run_writes_a_result_and_resumes(script: str, quick_run: Callable[[str], str], tmp_path: Path) -> None:
    first = quick_run(script)
    path = tmp_path / f"{script}.json"
    result = json.loads(path.read_text())
    assert result["name"] == script
    assert_whole(result)
    assert all(len(row["per_seed"]) == len(result["seeds"]) for row in result["rows"])
    again = quick_run(script)
    assert "SFT stage" in first
    assert "SFT stage" not in again
    assert "learning rate" in first
    assert "on test rows" in first
    assert "on test rows" not in again
    resumed = json.loads(path.read_text())
    assert resumed | {"date": result["date"]} == result  # a resumed script has the date of its last day


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(p.stem for p in (ROOT / "benchmarks" / "claims").glob("llm_rec_*.py")))
def test_quick_run_of_recommenders_writes_a_result_and_keeps_its_runs(
    script: str, quick_run: Callable[[str], str], tmp_path: Path
) -> None:
    first = quick_run(script)
    path = tmp_path / f"{script}.json"
    result = json.loads(path.read_text())
    assert result["name"] == script
    assert_whole(result)
    again = quick_run(script)
    assert "seed 0:" in first
    assert "seed 0:" not in again  # every run was kept
    assert json.loads(path.read_text()) | {"date": result["date"]} == result
    assert str(tmp_path) not in "".join(p.read_text() for p in (tmp_path / "runs").rglob("*.json"))


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(0.2, 0.1, 0.3), (0.3, 0.01, 0.5)], "holds"),
        ([(0.2, 0.1, 0.3), (0.0, -0.1, 0.1)], "undecided"),
        ([(0.2, 0.1, 0.3), (-0.2, -0.3, -0.1)], "does not hold"),
        ([(-0.1, -0.3, 0.1)], "undecided"),
    ],
)
def test_the_verdict_follows_from_the_intervals(
    results: Any, intervals: list[tuple[float, float, float]], expected: str
) -> None:
    assert results.verdict(intervals) == expected


def test_a_result_says_where_its_runs_were_made(results: Any, tmp_path: Path) -> None:
    made = [{"hardware": name, "versions": {"torch": "2"}} for name in ("a laptop", "a GPU", "a laptop")]
    results.write_result(
        results.Options(False, tmp_path, tmp_path),
        name="toy",
        paper="",
        data="",
        seeds=range(2),
        rows=[],
        claims={"A beats B.": {"A - B": (0.2, 0.1, 0.3)}},
        runs=[{"environment": environment} for environment in made],
    )
    result = json.loads((tmp_path / "toy.json").read_text())
    assert result["environments"] == made[:2]
    told = {"claim": "A beats B.", "verdict": "holds", "differences": {"A - B": [0.2, 0.1, 0.3]}}
    assert result["claims"] == [told]


def test_users_are_resampled_whole(results: Any) -> None:
    interval = results.interval
    users = np.repeat(np.arange(25), 4)
    alike = np.repeat(np.arange(25) % 2, 4)[None].astype(float)  # the rows of a user are all right or all wrong
    mean, low, high = interval(np.tile(alike, (3, 1)), users)
    assert mean == pytest.approx(0.48)
    _, low_alone, high_alone = interval(np.tile(alike, (3, 1)))
    assert high - low > 1.7 * (high_alone - low_alone)  # four equal rows are one observation: twice as wide
    assert interval(np.array([[0.0] * 8, [1.0] * 8]))[1:] == (0.0, 1.0)  # seeds too


def test_the_interval_resamples_seeds_and_rows(results: Any) -> None:
    assert results.interval(np.full((3, 50), 0.5)) == (0.5, 0.5, 0.5)
    rows_differ = np.tile(np.arange(100) % 2, (3, 1)).astype(float)
    mean, low, high = results.interval(rows_differ)
    assert mean == 0.5
    assert 0.37 < low < 0.43 < 0.57 < high < 0.63  # 0.5 +- 1.96 * sqrt(0.25 / 100): rows are resampled jointly


def test_copies_of_a_script_share_its_runs_and_a_killed_one_leaves_its_run_to_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two processes, three runs: the first dies in its run, the second makes all three; nobody makes one twice."""
    script = f"""
import os, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from benchmarks.claims._kept import share
folder = Path({str(tmp_path)!r})
def make(i):
    (folder / f"begun-{{i}}-{{os.getpid()}}").touch()
    while sys.argv[1] == "dies" and not (folder / "done").exists():
        time.sleep(0.05)
    if sys.argv[1] == "dies":
        os._exit(9)
    return {{"run": i}}
if sys.argv[1] == "lives":
    while not list(folder.glob("begun-0-*")):
        time.sleep(0.05)
found = share((folder / f"{{i}}.json", lambda i=i: make(i)) for i in range(3))
assert [r["run"] for r in found] == [0, 1, 2]
assert all(r["environment"]["versions"]["torch"] for r in found)
"""
    first, second = (subprocess.Popen([sys.executable, "-c", script, kind]) for kind in ("dies", "lives"))
    deadline = time.monotonic() + 120
    while not (tmp_path / "2.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not (tmp_path / "0.json").exists()  # the first process is at it, the second took the others
    (tmp_path / "done").touch()
    assert first.wait(120) == 9
    assert second.wait(120) == 0
    begun = [path.name.split("-")[1] for path in tmp_path.glob("begun-*")]
    assert sorted(begun) == ["0", "0", "1", "2"]


ROW = {
    "prompt_ids": [1, 2],
    "chosen_ids": [3],
    "rejected_ids": [[4], [5]],
    "ref_chosen_logps": -1.0,
    "ref_rejected_logps": [-2.0, -3.0],
}


def test_a_flip_exchanges_answers_and_reference_and_takes_more_at_a_larger_share(claims: Any) -> None:
    flipped = claims.flips(0.2)(ROW, 0.1)
    assert (flipped["chosen_ids"], flipped["rejected_ids"]) == ([4], [[3]])
    assert (flipped["ref_chosen_logps"], flipped["ref_rejected_logps"]) == (-2.0, [-1.0])
    assert flipped["flipped"]
    kept = claims.flips(0.2)(ROW, 0.3)
    assert (kept["chosen_ids"], kept["rejected_ids"], kept["ref_rejected_logps"]) == ([3], [[4]], [-2.0])
    assert not kept["flipped"]
    assert claims.flips(0.4)(ROW, 0.3)["flipped"]
    assert ROW["chosen_ids"] == [3]


@pytest.mark.slow
@pytest.mark.parametrize(("script", "claims"), [("seqrec_diffusion_dreamrec", 7), ("seqrec_diffusion_published", 2)])
def test_quick_run_of_diffusion_writes_its_results_and_keeps_its_runs(
    script: str, claims: int, quick_run: Callable[[str], str], tmp_path: Path
) -> None:
    first = quick_run(script)
    results = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    [result] = results.values()
    assert_whole(result)
    assert len(result["claims"]) == claims
    again = quick_run(script)
    assert "ranked the test rows" in first
    assert "ranked the test rows" not in again  # every run was kept
    assert json.loads((tmp_path / f"{script}.json").read_text()) | {"date": result["date"]} == result


def test_batches_hold_every_row_once_and_similar_lengths(claims: Any) -> None:
    rows = [{"id": i, "prompt_ids": [0] * (i * 7 % 40), "chosen_ids": [], "rejected_ids": []} for i in range(40)]
    ordered = claims._in_batches(rows, seed=0)
    assert sorted(row["id"] for row in ordered) == list(range(40))
    assert [r["id"] for r in ordered] != [r["id"] for r in claims._in_batches(rows, seed=1)]
    lengths = np.array([len(row["prompt_ids"]) for row in ordered]).reshape(-1, claims.BATCH)
    assert (np.ptp(lengths, axis=1) == claims.BATCH - 1).all()


def made_up_study(claims: Any) -> Any:
    data = claims.Data("toy", lambda quick: None, claims.Sizes(1, 1, 1, 1), "toy", 9, lambda rows, rng: rows)
    return claims.Study(
        name="toy",
        paper="",
        data=data,
        systems={"A": {}, "B": {"beta": 1.0}},
        baseline="B",
        settings={"as is": lambda row, draw: row},
        tune_on=("as is", lambda row, draw: row),
        claims={"A beats B.": {"A - B": ("A", "B", ["as is"])}},
    )


@pytest.fixture
def fake_run(claims: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Runs in place of training: A is right everywhere, B nowhere; 3e-4 is the best rate of B, all are equal for A."""
    seen: list[Any] = []

    def run(study: Any, one: Any, given: Any, *, part: str) -> dict[str, Any]:
        seen.append((one, part))
        best = part == "validation" and one.rate == 3e-4
        return {"run": one._asdict(), "correct": [int(one.system == "A" or best)] * 4, "seconds": 1.0}

    monkeypatch.setattr(claims, "run", run)
    return seen


def test_the_rate_is_the_baselines_best_on_validation_rows_and_finished_runs_are_kept(
    claims: Any, fake_run: list[Any], tmp_path: Path
) -> None:
    study, given = made_up_study(claims), claims.Options(False, tmp_path, tmp_path)
    assert claims.tune(study, given) == 3e-4
    assert {(one.system, part) for one, part in fake_run} == {("B", "validation")}
    assert len(fake_run) == len(claims.LEARNING_RATES)
    other = replace(study, name="another study on the same data")
    assert claims.tune(other, given) == 3e-4
    assert len(fake_run) == len(claims.LEARNING_RATES)  # it finds them all


def test_the_summary_has_systems_and_differences(claims: Any, fake_run: list[Any], tmp_path: Path) -> None:
    study, given = made_up_study(claims), claims.Options(False, tmp_path, tmp_path)
    found = claims.all_runs(study, 1e-4, given)
    assert [len(results) for results in found.values()] == [3, 3]
    rows, differences = claims.summarise(study, found)
    assert differences == {"A beats B.": {"A - B": (1.0, 1.0, 1.0)}}
    assert [(r["system"], r["mean"]) for r in rows] == [("A", 1.0), ("B", 0.0)]
    assert rows[0]["per_seed"] == [1.0, 1.0, 1.0]
