r"""How fairly groups of items are recommended, with intervals over users.

With :math:`n_G` the membership of group G summed over all places of all lists, and GH the reference proportions:

.. math::
    GP(G)@K = n_G / \sum_{G'} n_{G'}, \quad GU(G)@K = GP(G)@K - GH(G), \quad
    MGU@K = \frac{1}{|\mathcal G|} \sum_G |GU(G)@K|, \quad DGU@K = \max_G GU(G)@K - \min_G GU(G)@K

Positive GU: recommended more than consumed. Source: IFairLRS (Jiang et al. 2024, arXiv 2402.15215), section 3.

Everything here is linear in counts per user, so that a resample of users reweights their counts (U, G) and never looks
at a list again. A resample in which no list has an item of any group is drawn without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fair_rec.groups import ItemGroups
from fair_rec.lists import Lists
from predilect.evaluation import Evaluation

if TYPE_CHECKING:
    import pandas as pd
    from fairlearn.metrics import MetricFrame

    from predilect.data import SequenceRows

KS = (1, 5, 10, 20)
_CELLS = 1 << 22  # weights held at once, resamples x users


def group_proportions(lists: Lists, groups: ItemGroups, k: int) -> np.ndarray:
    """(G,) GP@k: the groups' shares of the first k places.

    Raises:
        ValueError: lists of another catalogue, or without an item that has a group.
    """
    return _shares(_counts(lists, groups, k, np.ones(k)).sum(axis=0))


def group_unfairness(lists: Lists, groups: ItemGroups, reference: np.ndarray, k: int) -> np.ndarray:
    """(G,) GU@k, in -1..1; sums to 0. `reference`: GH (`reference_proportions`)."""
    unfairness: np.ndarray = group_proportions(lists, groups, k) - _checked(reference, groups)
    return unfairness


def mgu(unfairness: np.ndarray) -> float:
    """Mean of |GU| over the groups, in 0..1; 0 is fair."""
    return float(np.abs(unfairness).mean(axis=-1))


def dgu(unfairness: np.ndarray) -> float:
    """Largest minus smallest GU, in 0..2; 0 is fair."""
    return float(np.ptp(unfairness, axis=-1))


def exposure(lists: Lists, groups: ItemGroups, k: int) -> np.ndarray:
    """(G,) the groups' shares of exposure, where place r counts 1 / log2(r + 1), as in ndcg.

    Source: Singh and Joachims 2018, Fairness of Exposure in Rankings (arXiv 1802.07281).
    """
    return _shares(_counts(lists, groups, k, 1 / np.log2(np.arange(k) + 2)).sum(axis=0))


def gini(lists: Lists, k: int) -> float:
    r"""Gini coefficient of how often items are recommended: 0 all alike, towards 1 few items for everyone.

    :math:`\sum_i (2 i - N - 1) c_{(i)} / (N \sum_i c_i)` over the ascending counts of all N items.
    """
    counts = np.sort(_item_counts(lists, k)[1:])
    place = np.arange(1, len(counts) + 1)
    return float(((2 * place - len(counts) - 1) * counts).sum() / (len(counts) * counts.sum()))


def coverage(lists: Lists, k: int) -> float:
    """Share of the items that are in at least one list."""
    return float((_item_counts(lists, k)[1:] > 0).mean())


def average_popularity(lists: Lists, counts: np.ndarray, k: int) -> float:
    """Mean training interactions (N,) of the recommended items, per place."""
    shown = _item_counts(lists, k)[1:]
    return float((shown * counts).sum() / shown.sum())


def calibration(lists: Lists, rows: SequenceRows, groups: ItemGroups, k: int, *, smoothing: float = 0.01) -> float:
    r"""Mean over lists of the Kullback-Leibler divergence, in nats, of a list's groups from its history's.

    :math:`\sum_G p(G) \log (p(G) / \tilde q(G))` with p of the history and
    :math:`\tilde q = (1 - a) q + a p`, a = `smoothing`: 0 where every list has its history's proportions. Rows
    without a group in history or list are left out. Source: Steck 2018, Calibrated Recommendations (RecSys),
    equation 6.

    Args:
        lists: of the rows, in their order.
        rows: with the histories.
        groups: of the items.
        k: places that count.
        smoothing: a, in 0..1, both excluded.
    """
    if len(lists) != len(rows):
        raise ValueError(f"calibration needs the lists of all rows (got {len(lists)} lists for {len(rows)} rows)")
    if not 0 < smoothing < 1:
        raise ValueError(f"smoothing lies between 0 and 1 (got {smoothing})")
    divergence: list[np.ndarray] = []
    for start in range(0, len(rows), 4096):
        part = slice(start, start + 4096)
        p = groups.membership[rows.histories(part).numpy()].sum(axis=1)
        q = groups.membership[lists.top(k)[part]].sum(axis=1)
        some = (p.sum(axis=1) > 0) & (q.sum(axis=1) > 0)
        p, q = (x[some] / x[some].sum(axis=1, keepdims=True) for x in (p, q))
        mixed = (1 - smoothing) * q + smoothing * p
        divergence.append((p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, mixed, 1))).sum(axis=1))
    values = np.concatenate(divergence)
    if not len(values):
        raise ValueError(f"no row has a group of {groups.name} in its history and in its list")
    return float(values.mean())


def unfairness_report(
    lists: Lists,
    groups: ItemGroups,
    reference: np.ndarray,
    ks: Sequence[int] = KS,
    *,
    bootstrap: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """GP, GU, MGU and DGU at several k, with percentile intervals over users.

    Args:
        lists: what was recommended.
        groups: of the items.
        reference: (G,) GH.
        ks: lengths.
        bootstrap: resamples of the users; 0: no intervals.
        level: of the intervals.
        seed: of the resampling.

    Returns:
        A row per k and group with `k, group, reference, share, unfairness, low, high` (interval of the unfairness),
        and per k the rows `MGU` and `DGU`, whose `unfairness` is the metric. MGU and DGU of few users are biased
        upwards, as means of absolute values are: their interval shows by how much they vary, not that bias.

    Raises:
        ValueError: lists or proportions that do not fit, a k beyond the lists, one user.
    """
    import pandas as pd

    reference = _checked(reference, groups)
    found = [_at_k(lists, groups, reference, k, bootstrap, seed) for k in ks]
    rows: list[dict[str, Any]] = []
    for k, (share, draws) in zip(ks, found, strict=True):
        values = np.r_[share - reference, mgu(share - reference), dgu(share - reference)]
        ends = _ends(draws - reference, level) if bootstrap else np.full((2, len(values)), np.nan)
        names = [*groups.labels, "MGU", "DGU"]
        sides = [*zip(reference, share, strict=True), (np.nan, np.nan), (np.nan, np.nan)]
        for name, (before, now), value, low, high in zip(names, sides, values, *ends, strict=True):
            row = {"k": k, "group": name, "reference": before, "share": now, "unfairness": value}
            rows.append(row | ({"low": low, "high": high} if bootstrap else {}))
    return pd.DataFrame(rows)


def compare_unfairness(
    a: Lists,
    b: Lists,
    groups: ItemGroups,
    reference: np.ndarray,
    k: int,
    *,
    bootstrap: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """MGU and DGU of a minus those of b, from the same resamples of the same users: below 0, a is fairer.

    Raises:
        ValueError: lists of other users, or in another order.
    """
    import pandas as pd

    if not np.array_equal(a.user, b.user):
        raise ValueError("a paired difference needs the lists of the same users in the same order")
    reference = _checked(reference, groups)
    (share_a, draws_a), (share_b, draws_b) = (_at_k(x, groups, reference, k, bootstrap, seed) for x in (a, b))
    rows = []
    for name, metric in (("MGU", _mgu_of), ("DGU", _dgu_of)):
        differences = metric(draws_a - reference) - metric(draws_b - reference)
        low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
        difference = float(metric(share_a - reference) - metric(share_b - reference))
        rows.append({"metric": f"{name}@{k}", "difference": difference, "low": low, "high": high})
    return pd.DataFrame(rows)


def accuracy_by_group(evaluation: Evaluation, groups: ItemGroups, k: int = 10) -> MetricFrame:
    """fairlearn's `MetricFrame` of hr@k over the targets' groups: `by_group`, `difference()`, `ratio()`, ...

    Targets without a group are left out; of several the first counts.
    """
    from fairlearn.metrics import MetricFrame

    target, rank = (np.asarray(evaluation.rows[name]) for name in ("target", "rank"))
    of_target = groups.membership[target]
    some = of_target.any(axis=1)
    if not some.any():
        raise ValueError(f"no target has a group of {groups.name}")
    label = np.array(groups.labels)[of_target.argmax(axis=1)][some]
    hits = (rank[some] <= k).astype(float)
    return MetricFrame(
        metrics={f"hr@{k}": _mean_prediction}, y_true=hits, y_pred=hits, sensitive_features={groups.name: label}
    )


def _mean_prediction(y_true: Any, y_pred: Any) -> float:
    return float(np.mean(y_pred))


def _counts(lists: Lists, groups: ItemGroups, k: int, discount: np.ndarray) -> np.ndarray:
    """(U, G) discounted memberships in the first k places, summed over each user's lists."""
    if groups.num_items != lists.num_items:
        raise ValueError(f"the groups are of {groups.num_items} items, the lists of {lists.num_items}")
    top = lists.top(k)
    users, user = np.unique(lists.user, return_inverse=True)
    counts = np.zeros((len(users), len(groups)))
    for place in range(k):  # a column at a time: (R, G) is all that is held
        of_place = groups.membership[top[:, place]] * discount[place]
        if len(users) == len(user):
            counts[user] += of_place
        else:
            np.add.at(counts, user, of_place)
    return counts


