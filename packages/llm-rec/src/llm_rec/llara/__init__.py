"""LLaRA: titles together with what a sequential recommender knows of the items."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from llm_rec.llara.config import LLaRAConfig as LLaRAConfig
    from llm_rec.llara.curriculum import CurriculumTrainer as CurriculumTrainer
    from llm_rec.llara.curriculum import hybrid_share as hybrid_share
    from llm_rec.llara.recommender import LLaRA as LLaRA
    from llm_rec.llara.recommender import item_vectors as item_vectors

_HOMES = {
    "config": ("LLaRAConfig",),
    "curriculum": (
        "CurriculumTrainer",
        "hybrid_share",
    ),
    "recommender": (
        "LLaRA",
        "item_vectors",
    ),
}

__all__ = [
    "CurriculumTrainer",
    "LLaRA",
    "LLaRAConfig",
    "hybrid_share",
    "item_vectors",
]

__getattr__, __dir__ = attach(
    __name__, {name: f"llm_rec.llara.{home}" for home, names in _HOMES.items() for name in names}
)
