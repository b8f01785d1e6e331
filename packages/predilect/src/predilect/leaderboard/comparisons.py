"""Paired comparisons of the models of a run, each on the rows that both of its models ranked."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset

from predilect.evaluation.comparison import paired_difference
from predilect.leaderboard.config import ProtocolConfig
from predilect.leaderboard.results import HEADLINE, GroupComparison, ModelComparison, ModelResult

KINDS = ("target_frequency", "history_length")
_USERS = 30


def compare_models(models: list[ModelResult], folder: Path, config: ProtocolConfig) -> list[ModelComparison]:
    """Every model against the best counting method, and the best model against every other.

    Args:
        models: best first.
        folder: holds `<name>/rows.parquet`.
        config: resamples and seed of the bootstrap over users.
    """
    ranked = [m for m in models if m.status == "ok"]
    baseline = next((m.name for m in ranked if m.is_baseline), None)
    pairs = [(m.name, baseline) for m in ranked if baseline and m.name != baseline]
    pairs += [(ranked[0].name, m.name) for m in ranked[1:]]
    rows = {m.name: Dataset(pq.read_table(folder / m.name / "rows.parquet")) for m in ranked}
    bootstrap = {"resamples": config.bootstrap, "seed": config.seed}
    return [
        ModelComparison(model, other, *paired_difference(rows[model], rows[other], HEADLINE, **bootstrap))
        for model, other in dict.fromkeys(pairs)
    ]


def compare_in_groups(models: list[ModelResult], folder: Path, config: ProtocolConfig) -> list[GroupComparison]:
    """Every trained model against the best counting method on each kind of row, where two users or more have one.

    Args:
        models: best first.
        folder: holds `<name>/rows.parquet`.
        config: resamples and seed of the bootstrap over users.
    """
    ranked = [m for m in models if m.status == "ok"]
    baseline = next((m.name for m in ranked if m.is_baseline), None)
    trained = [m.name for m in ranked if not m.is_baseline]
    if baseline is None or not trained:
        return []
    rows = {name: Dataset(pq.read_table(folder / name / "rows.parquet")) for name in (baseline, *trained)}
    found = [
        (name, by, group, part, paired_difference(part, other, HEADLINE, resamples=config.bootstrap, seed=config.seed))
        for by in KINDS
        for group, other in _parts(rows[baseline], by).items()
        for name in trained
        if (part := _parts(rows[name], by).get(group)) is not None
    ]
    wider = NormalDist().inv_cdf(1 - 0.025 / max(len(found), 1)) / NormalDist().inv_cdf(0.975)
    comparisons = []
    for name, by, group, part, (difference, low, high, _) in found:
        users = len(set(part["user_id"]))
        enough = users >= _USERS
        comparisons.append(
            GroupComparison(
                name,
                baseline,
                by,
                group,
                len(part),
                users,
                difference,
                low,
                high,
                beats=enough and difference > wider * (difference - low),
                loses=enough and -difference > wider * (high - difference),
            )
        )
    return comparisons


def _parts(rows: Dataset, by: str) -> dict[str, Dataset]:
    """Kind -> its rows, where they are of two users or more."""
    labels = np.array(rows[by])
    parts = {str(name): rows.select(np.flatnonzero(labels == name)) for name in np.unique(labels)}
    return {name: part for name, part in parts.items() if len(set(part["user_id"])) > 1}
