from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner, Result

from mol_llm import INTERACTION, SOLVATION, PairMean, PairRows
from mol_llm.evaluation import compare_pairs, evaluate_pairs
from predilect import Method
from predilect.cli import app
from predilect.leaderboard import Leaderboard
from predilect.leaderboard.report import render

Run = Callable[..., Result]
SOLUTES = ["C" * n + end for n in range(1, 11) for end in ("O", "N", "Cl", "C(=O)O")]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def start(*arguments: object, models: str = "pair-mean,pair-fingerprints") -> Result:
        ways = ["--models", models, "--bootstrap", 50, "--output-dir", tmp_path / "run"]
        ways += ["--set", "pair-fingerprints.leaf_rows=2"] if "pair-fingerprints" in models else []
        command = ["mol", "leaderboard", *ways, *arguments]
        return CliRunner().invoke(app, [*map(str, command)], env={"COLUMNS": "200"})

    return start


@pytest.fixture
def values(tmp_path: Path) -> Path:
    """How well a chain dissolves in two solvents, by its end."""
    base = {"O": -5.0, "N": -3.0, "Cl": 0.0, "C(=O)O": -7.0}
    energy = {
        solute: next(base[end] for end in ("C(=O)O", "Cl", "N", "O") if solute.endswith(end)) for solute in SOLUTES
    }
    solvents = (("O", 0.0), ("CCOCC", 1.0))
    rows = [f"{solute},{solvent},{energy[solute] + gain}" for solute in SOLUTES for solvent, gain in solvents]
    file = tmp_path / "values.csv"
    file.write_text("\n".join(["first,second,target", *rows]) + "\n")
    return file


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    rows = [f"{one},{two},{int(('N' in one) != ('N' in two))}" for one in SOLUTES for two in ("CN", "CO", "CCCl")]
    file = tmp_path / "classes.csv"
    file.write_text("\n".join(["first,second,target", *rows]) + "\n")
    return file


def found(folder: Path) -> dict[str, dict[str, Any]]:
    return {m["name"]: m for m in json.loads((folder / "results.json").read_text())["models"]}


def test_values_are_compared_and_reported(run: Run, values: Path, tmp_path: Path) -> None:
    result = run("--data", values, "--split", "first", "--ratios", "0.5,0.2,0.3")
    assert result.exit_code == 0, result.output
    assert "lower is better: mae, rmse" in result.output
    board = Leaderboard.load(tmp_path / "run")
    assert [m.name for m in board.models] == ["pair-fingerprints", "pair-mean"]  # the smallest error first
    best, mean = board.models
    assert best.metrics["mae_low"] <= best.metrics["mae"] <= best.metrics["mae_high"] < mean.metrics["mae"]
    assert {"rmse_low", "r2_high"} <= set(best.metrics)
    assert mean.is_baseline
    compared = board.compared("pair-fingerprints", "pair-mean")
    assert compared is not None
    assert compared.difference == pytest.approx(best.metrics["mae"] - mean.metrics["mae"])
    assert compared.high < 0
    page = " ".join(render(board).split())
    assert "pair-fingerprints predicts best, " in page
    assert "less error than pair-mean." in page
    assert 'aria-sort="ascending"><button type="button" data-low>mae</button>' in page
    assert "&#9650;" in page
    assert "ndcg" not in page
    assert "Predicted against measured" in page
    assert "Of the test rows 0% have a pair that training has, 0% a first and 100% a second" in page
    assert {"solute", "solvent", "measured", "pair-mean", "pair-fingerprints"} == set(board.examples[0])
    assert "CCOCC" in page
    assert isinstance(Method.from_pretrained(tmp_path / "run/models/pair-mean/method"), PairMean)


