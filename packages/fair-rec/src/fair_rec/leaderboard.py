"""The columns that this package adds to `predilect leaderboard`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fair_rec.groups import category_groups, popularity_groups
from fair_rec.lists import Lists
from fair_rec.metrics import dgu, group_unfairness, mgu
from fair_rec.reference import item_counts, reference_proportions
from predilect.evaluation.further import FurtherMetric

if TYPE_CHECKING:
    from datasets import Dataset

    from predilect.data import SequenceSplits

K, GROUPS = 10, 5
MEANING = (
    "Groups of items by popularity ({groups} of equal size), and by category where items have any: their shares of "
    "everybody's first ten places minus their shares of the training histories. mgu is the mean of the absolute "
    "differences, dgu the largest minus the smallest; 0 is fair. Above 0 by chance alone where few rows were ranked."
)


class FairnessOfLists:
    """`mgu@10` and `dgu@10` of a model's lists by popularity and by category (`fair_rec.metrics`).

    Groups and what was consumed are found once for all models; a model costs one pass over its lists. Data with fewer
    than five items have no groups by popularity, and lists shorter than ten places are not measured.

    Source: IFairLRS (Jiang et al. 2024, arXiv 2402.15215), section 3; unit counting, training histories.

    Args:
        splits: the data.

    Examples:
        >>> import predilect
        >>> from predilect.recommenders import Popularity
        >>> splits = predilect.load().k_core(20).split()
        >>> rows = predilect.evaluate(Popularity().fit(splits), splits, bootstrap=0).rows
        >>> [metric.name for metric in FairnessOfLists(splits)(rows)][:2]
        ['mgu@10 popularity', 'dgu@10 popularity']
    """

    def __init__(self, splits: SequenceSplits) -> None:
        self.num_items = splits.num_items
        groupings = [popularity_groups(item_counts(splits), GROUPS)] if splits.num_items >= GROUPS else []
        if any(splits.catalogue.categories):
            groupings.append(category_groups(splits.catalogue))
        self.groupings = [(groups, reference_proportions(groups, "train", splits)) for groups in groupings]

    def __call__(self, rows: Dataset) -> list[FurtherMetric]:
        """The metrics of the rows of an evaluation."""
        lists = _lists(rows, self.num_items)
        if lists.length < K:
            return []
        meaning = MEANING.format(groups=GROUPS)
        found = []
        for groups, reference in self.groupings:
            unfairness = group_unfairness(lists, groups, reference, K)
            for name, value in (("mgu", mgu(unfairness)), ("dgu", dgu(unfairness))):
                found.append(FurtherMetric(f"{name}@{K} {groups.name}", value, meaning, lower_is_better=True))
        return found


def _lists(rows: Dataset, num_items: int) -> Lists:
    """The column `top`, without a Python object per item."""
    table = rows.with_format("arrow")[:]
    top = table["top"].combine_chunks()
    lengths = np.diff(top.offsets.to_numpy())
    items = np.zeros((len(lengths), max(1, int(lengths.max(initial=0)))), dtype=np.int64)
    items[np.arange(items.shape[1]) < lengths[:, None]] = top.flatten().to_numpy(zero_copy_only=False)
    return Lists(items, table["user_id"].to_numpy(), num_items)
