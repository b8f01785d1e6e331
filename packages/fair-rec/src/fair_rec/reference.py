"""What people consumed: the proportions that recommendations are compared with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fair_rec.groups import ItemGroups
from predilect.data import SequenceRows, SequenceSplits


def history_counts(rows: SequenceRows, num_items: int) -> np.ndarray:
    """(N + 1,) how often each item stands in the histories of the rows, as models see them (`max_history`).

    Counted without cutting a history: a row covers a stretch of its user's sequence, and stretches are added up.
    """
    places = rows.target_place
    first = places - np.minimum(rows.position, rows.max_history)
    covered = np.zeros(len(rows.sequences.items) + 1, dtype=np.int64)
    np.add.at(covered, first, 1)
    np.add.at(covered, places, -1)
    times = np.cumsum(covered)[:-1]
    return np.bincount(rows.sequences.items, weights=times, minlength=num_items + 1)


def item_counts(splits: SequenceSplits) -> np.ndarray:
    """(N,) training interactions of items 1..N: the targets of the training rows, and what stands before the first."""
    rows = splits.train
    places = np.unique(np.concatenate([rows.target_place, rows.sequences.offsets[rows.user]]))
    return np.bincount(rows.sequences.items[places], minlength=splits.num_items + 1)[1:]


def shares(groups: ItemGroups, counts: np.ndarray) -> np.ndarray:
    """(G,) proportions of the groups among counted items (N + 1,): `sum_i c_i m_ig / sum_g' sum_i c_i m_ig'`.

    Raises:
        ValueError: no counted item has a group.
    """
    mass: np.ndarray = counts @ groups.membership
    if not mass.sum() > 0:
        raise ValueError(f"none of the items has a group of {groups.name}: there are no proportions")
    proportions: np.ndarray = mass / mass.sum()
    return proportions


def reference_proportions(
    groups: ItemGroups, source: str | Mapping[str, float], splits: SequenceSplits | None = None
) -> np.ndarray:
    """(G,) the proportions GH of the groups (IFairLRS, arXiv 2402.15215, section 3).

    Args:
        groups: of the items.
        source: "train", "validation" or "test": the histories of that part (the authors' code takes the test rows';
            the paper leaves it open); "catalogue": every item once; or a mapping label -> proportion.
        splits: the data, where `source` is a part.

    Raises:
        ValueError: an unknown source, labels that are not those of the groups, or proportions that do not sum to 1.
    """
    if isinstance(source, Mapping):
        if set(source) != set(groups.labels):
            raise ValueError(f"proportions must name {', '.join(groups.labels)} (got {', '.join(source)})")
        given = np.array([source[label] for label in groups.labels], dtype=np.float64)
        if not np.isfinite(given).all() or (given < 0).any() or abs(given.sum() - 1) > 1e-6:
            raise ValueError(f"proportions must be at least 0 and sum to 1 (got {given.tolist()})")
        return given
    if source == "catalogue":
        return shares(groups, np.r_[0, np.ones(groups.num_items)])
    if source not in ("train", "validation", "test"):
        raise ValueError(f"source is train, validation, test, catalogue, or proportions (got {source!r})")
    if splits is None:
        raise ValueError(f"the histories of {source} need the splits")
    return shares(groups, history_counts(splits.part(source), splits.num_items))
