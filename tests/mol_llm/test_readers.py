from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mol_llm.molecules import BadMolecule, SmilesReader
from mol_llm.pairs import SOLVATION
from mol_llm.readers import read_chchminer, read_combisolv, read_freesolv, read_pairs_csv


def test_a_csv_keeps_good_rows_and_names_bad_ones(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text('solute,solvent,dg\nCCO,O,-5.0\nethanol,O,-5.0\n"CC=O",CO,-3.1\nCC\n')
    read = read_pairs_csv(path, SOLVATION, first="solute", second="solvent", target="dg")
    assert read.rows.pairs == [("CCO", "O"), ("CC=O", "CO")]
    assert [r.row for r in read.remarks if not r.kept] == [1, 3]
    with pytest.raises(ValueError, match="no column 'first'; it has solute, solvent, dg"):
        read_pairs_csv(path, SOLVATION)
    with pytest.raises(BadMolecule, match=r"pairs\.csv: row 1: 'ethanol'"):
        read_pairs_csv(path, SOLVATION, first="solute", second="solvent", target="dg", reader=SmilesReader())


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("first,second,target\n")
    with pytest.raises(ValueError, match="has no rows"):
        read_pairs_csv(path, SOLVATION)


def test_chchminer_merges_its_parts_into_unordered_pairs(tmp_path: Path) -> None:
    head = "drugbank_id_1,drugbank_id_2,smiles_1,smiles_2,label\n"
    (tmp_path / "ChChMiner_train.csv").write_text(f"{head}DB1,DB2,CCO,CN,0.0\nDB1,DB3,CCO,CC,1.0\n")
    with gzip.open(tmp_path / "ChChMiner_valid.csv.gz", "wt") as file:
        file.write(f"{head}DB2,DB1,CN,CCO,1.0\n")  # the same pair the other way round, and of the other class
    with pytest.raises(FileNotFoundError, match="ChChMiner_test"):
        read_chchminer(tmp_path)
    (tmp_path / "ChChMiner_test.csv").write_text(f"{head}DB2,DB3,CC,CN,0.0\n")
    read = read_chchminer(tmp_path)
    assert dict(zip(map(frozenset, read.rows.pairs), read.rows.targets, strict=True)) == {
        frozenset(("CCO", "CN")): 1,
        frozenset(("CC", "CCO")): 1,
        frozenset(("CC", "CN")): 0,
    }
    assert [(r.row, r.kept) for r in read.remarks] == [(0, True)]


def test_freesolv_is_read_from_its_own_layout(tmp_path: Path) -> None:
    path = tmp_path / "database.txt"
    path.write_text("# a comment\nmobley_1; CCCCO; butan-1-ol; -4.72; 0.60; -3.23; 0.03; a; b; c\n")
    read = read_freesolv(path)
    assert (read.rows.pairs, read.rows.targets) == ([("CCCCO", "O")], [-4.72])
    path.write_text("CCO,O\n")
    with pytest.raises(ValueError, match=r"not FreeSolv's database\.txt"):
        read_freesolv(path)


def test_combisolv_parts_solvent_and_solute(tmp_path: Path) -> None:
    path = tmp_path / "combisolv.csv"
    path.write_text("ssid,dgsolv\nO.CCO,-5.0\nO.CC.CO,-1\n")
    read = read_combisolv(path)
    assert read.rows.pairs == [("CCO", "O")]
    assert [r.row for r in read.remarks if not r.kept] == [1]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="read_pairs_csv"):
        read_combisolv(path)
