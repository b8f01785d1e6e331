"""`molecule_arrays`: a molecule's features; MolTC's four without torch, so that worker processes start fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem

_CHIRALITIES = [
    Chem.ChiralType.CHI_UNSPECIFIED,
    Chem.ChiralType.CHI_TETRAHEDRAL_CW,
    Chem.ChiralType.CHI_TETRAHEDRAL_CCW,
]
_BONDS = [Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC]
_DIRECTIONS = [Chem.BondDir.NONE, Chem.BondDir.ENDUPRIGHT, Chem.BondDir.ENDDOWNRIGHT]

ATOM_SIZES = (119, len(_CHIRALITIES) + 1)  # atomic number, 0 for a wildcard; chirality, the last value: any other
BOND_SIZES = (len(_BONDS) + 1, len(_DIRECTIONS) + 1)  # type and direction, the last value: any other
# a name is written beside graphs that are kept: another meaning of a number needs another name
Features = Literal["moltc", "ogb"]
# Values of each feature of atoms and of bonds. OGB's are those of torch_geometric.utils.smiles: atomic number,
# chirality, degree, charge, hydrogens, radical electrons, hybridization, aromatic, in ring; type, stereo, conjugated.
SIZES: dict[Features, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "moltc": (ATOM_SIZES, BOND_SIZES),
    "ogb": ((119, 9, 11, 12, 9, 5, 8, 2, 2), (22, 6, 2)),
}


class MoleculeArrays(NamedTuple):
    """`atoms` (atoms, F) uint8, `bonds` (2 bonds, 2) int32, from and to, and `bond_features` (2 bonds, G) uint8."""

    atoms: NDArray[np.uint8]
    bonds: NDArray[np.int32]
    bond_features: NDArray[np.uint8]


def molecule_arrays(smiles: Any, features: Features = "moltc") -> MoleculeArrays:
    """Features of the atoms and bonds of a SMILES; each bond is there in both directions.

    Raises:
        ValueError: empty, or not a SMILES, or (OGB's) an atom with a charge, degree or the like that they do not have.
    """
    try:
        molecule = Chem.MolFromSmiles(smiles) if isinstance(smiles, str) else None
    except UnicodeError:  # half of a surrogate pair
        molecule = None
    if molecule is None or not molecule.GetNumAtoms():
        raise ValueError(f"{smiles!r} is not a SMILES of a molecule")
    return _moltc(molecule) if features == "moltc" else _ogb(smiles, molecule)


def _moltc(molecule: Any) -> MoleculeArrays:
    atoms = [[a.GetAtomicNum(), _place(_CHIRALITIES, a.GetChiralTag())] for a in molecule.GetAtoms()]
    bonds, features = [], []
    for bond in molecule.GetBonds():
        start, end = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        bonds += [[start, end], [end, start]]
        features += [[_place(_BONDS, bond.GetBondType()), _place(_DIRECTIONS, bond.GetBondDir())]] * 2
    return MoleculeArrays(
        np.array(atoms, dtype=np.uint8),
        np.array(bonds, dtype=np.int32).reshape(-1, 2),
        np.array(features, dtype=np.uint8).reshape(-1, 2),
    )


def _ogb(smiles: str, molecule: Any) -> MoleculeArrays:
    from torch_geometric.utils import from_rdmol  # what `from_smiles` does, for a molecule that was read

    try:
        graph = from_rdmol(molecule)
    except ValueError as error:  # "7 is not in list"
        raise ValueError(f"{smiles!r} has an atom or a bond that OGB's features do not know ({error})") from None
    return MoleculeArrays(
        graph.x.numpy().astype(np.uint8),
        graph.edge_index.T.numpy().astype(np.int32).reshape(-1, 2),
        graph.edge_attr.numpy().astype(np.uint8),
    )


def _place(known: Sequence[object], value: object) -> int:
    """Number of a value, the next free one for any that is not listed."""
    return known.index(value) if value in known else len(known)
