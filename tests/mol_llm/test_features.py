from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.mol_llm.conftest import SMALL
from torch_geometric.utils import from_smiles
from torch_geometric.utils.smiles import e_map, x_map

from mol_llm import INTERACTION, GraphStore, MolTC, PairData, PairRows, molecule_graph
from mol_llm.features import SIZES

MOLECULES = ["CCO", "O", "c1ccccc1", "C[C@H](N)C(=O)[O-]", "F/C=C/F", "[Na+].[Cl-]", "[He]"]


def test_ogbs_features_are_those_of_torch_geometric() -> None:
    assert SIZES["ogb"] == tuple(tuple(map(len, table.values())) for table in (x_map, e_map))
    for smiles in MOLECULES:
        own, theirs = molecule_graph(smiles, "ogb"), from_smiles(smiles)
        for name in ("x", "edge_index", "edge_attr"):
            assert own[name].tolist() == theirs[name].tolist(), (smiles, name)


def test_a_value_that_ogb_does_not_have_is_named() -> None:
    with pytest.raises(ValueError, match=r"'\[U\+7\]' has an atom or a bond that OGB's features do not know"):
        molecule_graph("[U+7]", "ogb")
    assert molecule_graph("[U+7]").num_nodes == 1
    with pytest.raises(ValueError, match=r"row 0: '.*' has an atom or a bond that OGB"):
        MolTC(features="ogb").fit(PairData(INTERACTION, PairRows(["[U+7]"], ["O"], [1])))


def test_moltc_reads_them_from_memory_and_from_a_file_alike(language_models: dict[str, str], tmp_path: Path) -> None:
    rows = PairRows(MOLECULES, MOLECULES[::-1], [0, 1, 0, 1, 0, 1, 0])
    options: dict[str, Any] = {**SMALL, "model": language_models["llama"], "epochs": 1, "features": "ogb"}
    GraphStore.prepare(MOLECULES[:6], tmp_path / "graphs", workers=0, features="ogb")
    GraphStore.prepare(MOLECULES, tmp_path / "graphs", workers=0, features="ogb")
    found = [
        MolTC(**options, **more).fit(PairData(INTERACTION, rows))
        for more in ({}, {"graphs": str(tmp_path / "graphs")})
    ]
    one, other = (method.predict(MOLECULES, MOLECULES) for method in found)
    np.testing.assert_array_equal(one, other)
    assert found[0].atom_attention("CCO").shape == (2, 3)
    found[0].save_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(MolTC.from_pretrained(tmp_path / "saved").predict(MOLECULES, MOLECULES), one)
    with pytest.raises(ValueError, match="features: ogb before, moltc now"):
        MolTC(graphs=str(tmp_path / "graphs")).require_ready()
