"""Item-side fairness of recommenders: measured on any lists, repaired in training and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from fair_rec.groups import ItemGroups as ItemGroups
    from fair_rec.groups import category_groups as category_groups
    from fair_rec.groups import groups_of as groups_of
    from fair_rec.groups import popularity_groups as popularity_groups
    from fair_rec.groups import year_groups as year_groups
    from fair_rec.leaderboard import FairnessOfLists as FairnessOfLists
    from fair_rec.lists import Lists as Lists
    from fair_rec.lists import as_lists as as_lists
    from fair_rec.lists import lists_of as lists_of
    from fair_rec.metrics import accuracy_by_group as accuracy_by_group
    from fair_rec.metrics import average_popularity as average_popularity
    from fair_rec.metrics import calibration as calibration
    from fair_rec.metrics import compare_unfairness as compare_unfairness
    from fair_rec.metrics import coverage as coverage
    from fair_rec.metrics import dgu as dgu
    from fair_rec.metrics import exposure as exposure
    from fair_rec.metrics import gini as gini
    from fair_rec.metrics import group_proportions as group_proportions
    from fair_rec.metrics import group_unfairness as group_unfairness
    from fair_rec.metrics import mgu as mgu
    from fair_rec.metrics import unfairness_report as unfairness_report
    from fair_rec.programme import Programme as Programme
    from fair_rec.programme import item_prices as item_prices
    from fair_rec.programme import solve as solve
    from fair_rec.reference import item_counts as item_counts
    from fair_rec.reference import reference_proportions as reference_proportions
    from fair_rec.reranking import GroupReranker as GroupReranker
    from fair_rec.reranking import GroupRerankerConfig as GroupRerankerConfig
    from fair_rec.reranking import IFairLRS as IFairLRS
    from fair_rec.reranking import frontier as frontier
    from fair_rec.reweighting import GroupReweighting as GroupReweighting
    from fair_rec.tables import column_groups as column_groups

__version__ = "0.1.0"

_HOMES = {
    "groups": ("ItemGroups", "category_groups", "groups_of", "popularity_groups", "year_groups"),
    "leaderboard": ("FairnessOfLists",),
    "lists": ("Lists", "as_lists", "lists_of"),
    "metrics": (
        "accuracy_by_group",
        "average_popularity",
        "calibration",
        "compare_unfairness",
        "coverage",
        "dgu",
        "exposure",
        "gini",
        "group_proportions",
        "group_unfairness",
        "mgu",
        "unfairness_report",
    ),
    "programme": ("Programme", "item_prices", "solve"),
    "reference": ("item_counts", "reference_proportions"),
    "reranking": ("GroupReranker", "GroupRerankerConfig", "IFairLRS", "frontier"),
    "reweighting": ("GroupReweighting",),
    "tables": ("column_groups",),
}

__all__ = [
    "FairnessOfLists",
    "GroupReranker",
    "GroupRerankerConfig",
    "GroupReweighting",
    "IFairLRS",
    "ItemGroups",
    "Lists",
    "Programme",
    "__version__",
    "accuracy_by_group",
    "as_lists",
    "average_popularity",
    "calibration",
    "category_groups",
    "column_groups",
    "compare_unfairness",
    "coverage",
    "dgu",
    "exposure",
    "frontier",
    "gini",
    "group_proportions",
    "group_unfairness",
    "groups_of",
    "item_counts",
    "item_prices",
    "lists_of",
    "mgu",
    "popularity_groups",
    "reference_proportions",
    "solve",
    "unfairness_report",
    "year_groups",
]

__getattr__, __dir__ = attach(__name__, {name: f"fair_rec.{home}" for home, names in _HOMES.items() for name in names})
