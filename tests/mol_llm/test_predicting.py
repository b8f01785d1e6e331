from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.mol_llm.conftest import SMALL
from typer.testing import CliRunner, Result

from mol_llm import (
    INTERACTION,
    SOLVATION,
    MolTC,
    PairData,
    PairFingerprints,
    PairMean,
    PairRows,
    PairTask,
    predict_csv,
)
from mol_llm.pair_method import PairMethod
from mol_llm.predicting import PredictedFile
from predilect.cli import app

Run = Callable[..., Result]
MOLECULES = ["CCO", "O", "c1ccccc1", "CC(=O)O", "CCN", "CCCC"]
A = [a for a in MOLECULES for _ in MOLECULES]
B = MOLECULES * len(MOLECULES)
VALUES = PairData(SOLVATION, PairRows(A, B, [-0.4 * len(a) + 0.1 * len(b) for a, b in zip(A, B, strict=True)]))
CLASSES = PairData(INTERACTION, PairRows(A, B, [int("N" in a or "N" in b) for a, b in zip(A, B, strict=True)]))
BAD = {
    "": "'' is empty",
    "  ": "'  ' is empty",
    "aspirin": "'aspirin' is not a SMILES (is it a name?)",
    "CCO>>CC=O": "is a reaction",
    "CCO ethanol": "has blanks inside",
    "C" * 2000: "2000 heavy atoms, more than 500",
    "C(C)(C)(C)(C)C": "valence",
}
GOOD = ["[2H]O[2H]", "[Na+].[Cl-]", "[CH3]", "[NH4+]", "Cl[Pt](Cl)(N)N", "OCC"]


@pytest.fixture
def run() -> Run:
    def start(*arguments: object) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})

    return start


def trees() -> PairFingerprints:
    return PairFingerprints(bits=64, trees=5, leaf_rows=2).fit(CLASSES)


def write(path: Path, rows: Sequence[Sequence[str]], names: Sequence[str] = ("id", "first", "second")) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_keeps_its_place_and_columns_with_an_answer_or_a_reason(run: Run, tmp_path: Path) -> None:
    method = trees()
    method.save_pretrained(tmp_path / "model")
    molecules = [*BAD, *GOOD]
    source = write(tmp_path / "pairs.csv", [[f"ü{i}, {s[:9]}", s, "CCN"] for i, s in enumerate(molecules)])
    target = tmp_path / "deep" / "predictions.csv.gz"
    result = run("mol", "predict", tmp_path / "model", "--input", source, "--output", target, "--batch-size", 3)
    assert result.exit_code == 0, result.output
    assert "pair-fingerprints: 6 of 13 rows predicted" in result.output
    assert "7 are not; the column reason says why, first: '' is empty" in result.output
    rows = read(target)
    assert [row["first"] for row in rows] == molecules
    assert [row["id"][:2] for row in rows] == [f"ü{i}"[:2] for i in range(len(molecules))]
    assert list(rows[0]) == [
        "id",
        "first",
        "second",
        "prediction",
        "answer",
        "probability_0",
        "probability_1",
        "reason",
    ]
    for row, reason in zip(rows, BAD.values(), strict=False):
        assert reason in row["reason"]
        assert not row["prediction"] + row["answer"] + row["probability_1"]
    for row in rows[len(BAD) :]:
        expected = method.predict("CCO" if row["first"] == "OCC" else row["first"], "CCN")
        assert [float(row["probability_0"]), float(row["probability_1"])] == pytest.approx(expected, rel=1e-5)
        assert row["prediction"] == str(expected.argmax())
        assert row["answer"] == INTERACTION.answers[expected.argmax()]
        assert row["reason"] == ""


