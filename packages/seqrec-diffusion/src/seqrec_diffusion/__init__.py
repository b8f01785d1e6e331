"""DreamRec: recommendation by guided diffusion, reproducible, stable and fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from seqrec_diffusion.collapse import item_table_metrics as item_table_metrics
    from seqrec_diffusion.configuration import DreamRecConfig as DreamRecConfig
    from seqrec_diffusion.configuration import Sampling as Sampling
    from seqrec_diffusion.modeling import DreamRecModel as DreamRecModel
    from seqrec_diffusion.recommender import DreamRec as DreamRec
    from seqrec_diffusion.recommender import DreamRecRecommenderConfig as DreamRecRecommenderConfig
    from seqrec_diffusion.recommender import PreferDiff as PreferDiff
    from seqrec_diffusion.recommender import PreferDiffRecommenderConfig as PreferDiffRecommenderConfig
    from seqrec_diffusion.schedules import betas as betas
    from seqrec_diffusion.schedules import make_scheduler as make_scheduler

__version__ = "0.1.0"

_HOMES = {
    "collapse": ("item_table_metrics",),
    "configuration": ("DreamRecConfig", "Sampling"),
    "modeling": ("DreamRecModel",),
    "recommender": ("DreamRec", "DreamRecRecommenderConfig", "PreferDiff", "PreferDiffRecommenderConfig"),
    "schedules": ("betas", "make_scheduler"),
}

__all__ = [
    "DreamRec",
    "DreamRecConfig",
    "DreamRecModel",
    "DreamRecRecommenderConfig",
    "PreferDiff",
    "PreferDiffRecommenderConfig",
    "Sampling",
    "__version__",
    "betas",
    "item_table_metrics",
    "make_scheduler",
]

__getattr__, __dir__ = attach(
    __name__, {name: f"seqrec_diffusion.{home}" for home, names in _HOMES.items() for name in names}
)
