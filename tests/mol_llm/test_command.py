from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mol_llm import INTERACTION, SOLVATION, MolTC, PairRows
from mol_llm.command import PairOptions
from mol_llm.evaluation import evaluate_pairs
from predilect import Method
from predilect.cli import app

Run = Callable[..., Result]
SOLUTES = ("CCO", "CCC", "c1ccccc1", "CC(=O)O", "CCN", "CCCl", "CO", "CCCC")
SOLVENTS = ("O", "CCOCC", "CS(C)=O")


@pytest.fixture
def run() -> Run:
    def start(*arguments: object) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})

    return start


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [f"{a},{b},{-(len(a) + 3 * j) / 4}" for a in SOLUTES for j, b in enumerate(SOLVENTS)]
    file = tmp_path / "pairs.csv"
    file.write_text("\n".join(["first,second,target", *rows]) + "\n")
    return file


@pytest.fixture
def flags(pairs: Path, language_models: dict[str, str]) -> list[object]:
    options = {
        "model": language_models["llama"], "dtype": "float32", "graph_layers": 1, "graph_width": 8, "queries": 2,
        "query_layers": 1, "query_width": 8, "query_heads": 2, "smiles_tokens": 12, "batch_size": 4,
    }  # fmt: skip
    settings = [text for name, value in options.items() for text in ("--set", f"{name}={value}")]
    return ["--data", pairs, "--ratios", "0.6,0.2,0.2", "--bootstrap", 20, *settings]


def test_moltc_is_trained_kept_and_measured(run: Run, flags: list[object], pairs: Path, tmp_path: Path) -> None:
    command = ["train", "moltc", *flags, "--quick", "--output-dir", tmp_path / "run"]
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert "solvation: 15 training, 5 validation, 4 test rows" in result.output
    kept: dict[str, Any] = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())["results"]
    assert kept["rows"] == 4
    assert kept["coverage"] == 1
    assert kept["mae_low"] <= kept["mae"] <= kept["mae_high"]
    method = Method.from_pretrained(tmp_path / "run")
    assert isinstance(method, MolTC)
    data = PairOptions(data=pairs, ratios=(0.6, 0.2, 0.2)).read()
    assert data.test is not None
    own = evaluate_pairs(SOLVATION, data.test, method.predict(list(data.test.first), list(data.test.second)))
    assert kept["mae"] == pytest.approx(own.results["mae"], rel=1e-5)
    again = run(*command, "--resume", "--test-rows", 3)  # measured again, not trained again
    assert again.exit_code == 0, again.output
    fewer = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())["results"]
    assert fewer["rows"] == 3
    pairs.write_text(pairs.read_text().replace("CCO,O,-0.75", "CCO,O,-9.75"))
    refused = run(*command, "--resume")
    assert refused.exit_code == 2
    assert "data" in refused.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nowhere.csv"], "there is no file nowhere.csv"),
        (["--layout", "freesolv", "--task", "interaction"], "the layout freesolv is of the task solvation"),
        (["--second", "solvent"], "has no column 'solvent'; it has first, second, target"),
        (["--set", "queries=0"], "queries must be at least 1 (got 0)"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    run: Run, flags: list[object], tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = run("train", "moltc", *flags, *arguments, "--output-dir", tmp_path / "run")
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_bad_molecule_is_named_with_its_row_or_left_out(run: Run, flags: list[object], pairs: Path) -> None:
    pairs.write_text(pairs.read_text().replace("\nCCC,O,", "\naspirin,O,"))
    refused = run("train", "moltc", *flags)
    assert refused.exit_code == 2
    assert "row 3: 'aspirin' is not a SMILES (is it a name?)" in refused.output
    data = PairOptions(data=pairs, policy="skip").read()
    assert data.left_out == ("row 3: 'aspirin', 'O': 'aspirin' is not a SMILES (is it a name?)",)
    assert "left out: 1 rows" in data.describe()
    with pytest.raises(ValueError, match="three shares with sum 1"):
        PairOptions(data=pairs, policy="skip", ratios=(0.5, 0.5, 0.5)).read()


def test_a_folder_is_no_file_of_pairs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the layout freesolv is one file, and .* is a folder: name the file in it"):
        PairOptions(data=tmp_path, layout="freesolv").read()


def test_values_and_probabilities_are_measured_as_by_hand() -> None:
    rows = PairRows(["CCO", "O", "C"], ["O", "CCO", "O"], [-5.0, -3.0, 1.0])
    values = evaluate_pairs(SOLVATION, rows, np.array([-4.0, -3.0, 3.0]), bootstrap=200)
    assert values.results["mae"] == 1
    assert values.results["rmse"] == pytest.approx(np.sqrt(5 / 3))
    # the first two rows are one pair: a resample has both or none
    assert (values.results["mae_low"], values.results["mae_high"]) == (0.5, 2.0)
    rows = PairRows(["CCO", "O", "C", "CC"], ["O", "C", "CC", "O"], [1, 0, 1, 0])
    classes = evaluate_pairs(
        INTERACTION, rows, np.array([[0.1, 0.9], [0.6, 0.4], [0.7, 0.3], [0.9, 0.1]]), bootstrap=0
    )
    assert (classes.results["accuracy"], classes.results["auc_roc"]) == (0.75, 0.75)
    assert classes.results["brier"] == pytest.approx((0.01 + 0.16 + 0.49 + 0.01) / 4)