def _shares(mass: np.ndarray) -> np.ndarray:
    total = mass.sum(axis=-1, keepdims=True)
    if not (total > 0).all():
        raise ValueError("no recommended item has a group: there are no proportions")
    share: np.ndarray = mass / total
    return share


def _at_k(
    lists: Lists, groups: ItemGroups, reference: np.ndarray, k: int, bootstrap: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The shares (G,), and those of every resample (draws, G)."""
    counts = _counts(lists, groups, k, np.ones(k))
    share = _shares(counts.sum(axis=0))
    if not bootstrap:
        return share, np.zeros((0, len(groups)))
    if len(counts) < 2:
        raise ValueError("an interval needs at least two users to resample (got 1): pass bootstrap=0")
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // len(counts))
    drawn = [
        _times_drawn(rng, len(counts), min(step, bootstrap - start)) @ counts for start in range(0, bootstrap, step)
    ]
    mass = np.concatenate(drawn)
    return share, _shares(mass[mass.sum(axis=1) > 0])


def _times_drawn(rng: np.random.Generator, users: int, draws: int) -> np.ndarray:
    """(draws, users) how often each user is in each resample.

    Counted from as many uniform draws, which is the same multinomial as `Generator.multinomial` and, for many users,
    takes a small part of the time of its one binomial a user.
    """
    counts = (np.bincount(rng.integers(users, size=users), minlength=users) for _ in range(draws))
    return np.stack([count.astype(np.float64) for count in counts])


def _ends(unfairness: np.ndarray, level: float) -> np.ndarray:
    """(2, G + 2) the ends of the intervals of GU of every group, MGU and DGU."""
    columns = np.column_stack([unfairness, _mgu_of(unfairness), _dgu_of(unfairness)])
    ends: np.ndarray = np.quantile(columns, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return ends


def _mgu_of(unfairness: np.ndarray) -> Any:
    return np.abs(unfairness).mean(axis=-1)


def _dgu_of(unfairness: np.ndarray) -> Any:
    return np.ptp(unfairness, axis=-1)


def _item_counts(lists: Lists, k: int) -> np.ndarray:
    counts = np.bincount(lists.top(k).ravel(), minlength=lists.num_items + 1)
    if not counts[1:].any():
        raise ValueError("the lists are empty")
    return counts


def _checked(reference: np.ndarray | Mapping[str, float], groups: ItemGroups) -> np.ndarray:
    values = np.array([reference[g] for g in groups.labels]) if isinstance(reference, Mapping) else reference
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (len(groups),) or not np.isfinite(values).all() or abs(values.sum() - 1) > 1e-6:
        raise ValueError(
            f"the reference must hold {len(groups)} proportions that sum to 1 (got {np.round(values, 4).tolist()})"
        )
    return values
