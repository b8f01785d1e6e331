from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from typer.testing import CliRunner

from mol_llm import (
    INTERACTION,
    SOLVATION,
    PairData,
    PairFingerprints,
    PairMean,
    PairMethod,
    PairRows,
    PairTask,
    baselines,
)
from predilect import Method
from predilect.cli import app

MOLECULES = ["CCO", "O", "c1ccccc1", "CC(=O)O", "CCN", "CCCC", "CCl", "CCBr", "C1CCCCC1", "CC#N"]
A = [a for a in MOLECULES for _ in MOLECULES]
B = MOLECULES * len(MOLECULES)
SMALL: dict[str, Any] = {"bits": 128, "trees": 40, "leaf_rows": 2}
LEVELS = PairTask("nitrogens", "How many molecules have nitrogen?", "class", ("none", "one", "two", "three"))


def values() -> PairData:
    """The order counts: nitrogen is worth -4 in the first molecule, and oxygen +2 in the second."""
    return PairData(
        SOLVATION, PairRows(A, B, [-4.0 * ("N" in a) + 2.0 * ("O" in b) for a, b in zip(A, B, strict=True)])
    )


def classes() -> PairData:
    return PairData(INTERACTION, PairRows(A, B, [int("N" in a or "N" in b) for a, b in zip(A, B, strict=True)]))


def levels() -> PairData:
    """Three of four classes."""
    return PairData(LEVELS, PairRows(A, B, [int("N" in a) + int("N" in b) for a, b in zip(A, B, strict=True)]))


@pytest.mark.parametrize("counts", [True, False])
def test_trees_learn_which_molecule_of_the_pair_has_what(counts: bool) -> None:
    data = values()
    method = PairFingerprints(counts=counts, **SMALL).fit(data)
    assert np.abs(method.predict(A, B) - data.train.targets).mean() < 0.1
    assert method.predict("CCN", "O", task="solvation") == pytest.approx(-2, abs=0.6)
    assert method.predict("O", "CCN") == pytest.approx(0, abs=0.6)  # swapped


