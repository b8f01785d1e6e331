"""Paired comparisons of the models of a run, on the rows that every one of them ranked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from predilect.evaluation.bootstrap import paired_bootstrap
from predilect.evaluation.ranking import rank_metric
from predilect.leaderboard.config import ProtocolConfig
from predilect.leaderboard.results import HEADLINE, Comparison, ModelResult


def compare_models(models: list[ModelResult], folder: Path, config: ProtocolConfig) -> list[Comparison]:
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
    values = {m.name: row_values(folder / m.name) for m in ranked}
    compared = []
    for model, other in dict.fromkeys(pairs):
        (ours, users, a), (theirs, _, b) = values[model], values[other]
        _, left, right = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
        found = paired_bootstrap(a[left], b[right], groups=users[left], resamples=config.bootstrap, seed=config.seed)
        compared.append(Comparison(model, other, *(float(x) for x in found)))
    return compared


def row_values(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The number, the user and the `ndcg@10` of every test row that a model ranked."""
    table = pq.read_table(folder / "rows.parquet", columns=["row", "user_id", "rank"])
    return table["row"].to_numpy(), table["user_id"].to_numpy(), rank_metric(table["rank"].to_numpy(), HEADLINE)
