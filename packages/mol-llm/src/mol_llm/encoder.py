"""`GINEncoder`: one vector per atom from a molecule's graph, and graphs laid side by side as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GINEConv

GRAPH_INPUTS = ("atoms", "bonds", "bond_features", "molecule")


def side_by_side(graphs: Sequence[Any]) -> dict[str, Tensor]:
    """M graphs as one graph without bonds between them.

    Args:
        graphs: `torch_geometric.data.Data` with `x` (atoms, features), `edge_index` (2, 2 bonds) and `edge_attr`
            (2 bonds, features), integers.

    Returns:
        `atoms` (N, features), `bonds` (2, E), `bond_features` (E, features), and `molecule` (N,), the graph of each
        atom.
    """
    starts = [0]
    for graph in graphs:
        starts.append(starts[-1] + len(graph.x))
    return {
        "atoms": torch.cat([graph.x for graph in graphs]).long(),
        "bonds": torch.cat([g.edge_index + start for g, start in zip(graphs, starts, strict=False)], dim=1).long(),
        "bond_features": torch.cat([graph.edge_attr for graph in graphs]).long(),
        "molecule": torch.repeat_interleave(torch.arange(len(graphs)), torch.tensor([len(g.x) for g in graphs])),
    }


class GINEncoder(nn.Module):
    """A graph isomorphism network with bonds (Hu et al., 2020), on `torch_geometric.nn.GINEConv`.

    Layer k: `h_v <- BN(MLP_k((1 + e_k) h_v + sum_u ReLU(h_u + b_k(u, v))))`, u the neighbours of v, `b_k` the sum of
    the embeddings of the bond's features; ReLU between layers. The first h is the sum of the embeddings of the atom's
    features. MolTC reads two of each: atomic number and chirality, bond type and direction. Its network has a bond
    from each atom to itself in place of `1 + e_k`, and no ReLU in the message.

    Args:
        atom_sizes: number of values of each feature of an atom.
        bond_sizes: the same for bonds.
        layers: how far an atom sees.
        hidden: width of an atom's vector.
        dropout: after each layer.
    """

    def __init__(
        self,
        atom_sizes: Sequence[int],
        bond_sizes: Sequence[int],
        *,
        layers: int = 5,
        hidden: int = 300,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.atom_tables = nn.ModuleList(nn.Embedding(size, hidden) for size in atom_sizes)
        self.bond_tables = nn.ModuleList(
            nn.ModuleList(nn.Embedding(size, hidden) for size in bond_sizes) for _ in range(layers)
        )
        self.layers = nn.ModuleList(
            GINEConv(
                nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, hidden)), train_eps=True
            )
            for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, graphs: Mapping[str, Tensor]) -> Tensor:
        """Vectors (N, hidden) of all atoms of `side_by_side` graphs.

        Raises:
            ValueError: a feature has a value that the tables do not know.
        """
        states = _embedded(self.atom_tables, graphs["atoms"], "atom")
        for layer, (conv, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            bonds = _embedded(self.bond_tables[layer], graphs["bond_features"], "bond")  # type: ignore[arg-type]
            states = conv(states, graphs["bonds"], bonds)
            if not self.training or len(states) > 1:  # one atom has no variance to normalise by
                states = norm(states)
            states = self.dropout(states.relu() if layer + 1 < len(self.layers) else states)
        return states


def _embedded(tables: nn.ModuleList, values: Tensor, what: str) -> Tensor:
    """Sum of the embeddings (N, hidden) of features (N, F)."""
    sizes = torch.tensor([table.num_embeddings for table in tables], device=values.device)
    if values.shape[1] != len(sizes):
        raise ValueError(f"the encoder reads {len(sizes)} features of each {what} (got {values.shape[1]})")
    if bool(((values < 0) | (values >= sizes)).any()):
        raise ValueError(f"a feature of an {what} is outside the {sizes.tolist()} values that the encoder knows")
    return torch.stack([table(values[:, column]) for column, table in enumerate(tables)]).sum(dim=0)
