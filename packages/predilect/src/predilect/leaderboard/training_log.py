"""The learning curve and the time of a fit, kept on disk so that an interruption loses neither."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from predilect.leaderboard.results import HEADLINE
from predilect.runs import read_json, write_json


class TrainingLog(TrainerCallback):
    """Records every epoch's validation metric; a resumed fit goes on from the epoch of its checkpoint.

    Args:
        path: JSON file of the records.
        tell: called with each new record: `epoch`, `epochs`, `ndcg@10`, `seconds` since the fit began, without the
            time between an interruption and its resumption.
        tell_step: called with the optimizer steps done and planned in a training without validation.
    """

    def __init__(
        self, path: Path, tell: Callable[[dict[str, Any]], None], tell_step: Callable[[int, int], None]
    ) -> None:
        self.path, self.tell, self.tell_step = path, tell, tell_step
        self.records: list[dict[str, Any]] = read_json(path) or []
        self._start = time.perf_counter()
        self._before = self._recorded()

    @property
    def seconds(self) -> float:
        """Time of fitting so far, over all interruptions."""
        return self._before + time.perf_counter() - self._start

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget what lies after the checkpoint: it is done again."""
        self.records = [r for r in self.records if r["epoch"] <= (state.epoch or 0)]
        self._before = self._recorded()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Steps are all there is to tell where no epoch is validated."""
        if args.eval_strategy == "no":
            self.tell_step(state.global_step, state.max_steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep one record per epoch."""
        metrics: dict[str, float] = kwargs.get("metrics") or {}
        value = metrics.get(f"eval_{HEADLINE}")
        if value is None:
            return
        record = {"epoch": state.epoch, "epochs": args.num_train_epochs, HEADLINE: value, "seconds": self.seconds}
        self.records.append(record)
        write_json(self.path, self.records)
        self.tell(record)

    def _recorded(self) -> float:
        return float(self.records[-1]["seconds"]) if self.records else 0.0
