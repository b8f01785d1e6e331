"""How good the predictions of pairs are, with intervals, and every row behind it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from mol_llm.molecules import MoleculePair
from mol_llm.pairs import PairRows, PairTask
from predilect.evaluation import ClassificationMetrics, RegressionMetrics
from predilect.evaluation.bootstrap import bootstrap_intervals
from predilect.runs import write_json, write_rows


@dataclass(frozen=True)
class PairEvaluation:
    """Results of predictions.

    Attributes:
        results: `rows`, and the metrics; means of rows have `<metric>_low` and `<metric>_high`.
        rows: `first`, `second`, `target`, `prediction` (a value, or the probability of class 1).
    """

    results: dict[str, Any]
    rows: Dataset

    def save(self, folder: str | Path) -> None:
        """Write `evaluation.json` (a metric that cannot be had is null) and `rows.parquet`."""
        folder = Path(folder)
        results = {name: None if value != value else value for name, value in self.results.items()}
        write_json(folder / "evaluation.json", {"results": results})
        write_rows(folder / "rows.parquet", self.rows)


def evaluate_pairs(
    task: PairTask, rows: PairRows, predictions: Any, *, bootstrap: int = 1000, seed: int = 0
) -> PairEvaluation:
    """Compare predictions with targets.

    Value tasks: `coverage`, `mae`, `rmse`, `r2` (`RegressionMetrics`). Tasks of two classes: `accuracy`, `f1`,
    `auc_roc` (`ClassificationMetrics`), and the `brier` score, the mean of (p - y)^2. The intervals of `mae`,
    `accuracy` and `brier` resample unordered pairs of molecules, so that rows of one pair stay together.

    Args:
        task: a task of values, or of two classes.
        rows: with targets.
        predictions: (R,) values, or (R, 2) probabilities of the classes.
        bootstrap: resamples; 0: no intervals.
        seed: of the resampling.

    Raises:
        ValueError: another kind of task, another number of predictions, or fewer than two pairs to resample.
    """
    if task.kind == "text" or (task.kind == "class" and len(task.answers) != 2):
        raise ValueError(f"values and two classes can be measured; {task.name!r} is of another kind")
    predicted = np.asarray(predictions, dtype=np.float64)
    predicted = predicted[:, 1] if task.kind == "class" else predicted
    targets = np.asarray(rows.targets, dtype=np.float64)
    if task.kind == "class":
        metrics: Any = ClassificationMetrics()
        metrics.update(predicted, targets)
        per_row = {"accuracy": metrics.per_row()["accuracy"], "brier": np.square(predicted - targets)}
    else:
        metrics = RegressionMetrics()
        metrics.update(predicted, targets)
        per_row = {"mae": metrics.per_row()["mae"]}
    results = {"rows": len(rows), **metrics.compute()}
    results |= {name: float(values.mean()) for name, values in per_row.items()}
    if bootstrap:
        pairs = [MoleculePair(a, b).canonical() for a, b in rows.pairs]
        number = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
        groups = np.array([number[pair] for pair in pairs])
        for name, interval in bootstrap_intervals(per_row, groups=groups, resamples=bootstrap, seed=seed).items():
            results[f"{name}_low"], results[f"{name}_high"] = interval.low, interval.high
    columns = {"first": list(rows.first), "second": list(rows.second), "target": targets, "prediction": predicted}
    return PairEvaluation(results, Dataset.from_dict(columns))
