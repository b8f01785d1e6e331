"""Metrics of lists that other packages add to every evaluation of a command, found by their entry points."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from predilect.registry import METRICS, registered

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from datasets import Dataset

    from predilect.data.splits import SequenceSplits
    from predilect.evaluation.evaluation import Evaluation


class FurtherMetric(NamedTuple):
    """One number about the lists of a model.

    Attributes:
        name: of the column.
        value: the number.
        meaning: what a reader of the report is told; metrics with the same meaning are told together.
        lower_is_better: which value is the best one.
    """

    name: str
    value: float
    meaning: str
    lower_is_better: bool = False


Measure = Callable[["Dataset"], "list[FurtherMetric]"]
"""Of the rows of an `Evaluation` (`user_id`, `target`, `rank`, `top`, ...) under full ranking."""
_ready: tuple[weakref.ref[SequenceSplits], dict[str, EntryPoint], dict[str, Measure]] | None = None  # the last ones


def further_measures(splits: SequenceSplits, note: Callable[[str], None]) -> dict[str, Measure]:
    """What is registered under the entry-point group `predilect.metrics`, made ready for these data.

    An entry point is called with the splits and gives a `Measure`, so that what depends on the data alone is done
    once for all models: asked again for the same splits it gives the same measures, and notes nothing again.

    Args:
        splits: the data.
        note: is told in one line about what cannot be measured; it is left out then.
    """
    global _ready
    entries = registered(METRICS)
    if _ready is not None and _ready[0]() is splits and _ready[1] == entries:
        return _ready[2]
    found = {}
    for name, entry in sorted(entries.items()):
        try:
            found[name] = entry.load()(splits)
        except Exception as error:  # another package's failure must not lose the models
            note(f"the metrics {name} are left out: {_told(error)}")
    _ready = weakref.ref(splits), entries, found
    return found


def measured(measures: dict[str, Measure], rows: Dataset, note: Callable[[str], None]) -> list[FurtherMetric]:
    """The metrics of one model's rows.

    Args:
        measures: see `further_measures`.
        rows: of its evaluation.
        note: as there.
    """
    found: list[FurtherMetric] = []
    for name, measure in measures.items():
        try:
            found += measure(rows)
        except Exception as error:
            note(f"the metrics {name} are left out: {_told(error)}")
    return found


def with_further_metrics(evaluation: Evaluation, splits: SequenceSplits, note: Callable[[str], None]) -> Evaluation:
    """An evaluation with the metrics that other packages add, behind its own results.

    Lists of candidates are those of whoever drew the candidates: such an evaluation stays as it is.

    Args:
        evaluation: of any recommender.
        splits: the data it was made on.
        note: see `further_measures`.
    """
    if evaluation.setting["protocol"] != "full":
        return evaluation
    found = measured(further_measures(splits, note), evaluation.rows, note)
    return replace(evaluation, results={**evaluation.results, **{metric.name: metric.value for metric in found}})


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
