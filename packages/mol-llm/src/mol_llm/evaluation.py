"""How good the predictions of pairs are, with intervals, and every row behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from mol_llm.molecules import MoleculePair
from mol_llm.pairs import PairRows, PairTask
from predilect.evaluation import ClassificationMetrics, PairedResult, RegressionMetrics
from predilect.evaluation.bootstrap import bootstrap_intervals, group_weights
from predilect.runs import write_json, write_rows

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairEvaluation:
    """Results of predictions.

    Attributes:
        results: `rows`, and the metrics, with `<metric>_low` and `<metric>_high`.
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
    task: PairTask,
    rows: PairRows,
    predictions: Any,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    fallback: float | None = None,
) -> PairEvaluation:
    """Compare predictions with targets.

    Tasks of more classes: `accuracy`, `f1_macro` (the mean of the F1 of all classes that occur among targets or
    predictions), Cohen's `kappa`, both scikit-learn's, and the `brier` score, the mean of `sum_c (p_c - y_c)^2`.
    Value tasks: `coverage`, `mae`, `rmse`, `r2` (`RegressionMetrics`). Tasks of two classes: `accuracy`, `f1`,
    `auc_roc` (`ClassificationMetrics`), `average_precision` of class 1, and the `brier` score, the mean of (p - y)^2.
    Intervals, of all but `coverage`, `f1`, `f1_macro` and `kappa`, resample unordered pairs of molecules, so that rows
    of one pair stay together.

    Args:
        task: a task of values or of classes.
        rows: with targets.
        predictions: (R,) values, or (R, classes) probabilities.
        bootstrap: resamples; 0: no intervals.
        seed: of the resampling.
        fallback: of a value task, what stands for a prediction that is NaN in `mae_imputed` and `rmse_imputed`, such
            as the mean of the training targets; None: neither is computed.

    Raises:
        ValueError: another kind of task, another number of predictions, or fewer than two pairs to resample.
    """
    if task.kind == "text":
        raise ValueError(f"values and classes can be measured; {task.name!r} asks for a text")
    predicted = np.asarray(predictions, dtype=np.float64)
    targets = np.asarray(rows.targets, dtype=np.float64)
    if task.kind == "value":
        found, per_row = _of_values(predicted, targets, fallback)
    elif len(task.answers) == 2:
        predicted = predicted[:, 1]
        found, per_row = _of_two_classes(predicted, targets)
    else:
        if predicted.shape != (len(rows), len(task.answers)):
            raise ValueError(f"probabilities must be {len(rows)} x {len(task.answers)} (got {predicted.shape})")
        found, per_row = _of_classes(predicted, targets.astype(int))
        predicted = predicted.argmax(axis=1).astype(np.float64)
    columns = {"first": list(rows.first), "second": list(rows.second), "target": targets, "prediction": predicted}
    kept = Dataset.from_dict(columns)
    results = {"rows": len(rows), **found, **_observed(task, kept)}
    results |= {name: float(values.mean()) for name, values in per_row.items() if name not in found}
    if bootstrap:
        for name, values in resampled_metrics(task, kept, resamples=bootstrap, seed=seed).items():
            results[f"{name}_low"], results[f"{name}_high"] = _ends(values)
        groups = _pair_numbers(kept)
        for name, values in per_row.items():
            there = ~np.isnan(values)  # rows with a prediction
            if len({*groups[there]}) < 2 and not there.all():
                continue
            of_metric = {name: values[there]}
            (interval,) = bootstrap_intervals(of_metric, groups=groups[there], resamples=bootstrap, seed=seed).values()
            results[f"{name}_low"], results[f"{name}_high"] = interval.low, interval.high
    return PairEvaluation(results, kept)


Measured = tuple[dict[str, float], dict[str, NDArray[np.float64]]]  # metrics, and those that are means over rows


def _of_values(predicted: NDArray[np.float64], targets: NDArray[np.float64], fallback: float | None) -> Measured:
    metrics = RegressionMetrics(fallback)
    metrics.update(predicted.tolist(), targets.tolist())
    rows = metrics.per_row()
    return metrics.compute(), {name: rows[name] for name in ("mae", "mae_imputed") if name in rows}


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


