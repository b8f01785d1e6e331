"""BIGRec: generate a title freely, then ground it in the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from llm_rec.bigrec.grounding import Grounding as Grounding
    from llm_rec.bigrec.grounding import choose_gamma as choose_gamma
    from llm_rec.bigrec.grounding import inject as inject
    from llm_rec.bigrec.recommender import BIGRec as BIGRec
    from llm_rec.bigrec.recommender import BIGRecConfig as BIGRecConfig

_HOMES = {
    "grounding": (
        "Grounding",
        "choose_gamma",
        "inject",
    ),
    "recommender": (
        "BIGRec",
        "BIGRecConfig",
    ),
}

__all__ = [
    "BIGRec",
    "BIGRecConfig",
    "Grounding",
    "choose_gamma",
    "inject",
]

__getattr__, __dir__ = attach(
    __name__, {name: f"llm_rec.bigrec.{home}" for home, names in _HOMES.items() for name in names}
)
