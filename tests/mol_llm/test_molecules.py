from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mol_llm.molecules import BadMolecule, MoleculePair, SmilesReader, canonical_smiles
from mol_llm.pairs import INTERACTION, SOLVATION

SKIP = SmilesReader(policy="skip")


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        (None, "not a text"),
        (math.nan, "not a text"),
        (3, "not a text"),
        ("", "empty"),
        (" \t", "empty"),
        ("aspirin", "is it a name"),
        ("acetic acid", "is it a name"),
        ("C1CC", "not a SMILES"),
        ("CCO>>CC=O", "reaction"),
        ("C(C)(C)(C)(C)C", "valence"),
        ("c1cccc1", "kekulize"),
        ("C" * 2000, "2000 heavy atoms"),
        ("CC\0O", "blanks"),
    ],
)
def test_bad_smiles_are_refused_with_their_reason(smiles: object, reason: str) -> None:
    with pytest.raises(BadMolecule, match=reason):
        SmilesReader().read(smiles)


@pytest.mark.parametrize(
    "smiles",
    ["O", "[13CH4]", "[Na+].[Cl-]", "[CH3]", "N->[Cu+2]", "[Fe+2].c1cc[cH-]c1.c1cc[cH-]c1", "C[N+](C)(C)C", "C" * 500],
)
def test_unusual_molecules_are_read_as_they_are(smiles: str) -> None:
    assert SmilesReader().read(smiles) == smiles


def test_canonical_text_is_one_per_molecule() -> None:
    read = SmilesReader(canonical=True).read
    assert read("OCC") == read("C(O)C") == "CCO"
    assert read("C[C@H](N)O") != read("C[C@@H](N)O")
    assert MoleculePair("O", "OCC").canonical() == MoleculePair("C(C)O", "O").canonical() == MoleculePair("CCO", "O")


def test_rows_keep_their_numbers_and_every_bad_one_is_named() -> None:
    first = ["CCO", "aspirin", "C", "CC", "CC", "[Na+].CC(=O)[O-]"]
    second = ["O", "O", None, "O", "O", "CO"]
    read = SKIP.read_pairs(first, second, ["-1.5", -1, -1, "text", math.nan, 2], task=SOLVATION)
    assert read.numbers == [0, 5]
    assert list(read.rows.targets) == [-1.5, 2.0]
    assert [remark.row for remark in read.remarks if not remark.kept] == [1, 2, 3, 4]
    assert [remark.reason for remark in read.remarks if remark.row == 5] == [
        "2 fragments, kept together (policy largest-fragment takes the largest)"
    ]
    assert [remark.reason for remark in read.remarks if remark.row == 3] == ["target 'text' is not a number"]


def test_a_salt_is_reduced_to_its_largest_fragment_with_a_remark() -> None:
    read = SmilesReader(policy="largest-fragment").read_pairs(["[Na+].CC(=O)[O-]"], ["CO"], [1.0])
    assert list(read.rows.first) == ["CC(=O)[O-]"]
    assert read.remarks[0].kept


def test_the_first_bad_row_stops_the_strict_policy() -> None:
    with pytest.raises(BadMolecule, match="row 1: 'aspirin'"):
        SmilesReader().read_pairs(["C", "aspirin"], ["O", "O"], [1, 2])


def test_pairs_with_contradictory_classes_are_left_out_and_repeated_ones_kept() -> None:
    read = SKIP.read_pairs(["C", "C", "CC", "CC"], ["CO"] * 4, [0, 1, 1, 1], task=INTERACTION)
    assert read.numbers == [2, 3]
    assert all("contradictory targets [0, 1]" in r.reason for r in read.remarks if not r.kept)


@pytest.mark.parametrize("target", [2, -1, 0.5, "yes", math.inf, None])
def test_targets_that_are_no_class_are_refused(target: object) -> None:
    with pytest.raises(ValueError, match="none of 1 rows"):
        SKIP.read_pairs(["C"], ["CO"], [target], task=INTERACTION)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="policy must be one of raise, skip, largest-fragment"):
        SmilesReader(policy="ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="largest"):
        SmilesReader(largest=0)


ALPHABET = "CNOPSFIBrclnos[]()=#+-123456789@/\\.%>*:$~HNae \t\0é"


@settings(max_examples=300, deadline=None)
@given(st.text(ALPHABET, max_size=40) | st.text(max_size=20) | st.none() | st.floats() | st.binary(max_size=5))
def test_any_value_is_read_or_refused_with_a_reason(value: object) -> None:
    read = SKIP.read_pairs([value, "CCO"], ["O", "O"], [0, 0])
    assert list(read.rows.first)[-1] == "CCO"
    if read.numbers == [1]:
        assert any(remark.row == 0 and remark.reason and not remark.kept for remark in read.remarks)
    else:
        assert canonical_smiles(read.rows.first[0])
