from __future__ import annotations

import json
import runpy
import sys
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
    assert result["verdict"] in ("holds", "does not hold", "undecided")
    assert all(row["low"] <= row["mean"] <= row["high"] for row in result["rows"])
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
    assert result["verdict"] in ("holds", "does not hold", "undecided")
    assert all(row["low"] <= row["mean"] <= row["high"] for row in result["rows"])
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
    claims: Any, intervals: list[tuple[float, float, float]], expected: str
) -> None:
    decided, because = claims.verdict({f"A - B{i}": values for i, values in enumerate(intervals)})
    assert decided == expected
    assert all(f"A - B{i}: {mean:+.3f}" in because for i, (mean, _, _) in enumerate(intervals))


def test_users_are_resampled_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.claims._llm_rec import interval

    users = np.repeat(np.arange(25), 4)
    alike = np.repeat(np.arange(25) % 2, 4)[None].astype(float)  # the rows of a user are all right or all wrong
    mean, low, high = interval(np.tile(alike, (3, 1)), users)
    assert mean == pytest.approx(0.48)
    _, low_alone, high_alone = interval(np.tile(alike, (3, 1)), np.arange(100))
    assert high - low > 1.7 * (high_alone - low_alone)  # four equal rows are one observation: twice as wide
    assert interval(np.array([[0.0] * 8, [1.0] * 8]), np.arange(8))[1:] == (0.0, 1.0)  # seeds too


def test_the_interval_resamples_seeds_and_rows(claims: Any) -> None:
    assert claims.interval(np.full((3, 50), 0.5)) == (0.5, 0.5, 0.5)
    rows_differ = np.tile(np.arange(100) % 2, (3, 1)).astype(float)
    mean, low, high = claims.interval(rows_differ)
    assert mean == 0.5
    assert 0.37 < low < 0.43 < 0.57 < high < 0.63  # 0.5 +- 1.96 * sqrt(0.25 / 100): rows are resampled jointly
    seeds_differ = np.repeat([[0.0], [1.0]], 100, axis=1)
    assert claims.interval(seeds_differ)[1:] == (0.0, 1.0)


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
def test_quick_run_of_diffusion_writes_its_results_and_keeps_its_runs(
    quick_run: Callable[[str], str], tmp_path: Path
) -> None:
    script = "seqrec_diffusion_dreamrec"
    first = quick_run(script)
    results = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert len(results) == 7
    assert all(name == f"{result['name']}.json" for name, result in results.items())
    for result in results.values():
        assert result["verdict"] in ("holds", "does not hold", "undecided")
        assert all(row["low"] <= row["mean"] <= row["high"] for row in result["rows"])
    again = quick_run(script)
    assert "ranked the test rows" in first
    assert "ranked the test rows" not in again  # every run was kept
    for name, result in results.items():
        assert json.loads((tmp_path / name).read_text()) | {"date": result["date"]} == result


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
        claim="",
        data=data,
        systems={"A": {}, "B": {"beta": 1.0}},
        baseline="B",
        settings={"as is": lambda row, draw: row},
        tune_on=("as is", lambda row, draw: row),
        differences={"A - B": ("A", "B", ["as is"])},
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
    summary = claims.summarise(study, found)
    assert summary["verdict"] == "holds"
    assert [(r["system"], r["mean"]) for r in summary["rows"]] == [("A", 1.0), ("B", 0.0), ("A - B", 1.0)]
    assert summary["rows"][0]["per_seed"] == [1.0, 1.0, 1.0]


def test_the_auc_counts_pairs_of_clean_and_flipped(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace as Namespace

    from benchmarks.claims.pref_losses_dr_dpo_flips import weights_auc

    rows = [{"row": i, "flipped": i == 3} for i in range(4)]
    trainer = Namespace(args=Namespace(reduction="robust"), example_weights={0: 1.0, 1: 2.0, 2: 0.5, 3: 1.0})
    assert weights_auc(trainer, rows) == {"AUC of the weights": pytest.approx((1 + 0.5) / 3)}
    assert weights_auc(Namespace(args=Namespace(reduction="mean")), rows) == {}