def test_classes_are_compared_by_the_area_under_the_curve(run: Run, classes: Path, tmp_path: Path) -> None:
    result = run("--data", classes, "--task", "interaction", "--ratios", "0.5,0.2,0.3")
    assert result.exit_code == 0, result.output
    board = Leaderboard.load(tmp_path / "run")
    assert board.best is not None
    assert board.best.name == "pair-fingerprints"
    assert board.best.headline == board.best.metrics["auc_roc"]
    assert found(tmp_path / "run")["pair-mean"]["metrics"]["auc_roc"] == 0.5
    assert [figure["title"][:5] for figure in board.figures] == ["Which", "Wheth"]
    assert [len(figure["series"]) for figure in board.figures] == [2, 1]  # one probability has no calibration curve
    assert board.figures[0]["series"][0]["points"][-1] == [1.0, 1.0]
    assert board.examples[0]["interact"] in ("yes", "no")
    assert "tells best which pairs interact" in render(board)


def test_a_run_is_continued_and_other_rows_are_refused(run: Run, values: Path, tmp_path: Path) -> None:
    assert run("--data", values, models="pair-mean").exit_code == 0
    first = found(tmp_path / "run")["pair-mean"]
    assert "--resume" in run("--data", values).stderr
    resumed = run("--data", values, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "kept from the earlier run" in resumed.output
    assert found(tmp_path / "run")["pair-mean"] == first
    again = run("--data", values, "--resume", "--set", "pair-fingerprints.trees=3")
    assert "trees: 300 before, 3 now" in " ".join(again.output.split())
    refused = run("--data", values, "--resume", "--split", "random")
    assert refused.exit_code == 2
    assert "split: pair before, random now" in refused.stderr
    assert run("--data", values, "--overwrite", "--seed", 1, "--test-rows", 5).exit_code == 0
    assert found(tmp_path / "run")["pair-mean"]["metrics"]["rows"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "pair-meen"], "no method 'pair-meen' of pairs is installed; there are moltc, pair-fingerprints"),
        (["--models", "sasrec"], "no method 'sasrec' of pairs"),
        (["--set", "pair-mean.colour=1"], "set.pair-mean has no option 'colour'"),
        (["--test-rows", "1"], "test_rows must be at least 2 (got 1)"),
        (["--target", "energy"], "has no column 'energy'"),
        (["--resume", "--overwrite"], "choose one"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    run: Run, values: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = run("--data", values, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_test_part_of_one_class_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("first,second,target\n" + "".join(f"{s},O,1\n" for s in SOLUTES))
    result = run("--data", tmp_path / "one.csv", "--task", "interaction")
    assert result.exit_code == 2
    assert "test pairs have the class 1: nothing can be compared on them" in result.stderr


def test_metrics_of_classes_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(2, size=60)
    said = (0.3 * truth + generator.random(60)).round(1).clip(0, 1)  # with ties
    rows = PairRows([f"{'C' * (n + 1)}" for n in range(60)], ["O"] * 60, truth.tolist())
    found = evaluate_pairs(INTERACTION, rows, np.stack([1 - said, said], axis=1), bootstrap=300).results
    assert found["auc_roc"] == pytest.approx(roc_auc_score(truth, said))
    assert found["average_precision"] == pytest.approx(average_precision_score(truth, said))
    for name in ("auc_roc", "average_precision", "accuracy", "brier"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_paired_differences_are_narrower_than_unpaired_ones() -> None:
    generator = np.random.default_rng(1)
    truth, noise = generator.normal(size=80), generator.normal(size=80)
    rows = PairRows(["C" * (n + 1) for n in range(80)], ["O"] * 80, truth.tolist())
    one = evaluate_pairs(SOLVATION, rows, truth + noise)
    other = evaluate_pairs(SOLVATION, rows, truth + 1.2 * noise)
    for metric in ("mae", "rmse", "r2"):
        compared = compare_pairs(SOLVATION, one.rows, other.rows, metric)
        assert compared.difference == pytest.approx(one.results[metric] - other.results[metric])
        width = one.results[f"{metric}_high"] - one.results[f"{metric}_low"]
        assert compared.high - compared.low < width / 2
        assert compared.p_value < 0.01
        same = compare_pairs(SOLVATION, one.rows, one.rows, metric)
        assert same == (0.0, 0.0, 0.0, 1.0)
    fewer = evaluate_pairs(SOLVATION, PairRows(rows.first[:9], rows.second[:9], truth[:9]), truth[:9])
    with pytest.raises(ValueError, match="needs the same rows"):
        compare_pairs(SOLVATION, one.rows, fewer.rows, "mae")
