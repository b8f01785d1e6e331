"""One model of a leaderboard: fit, rank, keep; or reuse, or continue, what an earlier run kept."""

from __future__ import annotations

import dataclasses
import shutil
import time
import traceback
from typing import TYPE_CHECKING, Any

from predilect.configuration import plain
from predilect.leaderboard.config import LeaderboardConfig
from predilect.leaderboard.observer import Observer
from predilect.leaderboard.results import ModelResult
from predilect.runs import (
    differences,
    method_versions,
    read_json,
    whole_folder,
    write_json,
    write_rows,
    write_text,
)

if TYPE_CHECKING:
    from predilect.data import SequenceSplits
    from predilect.recommender import Recommender, RecommenderConfig

_TRAINING = "training.json"


class ModelRun:
    """Files of one model, in the order in which they are written; each is whole or absent.

        fingerprint.json    what the result depends on, before anything else
        fit/                the recommender's own checkpoints, until the result is there
        progress.json       the learning curve so far
        recommender/        the fitted recommender, with its learning curve in training.json
        rows.parquet        user, target and rank of every test row
        result.json         the result: the model is finished

    Args:
        config: of the run.
        name: of the recommender.
        model_config: its options.
        run_fingerprint: what all models of the run depend on.
    """

    def __init__(
        self, config: LeaderboardConfig, name: str, model_config: RecommenderConfig, *, run_fingerprint: dict[str, Any]
    ) -> None:
        self.config, self.name, self.model_config = config, name, model_config
        self.folder = config.output_dir / "models" / name
        self.fingerprint = {"options": plain(model_config), "versions": method_versions(name), "run": run_fingerprint}

    def result(self, splits: SequenceSplits, observer: Observer) -> ModelResult:
        """The result that is kept, or a new one; a failure of the model is a result too."""
        if (kept := self._kept(observer)) is not None:
            observer.finished(kept, reused=True)
            return self._with_further_metrics(kept, splits, observer)
        write_json(self.folder / "fingerprint.json", self.fingerprint)
        try:
            result = self._run(splits, observer)
        except Exception as error:  # one model's failure must not lose the others
            write_text(self.folder / "error.txt", traceback.format_exc())
            result = self._describe("failed", error=f"{type(error).__name__}: {error}")
        write_json(self.folder / "result.json", dataclasses.asdict(result))
        shutil.rmtree(self.folder / "fit", ignore_errors=True)
        observer.finished(result, reused=False)
        return self._with_further_metrics(result, splits, observer)

    def _with_further_metrics(self, result: ModelResult, splits: SequenceSplits, observer: Observer) -> ModelResult:
        """The result with what other packages measure on its lists.

        Taken from the rows that are kept, and not kept itself: a package that is installed later costs no new fit.
        Lists of candidates are those of whoever drew the candidates, and are not measured.
        """
        import pyarrow.parquet as pq
        from datasets import Dataset

        from predilect.evaluation.further import further_measures, measured

        if result.status != "ok" or self.config.protocol != "full":
            return result
        if not (measures := further_measures(splits, observer.note)):
            return result
        rows = Dataset(pq.read_table(self.folder / "rows.parquet"))
        found = measured(measures, rows, lambda text: observer.note(f"{self.name}: {text}"))
        return dataclasses.replace(
            result,
            metrics={**result.metrics, **{m.name: m.value for m in found}},
            further={m.name: {"meaning": m.meaning, "lower_is_better": m.lower_is_better} for m in found},
        )

    def _kept(self, observer: Observer) -> ModelResult | None:
        """The finished result of the same model; what another model left in the folder is removed."""
        before = read_json(self.folder / "fingerprint.json")
        if before != self.fingerprint:
            if before is not None:
                changed = "; ".join(differences(before, self.fingerprint))
                observer.note(f"{self.name} is fitted again, its earlier result was made differently: {changed}")
            shutil.rmtree(self.folder, ignore_errors=True)
            return None
        values = read_json(self.folder / "result.json")
        if values is None:
            return None
        if values["status"] == "failed":
            observer.note(f"{self.name} failed before ({values['error']}) and is tried again")
            shutil.rmtree(self.folder)
            return None
        return ModelResult(**values)

    def _run(self, splits: SequenceSplits, observer: Observer) -> ModelResult:
        from predilect.evaluation import evaluate

        recommender, training = self._fitted(splits, observer)
        observer.ranking(self.name)
        start = time.perf_counter()
        evaluation = evaluate(
            recommender,
            splits,
            "test",
            protocol=self.config.protocol,
            mask_seen=self.config.mask_seen,
            bootstrap=self.config.bootstrap,
            seed=self.config.seed,
            max_rows=recommender.max_test_rows,
        )
        seconds = time.perf_counter() - start
        write_rows(self.folder / "rows.parquet", evaluation.rows)
        return self._describe(
            "ok",
            metrics=dict(evaluation.metrics),
            groups=evaluation.groups,
            num_parameters=recommender.num_parameters,
            fit_seconds=training["seconds"],
            curve=training["curve"],
            evaluation_seconds=seconds,
        )

    def _fitted(self, splits: SequenceSplits, observer: Observer) -> tuple[Recommender, dict[str, Any]]:
        """The recommender, fitted now or before the run was interrupted, and the record of its training."""
        from predilect.recommender import Recommender, recommender_class

        saved = self.folder / "recommender"
        if (training := read_json(saved / _TRAINING)) is not None:
            observer.started(self.name, resumed=True)
            return Recommender.from_pretrained(saved), training
        resumed = (self.folder / "fit").is_dir()
        observer.started(self.name, resumed=resumed)
        recommender = recommender_class(self.name)(self.model_config)
        training = self._fit(recommender, splits, observer)
        with whole_folder(saved) as folder:
            recommender.save_pretrained(folder)
            write_json(folder / _TRAINING, training)
        return recommender, training

    def _fit(self, recommender: Recommender, splits: SequenceSplits, observer: Observer) -> dict[str, Any]:
        from predilect.leaderboard.training_log import TrainingLog

        fit = self.folder / "fit"
        fit.mkdir(parents=True, exist_ok=True)
        log = TrainingLog(
            self.folder / "progress.json",
            lambda record: observer.epoch(self.name, record),
            lambda done, planned: observer.step(self.name, done, planned),
        )
        recommender.callbacks = (log,)
        recommender.fit(splits, output_dir=fit, resume=True)
        return {"seconds": log.seconds, "curve": log.records}

    def _describe(self, status: Any, **found: Any) -> ModelResult:
        return ModelResult(
            name=self.name,
            status=status,
            config=self.fingerprint["options"],
            fingerprint=self.fingerprint,
            **found,
        )
