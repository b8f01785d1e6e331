r"""Intervals over two sources of chance: the seeds of the runs, and the people whose rows are ranked.

A value belongs to a seed and a row, :math:`y_{sr} = \mu + a_s + b_{g(r)} + e_{sr}`, where the rows of a person `g` are
not independent. The variance of the mean over S seeds and G people has a part for each,

.. math:: V_{seeds} = \frac{1}{S} var_s(\bar y_s), \qquad
          V_{people} = \frac{G}{G - 1} \sum_g c_g^2, \qquad
          c_g = \frac{1}{R} \sum_{r \in g} (\bar y_r - \bar y).

The few seeds and the many people each have a t distribution of their own,

.. math:: \bar y \pm \sqrt{t_{S - 1}^2 V_{seeds} + t_{G - 1}^2 V_{people}},

which is how intervals of sums of variances are made (Graybill and Wang 1980, JASA 75). :math:`e_{sr}` is in both
parts; to take it out of one again makes intervals of two or three seeds too short. `interval_coverage` counts how
often such an interval holds the truth on simulated data. A bootstrap that draws three seeds out of three holds it too
seldom: its variance over seeds is too small by a third, and it knows no t distribution.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, stats

Array = np.ndarray[Any, Any]


class Estimate(NamedTuple):
    """A mean, the ends of its 95 % interval, and the p-value of "the mean is 0", two-sided.

    None where there is one seed: its runs do not tell how far seeds differ.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None


def estimate(values: Array, groups: Array | None = None, *, level: float = 0.95) -> Estimate:
    """The mean of (seeds, rows) and its interval.

    Args:
        values: (S, R). One column is a number of a whole run: then seeds alone are a source.
        groups: (R,) whose row each is; None: each row is a person of its own.
        level: of the interval.

    Raises:
        ValueError: no values, or values that are not finite.
    """
    values = np.asarray(values, float)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"an interval needs finite values (got {values.shape})")
    mean = float(values.mean())
    parts = _parts(values, groups)
    if parts is None:
        return Estimate(mean, None, None, None)
    half = _half_width(1 - level, parts)
    return Estimate(mean, mean - half, mean + half, _p_value(abs(mean), parts))


def _parts(values: Array, groups: Array | None) -> list[tuple[float, int]] | None:
    """(variance, degrees of freedom) of the seeds and of the people; None where one of them is not known."""
    seeds, rows = values.shape
    if seeds < 2:
        return None
    of_seeds = float(values.mean(1).var(ddof=1)) / seeds
    if rows == 1:
        return [(of_seeds, seeds - 1)]
    place = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    people = int(place.max()) + 1
    if people < 2:
        return None
    shares = np.bincount(place, weights=values.mean(0) - values.mean(), minlength=people) / rows
    of_people = float(np.square(shares).sum()) * people / (people - 1)
    return [(of_seeds, seeds - 1), (of_people, people - 1)]


def _half_width(alpha: float, parts: list[tuple[float, int]]) -> float:
    squares = [variance * stats.t.isf(alpha / 2, free) ** 2 for variance, free in parts if variance]
    return float(np.sqrt(sum(squares)))


def _p_value(distance: float, parts: list[tuple[float, int]]) -> float:
    """The largest alpha at which the interval still holds 0."""
    if not any(variance for variance, _ in parts):
        return 0.0 if distance else 1.0
    least = 1e-12
    if not distance:
        return 1.0
    if _half_width(least, parts) < distance:
        return least
    found: float = optimize.brentq(lambda alpha: _half_width(alpha, parts) - distance, least, 1.0, xtol=1e-13)
    return found
