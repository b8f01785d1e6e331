"""How good the predictions of pairs are, with intervals, and every row behind it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

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
        rows: `first`, `second`, `target`, `prediction` (a value, the probability of class 1, or, of more than
            two classes, the most probable one).
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

    Tasks of more classes: `accuracy`, `f1_macro` (the mean of the F1 of all classes that occur among targets or
    predictions), Cohen's `kappa`, both scikit-learn's, and the `brier` score, the mean of `sum_c (p_c - y_c)^2`.
    Value tasks: `coverage`, `mae`, `rmse`, `r2` (`RegressionMetrics`). Tasks of two classes: `accuracy`, `f1`,
    `auc_roc` (`ClassificationMetrics`), and the `brier` score, the mean of (p - y)^2. The intervals of `mae`,
    `accuracy` and `brier` resample unordered pairs of molecules, so that rows of one pair stay together.

    Args:
        task: a task of values or of classes.
        rows: with targets.
        predictions: (R,) values, or (R, classes) probabilities.
        bootstrap: resamples; 0: no intervals.
        seed: of the resampling.

    Raises:
        ValueError: another kind of task, another number of predictions, or fewer than two pairs to resample.
    """
    if task.kind == "text":
        raise ValueError(f"values and classes can be measured; {task.name!r} asks for a text")
    predicted = np.asarray(predictions, dtype=np.float64)
    targets = np.asarray(rows.targets, dtype=np.float64)
    if task.kind == "value":
        found, per_row = _of_values(predicted, targets)
    elif len(task.answers) == 2:
        predicted = predicted[:, 1]
        found, per_row = _of_two_classes(predicted, targets)
    else:
        if predicted.shape != (len(rows), len(task.answers)):
            raise ValueError(f"probabilities must be {len(rows)} x {len(task.answers)} (got {predicted.shape})")
        found, per_row = _of_classes(predicted, targets.astype(int))
        predicted = predicted.argmax(axis=1).astype(np.float64)
    results = {"rows": len(rows), **found}
    results |= {name: float(values.mean()) for name, values in per_row.items()}
    if bootstrap:
        pairs = [MoleculePair(a, b).canonical() for a, b in rows.pairs]
        number = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
        groups = np.array([number[pair] for pair in pairs])
        for name, interval in bootstrap_intervals(per_row, groups=groups, resamples=bootstrap, seed=seed).items():
            results[f"{name}_low"], results[f"{name}_high"] = interval.low, interval.high
    columns = {"first": list(rows.first), "second": list(rows.second), "target": targets, "prediction": predicted}
    return PairEvaluation(results, Dataset.from_dict(columns))


Measured = tuple[dict[str, float], dict[str, NDArray[np.float64]]]  # metrics, and those that are means over rows


def _of_values(predicted: NDArray[np.float64], targets: NDArray[np.float64]) -> Measured:
    metrics = RegressionMetrics()
    metrics.update(predicted.tolist(), targets.tolist())
    return metrics.compute(), {"mae": metrics.per_row()["mae"]}


def _of_two_classes(predicted: NDArray[np.float64], targets: NDArray[np.float64]) -> Measured:
    metrics = ClassificationMetrics()
    metrics.update(predicted.tolist(), targets.astype(int).tolist())
    per_row = {"accuracy": metrics.per_row()["accuracy"], "brier": np.square(predicted - targets)}
    return metrics.compute(), per_row


def _of_classes(predicted: NDArray[np.float64], targets: NDArray[np.int64]) -> Measured:
    from sklearn.metrics import cohen_kappa_score, f1_score

    chosen = predicted.argmax(axis=1)
    wanted = np.eye(predicted.shape[1])[targets]
    found = {
        "f1_macro": float(f1_score(targets, chosen, average="macro")),
        "kappa": float(cohen_kappa_score(targets, chosen)) if len({*targets, *chosen}) > 1 else float("nan"),
    }
    per_row = {
        "accuracy": (chosen == targets).astype(np.float64),
        "brier": np.square(predicted - wanted).sum(axis=1),
    }
    return found, per_row
