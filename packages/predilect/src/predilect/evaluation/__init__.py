"""Metrics, intervals, and the one function that evaluates any recommender under a named protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from predilect.evaluation.bootstrap import Interval as Interval
    from predilect.evaluation.bootstrap import PairedResult as PairedResult
    from predilect.evaluation.bootstrap import bootstrap_interval as bootstrap_interval
    from predilect.evaluation.bootstrap import paired_bootstrap as paired_bootstrap
    from predilect.evaluation.classification import ClassificationMetrics as ClassificationMetrics
    from predilect.evaluation.comparison import Comparison as Comparison
    from predilect.evaluation.comparison import compare as compare
    from predilect.evaluation.comparison import paired_difference as paired_difference
    from predilect.evaluation.evaluation import Evaluation as Evaluation
    from predilect.evaluation.evaluation import evaluate as evaluate
    from predilect.evaluation.generation import GenerationMetrics as GenerationMetrics
    from predilect.evaluation.preference import PreferenceMetrics as PreferenceMetrics
    from predilect.evaluation.ranking import RankingMetrics as RankingMetrics
    from predilect.evaluation.ranking import target_ranks as target_ranks
    from predilect.evaluation.regression import RegressionMetrics as RegressionMetrics

_NAMES = {
    "Interval": "predilect.evaluation.bootstrap",
    "PairedResult": "predilect.evaluation.bootstrap",
    "bootstrap_interval": "predilect.evaluation.bootstrap",
    "paired_bootstrap": "predilect.evaluation.bootstrap",
    "ClassificationMetrics": "predilect.evaluation.classification",
    "Comparison": "predilect.evaluation.comparison",
    "Evaluation": "predilect.evaluation.evaluation",
    "compare": "predilect.evaluation.comparison",
    "paired_difference": "predilect.evaluation.comparison",
    "evaluate": "predilect.evaluation.evaluation",
    "GenerationMetrics": "predilect.evaluation.generation",
    "PreferenceMetrics": "predilect.evaluation.preference",
    "RankingMetrics": "predilect.evaluation.ranking",
    "target_ranks": "predilect.evaluation.ranking",
    "RegressionMetrics": "predilect.evaluation.regression",
}

__all__ = [
    "ClassificationMetrics",
    "Comparison",
    "Evaluation",
    "GenerationMetrics",
    "Interval",
    "PairedResult",
    "PreferenceMetrics",
    "RankingMetrics",
    "RegressionMetrics",
    "bootstrap_interval",
    "compare",
    "evaluate",
    "paired_bootstrap",
    "paired_difference",
    "target_ranks",
]

__getattr__, __dir__ = attach(__name__, _NAMES)
