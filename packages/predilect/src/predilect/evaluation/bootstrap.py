"""Intervals and paired tests by resampling users, because the rows of one user are not independent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch

from predilect.evaluation.metric import float_rows

Values = np.ndarray | torch.Tensor | list[float]

_CELLS = 1 << 22  # weights held at once, resamples x groups


class Interval(NamedTuple):
    """A mean and the two ends of its bootstrap interval."""

    mean: float
    low: float
    high: float


class PairedResult(NamedTuple):
    """The mean of a - b, the two ends of its bootstrap interval, and the p-value of "there is no difference"."""

    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_interval(
    values: Values,
    *,
    groups: np.ndarray | torch.Tensor | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the mean of `values`.

    A resample draws whole groups with replacement, as many as there are, and takes the mean over all their rows: the
    ratio of the drawn groups' sums and counts. Where a user has several rows this is wider, and right; resampling rows
    as if they were independent covers the truth too seldom. Source: Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, section 13.3; resampling of clusters: Davison and Hinkley, Bootstrap Methods and their
    Application, 1997, section 3.8. Percentile intervals of fewer than about 30 groups are too narrow.

    Args:
        values: (rows,) finite.
        groups: (rows,) what is resampled as one, such as user ids; None: every row on its own.
        level: probability that the interval is to cover, in 0..1.
        resamples: how many; the ends of a 95 % interval need about 1000.
        seed: of the resampling.

    Raises:
        ValueError: no values, NaN or infinite values, another number of groups than of values, fewer than two distinct
            groups.

    Examples:
        >>> bootstrap_interval([1.0, 1.0, 1.0])
        Interval(mean=1.0, low=1.0, high=1.0)
    """
    columns = {"values": values}
    return bootstrap_intervals(columns, groups=groups, level=level, resamples=resamples, seed=seed)["values"]


def bootstrap_intervals(
    columns: Mapping[str, Values],
    *,
    groups: np.ndarray | torch.Tensor | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """`bootstrap_interval` of several metrics of the same rows, from the same resamples."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1 (got {level})")
    arrays = {name: float_rows(name, values) for name, values in columns.items()}
    means = _resampled_means(arrays, groups, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {
        name: Interval(float(array.mean()), float(low[i]), float(high[i]))
        for i, (name, array) in enumerate(arrays.items())
    }


def paired_bootstrap(
    a: Values,
    b: Values,
    *,
    groups: np.ndarray | torch.Tensor | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> PairedResult:
    """Is the mean of `a` different from the mean of `b`, both measured on the same rows?

    Resamples the differences d = a - b, by groups as `bootstrap_interval` does; `low` and `high` are its interval. The
    two-sided p-value shifts the resampled means m* so that they are centred on no difference:

        p = (1 + number of resamples with |m* - mean(d)| >= |mean(d)|) / (1 + resamples)

    The two ones count the observed data as one resample: p is never 0, its least value is 1 / (1 + resamples). Source:
    Efron and Tibshirani 1993, section 16.4; the correction: Davison and Hinkley 1997, equation 4.11.

    Args:
        a: (rows,) finite.
        b: (rows,) finite; the same rows in the same order.
        groups: (rows,) what is resampled as one, such as user ids; None: every row on its own.
        level: of the interval, in 0..1.
        resamples: how many.
        seed: of the resampling.

    Raises:
        ValueError: as in `bootstrap_interval`, and where `a` and `b` differ in length.
    """
    first, second = float_rows("a", a), float_rows("b", b)
    if len(first) != len(second):
        raise ValueError(f"a and b must hold the same rows (got {len(first)} and {len(second)})")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1 (got {level})")
    differences = first - second
    means = _resampled_means({"a - b": differences}, groups, resamples, seed)[:, 0]
    observed = float(differences.mean())
    # Sums in another order differ in the last bits: a resample equal to the observed mean must count as extreme.
    slack = 1e-12 * float(np.abs(differences).max())
    extreme = int((np.abs(means - observed) >= abs(observed) - slack).sum())
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return PairedResult(observed, float(low), float(high), (1 + extreme) / (1 + resamples))


def _resampled_means(
    columns: Mapping[str, np.ndarray], groups: np.ndarray | torch.Tensor | None, resamples: int, seed: int
) -> np.ndarray:
    """(resamples, columns): the mean of every column in every resample of the groups."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1 (got {resamples})")
    sums = _group_sums(columns, groups)
    means = []
    for weights in group_weights(len(sums), resamples, seed):
        totals = weights @ sums
        means.append(totals[:, :-1] / totals[:, -1:])
    return np.concatenate(means)


def group_weights(num_groups: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """(part of the resamples, num_groups) float64: how often each group was drawn; for statistics other than means.

    Args:
        num_groups: what is resampled.
        resamples: how many, over all parts.
        seed: of the resampling; equal ones give equal resamples, so that differences of statistics are paired.
    """
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // num_groups)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        draws = rng.integers(num_groups, size=(size, num_groups)) + np.arange(size)[:, None] * num_groups
        weights = np.bincount(draws.ravel(), minlength=size * num_groups).reshape(size, num_groups)
        yield weights.astype(np.float64)


def _group_sums(columns: Mapping[str, np.ndarray], groups: np.ndarray | torch.Tensor | None) -> np.ndarray:
    """(groups, columns + 1): the sum of every column in every group, and last the group's number of rows."""
    rows = {name: len(values) for name, values in columns.items()}
    length = next(iter(rows.values()), 0)
    if length == 0 or len(set(rows.values())) > 1:
        raise ValueError(f"a bootstrap needs rows, and as many for every metric (got {rows})")
    if groups is None:
        inverse = np.arange(length)
    else:
        keys = np.asarray(groups)
        if keys.shape != (length,):
            raise ValueError(f"groups must have one entry per row, shape ({length},) (got {keys.shape})")
        inverse = np.unique(keys, return_inverse=True)[1]
    count = int(inverse.max()) + 1
    if count < 2:
        raise ValueError("an interval needs at least two groups to resample (got 1)")
    parts = [np.bincount(inverse, weights=values, minlength=count) for values in columns.values()]
    return np.stack([*parts, np.bincount(inverse, minlength=count).astype(np.float64)], axis=1)