def compare_pairs(
    task: PairTask, a: Dataset, b: Dataset, metric: str, *, resamples: int = 1000, seed: int = 0
) -> PairedResult:
    """The metric of `a` minus that of `b`, both of the same rows, by a paired bootstrap over unordered pairs.

    The p-value is that of `predilect.evaluation.paired_bootstrap`, whose statistic may here be any metric: the draws
    of the difference are centred on no difference.

    Args:
        task: of the rows.
        a: `PairEvaluation.rows` of one method.
        b: those of another.
        metric: one of those with an interval.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: different rows, or fewer than two pairs.
    """
    if any(list(a[name]) != list(b[name]) for name in ("first", "second", "target")):
        raise ValueError("a comparison needs the same rows: evaluate both on one part, with one --test-rows and seed")
    one, other = (resampled_metrics(task, rows, resamples=resamples, seed=seed)[metric] for rows in (a, b))
    observed = _observed(task, a)[metric] - _observed(task, b)[metric]
    draws = (one - other)[np.isfinite(one - other)]
    extreme = int((np.abs(draws - observed) >= abs(observed) * (1 - 1e-12)).sum())
    return PairedResult(observed, *_ends(draws), (1 + extreme) / (1 + len(draws)))


def _observed(task: PairTask, rows: Dataset) -> dict[str, float]:
    targets, predicted = (np.asarray(rows[name], dtype=np.float64) for name in ("target", "prediction"))
    once = _weighted_metrics(task, targets, predicted, np.ones((1, len(targets))))
    return {name: float(values[0]) for name, values in once.items()}


def _ends(values: Floats) -> tuple[float, float]:
    """Of the 95 % interval; resamples in which a metric cannot be had, as of one class only, are left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def resampled_metrics(
    task: PairTask, rows: Dataset | Mapping[str, Any], *, resamples: int, seed: int = 0
) -> dict[str, Floats]:
    """Metric -> its value in each resample of the unordered pairs of molecules, (resamples,).

    Args:
        task: of values or classes; of more than two classes there is the accuracy.
        rows: `PairEvaluation.rows`.
        resamples: how many.
        seed: equal ones draw equal resamples of the same rows.

    Raises:
        ValueError: fewer than two pairs.
    """
    groups = _pair_numbers(rows)
    if not groups.max(initial=0):
        raise ValueError("an interval needs at least two pairs of molecules to resample (got 1)")
    targets, predicted = (np.asarray(rows[name], dtype=np.float64) for name in ("target", "prediction"))
    parts = [
        _weighted_metrics(task, targets, predicted, weights[:, groups])
        for weights in group_weights(int(groups.max()) + 1, resamples, seed)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _pair_numbers(rows: Dataset | Mapping[str, Any]) -> NDArray[np.int64]:
    """(rows,) the number of each row's unordered pair."""
    pairs = [MoleculePair(a, b).canonical() for a, b in zip(rows["first"], rows["second"], strict=True)]
    number = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
    return np.array([number[pair] for pair in pairs])


def _weighted_metrics(task: PairTask, targets: Floats, predicted: Floats, weights: Floats) -> dict[str, Floats]:
    """Metrics in which row r counts weights[d, r] times, (draws,) each; NaN where one cannot be had."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if len(task.answers) > 2:
            return {"accuracy": weights @ (predicted == targets) / weights.sum(axis=1)}
        if task.kind == "class":
            return _along_thresholds(targets, predicted, weights)
        read = ~np.isnan(predicted)  # rows without a prediction are in `coverage`
        weights, error = weights[:, read], (predicted - targets)[read]
        total = weights.sum(axis=1)
        around = targets[read] - (targets[read].mean() if read.any() else 0.0)  # near 0, so that squares cancel less
        square = weights @ np.square(error)
        spread = weights @ np.square(around) - np.square(weights @ around) / total
        r2 = np.where(spread > 1e-9 * square, 1 - square / spread, np.nan)
        return {"mae": weights @ np.abs(error) / total, "rmse": np.sqrt(square / total), "r2": r2}


def _along_thresholds(targets: Floats, predicted: Floats, weights: Floats) -> dict[str, Floats]:
    """`auc_roc` by trapezoids and `average_precision` by steps, over the thresholds between different predictions."""
    order = np.argsort(-predicted, kind="stable")
    last = np.append(np.flatnonzero(np.diff(predicted[order])), len(order) - 1)  # of every run of equal predictions
    ordered, positive = weights[:, order], targets[order] == 1
    hits = np.cumsum(ordered * positive, axis=1)[:, last]
    false = np.cumsum(ordered * ~positive, axis=1)[:, last]
    new_hits, new_false = np.diff(hits, axis=1, prepend=0), np.diff(false, axis=1, prepend=0)
    area = (new_false * (hits - new_hits / 2)).sum(axis=1)
    precision = np.where(hits > 0, hits / (hits + false), 0.0)
    total = weights.sum(axis=1)
    return {
        "accuracy": weights @ ((predicted >= 0.5) == (targets == 1)) / total,
        "auc_roc": area / (hits[:, -1] * false[:, -1]),
        "average_precision": (new_hits * precision).sum(axis=1) / hits[:, -1],
        "brier": weights @ np.square(predicted - targets) / total,
    }
