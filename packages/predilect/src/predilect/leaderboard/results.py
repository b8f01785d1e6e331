"""What a run found: one value object per model, one for the leaderboard, and `results.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from predilect.configuration import plain
from predilect.runs import read_json

SCHEMA = 1
HEADLINE = "ndcg@10"


@dataclass(frozen=True)
class Display:
    """What the table, the plots and the page show of a contest, and what they call it; by default, of recommenders.

    Attributes:
        metric: sorts the models, and is compared row by row.
        lower: metrics whose lowest value is the best one.
        columns: metrics of the table, as far as any model has them.
        shares: those that are shown in percent.
        title: of the first drawing.
        verb: what the best model does best, as the headline says it.
        sentence: of the best model's level; `str.format` with its metrics.
        units: what is resampled for the intervals.
        measuring: what a fitted model does on the test rows.
        facts: (label, metric of the best model) at the head of the page.
        protocol: how data were cut and measured, in sentences; empty: as a log's splits say it.
        meanings: (metric, meaning); empty: those of ranked lists.
    """

    metric: str = HEADLINE
    lower: tuple[str, ...] = ()
    columns: tuple[str, ...] = ("hr@10", HEADLINE, "mrr", "hr@1", "hr@5", "hr@20", "coverage@10", "valid_ratio")
    shares: tuple[str, ...] = ("coverage@10", "valid_ratio")
    title: str = "Who ranks the next item best"
    verb: str = "ranks the next item best"
    sentence: str = "For {hr@10:.1%} of the {rows:,} test rows the item that was taken next is among its first ten"
    units: str = "users"
    measuring: str = "ranking"
    facts: tuple[tuple[str, str], ...] = (("users in test", "users"), ("items ranked", "candidates"))
    protocol: str = ""
    meanings: tuple[tuple[str, str], ...] = ()

    @property
    def sign(self) -> int:
        """1 where more of the metric is better, else -1."""
        return -1 if self.metric in self.lower else 1

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Display:
        """From `asdict`, with JSON's lists as tuples."""
        return cls(**{name: _tuple(value) for name, value in values.items()})


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class ModelResult:
    """One recommender's part of a leaderboard.

    Attributes:
        name: name in the registry.
        status: "ok", or "failed" with the reason in `error`.
        metrics: what `evaluate` returned; empty for a failed model.
        groups: the same by kinds of rows (`Evaluation.groups`).
        num_parameters: learned parameters; 0 marks a counting method, a baseline of the comparisons.
        fit_seconds: wall clock of fitting, interruptions not counted.
        evaluation_seconds: wall clock of ranking the test rows.
        curve: one record per epoch (`epoch`, `ndcg@10` on validation, ...); empty for counting methods.
        config: the recommender's options.
        fingerprint: what the result depends on; equal fingerprints, equal result.
        error: why the model failed.
        further: metrics of other packages (`predilect.evaluation.further`), name -> `meaning` and `lower_is_better`;
            their values are among `metrics`.
        metric: the one that models are sorted by and compared on.
    """

    name: str
    status: Literal["ok", "failed"]
    metrics: dict[str, Any] = field(default_factory=dict)
    num_parameters: int = 0
    fit_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    fingerprint: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    groups: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    further: dict[str, dict[str, Any]] = field(default_factory=dict)
    metric: str = HEADLINE

    @property
    def is_baseline(self) -> bool:
        return self.status == "ok" and self.num_parameters == 0

    @property
    def headline(self) -> float:
        return float(self.metrics[self.metric])

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the headline metric."""
        return float(self.metrics[f"{self.metric}_low"]), float(self.metrics[f"{self.metric}_high"])


@dataclass(frozen=True)
class ModelComparison:
    """The paired difference of two models on the same rows, the headline metric of `model` minus that of `other`.

    Attributes:
        difference: of the metric over these rows.
        low, high: 95 % interval, bootstrap over users (`Display.units`).
        p_value: two-sided.
    """

    model: str
    other: str
    difference: float
    low: float
    high: float
    p_value: float

    @property
    def is_significant(self) -> bool:
        """The interval of the difference does not hold 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class GroupComparison:
    """A trained model against the best counting method on the rows of one kind, as in `ModelComparison`.

    Attributes:
        by: "target_frequency" or "history_length".
        group: the kind.
        rows, users: how many there are.
        beats, loses: the interval of the difference leaves out 0 after Bonferroni's correction over all comparisons of
            the run's kinds, and 30 users or more have such a row: percentile intervals of fewer are too narrow.
    """

    model: str
    other: str
    by: str
    group: str
    rows: int
    users: int
    difference: float
    low: float
    high: float
    beats: bool
    loses: bool


