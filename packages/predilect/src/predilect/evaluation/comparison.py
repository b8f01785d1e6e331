"""Compare recommenders on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from datasets import Dataset

from predilect.evaluation.bootstrap import PairedResult, paired_bootstrap
from predilect.evaluation.evaluation import Evaluation
from predilect.evaluation.ranking import rank_metric

_ROW_KEYS = ("user_id", "position", "target")


class Comparison(NamedTuple):
    """One recommender as the baseline, and the difference of every other one to it (other minus baseline)."""

    baseline: str
    differences: dict[str, PairedResult]


def compare(
    evaluations: Mapping[str, Evaluation],
    metric: str = "ndcg@10",
    *,
    baseline: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Paired bootstrap over users of each evaluation against one of them.

    Args:
        evaluations: at least two, by the names that the result uses; same setting, same rows.
        metric: `hr@k`, `ndcg@k` or `mrr`, any k: it is computed from the kept ranks.
        baseline: a key of `evaluations`; None: the best one, so that every difference asks "is it behind the best?".
            P-values are not corrected for the number of comparisons, nor for having chosen the best on the same rows.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: fewer than two evaluations, an unknown baseline or metric, different settings or rows (names what
            differs).
    """
    if len(evaluations) < 2:
        raise ValueError(f"a comparison needs at least two evaluations (got {len(evaluations)})")
    if baseline is not None and baseline not in evaluations:
        raise ValueError(f"baseline must be one of {', '.join(evaluations)} (got {baseline!r})")
    _require_comparable(evaluations)
    base = baseline or max(evaluations, key=lambda name: rank_metric(_ranks(evaluations[name]), metric).mean())
    return Comparison(
        base,
        {
            name: paired_difference(other.rows, evaluations[base].rows, metric, resamples=resamples, seed=seed)
            for name, other in evaluations.items()
            if name != base
        },
    )


def paired_difference(a: Dataset, b: Dataset, metric: str, *, resamples: int = 1000, seed: int = 0) -> PairedResult:
    """The metric of `a` minus that of `b`, with a paired bootstrap over users, on the rows that both ranked.

    Args:
        a: `Evaluation.rows` of one recommender.
        b: those of another; of the same part of the same splits, where each may hold some of the rows only.
        metric: `hr@k`, `ndcg@k` or `mrr`.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: an unknown metric; one row number that stands for different rows; fewer than two common users.
    """
    ours, theirs = a.with_format("numpy"), b.with_format("numpy")
    common, left, right = np.intersect1d(ours["row"][:], theirs["row"][:], assume_unique=True, return_indices=True)
    for key in _ROW_KEYS:
        unequal = ours[key][:][left] != theirs[key][:][right]
        if unequal.any():
            raise ValueError(f"the two hold different rows: {key} differs first in row {common[unequal.argmax()]}")
    first, second = rank_metric(ours["rank"][:][left], metric), rank_metric(theirs["rank"][:][right], metric)
    return paired_bootstrap(first, second, groups=ours["user_id"][:][left], resamples=resamples, seed=seed)


def _ranks(evaluation: Evaluation) -> np.ndarray:
    return np.asarray(evaluation.rows.with_format("numpy")["rank"][:])


def _require_comparable(evaluations: Mapping[str, Evaluation]) -> None:
    (first_name, first), *others = evaluations.items()
    for name, other in others:
        keys = sorted({*first.setting, *other.setting})
        differing = [
            f"{key} ({first.setting.get(key)!r} and {other.setting.get(key)!r})"
            for key in keys
            if first.setting.get(key) != other.setting.get(key)
        ]
        if differing:
            raise ValueError(f"{first_name} and {name} are not comparable: they differ in {', '.join(differing)}")
        if len(first.rows) != len(other.rows):
            raise ValueError(
                f"{first_name} and {name} have {len(first.rows)} and {len(other.rows)} rows: evaluate both on one part"
            )
