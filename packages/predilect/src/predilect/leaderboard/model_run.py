"""One model of a leaderboard: fit, measure, keep; or reuse, or continue, what an earlier run kept."""

from __future__ import annotations

import dataclasses
import shutil
import time
import traceback
from typing import TYPE_CHECKING, Any

from predilect.configuration import plain
from predilect.leaderboard.contest import Contest
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
    from predilect.method import Method

_TRAINING = "training.json"


class ModelRun:
    """Files of one model, in the order in which they are written; each is whole or absent.

        fingerprint.json    what the result depends on, before anything else
        fit/                the method's own checkpoints, until the result is there
        progress.json       the learning curve so far
        recommender/        the fitted method, with its learning curve in training.json; the contest names the folder
        rows.parquet        every test row: of a recommender user, target and rank
        result.json         the result: the model is finished

    Args:
        config: of the run.
        contest: what is compared.
        name: of the method.
        model_config: its options.
        run_fingerprint: what all models of the run depend on.
        metric: the one that is compared.
    """

    def __init__(
        self,
        config: Any,
        contest: Contest,
        name: str,
        model_config: Any,
        *,
        run_fingerprint: dict[str, Any],
        metric: str,
    ) -> None:
        self.config, self.contest, self.name, self.model_config = config, contest, name, model_config
        self.metric = metric
        self.folder = config.output_dir / "models" / name
        self.fingerprint = {"options": plain(model_config), "versions": method_versions(name), "run": run_fingerprint}

    def result(self, data: Any, observer: Observer) -> ModelResult:
        """The result that is kept, or a new one; a failure of the model is a result too."""
        if (kept := self._kept(observer)) is not None:
            observer.finished(kept, reused=True)
            return self._with_further_metrics(kept, data, observer)
        write_json(self.folder / "fingerprint.json", self.fingerprint)
        try:
            result = self._run(data, observer)
        except Exception as error:  # one model's failure must not lose the others
            write_text(self.folder / "error.txt", traceback.format_exc())
            result = self._describe("failed", error=f"{type(error).__name__}: {error}")
        write_json(self.folder / "result.json", dataclasses.asdict(result))
        shutil.rmtree(self.folder / "fit", ignore_errors=True)
        observer.finished(result, reused=False)
        return self._with_further_metrics(result, data, observer)

    def _with_further_metrics(self, result: ModelResult, data: Any, observer: Observer) -> ModelResult:
        if result.status != "ok":
            return result
        rows = self.folder / "rows.parquet"
        return self.contest.with_further_metrics(result, rows, data, self.config, observer.note)

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

    def _run(self, data: Any, observer: Observer) -> ModelResult:
        method, training = self._fitted(data, observer)
        observer.ranking(self.name)
        start = time.perf_counter()
        found = self.contest.measure(method, data, self.config)
        seconds = time.perf_counter() - start
        write_rows(self.folder / "rows.parquet", found.rows)
        return self._describe(
            "ok",
            metrics=found.metrics,
            groups=found.groups,
            num_parameters=method.num_parameters,
            fit_seconds=training["seconds"],
            curve=training["curve"],
            evaluation_seconds=seconds,
        )

    def _fitted(self, data: Any, observer: Observer) -> tuple[Method, dict[str, Any]]:
        """The method, fitted now or before the run was interrupted, and the record of its training."""
        kind, saved = self.contest.method_class(self.name), self.folder / self.contest.saved_as
        if (training := read_json(saved / _TRAINING)) is not None:
            observer.started(self.name, resumed=True)
            return kind.from_pretrained(saved), training
        resumed = (self.folder / "fit").is_dir()
        observer.started(self.name, resumed=resumed)
        method = kind(self.model_config)
        training = self._fit(method, data, observer)
        with whole_folder(saved) as folder:
            method.save_pretrained(folder)
            write_json(folder / _TRAINING, training)
        return method, training

    def _fit(self, method: Method, data: Any, observer: Observer) -> dict[str, Any]:
        from predilect.leaderboard.training_log import TrainingLog

        fit = self.folder / "fit"
        fit.mkdir(parents=True, exist_ok=True)
        log = TrainingLog(
            self.folder / "progress.json",
            lambda record: observer.epoch(self.name, record),
            lambda done, planned: observer.step(self.name, done, planned),
        )
        method.callbacks = (log,)
        method.fit(data, output_dir=fit, resume=True)
        return {"seconds": log.seconds, "curve": log.records}

    def _describe(self, status: Any, **found: Any) -> ModelResult:
        return ModelResult(
            name=self.name,
            status=status,
            config=self.fingerprint["options"],
            fingerprint=self.fingerprint,
            metric=self.metric,
            **found,
        )
