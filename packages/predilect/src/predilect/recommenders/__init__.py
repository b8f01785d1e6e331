"""The recommenders of the core: baselines without a sequence, item neighbours, and the sequential backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from predilect.recommenders.baselines import Popularity as Popularity
    from predilect.recommenders.baselines import Random as Random
    from predilect.recommenders.baselines import RecentPopularity as RecentPopularity
    from predilect.recommenders.injection import Injection as Injection
    from predilect.recommenders.injection import held_apart as held_apart
    from predilect.recommenders.item_knn import ItemKNN as ItemKNN
    from predilect.recommenders.sequential import CaserRecommender as CaserRecommender
    from predilect.recommenders.sequential import GRU4RecRecommender as GRU4RecRecommender
    from predilect.recommenders.sequential import NextItemRecommender as NextItemRecommender
    from predilect.recommenders.sequential import NextItNetRecommender as NextItNetRecommender
    from predilect.recommenders.sequential import SASRecRecommender as SASRecRecommender
    from predilect.recommenders.sequential import SequentialRecommender as SequentialRecommender

_NAMES = {
    "CaserRecommender": "predilect.recommenders.sequential",
    "GRU4RecRecommender": "predilect.recommenders.sequential",
    "Injection": "predilect.recommenders.injection",
    "ItemKNN": "predilect.recommenders.item_knn",
    "NextItemRecommender": "predilect.recommenders.sequential",
    "NextItNetRecommender": "predilect.recommenders.sequential",
    "Popularity": "predilect.recommenders.baselines",
    "Random": "predilect.recommenders.baselines",
    "RecentPopularity": "predilect.recommenders.baselines",
    "SASRecRecommender": "predilect.recommenders.sequential",
    "SequentialRecommender": "predilect.recommenders.sequential",
    "held_apart": "predilect.recommenders.injection",
}

__all__ = [
    "CaserRecommender",
    "GRU4RecRecommender",
    "Injection",
    "ItemKNN",
    "NextItNetRecommender",
    "NextItemRecommender",
    "Popularity",
    "Random",
    "RecentPopularity",
    "SASRecRecommender",
    "SequentialRecommender",
    "held_apart",
]

__getattr__, __dir__ = attach(__name__, _NAMES)
