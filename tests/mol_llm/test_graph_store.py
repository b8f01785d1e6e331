from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import save_file
from tests.mol_llm.conftest import SMALL
from tests.mol_llm.deadly import DEADLY, deadly

from mol_llm import SOLVATION, GraphStore, MolTC, PairData, PairRows, molecule_graph, pair_inputs
from mol_llm import graph_store as module
from mol_llm.preparing import prepared

SMILES = ["CCO", "O", "c1ccccc1", "OCC", "F/C=C/F", "C[C@H](N)C(=O)O", "[Na+].[Cl-]", "*"]


def test_the_file_gives_the_graphs_that_rdkit_gives(tmp_path: Path) -> None:
    store = GraphStore.prepare([*SMILES, "CCO"], tmp_path / "new" / "graphs.safetensors", workers=0)
    assert list(store) == SMILES
    assert [path.name for path in store.path.parent.iterdir()] == ["graphs.safetensors"]
    for smiles in SMILES:
        _equal(store[smiles], molecule_graph(smiles))
    pairs = [("CCO", "O"), ("O", "F/C=C/F")]
    expected = pair_inputs(pairs, {smiles: molecule_graph(smiles) for smiles in SMILES})
    for name, value in pair_inputs(pairs, store).items():
        assert torch.equal(value, expected[name]), name
    with pytest.raises(KeyError, match="CCN"):
        store["CCN"]


def test_what_is_no_molecule_is_reported_and_the_rest_kept(tmp_path: Path) -> None:
    path = tmp_path / "graphs"
    store = GraphStore.prepare(["CCO", "water", "", "\ud800", "O"], path, workers=0)
    assert list(store) == ["CCO", "O"]
    assert store.failed == GraphStore(path).failed
    assert {smiles: str(reason) for smiles, reason in store.failed.items()} == {
        bad: f"{bad!r} is not a SMILES of a molecule" for bad in ("water", "", "\ud800")
    }
    with pytest.raises(ValueError, match="None is not a text: SmilesReader"):
        GraphStore.prepare(["CCO", None], path)  # type: ignore[list-item]
    assert len(GraphStore.prepare(["water"], tmp_path / "none", workers=0)) == 0


@pytest.mark.parametrize("canonical", [False, True])
def test_a_file_is_filled_up(tmp_path: Path, canonical: bool) -> None:
    kept: dict[str, Any] = {"canonical": canonical, "workers": 0}
    GraphStore.prepare([*SMILES[:3], "water"], tmp_path / "parts", **kept)
    before = (tmp_path / "parts").stat().st_mtime_ns
    assert "O" in GraphStore.prepare(["O", "water"], tmp_path / "parts", **kept)
    assert (tmp_path / "parts").stat().st_mtime_ns == before  # nothing new, nothing written
    parts = GraphStore.prepare(SMILES, tmp_path / "parts", **kept)
    whole = GraphStore.prepare([*SMILES, "water"], tmp_path / "whole", **kept)
    assert {*parts} == {*whole} >= {*SMILES}
    assert parts.failed.keys() == {"water"}
    for smiles in SMILES:
        _equal(parts[smiles], whole[smiles])


def test_texts_of_one_molecule_share_a_graph_where_canonical(tmp_path: Path) -> None:
    store = GraphStore.prepare(["OCC", "C(O)C"], tmp_path / "graphs", canonical=True, workers=0)
    assert {*store} == {"CCO", "OCC", "C(O)C"}
    assert store["OCC"].x[:, 0].tolist() == store["C(O)C"].x[:, 0].tolist() == [6, 6, 8]
    with pytest.raises(ValueError, match=r"made otherwise.*canonical: True before, False now"):
        GraphStore(tmp_path / "graphs")


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "graphs"
    with pytest.raises(FileNotFoundError, match=r"GraphStore\.prepare"):
        GraphStore(path)
    content = GraphStore.prepare(SMILES, path, workers=0).path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="cannot be read as a file of graphs"):
        GraphStore.prepare(SMILES, path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"features: moltc before, ogb now.*delete the file"):
        GraphStore.prepare(["CCO"], path, features="ogb")
    assert path.read_bytes() == content
    parts = {name: tensor.numpy().copy() for name, tensor in GraphStore(path)._parts.items()}
    parts["bond_start"][1] = -1
    save_file(parts, path, metadata={"about": _about(path)})
    with pytest.raises(ValueError, match="damaged: its bond_start"):
        GraphStore(path)
    save_file(parts, path)
    with pytest.raises(ValueError, match="is not a file of graphs"):
        GraphStore(path)
    with pytest.raises(ValueError, match="workers must be 0"):
        GraphStore.prepare(["CCO"], tmp_path / "more", workers=-1)


def test_a_process_that_dies_loses_only_the_smiles_at_which_it_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # for the workers, which import `deadly`
    many = [f"{'C' * (1 + i % 20)}{'O' * (i // 20)}" for i in range(600)]
    smiles = [*many[:100], DEADLY[0], *many[100:]]
    found = prepared(smiles, canonical=False, workers=2, work=deadly)
    assert found.failed.keys() == {DEADLY[0]}
    assert f"'{DEADLY[0]}': the process that read it died" in found.failed[DEADLY[0]]
    assert list(found.graphs) == many  # in order, so that files are equal whatever the number of processes


def test_a_script_that_cannot_be_imported_gets_a_way_out() -> None:
    code = "from mol_llm.preparing import prepared; prepared(['C'], canonical=False, workers=1)"
    result = subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, timeout=120, check=False
    )
    assert "ValueError: no worker process can be started: put what the script does under `if __name__" in result.stderr


def test_training_reads_the_file(
    language_models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "graphs.safetensors"
    first, second = ["CCO", "O", "CCN"], ["O", "CCO", "CO"]
    data = PairData(SOLVATION, PairRows(first, second, [-1.0, -2.0, 0.5]), PairRows(["CCC"], ["O"], [0.0]))
    options: dict[str, Any] = {**SMALL, "model": language_models["llama"], "epochs": 1}
    plain = MolTC(**options).fit(data).predict(first, second)
    GraphStore.prepare(["CCO", "O"], path, workers=0)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    kept = MolTC(**options, graphs=str(path)).fit(data)
    assert {*GraphStore(path)} == {"CCO", "O", "CCN", "CO", "CCC"}
    assert kept.predict(first, second).tolist() == plain.tolist()
    assert isinstance(kept.predict("CCCC", "O"), float)  # what is not in the file is made
    kept.save_pretrained(tmp_path / "method")
    path.unlink()
    assert MolTC.from_pretrained(tmp_path / "method").predict(first, second).tolist() == plain.tolist()
    GraphStore.prepare(["water"], path, workers=0)
    with pytest.raises(ValueError, match="row 0: 'water' is not a SMILES"):
        MolTC(**options, graphs=str(path)).fit(PairData(SOLVATION, PairRows(["water"], ["O"], [0.0])))
    path.write_text("no graphs")
    with pytest.raises(ValueError, match="cannot be read as a file of graphs"):
        MolTC(**options, graphs=str(path)).require_ready()
    with pytest.raises(ValueError, match="reads='smiles' no graph is read"):
        MolTC(reads="smiles", graphs=str(path))


def _equal(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for key in one.keys():  # noqa: SIM118 - a graph iterates over pairs
        assert torch.equal(one[key], other[key]), key


def _about(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return str(file.metadata()["about"])