def test_packed_input_other_columns_and_the_largest_fragment(run: Run, tmp_path: Path) -> None:
    PairFingerprints(bits=512, trees=60, leaf_rows=2).fit(VALUES).save_pretrained(tmp_path / "model")
    plain = write(tmp_path / "plain.csv", [["CCCC.CCO", "O"], ["CCCC", "O"]], ("solute", "solvent"))
    source = tmp_path / "pairs.csv.gz"
    source.write_bytes(gzip.compress(plain.read_bytes()))
    flags = ["--first", "solute", "--second", "solvent", "--output", tmp_path / "out.csv"]
    command = ["mol", "predict", tmp_path / "model", "--input", source, *flags]
    assert run(*command, "--largest-fragment").exit_code == 0
    rows = read(tmp_path / "out.csv")
    assert rows[0]["prediction"] == rows[1]["prediction"] != ""
    assert run(*command).exit_code == 0
    assert read(tmp_path / "out.csv")[0]["prediction"] != rows[0]["prediction"]


@pytest.mark.parametrize("data", [VALUES, CLASSES], ids=["values", "classes"])
@pytest.mark.parametrize("kind", ["moltc", "pair-mean"])
def test_any_method_of_pairs_predicts_as_in_python(
    language_models: dict[str, str], kind: str, data: PairData, tmp_path: Path
) -> None:
    method: PairMethod = PairMean()
    if kind == "moltc":
        method = MolTC(**{**SMALL, "model": language_models["llama"], "epochs": 0.1})
    method.fit(data)
    source = write(tmp_path / "in.csv", [["", a, b] for a, b in zip(A, B, strict=True)])
    shares: list[tuple[float, int]] = []
    found = predict_csv(method, source, tmp_path / "out.csv", batch_size=10, progress=lambda *s: shares.append(s))
    assert found == PredictedFile(36, 0, "")
    assert [rows for _, rows in shares] == [10, 20, 30, 36]
    assert shares[-1][0] == 1
    expected = np.asarray(method.predict(A, B))
    got = np.array(
        [float(row["probability_1" if data is CLASSES else "prediction"]) for row in read(tmp_path / "out.csv")]
    )
    np.testing.assert_allclose(got, expected[:, 1] if data is CLASSES else expected, rtol=1e-4, atol=1e-5)
    if isinstance(method, MolTC):
        method.forget()
        assert not len(method._graphs)  # nothing is kept of a file


class Picky(PairMean):
    """Refuses one molecule, when it is asked."""

    name = "picky"

    def _predict(self, pairs: Sequence[tuple[str, str]]) -> Any:
        for row, pair in enumerate(pairs):
            if "CCN" in pair:
                raise ValueError(f"row {row}: 'CCN' is not liked")
        return super()._predict(pairs)


def test_what_the_method_refuses_costs_no_other_row(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [["1", "C", "O"], ["2", "CCN", "O"], ["3", "CC", "O"]])
    assert predict_csv(Picky().fit(VALUES), source, tmp_path / "out.csv") == (3, 1, "'CCN' is not liked")
    assert [bool(row["prediction"]) for row in read(tmp_path / "out.csv")] == [True, False, True]


def test_texts_are_written_with_their_commas(language_models: dict[str, str], tmp_path: Path) -> None:
    class Talker(PairMean):
        def _predict(self, pairs: Sequence[tuple[str, str]]) -> Any:
            return [f'{a}, with "{b}"' for a, b in pairs]

    method = Talker().fit(VALUES)
    method._task = PairTask("describe", "Describe both.", "text")
    predict_csv(method, write(tmp_path / "in.csv", [["1", "OCC", "O"]]), tmp_path / "out.csv")
    assert read(tmp_path / "out.csv")[0]["prediction"] == 'CCO, with "O"'


