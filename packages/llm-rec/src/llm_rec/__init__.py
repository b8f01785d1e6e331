"""Language models as recommenders: S-DPO, LLaRA, RecInterpreter and BIGRec's grounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from llm_rec.bigrec import BIGRec as BIGRec
    from llm_rec.bigrec import BIGRecConfig as BIGRecConfig
    from llm_rec.bigrec import Grounding as Grounding
    from llm_rec.converters import read_llara as read_llara
    from llm_rec.converters import read_sdpo as read_sdpo
    from llm_rec.generate_protocol import evaluate_generation as evaluate_generation
    from llm_rec.language import LanguageRecommender as LanguageRecommender
    from llm_rec.language import LanguageRecommenderConfig as LanguageRecommenderConfig
    from llm_rec.language import SoftmaxDPORecommender as SoftmaxDPORecommender
    from llm_rec.language import SoftmaxDPORecommenderConfig as SoftmaxDPORecommenderConfig
    from llm_rec.llara import LLaRA as LLaRA
    from llm_rec.llara import LLaRAConfig as LLaRAConfig
    from llm_rec.llara import hybrid_share as hybrid_share
    from llm_rec.matching import TitleMatcher as TitleMatcher

__version__ = "0.1.0"

_HOMES = {
    "bigrec": ("BIGRec", "BIGRecConfig", "Grounding"),
    "converters": ("read_llara", "read_sdpo"),
    "generate_protocol": ("evaluate_generation",),
    "language": (
        "LanguageRecommender",
        "LanguageRecommenderConfig",
        "SoftmaxDPORecommender",
        "SoftmaxDPORecommenderConfig",
    ),
    "llara": ("LLaRA", "LLaRAConfig", "hybrid_share"),
    "matching": ("TitleMatcher",),
}

__all__ = [
    "BIGRec",
    "BIGRecConfig",
    "Grounding",
    "LLaRA",
    "LLaRAConfig",
    "LanguageRecommender",
    "LanguageRecommenderConfig",
    "SoftmaxDPORecommender",
    "SoftmaxDPORecommenderConfig",
    "TitleMatcher",
    "__version__",
    "evaluate_generation",
    "hybrid_share",
    "read_llara",
    "read_sdpo",
]

__getattr__, __dir__ = attach(__name__, {name: f"llm_rec.{home}" for home, names in _HOMES.items() for name in names})
