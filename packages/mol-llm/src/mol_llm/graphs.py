"""`molecule_graph`: the graph of a SMILES with MolTC's four features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rdkit import Chem
from torch_geometric.data import Data

_CHIRALITIES = [
    Chem.ChiralType.CHI_UNSPECIFIED,
    Chem.ChiralType.CHI_TETRAHEDRAL_CW,
    Chem.ChiralType.CHI_TETRAHEDRAL_CCW,
]
_BONDS = [Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC]
_DIRECTIONS = [Chem.BondDir.NONE, Chem.BondDir.ENDUPRIGHT, Chem.BondDir.ENDDOWNRIGHT]

ATOM_SIZES = (119, len(_CHIRALITIES) + 1)  # atomic number, 0 for a wildcard; chirality, the last value: any other
BOND_SIZES = (len(_BONDS) + 1, len(_DIRECTIONS) + 1)  # type and direction, the last value: any other


def molecule_graph(smiles: str) -> Data:
    """A molecule as a graph: `x` (atoms, 2), `edge_index` (2, 2 bonds), `edge_attr` (2 bonds, 2), integers.

    Atoms have atomic number and chirality, bonds type and direction (Hu et al., 2020; MolTC); hydrogens are implied.

    Raises:
        ValueError: empty, or not a SMILES; names it.

    Examples:
        >>> graph = molecule_graph("CC=O")
        >>> graph.x[:, 0].tolist(), graph.edge_index.tolist(), graph.edge_attr[:, 0].tolist()
        ([6, 6, 8], [[0, 1, 1, 2], [1, 0, 2, 1]], [0, 0, 1, 1])
    """
    molecule = Chem.MolFromSmiles(smiles) if isinstance(smiles, str) else None
    if molecule is None or not molecule.GetNumAtoms():
        raise ValueError(f"{smiles!r} is not a SMILES of a molecule")
    atoms = [[a.GetAtomicNum(), _place(_CHIRALITIES, a.GetChiralTag())] for a in molecule.GetAtoms()]
    bonds, features = [], []
    for bond in molecule.GetBonds():
        start, end = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        bonds += [[start, end], [end, start]]
        features += [[_place(_BONDS, bond.GetBondType()), _place(_DIRECTIONS, bond.GetBondDir())]] * 2
    return Data(
        x=torch.tensor(atoms),
        edge_index=torch.tensor(bonds, dtype=torch.long).reshape(-1, 2).T.contiguous(),
        edge_attr=torch.tensor(features, dtype=torch.long).reshape(-1, 2),
    )


def _place(known: Sequence[object], value: object) -> int:
    """Number of a value, the next free one for any that is not listed."""
    return known.index(value) if value in known else len(known)
