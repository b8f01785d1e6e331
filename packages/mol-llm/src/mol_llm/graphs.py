"""`molecule_graph`: the graph of a SMILES; `MoleculeGraphs`: those that a method reads, from a file or made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch_geometric.data import Data

from mol_llm.features import ATOM_SIZES as ATOM_SIZES
from mol_llm.features import BOND_SIZES as BOND_SIZES
from mol_llm.features import Features, molecule_arrays

if TYPE_CHECKING:
    from mol_llm.graph_store import GraphStore


def molecule_graph(smiles: str, features: Features = "moltc") -> Data:
    """A molecule as a graph: `x` (atoms, F), `edge_index` (2, 2 bonds), `edge_attr` (2 bonds, G), integers.

    "moltc": atoms have atomic number and chirality, bonds type and direction (Hu et al., 2020; MolTC). "ogb": the nine
    and three of the Open Graph Benchmark, as `torch_geometric.utils.from_smiles`. Hydrogens are implied.

    Raises:
        ValueError: empty, or not a SMILES, or with a value that OGB's features do not have; names it.

    Examples:
        >>> graph = molecule_graph("CC=O")
        >>> graph.x[:, 0].tolist(), graph.edge_index.tolist(), graph.edge_attr[:, 0].tolist()
        ([6, 6, 8], [[0, 1, 1, 2], [1, 0, 2, 1]], [0, 0, 1, 1])
    """
    atoms, bonds, bond_features = (torch.from_numpy(array) for array in molecule_arrays(smiles, features))
    return as_graph(atoms, bonds, bond_features)


def as_graph(atoms: torch.Tensor, bonds: torch.Tensor, bond_features: torch.Tensor) -> Data:
    """Arrays of `molecule_arrays` as a graph."""
    return Data(x=atoms.long(), edge_index=bonds.T.long().contiguous(), edge_attr=bond_features.long())


class MoleculeGraphs(Mapping[str, Data]):
    """SMILES -> graph, for the methods that read graphs: those of a file, and those made in memory.

    Args:
        features: see `molecule_graph`.
    """

    def __init__(self, features: Features) -> None:
        self.features: Features = features
        self._made: dict[str, Data] = {}
        self._store: GraphStore | None = None

    def open(self, smiles: Sequence[str], path: str | Path) -> None:
        """Have a file hold the graphs of these molecules (`GraphStore.prepare`), and read it."""
        from mol_llm.graph_store import GraphStore
        from predilect.runs.output import on_main_process

        def make() -> None:
            GraphStore.prepare(smiles, path, features=self.features)

        on_main_process(make)
        self._store = GraphStore(path, features=self.features)

    def read(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Make the graphs that are not there yet.

        Raises:
            ValueError: something that is no molecule; names row and SMILES.
        """
        for row, pair in enumerate(pairs):
            for smiles in pair:
                if smiles in self:
                    continue
                try:
                    if self._store is not None and smiles in self._store.failed:
                        raise ValueError(self._store.failed[smiles])
                    self._made[smiles] = molecule_graph(smiles, self.features)
                except ValueError as error:
                    raise ValueError(f"row {row}: {error}") from None

    def forget(self) -> None:
        """Free the graphs that were made in memory."""
        self._made.clear()

    def __getitem__(self, smiles: str) -> Data:
        if self._store is not None and smiles in self._store:
            return self._store[smiles]
        return self._made[smiles]

    def __contains__(self, smiles: object) -> bool:
        return smiles in self._made or (self._store is not None and smiles in self._store)

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*self._made, *(self._store or ())])

    def __len__(self) -> int:
        return sum(1 for _ in self)
