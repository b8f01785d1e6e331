"""Options of the networks that read molecules, of all methods that hold such networks."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from mol_llm.features import SIZES, Features
from predilect.configuration import at_least, option
from predilect.training.options import TRAINING

GRAPHS = "Molecules"


@dataclass
class GraphOptions:
    """The graph encoder, and where its graphs lie."""

    features: Features = option(
        "Of atoms and bonds: MolTC's two and two, or the nine and three of the Open Graph Benchmark.",
        panel=GRAPHS,
        default="moltc",
    )
    graphs: str | None = option(
        "File of the molecules' graphs (GraphStore): made, or filled up, by all cores. None: they are made in memory.",
        panel=GRAPHS,
        default=None,
    )
    graph_layers: int = option("Layers of the graph encoder.", panel=GRAPHS, default=5)
    graph_width: int = option("Width of an atom's vector.", panel=GRAPHS, default=128)
    dropout: float = option("Dropout of the networks that read graphs, in [0, 1).", panel=GRAPHS, default=0.1)

    def check_graphs(self) -> None:
        """Raise ValueError for a value that cannot be."""
        at_least(self, graph_layers=1, graph_width=1)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1) (got {self.dropout})")

    def encoder_options(self) -> dict[str, Any]:
        """What `GINEncoder` takes."""
        atoms, bonds = SIZES[self.features]
        return {
            "atom_sizes": list(atoms),
            "bond_sizes": list(bonds),
            "layers": self.graph_layers,
            "hidden": self.graph_width,
            "dropout": self.dropout,
        }


@dataclass
class MoleculeOptions(GraphOptions):
    """Graph encoder and Q-Former, and how long they are trained."""

    queries: int = option("Vectors per molecule in the prompt.", panel=GRAPHS, default=8)
    query_layers: int = option("Layers of the Q-Former.", panel=GRAPHS, default=4)
    query_width: int = option("Width of the Q-Former.", panel=GRAPHS, default=128)
    query_heads: int = option("Attention heads of the Q-Former.", panel=GRAPHS, default=4)
    epochs: float = option("Passes over the training rows.", panel=TRAINING, default=3.0)

    def check_molecules(self) -> None:
        """Raise ValueError for a value that cannot be."""
        self.check_graphs()
        at_least(self, queries=1, query_layers=1, query_width=1, query_heads=1)
        if not 0 < self.epochs < math.inf:
            raise ValueError(f"epochs must be a positive number (got {self.epochs})")
        if self.query_width % self.query_heads:
            raise ValueError(
                f"query_width must be a multiple of query_heads (got {self.query_width} and {self.query_heads})"
            )

    def qformer_options(self) -> dict[str, Any]:
        """What `QFormer` takes."""
        return {
            "queries": self.queries,
            "width": self.query_width,
            "layers": self.query_layers,
            "heads": self.query_heads,
            "dropout": self.dropout,
        }


# what two methods must have in common for the one to take the other's networks
SHAPES = tuple(field.name for field in fields(MoleculeOptions) if field.name not in ("graphs", "dropout", "epochs"))
