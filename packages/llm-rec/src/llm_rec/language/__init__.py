"""Text-only language models as recommenders: fine-tuning, then preference optimisation (S-DPO)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from llm_rec.language.config import LanguageRecommenderConfig as LanguageRecommenderConfig
    from llm_rec.language.config import SoftmaxDPORecommenderConfig as SoftmaxDPORecommenderConfig
    from llm_rec.language.recommender import LanguageRecommender as LanguageRecommender
    from llm_rec.language.recommender import SoftmaxDPORecommender as SoftmaxDPORecommender

_HOMES = {
    "config": (
        "LanguageRecommenderConfig",
        "SoftmaxDPORecommenderConfig",
    ),
    "recommender": (
        "LanguageRecommender",
        "SoftmaxDPORecommender",
    ),
}

__all__ = [
    "LanguageRecommender",
    "LanguageRecommenderConfig",
    "SoftmaxDPORecommender",
    "SoftmaxDPORecommenderConfig",
]

__getattr__, __dir__ = attach(
    __name__, {name: f"llm_rec.language.{home}" for home, names in _HOMES.items() for name in names}
)
