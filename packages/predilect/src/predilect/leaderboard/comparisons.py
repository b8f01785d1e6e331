"""Paired comparisons of the models of a run, each on the rows that both of its models ranked."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset

from predilect.evaluation.comparison import paired_difference
from predilect.leaderboard.config import ProtocolConfig
from predilect.leaderboard.results import HEADLINE, ModelComparison, ModelResult


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
