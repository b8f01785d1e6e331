"""`GroupReweighting`: training rows weighted so that groups under-represented among targets count more."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fair_rec.groups import ItemGroups
from fair_rec.reference import history_counts
from predilect.data import SequenceRows, SequenceSplits


@dataclass(frozen=True)
class GroupReweighting:
    r"""Weights of training rows by the groups of their targets.

    .. math::
        W_G = GH_{train}(G) / GT_{train}(G), \qquad W_i = \frac{1}{|\mathcal G_i|} \sum_{G \in \mathcal G_i} W_G

    with GH the groups' shares of the training histories and GT of the training targets, each smoothed as
    (count + s) / (total + s |groups|). An item without a group has the weight 1.

    Source: IFairLRS (Jiang et al. 2024, arXiv 2402.15215), section 4.1. There the weights act per row; in the authors'
    code the mean over the batch is taken before them, so that they only scale whole batches. Here every loss of the
    core, of DreamRec and of language models takes them per row.

    Args:
        groups: of the items.
        smoothing: s, at least 0: counts added to each group; without it a group without a target is an error.

    Examples:
        >>> from predilect.data import load
        >>> from fair_rec import category_groups
        >>> splits = load().k_core(20).split()
        >>> weighted = GroupReweighting(category_groups(splits.catalogue)).apply(splits)
        >>> len(weighted.train.weight) == len(splits.train)
        True
    """

    groups: ItemGroups
    smoothing: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < float("inf"):
            raise ValueError(f"smoothing must be at least 0 (got {self.smoothing})")

    def group_weights(self, rows: SequenceRows) -> np.ndarray:
        """(G,) W_G.

        Raises:
            ValueError: without smoothing, a group that no target has; names it.
        """
        num_items = self.groups.num_items
        targets = np.bincount(rows.target, minlength=num_items + 1)
        history, target = (self._shares(c) for c in (history_counts(rows, num_items), targets))
        if (target == 0).any():
            label = self.groups.labels[int((target == 0).argmax())]
            raise ValueError(f"no training target is in the group {label!r}: pass smoothing above 0")
        weights: np.ndarray = history / target
        return weights

    def weights(self, rows: SequenceRows) -> np.ndarray:
        """(R,) the weight of each row, by its target."""
        of_items = self.groups.mean_over_groups(self.group_weights(rows))
        of_items[self.groups.breadth == 0] = 1
        weights: np.ndarray = of_items[rows.target]
        return weights

    def apply(self, splits: SequenceSplits) -> SequenceSplits:
        """The splits with weighted training rows (times the weights that they had)."""
        before = 1 if splits.train.weight is None else splits.train.weight
        return replace(splits, train=splits.train.with_weights(self.weights(splits.train) * before))

    def _shares(self, counts: np.ndarray) -> np.ndarray:
        mass = counts @ self.groups.membership + self.smoothing
        shares: np.ndarray = mass / mass.sum()
        return shares