@pytest.mark.parametrize(
    ("content", "flags", "words"),
    [
        ("first,second\n", [], "has no rows"),
        ("", [], "has no column 'first'; it has no header"),
        ("first,solvent\nC,O\n", [], "has no column 'second'; it has first, solvent"),
        ("first,second,first\nC,O,C\n", [], "has several columns 'first'"),
        ("first,second,prediction\nC,O,1\n", [], "has a column 'prediction' already"),
        ('first,second\nC,O\nC,"O\n' + "x" * 140_000, [], "is a quotation mark never closed?"),
        (b"first,second\nC,O\n\xe9,O\n", [], "is not UTF-8: byte 0xe9"),
        (b"\x1f\x8b\x08\x00broken", [], "is damaged"),
        ("first,second\nC,O\n", ["--batch-size", 0], "--batch-size"),
    ],
)
def test_a_file_that_cannot_be_read_leaves_nothing(
    run: Run, tmp_path: Path, content: str | bytes, flags: list[object], words: str
) -> None:
    PairMean().fit(VALUES).save_pretrained(tmp_path / "model")
    source, target = tmp_path / "in.csv", tmp_path / "out" / "out.csv"
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = run("mol", "predict", tmp_path / "model", "--input", source, "--output", target, *flags)
    assert result.exit_code == 2
    assert words in result.output
    assert not target.parent.exists() or not list(target.parent.iterdir())


def test_where_all_rows_fail_the_reasons_are_written_and_the_exit_code_is_2(run: Run, tmp_path: Path) -> None:
    PairMean().fit(VALUES).save_pretrained(tmp_path / "model")
    (tmp_path / "in.csv").write_text("first,second\nwater,O\nC\nC,O,N,\n")
    flags = ["--input", tmp_path / "in.csv", "--output"]
    result = run("mol", "predict", tmp_path / "model", *flags, tmp_path / "out.csv")
    assert result.exit_code == 2
    assert "none of 3 rows has a prediction" in result.output
    reasons = [row["reason"] for row in read(tmp_path / "out.csv")]
    assert reasons[1:] == ["1 values where the header has 2", "4 values where the header has 2, behind them 'N', ''"]
    assert (
        "give the predictions another name"
        in run("mol", "predict", tmp_path / "model", *flags, tmp_path / "in.csv").output
    )
    gone = run("mol", "predict", tmp_path / "model", "--input", tmp_path / "no.csv", "--output", tmp_path / "o.csv")
    assert (gone.exit_code, "there is no file" in gone.output) == (2, True)
    gone = run("mol", "predict", tmp_path / "no", *flags, tmp_path / "out.csv")
    assert (gone.exit_code, "there is no folder" in gone.output) == (2, True)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [[a, b, str(y)] for a, b, y in zip(A, B, VALUES.train.targets, strict=True)]
    return write(tmp_path / "pairs.csv", rows, ("first", "second", "target"))


def test_evaluate_measures_the_part_that_training_measured_and_whole_files(
    run: Run, pairs: Path, tmp_path: Path
) -> None:
    flags = ["--data", pairs, "--split", "random", "--bootstrap", 20, "--seed", 3]
    assert run("train", "pair-mean", *flags, "--output-dir", tmp_path / "run").exit_code == 0
    trained = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())["results"]
    result = run("mol", "evaluate", tmp_path / "run", *flags, "--output-dir", tmp_path / "found", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "found" / "evaluation.json").read_text())["results"] == trained
    assert json.loads(result.stdout) == {"method": "pair-mean", "part": "test", **trained}
    assert (tmp_path / "found" / "rows.parquet").is_file()
    whole = run("mol", "evaluate", tmp_path / "run", *flags, "--part", "all")
    assert "pair-mean, all rows" in whole.output
    assert "36 rows" in whole.output
    fewer = run("mol", "evaluate", tmp_path / "run", *flags, "--part", "train", "--test-rows", 5, "--json")
    assert json.loads(fewer.stdout)["rows"] == 5


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--task", "interaction"], "the method was trained on solvation (got --task interaction)"),
        (["--layout", "chchminer"], "the layout chchminer is of the task interaction; the method's is solvation"),
        (["--test-rows", "0"], "test_rows must be at least 1 (got 0)"),
    ],
)
def test_evaluate_refuses_rows_of_another_task(
    run: Run, pairs: Path, tmp_path: Path, flags: list[str], words: str
) -> None:
    PairMean().fit(VALUES).save_pretrained(tmp_path / "run")
    result = run("mol", "evaluate", tmp_path / "run", "--data", pairs, *flags)
    assert result.exit_code == 2
    assert words in result.output
