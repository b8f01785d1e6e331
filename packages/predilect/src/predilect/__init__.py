"""Predilect: data, tokenization, backbones, evaluation and one command line for generative recommendation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from predilect.data import Catalogue as Catalogue
    from predilect.data import RecDataset as RecDataset
    from predilect.data import load as load
    from predilect.evaluation import evaluate as evaluate
    from predilect.method import Method as Method
    from predilect.recommender import Recommendation as Recommendation
    from predilect.recommender import Recommender as Recommender

__version__ = "0.1.0"
__all__ = ["Catalogue", "Method", "RecDataset", "Recommendation", "Recommender", "__version__", "evaluate", "load"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "Catalogue": "predilect.data.catalogue",
        "RecDataset": "predilect.data.dataset",
        "load": "predilect.data.loading",
        "evaluate": "predilect.evaluation.evaluation",
        "Method": "predilect.method",
        "Recommendation": "predilect.recommender",
        "Recommender": "predilect.recommender",
    },
)