@dataclass(frozen=True)
class Leaderboard:
    """A finished run.

    Attributes:
        config: the options of the run.
        protocol: of the splits: data, strategy, k-core, history, candidates.
        counts: rows, users and items after each step of preparation.
        models: best first; failed ones last.
        comparisons: every model against the best baseline, and the best model against every other.
        group_comparisons: every trained model against the best baseline, by kinds of rows.
        examples: users with their history, next item and every model's first five; of other contests a table of test
            rows, column -> text.
        display: what is shown, and what it is called.
        figures: further drawings of the page: `title`, `note`, `x`, `y` (names of the axes), `diagonal` (whether equal
            values have a line), and `series`, each with `name`, `points` ((x, y), ...) and `line` (whether joined).
        versions, hardware, command, date: where the numbers come from.
    """

    config: dict[str, Any]
    protocol: dict[str, Any]
    counts: list[dict[str, Any]]
    models: list[ModelResult]
    comparisons: list[ModelComparison]
    examples: list[dict[str, Any]]
    versions: dict[str, str]
    hardware: dict[str, Any]
    command: str
    date: str
    schema: int = SCHEMA
    group_comparisons: list[GroupComparison] = field(default_factory=list)
    display: Display = field(default_factory=Display)
    figures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def further(self) -> dict[str, dict[str, Any]]:
        """Those of all models, in the order of their columns."""
        return {name: about for model in self.ranked for name, about in model.further.items()}

    @property
    def ranked(self) -> list[ModelResult]:
        return [m for m in self.models if m.status == "ok"]

    @property
    def failed(self) -> list[ModelResult]:
        return [m for m in self.models if m.status == "failed"]

    @property
    def num_rows(self) -> int:
        """Test rows."""
        return max((int(m.metrics["rows"]) for m in self.ranked), default=0)

    @property
    def sampled(self) -> list[ModelResult]:
        """Models that ranked some of the test rows only."""
        return [m for m in self.ranked if m.metrics["rows"] < self.num_rows]

    @property
    def best(self) -> ModelResult | None:
        return next(iter(self.ranked), None)

    @property
    def best_baseline(self) -> ModelResult | None:
        return next((m for m in self.ranked if m.is_baseline), None)

    def compared(self, model: str, other: str) -> ModelComparison | None:
        """The comparison of `model` with `other`, where there is one."""
        return next((c for c in self.comparisons if (c.model, c.other) == (model, other)), None)

    def to_dict(self) -> dict[str, Any]:
        """The content of `results.json`."""
        values = {k: v for k, v in asdict(self).items() if k != "schema"}
        return {"schema": self.schema, **values, "display": plain(self.display)}

    @classmethod
    def load(cls, path: str | Path) -> Leaderboard:
        """Read a `results.json`, or the one in a leaderboard's output folder.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it was written by another version of the format.
        """
        path = Path(path)
        path = path / "results.json" if path.is_dir() else path
        values = read_json(path)
        if values is None:
            raise FileNotFoundError(f"there is no {path}: run `predilect leaderboard` first")
        if values["schema"] != SCHEMA:
            raise ValueError(f"{path} has format {values['schema']}, this version reads format {SCHEMA}: run it again")
        values["models"] = [ModelResult(**m) for m in values["models"]]
        values["comparisons"] = [ModelComparison(**c) for c in values["comparisons"]]
        values["group_comparisons"] = [GroupComparison(**c) for c in values.get("group_comparisons", [])]
        values["display"] = Display.from_dict(values.get("display", {}))
        return cls(**values)


def sort_models(models: list[ModelResult], sign: int = 1) -> list[ModelResult]:
    """Best first by the headline metric, then `mrr`, then name; failed models last.

    Args:
        models: to sort.
        sign: -1 where the lowest value is the best one.
    """

    def key(model: ModelResult) -> tuple[Any, ...]:
        if model.status == "failed":
            return (1, 0.0, 0.0, model.name)
        return (0, -sign * model.headline, -float(model.metrics.get("mrr", 0.0)), model.name)

    return sorted(models, key=key)
