"""`Contest`: what a leaderboard compares, and how; `Recommenders`, who ranks the next item best."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from predilect.configuration import plain
from predilect.leaderboard.config import DataConfig, ProtocolConfig
from predilect.leaderboard.results import Display, ModelResult

if TYPE_CHECKING:
    from datasets import Dataset

    from predilect.method import Method


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a fitted method did on the test rows.

    Attributes:
        metrics: `rows`, and values with `<metric>_low` and `<metric>_high`; none is NaN.
        rows: every row behind them, kept as `rows.parquet`.
        groups: metrics by kinds of rows (`Evaluation.groups`).
    """

    metrics: dict[str, Any]
    rows: Dataset
    groups: dict[str, dict[str, dict[str, float]]] = dataclasses.field(default_factory=dict)


class Contest(ABC):
    """The part of a leaderboard that knows what its models do; runner, folders, resuming, table and page do not.

    The config of a run is a `RunConfig` with the contest's own options, `models`, `seed` and `section` among them.

    Attributes:
        section: name of the config's field with the options of each model.
        saved_as: folder of a fitted model below `models/<name>/`.
    """

    section: ClassVar[str]
    saved_as: ClassVar[str]

    @abstractmethod
    def available(self) -> list[str]:
        """Names of the installed methods that may take part."""

    @abstractmethod
    def method_class(self, name: str) -> type[Method]:
        """The class of one of them; an unknown name is a ValueError."""

    @abstractmethod
    def prepare(self, config: Any) -> Any:
        """The data, with `describe()`; a ValueError where they cannot be measured."""

    @abstractmethod
    def fingerprint(self, config: Any, data: Any) -> dict[str, Any]:
        """All that every number of the run depends on; the data by its content and not by its name."""

    @abstractmethod
    def display(self, config: Any, data: Any) -> Display:
        """What is shown."""

    @abstractmethod
    def measure(self, method: Any, data: Any, config: Any) -> Measured:
        """A fitted method on the test rows."""

    def with_further_metrics(
        self, result: ModelResult, rows: Path, data: Any, config: Any, note: Callable[[str], None]
    ) -> ModelResult:
        """The result with what is computed from its kept rows each time, and is not kept itself."""
        return result

    @abstractmethod
    def conclude(self, models: list[ModelResult], folder: Path, data: Any, config: Any) -> dict[str, Any]:
        """`protocol`, `counts`, `comparisons` and `examples` of `Leaderboard`, and more of its fields.

        Args:
            models: best first; failed ones last.
            folder: holds `<name>/rows.parquet`.
            data: what `prepare` gave.
            config: of the run.
        """


class Recommenders(Contest):
    """Who ranks the next item best: every registered recommender on the splits of a log."""

    section = "recommenders"
    saved_as = "recommender"

    def available(self) -> list[str]:
        from predilect.recommender import available_recommenders

        return available_recommenders()

    def method_class(self, name: str) -> type[Method]:
        from predilect.recommender import recommender_class

        return recommender_class(name)

    def prepare(self, config: Any) -> Any:
        from predilect.leaderboard.preparation import prepare

        return prepare(config)

    def fingerprint(self, config: Any, data: Any) -> dict[str, Any]:
        from predilect.runs import data_fingerprint

        by_content = {f.name for f in dataclasses.fields(DataConfig)}
        values = plain(config)
        kept = [f.name for f in dataclasses.fields(ProtocolConfig) if f.name not in by_content]
        return {**{name: values[name] for name in kept}, "data": data_fingerprint(data)}

    def display(self, config: Any, data: Any) -> Display:
        if config.protocol == "full":
            return Display()
        return Display(facts=(("users in test", "users"), ("candidates ranked", "candidates")))

    def measure(self, method: Any, data: Any, config: Any) -> Measured:
        from predilect.evaluation import evaluate

        found = evaluate(
            method,
            data,
            "test",
            protocol=config.protocol,
            mask_seen=config.mask_seen,
            bootstrap=config.bootstrap,
            seed=config.seed,
            max_rows=method.max_test_rows,
        )
        return Measured(dict(found.metrics), found.rows, found.groups)

    def with_further_metrics(
        self, result: ModelResult, rows: Path, data: Any, config: Any, note: Callable[[str], None]
    ) -> ModelResult:
        """The result with what other packages measure on its lists; one that is installed later costs no new fit.

        Lists of candidates are those of whoever drew the candidates, and are not measured.
        """
        import pyarrow.parquet as pq
        from datasets import Dataset

        from predilect.evaluation.further import further_measures, measured

        if config.protocol != "full" or not (measures := further_measures(data, note)):
            return result
        found = measured(measures, Dataset(pq.read_table(rows)), lambda text: note(f"{result.name}: {text}"))
        return dataclasses.replace(
            result,
            metrics={**result.metrics, **{m.name: m.value for m in found}},
            further={m.name: {"meaning": m.meaning, "lower_is_better": m.lower_is_better} for m in found},
        )

    def conclude(self, models: list[ModelResult], folder: Path, data: Any, config: Any) -> dict[str, Any]:
        from predilect.leaderboard.comparisons import compare_in_groups, compare_models
        from predilect.leaderboard.examples import pick_examples

        return {
            "protocol": {
                **data.protocol,
                "ranking": config.protocol,
                "seen": "masked" if config.mask_seen else "kept",
            },
            "counts": [dataclasses.asdict(c) for c in data.counts],
            "comparisons": compare_models(models, folder, config),
            "group_comparisons": compare_in_groups(models, folder, config),
            "examples": pick_examples(models, folder, data, config),
        }