@pytest.mark.parametrize("leaf_rows", [2, 15, 40])
def test_columns_that_no_tree_can_split_are_left_out_and_change_nothing(
    leaf_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, options = values(), {**SMALL, "leaf_rows": leaf_rows}
    some = PairFingerprints(**options).fit(data).predict(A, B)
    seen: list[int] = []
    splittable = baselines._splittable

    def everything(x: Any, rows: int) -> Any:
        seen.append(len(splittable(x, rows)))
        return np.arange(x.shape[1])

    monkeypatch.setattr(baselines, "_splittable", everything)
    assert PairFingerprints(**options).fit(data).predict(A, B) == pytest.approx(some, abs=1e-12)
    assert 1 <= seen[0] < 2 * SMALL["bits"]


def test_which_columns_can_part_the_rows() -> None:
    x = np.array([[0, 0, 1, 5], [0, 0, 1, 5], [0, 1, 1, 6], [1, 1, 1, 7]], dtype=float)
    assert baselines._splittable(x, 1).tolist() == [0, 1, 3]
    assert baselines._splittable(x, 2).tolist() == [1, 3]
    assert baselines._splittable(x, 3).tolist() == [0]  # none can: one has to be there


def test_symmetric_trees_read_both_orders_alike_and_still_learn() -> None:
    data = classes()
    method = PairFingerprints(symmetric=True, **SMALL).fit(data)
    found = method.predict(A, B)
    np.testing.assert_array_equal(found, method.predict(B, A))
    np.testing.assert_array_equal(found.argmax(axis=1), data.train.targets)
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("data", [values(), classes(), levels()], ids=["values", "classes", "levels"])
@pytest.mark.parametrize("kind", [PairMean, PairFingerprints])
def test_the_folder_restores_exactly_without_pickles(kind: type[PairMethod], data: PairData, tmp_path: Path) -> None:
    method = kind(**(SMALL if kind is PairFingerprints else {})).fit(data)
    method.save_pretrained(tmp_path)
    loaded = PairMethod.from_pretrained(tmp_path)
    assert type(loaded) is kind
    assert loaded.task == data.task
    np.testing.assert_array_equal(loaded.predict(A, B), method.predict(A, B))
    assert {file.suffix for file in tmp_path.iterdir()} <= {".json", ".safetensors", ".md"}
    empty = loaded.predict([], [])
    assert empty.shape == ((0,) if data.task.kind == "value" else (0, len(data.task.answers)))


def test_probabilities_are_those_of_scikit_learn_and_zero_for_a_class_never_seen() -> None:
    data = levels()
    method = PairFingerprints(seed=3, **SMALL).fit(data)
    method._read(data.train.pairs)
    model = HistGradientBoostingClassifier(
        max_iter=40, min_samples_leaf=2, max_leaf_nodes=31, early_stopping=False, random_state=3
    )
    x = method._features(data.train.pairs)
    theirs = model.fit(x, np.asarray(data.train.targets)).predict_proba(x)
    np.testing.assert_allclose(method.predict(A, B)[:, :3], theirs, rtol=1e-6, atol=1e-9)
    assert (method.predict(A, B)[:, 3] == 0).all()


def test_validation_rows_stop_the_boosting() -> None:
    data = values()
    noise = np.random.default_rng(0).normal(size=len(data.train)).tolist()
    held_out = PairData(SOLVATION, PairRows(A, B, noise), validation=PairRows(A, B, noise[::-1]))
    options = {**SMALL, "trees": 60, "patience": 3}
    stopped = PairFingerprints(**options).fit(held_out)
    whole = PairFingerprints(**options).fit(PairData(SOLVATION, held_out.train))
    assert stopped.num_parameters < whole.num_parameters / 2


def test_the_mean_and_the_shares_of_classes() -> None:
    data = values()
    assert PairMean().fit(data).predict("CCS", "O") == pytest.approx(np.mean(data.train.targets))
    np.testing.assert_allclose(PairMean().fit(levels()).predict("CCS", "O"), [0.64, 0.32, 0.04, 0])
    assert PairMean().fit(classes()).predict(["CCS", "C"], ["O", "O"]).tolist() == [[0.64, 0.36]] * 2


@pytest.mark.parametrize("kind", [PairMean, PairFingerprints])
@pytest.mark.parametrize(
    ("task", "rows", "words"),
    [
        (SOLVATION, PairRows([], [], []), "there is no pair to learn from"),
        (SOLVATION, PairRows(["C", "ethanol"], ["O", "O"], [1.0, 2.0]), "row 1: 'ethanol' is not a SMILES"),
        (SOLVATION, PairRows(["C", None], ["O", "O"], [1.0, 2.0]), "row 1: None is not a text"),  # type: ignore[list-item]
        (SOLVATION, PairRows(["C"], ["O"], [float("nan")]), "row 0: target nan is not finite"),
        (INTERACTION, PairRows(["C"], ["O"], [2]), "row 0: target 2 is no class of 'interaction': 0 to 1"),
        (PairTask("tell", "Tell.", "text"), PairRows(["C"], ["O"], ["a"]), "'tell' asks for a text"),
    ],
)
def test_what_cannot_be_learned_from_is_named(
    kind: type[PairMethod], task: PairTask, rows: PairRows, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        kind().fit(PairData(task, rows))


def test_what_cannot_be_predicted_is_named(tmp_path: Path) -> None:
    for method in (PairMean().fit(values()), PairFingerprints(**SMALL).fit(values())):
        with pytest.raises(ValueError, match="row 1: 'O>>C' is a reaction"):
            method.predict(["C", "O>>C"], ["O", "O"])
        with pytest.raises(ValueError, match=r"as many first as second .*\(got 2 and 1\)"):
            method.predict(["C", "O"], "O")
        with pytest.raises(ValueError, match="was fitted on 'solvation', not on 'interaction'"):
            method.predict("C", "O", task="interaction")
    method.save_pretrained(tmp_path)
    for name in ("trees.safetensors", "task.json"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"has no {name}"):
            Method.from_pretrained(tmp_path)
        (tmp_path / name).write_bytes(content)


def test_fingerprints_need_two_classes_and_known_ones() -> None:
    with pytest.raises(ValueError, match="all training pairs have the class 1"):
        PairFingerprints().fit(PairData(INTERACTION, PairRows(["C", "O"], ["O", "C"], [1, 1])))
    odd = PairRows(["C"], ["O"], [3])
    with pytest.raises(ValueError, match="validation has the class 3, of which there is no training pair"):
        PairFingerprints().fit(PairData(LEVELS, levels().train, validation=odd))
    bad = PairRows(["ethanol"], ["O"], [0])
    with pytest.raises(ValueError, match="validation, row 0: 'ethanol'"):
        PairFingerprints().fit(PairData(LEVELS, levels().train, validation=bad))
    with pytest.raises(ValueError, match=r"learning_rate must be in \(0, 1\] \(got 2\)"):
        PairFingerprints(learning_rate=2)


@pytest.mark.parametrize("name", ["pair-mean", "pair-fingerprints"])
def test_the_command_trains_and_measures_them(name: str, tmp_path: Path) -> None:
    rows = [f"{a},{b},{y}" for a, b, y in zip(A, B, values().train.targets, strict=True)]
    (tmp_path / "pairs.csv").write_text("\n".join(["first,second,target", *rows]) + "\n")
    options = [
        "--data",
        tmp_path / "pairs.csv",
        "--split",
        "random",
        "--bootstrap",
        50,
        "--output-dir",
        tmp_path / "run",
    ]
    settings = ["--set", "leaf_rows=2", "--set", "bits=128"] if name == "pair-fingerprints" else []
    result = CliRunner().invoke(app, [*map(str, ["train", name, *options]), *settings])
    assert result.exit_code == 0, result.output
    kept = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())["results"]
    assert kept["mae_low"] <= kept["mae"] <= kept["mae_high"]
    assert (kept["mae"] < 0.5) == (name == "pair-fingerprints")
    assert isinstance(Method.from_pretrained(tmp_path / "run"), PairMethod)
