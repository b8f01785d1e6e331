"""What was recovered, what was invented, and in which order: per row, and as means with intervals over users."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from llm_rec.interpreter.titles import Reading
from predilect.evaluation import bootstrap_interval


def recovery_row(history: Sequence[int], reading: Reading) -> dict[str, float]:
    """Metrics of one text about one history; items that come again count once, at their first place.

    With the set H of the history's items and the set D of the items that are named:
    `recovered` = |D and H|; `recovered_share` = |D and H| / |H|; `named` = |D|;
    `hallucinated` = |D without H| / |D|; `unknown` = share of the entries of the list that name no item at all;
    `order` = Kendall's tau between the order of the text and that of the history, over the recovered items, in
    [-1, 1]; `exact` = whether the text is the whole list in its order. Of nothing there is no share: NaN, as is the
    order of fewer than two items.

    Source: the paper counts `recovered` only, a measure of sets although its target is a list; hallucination and order
    are additions.

    Examples:
        >>> row = recovery_row([5, 3, 8], Reading([8, 5, 9, 8], entries=5, unknown=1))
        >>> row["recovered"], row["order"], round(row["hallucinated"], 3), row["unknown"]
        (2.0, -1.0, 0.333, 0.2)
    """
    if not len(history):
        raise ValueError("an empty history has nothing to recover: leave such rows out")
    place = {item: number for number, item in enumerate(dict.fromkeys(history))}
    named = list(dict.fromkeys(reading.items))
    recovered = [place[item] for item in named if item in place]
    return {
        "recovered": float(len(recovered)),
        "recovered_share": len(recovered) / len(place),
        "named": float(len(named)),
        "hallucinated": (len(named) - len(recovered)) / len(named) if named else math.nan,
        "unknown": reading.unknown / reading.entries if reading.entries else math.nan,
        "order": kendall_tau(recovered),
        "exact": float(named == list(place) and not reading.unknown),
    }


def kendall_tau(places: Sequence[int]) -> float:
    """(concordant - discordant) / pairs of distinct numbers against their ascending order; NaN of fewer than two.

    Examples:
        >>> kendall_tau([0, 1, 2]), kendall_tau([1, 0]), round(kendall_tau([0, 2, 1]), 3)
        (1.0, -1.0, 0.333)
    """
    signs = [1 if later > earlier else -1 for i, later in enumerate(places) for earlier in places[:i]]
    return sum(signs) / len(signs) if signs else math.nan


def naming_row(target: int, whole: int | None, reading: Reading) -> dict[str, float]:
    """Metrics of one text that is to be one title.

    `exact`: the text is the title, normalised; `contained`: the title is among those in the text; `valid`: the text is
    the title of some item. (`TitleMatcher` compares normalised titles, and years where only they differ.)
    """
    return {
        "exact": float(whole == target),
        "contained": float(target in reading.items),
        "valid": float(whole is not None),
    }


def summary(
    rows: Sequence[Mapping[str, float]], users: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Means of every metric, `<metric>_low` and `<metric>_high` (95 %, bootstrap over users).

    Rows in which a metric is NaN are left out of it; `<metric>_rows` says how many it has where there are such rows.
    A metric without any row is NaN, and has no interval if its rows are of one user.
    """
    results: dict[str, float] = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        there = ~np.isnan(values)
        if not there.all():
            results[f"{name}_rows"] = int(there.sum())
        results[name] = float(values[there].mean()) if there.any() else math.nan
        if resamples and (there.all() or len(np.unique(users[there])) > 1):
            interval = bootstrap_interval(values[there], groups=users[there], resamples=resamples, seed=seed)
            results |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return results


def histogram(recovered: Sequence[float], longest: int) -> dict[str, int]:
    """`recovered=r`: number of rows with r recovered items, for r = 0..`longest`."""
    counts = np.bincount(np.asarray(recovered, dtype=np.int64), minlength=longest + 1)
    return {f"recovered={number}": int(count) for number, count in enumerate(counts)}
