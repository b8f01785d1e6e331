from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mol_llm import INTERACTION, SOLVATION, GraphStore, PairData, PairGNN, PairMethod, PairRows, PairTask
from predilect import Method
from predilect.cli import app

MOLECULES = ["CCO", "O", "c1ccccc1", "CC(=O)O", "CCN", "CCCC", "CCl", "C#N"]
A = [a for a in MOLECULES for _ in MOLECULES]
B = MOLECULES * len(MOLECULES)
SMALL: dict[str, Any] = {"graph_layers": 2, "graph_width": 16, "head_width": 16, "dropout": 0.0, "batch_size": 16}
LEARNS: dict[str, Any] = {**SMALL, "epochs": 60, "learning_rate": 1e-2}


def values() -> PairData:
    """The order counts: nitrogen is worth -4 in the first molecule, and oxygen +2 in the second."""
    targets = [-4.0 * ("N" in a) + 2.0 * ("O" in b) for a, b in zip(A, B, strict=True)]
    return PairData(SOLVATION, PairRows(A, B, targets))


def classes() -> PairData:
    return PairData(INTERACTION, PairRows(A, B, [int("N" in a or "N" in b) for a, b in zip(A, B, strict=True)]))


@pytest.mark.parametrize("sharing", ["tied", "untied"])
def test_it_learns_which_molecule_of_the_pair_has_what(sharing: Any) -> None:
    data = values()
    method = PairGNN(sharing=sharing, **LEARNS).fit(data)
    assert np.abs(method.predict(A, B) - data.train.targets).mean() < 0.5
    assert method.predict("CCN", "O") < -1 < method.predict("O", "CCN")  # swapped


def test_symmetric_networks_read_both_orders_alike_and_still_learn() -> None:
    data = classes()
    method = PairGNN(symmetric=True, features="ogb", **LEARNS).fit(data)
    found = method.predict(A, B)
    np.testing.assert_allclose(found, method.predict(B, A), atol=1e-6)
    assert (found.argmax(axis=1) == data.train.targets).mean() > 0.95
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("data", [values(), classes()], ids=["values", "classes"])
def test_one_seed_gives_one_result_and_the_folder_restores_it(data: PairData, tmp_path: Path) -> None:
    options = {**SMALL, "epochs": 2, "sharing": "untied", "dropout": 0.2}
    method = PairGNN(**options).fit(data)
    method.save_pretrained(tmp_path / "saved")
    loaded = Method.from_pretrained(tmp_path / "saved")
    assert isinstance(loaded, PairGNN)
    np.testing.assert_array_equal(loaded.predict(A, B), method.predict(A, B))
    file = PairGNN(**options, graphs=str(tmp_path / "graphs"))
    GraphStore.prepare(MOLECULES, tmp_path / "graphs", workers=0)
    np.testing.assert_array_equal(file.fit(data).predict(A, B), method.predict(A, B))
    assert not np.array_equal(PairGNN(seed=1, **options).fit(data).predict(A, B), method.predict(A, B))
    assert loaded.predict([], []).shape == ((0,) if data.task.kind == "value" else (0, 2))


def test_the_best_epoch_on_validation_rows_is_kept_and_training_stops() -> None:
    data = values()
    noise = np.random.default_rng(0).normal(size=len(data.train)).tolist()
    held_out = PairData(SOLVATION, PairRows(A, B, noise), validation=PairRows(A, B, noise[::-1]))
    seen: list[float] = []

    class Watched(PairGNN):
        def _validation_loss(self, task: PairTask, rows: PairRows) -> float:
            seen.append(super()._validation_loss(task, rows))
            return seen[-1]

    method = Watched(**{**LEARNS, "patience": 3}).fit(held_out)
    assert 4 <= len(seen) < 60
    assert seen.index(min(seen)) == len(seen) - 4
    assert held_out.validation is not None
    assert method._validation_loss(SOLVATION, held_out.validation) == pytest.approx(min(seen), rel=1e-6)


def test_a_single_row_and_a_constant_target_can_be_learned_from() -> None:
    method = PairGNN(**SMALL, epochs=1).fit(PairData(SOLVATION, PairRows(["C"], ["[He]"], [2.0])))
    assert np.isfinite(method.predict("C", "[He]"))


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row 1: 'ethanol' is not a SMILES"):
        PairGNN().fit(PairData(SOLVATION, PairRows(["C", "ethanol"], ["O", "O"], [1.0, 2.0])))
    bad = PairRows(["C"], ["ethanol"], [1.0])
    with pytest.raises(ValueError, match="validation, row 0: 'ethanol'"):
        PairGNN().fit(PairData(SOLVATION, values().train, validation=bad))
    with pytest.raises(ValueError, match="'tell' asks for a text"):
        PairGNN().fit(PairData(PairTask("tell", "Tell.", "text"), PairRows(["C"], ["O"], ["a"])))
    with pytest.raises(ValueError, match="symmetric=True needs one encoder"):
        PairGNN(symmetric=True, sharing="untied")
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\) \(got 1\)"):
        PairGNN(dropout=1)
    PairGNN(**SMALL, epochs=1).fit(values()).save_pretrained(tmp_path)
    about = json.loads((tmp_path / "method.json").read_text())
    about["config"]["graph_width"] = 8
    (tmp_path / "method.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="is not of this network"):
        PairMethod.from_pretrained(tmp_path)
    (tmp_path / "network.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no network\.safetensors"):
        PairMethod.from_pretrained(tmp_path)


def test_the_command_trains_and_measures_it(tmp_path: Path) -> None:
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
        tmp_path / "r",
    ]
    sets = [part for name, value in (SMALL | {"epochs": 3}).items() for part in ("--set", f"{name}={value}")]
    result = CliRunner().invoke(app, [*map(str, ["train", "pair-gnn", *options]), *sets])
    assert result.exit_code == 0, result.output
    kept = json.loads((tmp_path / "r" / "evaluation" / "evaluation.json").read_text())["results"]
    assert kept["mae_low"] <= kept["mae"] <= kept["mae_high"]
