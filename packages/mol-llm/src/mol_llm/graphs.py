"""`molecule_graph`: the graph of a SMILES with MolTC's four features."""

from __future__ import annotations

import torch
from torch_geometric.data import Data

from mol_llm.features import ATOM_SIZES as ATOM_SIZES
from mol_llm.features import BOND_SIZES as BOND_SIZES
from mol_llm.features import molecule_arrays


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
    atoms, bonds, features = (torch.from_numpy(array) for array in molecule_arrays(smiles))
    return as_graph(atoms, bonds, features)


def as_graph(atoms: torch.Tensor, bonds: torch.Tensor, bond_features: torch.Tensor) -> Data:
    """Arrays of `molecule_arrays` as a graph."""
    return Data(x=atoms.long(), edge_index=bonds.T.long().contiguous(), edge_attr=bond_features.long())
