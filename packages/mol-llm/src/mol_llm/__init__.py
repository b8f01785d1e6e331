"""MolTC: a language model that reads two molecules, as SMILES and as graphs, and says what happens when they meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from mol_llm.alignment import MoleculeAlignment as MoleculeAlignment
    from mol_llm.alignment import MoleculeAlignmentConfig as MoleculeAlignmentConfig
    from mol_llm.alignment_model import AlignmentModel as AlignmentModel
    from mol_llm.baselines import PairFingerprints as PairFingerprints
    from mol_llm.baselines import PairFingerprintsConfig as PairFingerprintsConfig
    from mol_llm.baselines import PairMean as PairMean
    from mol_llm.baselines import PairMinimol as PairMinimol
    from mol_llm.baselines import PairMinimolConfig as PairMinimolConfig
    from mol_llm.descriptions import DESCRIPTION as DESCRIPTION
    from mol_llm.descriptions import DescriptionData as DescriptionData
    from mol_llm.descriptions import DescriptionRows as DescriptionRows
    from mol_llm.descriptions import describe_pairs as describe_pairs
    from mol_llm.descriptions import read_chebi20 as read_chebi20
    from mol_llm.descriptions import split_descriptions as split_descriptions
    from mol_llm.encoder import GINEncoder as GINEncoder
    from mol_llm.encoder import side_by_side as side_by_side
    from mol_llm.evaluation import compare_pairs as compare_pairs
    from mol_llm.evaluation import evaluate_pairs as evaluate_pairs
    from mol_llm.graph_store import GraphStore as GraphStore
    from mol_llm.graphs import molecule_graph as molecule_graph
    from mol_llm.minimol import Minimol as Minimol
    from mol_llm.minimol import MinimolVectors as MinimolVectors
    from mol_llm.molecule_tokens import MoleculeTokens as MoleculeTokens
    from mol_llm.molecule_tokens import pair_inputs as pair_inputs
    from mol_llm.molecules import BadMolecule as BadMolecule
    from mol_llm.molecules import MoleculePair as MoleculePair
    from mol_llm.molecules import SmilesReader as SmilesReader
    from mol_llm.moltc import MolTC as MolTC
    from mol_llm.moltc import MolTCConfig as MolTCConfig
    from mol_llm.pair_gnn import PairGNN as PairGNN
    from mol_llm.pair_gnn import PairGNNConfig as PairGNNConfig
    from mol_llm.pair_method import PairMethod as PairMethod
    from mol_llm.pair_splits import leak_report as leak_report
    from mol_llm.pair_splits import split_pairs as split_pairs
    from mol_llm.pairs import ABSORPTION as ABSORPTION
    from mol_llm.pairs import EMISSION as EMISSION
    from mol_llm.pairs import INTERACTION as INTERACTION
    from mol_llm.pairs import LIFETIME as LIFETIME
    from mol_llm.pairs import SOLVATION as SOLVATION
    from mol_llm.pairs import PairData as PairData
    from mol_llm.pairs import PairRows as PairRows
    from mol_llm.pairs import PairTask as PairTask
    from mol_llm.pairs import value_of as value_of
    from mol_llm.predicting import PredictedFile as PredictedFile
    from mol_llm.predicting import predict_csv as predict_csv
    from mol_llm.published import read_abraham as read_abraham
    from mol_llm.published import read_chromophore as read_chromophore
    from mol_llm.published import read_combisolv_qm as read_combisolv_qm
    from mol_llm.published import read_compsol as read_compsol
    from mol_llm.published import read_deepddi as read_deepddi
    from mol_llm.published import read_drugbank as read_drugbank
    from mol_llm.published import read_twosides as read_twosides
    from mol_llm.published import read_zhangddi as read_zhangddi
    from mol_llm.qformer import QFormer as QFormer
    from mol_llm.readers import read_chchminer as read_chchminer
    from mol_llm.readers import read_combisolv as read_combisolv
    from mol_llm.readers import read_freesolv as read_freesolv
    from mol_llm.readers import read_miracle as read_miracle
    from mol_llm.readers import read_pairs_csv as read_pairs_csv
    from mol_llm.retrieval import RetrievalEvaluation as RetrievalEvaluation
    from mol_llm.retrieval import evaluate_retrieval as evaluate_retrieval

__version__ = "0.1.0"

_HOMES = {
    "alignment": ("MoleculeAlignment", "MoleculeAlignmentConfig"),
    "alignment_model": ("AlignmentModel",),
    "baselines": ("PairFingerprints", "PairFingerprintsConfig", "PairMean", "PairMinimol", "PairMinimolConfig"),
    "descriptions": (
        "DESCRIPTION",
        "DescriptionData",
        "DescriptionRows",
        "describe_pairs",
        "read_chebi20",
        "split_descriptions",
    ),
    "encoder": ("GINEncoder", "side_by_side"),
    "evaluation": ("compare_pairs", "evaluate_pairs"),
    "graph_store": ("GraphStore",),
    "graphs": ("molecule_graph",),
    "minimol": ("Minimol", "MinimolVectors"),
    "molecule_tokens": ("MoleculeTokens", "pair_inputs"),
    "molecules": ("BadMolecule", "MoleculePair", "SmilesReader"),
    "moltc": ("MolTC", "MolTCConfig"),
    "pair_gnn": ("PairGNN", "PairGNNConfig"),
    "pair_method": ("PairMethod",),
    "pair_splits": ("leak_report", "split_pairs"),
    "pairs": (
        "ABSORPTION",
        "EMISSION",
        "INTERACTION",
        "LIFETIME",
        "SOLVATION",
        "PairData",
        "PairRows",
        "PairTask",
        "value_of",
    ),
    "predicting": ("PredictedFile", "predict_csv"),
    "published": (
        "read_abraham",
        "read_chromophore",
        "read_combisolv_qm",
        "read_compsol",
        "read_deepddi",
        "read_drugbank",
        "read_twosides",
        "read_zhangddi",
    ),
    "qformer": ("QFormer",),
    "readers": ("read_chchminer", "read_combisolv", "read_freesolv", "read_miracle", "read_pairs_csv"),
    "retrieval": ("RetrievalEvaluation", "evaluate_retrieval"),
}

__all__ = [
    "ABSORPTION",
    "DESCRIPTION",
    "EMISSION",
    "INTERACTION",
    "LIFETIME",
    "SOLVATION",
    "AlignmentModel",
    "BadMolecule",
    "DescriptionData",
    "DescriptionRows",
    "GINEncoder",
    "GraphStore",
    "Minimol",
    "MinimolVectors",
    "MolTC",
    "MolTCConfig",
    "MoleculeAlignment",
    "MoleculeAlignmentConfig",
    "MoleculePair",
    "MoleculeTokens",
    "PairData",
    "PairFingerprints",
    "PairFingerprintsConfig",
    "PairGNN",
    "PairGNNConfig",
    "PairMean",
    "PairMethod",
    "PairMinimol",
    "PairMinimolConfig",
    "PairRows",
    "PairTask",
    "PredictedFile",
    "QFormer",
    "RetrievalEvaluation",
    "SmilesReader",
    "__version__",
    "compare_pairs",
    "describe_pairs",
    "evaluate_pairs",
    "evaluate_retrieval",
    "leak_report",
    "molecule_graph",
    "pair_inputs",
    "predict_csv",
    "read_abraham",
    "read_chchminer",
    "read_chebi20",
    "read_chromophore",
    "read_combisolv",
    "read_combisolv_qm",
    "read_compsol",
    "read_deepddi",
    "read_drugbank",
    "read_freesolv",
    "read_miracle",
    "read_pairs_csv",
    "read_twosides",
    "read_zhangddi",
    "side_by_side",
    "split_descriptions",
    "split_pairs",
    "value_of",
]

__getattr__, __dir__ = attach(__name__, {name: f"mol_llm.{home}" for home, names in _HOMES.items() for name in names})
