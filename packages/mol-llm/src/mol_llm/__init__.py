"""MolTC: a language model that reads two molecules, as SMILES and as graphs, and says what happens when they meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from mol_llm.encoder import GINEncoder as GINEncoder
    from mol_llm.encoder import side_by_side as side_by_side
    from mol_llm.graphs import molecule_graph as molecule_graph
    from mol_llm.molecule_tokens import MoleculeTokens as MoleculeTokens
    from mol_llm.molecule_tokens import pair_inputs as pair_inputs
    from mol_llm.moltc import MolTC as MolTC
    from mol_llm.moltc import MolTCConfig as MolTCConfig
    from mol_llm.pairs import INTERACTION as INTERACTION
    from mol_llm.pairs import SOLVATION as SOLVATION
    from mol_llm.pairs import PairData as PairData
    from mol_llm.pairs import PairRows as PairRows
    from mol_llm.pairs import PairTask as PairTask
    from mol_llm.qformer import QFormer as QFormer

__version__ = "0.1.0"

_HOMES = {
    "encoder": ("GINEncoder", "side_by_side"),
    "graphs": ("molecule_graph",),
    "molecule_tokens": ("MoleculeTokens", "pair_inputs"),
    "moltc": ("MolTC", "MolTCConfig"),
    "pairs": ("INTERACTION", "SOLVATION", "PairData", "PairRows", "PairTask"),
    "qformer": ("QFormer",),
}

__all__ = [
    "INTERACTION",
    "SOLVATION",
    "GINEncoder",
    "MolTC",
    "MolTCConfig",
    "MoleculeTokens",
    "PairData",
    "PairRows",
    "PairTask",
    "QFormer",
    "__version__",
    "molecule_graph",
    "pair_inputs",
    "side_by_side",
]

__getattr__, __dir__ = attach(__name__, {name: f"mol_llm.{home}" for home, names in _HOMES.items() for name in names})
