"""What tests of methods need: a tiny language model, a planted log, and a tester for recommenders of any package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from predilect.testing.data import planted_splits as planted_splits
    from predilect.testing.language_model import tiny_language_model as tiny_language_model
    from predilect.testing.recommenders import check_recommender as check_recommender

_HOMES = {
    "data": ("planted_splits",),
    "language_model": ("tiny_language_model",),
    "recommenders": ("check_recommender",),
}

__all__ = ["check_recommender", "planted_splits", "tiny_language_model"]

__getattr__, __dir__ = attach(
    __name__, {name: f"predilect.testing.{home}" for home, names in _HOMES.items() for name in names}
)
