from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predilect.evaluation import ClassificationMetrics


@given(st.lists(st.tuples(st.integers(-6, 6), st.booleans()), min_size=1, max_size=40), st.integers(-6, 6))
@settings(max_examples=200, deadline=None)
def test_agrees_with_counting_pairs(rows: list[tuple[int, bool]], threshold: int) -> None:
    metrics = ClassificationMetrics(threshold=threshold / 3)
    metrics.update([s / 3 for s, _ in rows], [int(y) for _, y in rows])
    result = metrics.compute()
    positives, negatives = [s for s, y in rows if y], [s for s, y in rows if not y]
    if positives and negatives:
        wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives]
        assert result["auc_roc"] == pytest.approx(np.mean(wins), abs=1e-12)
    else:
        assert math.isnan(result["auc_roc"])
    assert result["accuracy"] == pytest.approx(np.mean([(s >= threshold) == y for s, y in rows]))
    true_positives = sum(s >= threshold for s in positives)
    predicted = sum(s >= threshold for s, _ in rows)
    if true_positives:
        precision, recall = true_positives / predicted, true_positives / len(positives)
        assert result["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    else:
        assert result["f1"] == 0


def test_auc_equals_scikit_learn() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 20, 500) / 20, rng.integers(0, 2, 500)
    metrics = ClassificationMetrics()
    metrics.update(scores, labels)
    result = metrics.compute()
    assert result["auc_roc"] == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)
    assert result["f1"] == pytest.approx(sklearn_metrics.f1_score(labels, scores >= 0.5), abs=1e-12)


def test_batches_add_up_and_rows_are_kept() -> None:
    metrics = ClassificationMetrics()
    metrics.update([0.9, 0.2], [1, 1])
    metrics.update([0.5], [0])
    assert metrics.compute() == pytest.approx({"accuracy": 1 / 3, "f1": 0.5, "auc_roc": 0.5})
    assert metrics.per_row()["accuracy"].tolist() == [1, 0, 0]
    assert metrics.per_row()["score"].tolist() == [0.9, 0.2, 0.5]


def test_bad_input_is_refused() -> None:
    metrics = ClassificationMetrics()
    with pytest.raises(ValueError, match=r"labels must be 0 or 1 .got 2"):
        metrics.update([0.5], [2])
    with pytest.raises(ValueError, match="scores must be finite"):
        metrics.update([float("nan")], [1])
    with pytest.raises(ValueError, match="same number of rows"):
        metrics.update([0.5, 0.5], [1])
