"""How much of a SASRec epoch is work, and what batches cost that are cut from tensors.

    python -m benchmarks.speed.data_loading [--quick] [--output FOLDER]

The first two rows come from timers around the forward pass, the backward pass and the optimizer's step of one training
run of the default SASRec: their seconds against those of the epochs, once of the passes over the rows only, once with
validation and checkpoints. The first epoch is left out (allocation, caches). The last row compares loading alone: the
tensors of a split, indexed once per batch, against the same split as a `datasets.Dataset`, row by row through the
default collator of transformers.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import datasets
import torch
from benchmarks.speed import _results
from torch.utils.data import DataLoader
from transformers import TrainerCallback, default_data_collator, set_seed

from predilect.data import SequenceSplits, load
from predilect.modeling import SASRec, SASRecConfig
from predilect.recommenders import SASRecRecommender
from predilect.training import NextItemRows, NextItemTrainer, next_item_arguments


class Clock(TrainerCallback):  # type: ignore[misc]  # Any to mypy
    """Seconds by what they were spent on, since the first epoch ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.started: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.started["optimizer"] = time.perf_counter()

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.seconds["optimizer"] += time.perf_counter() - self.started["optimizer"]

    def on_epoch_begin(self, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
        now = time.perf_counter()
        if round(state.epoch or 0) == 1:
            self.seconds.clear()
            self.started["all"] = now
        self.started["pass"] = now

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds["pass"] += time.perf_counter() - self.started["pass"]

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds["all"] = time.perf_counter() - self.started["all"]


class TimedTrainer(NextItemTrainer):
    def __init__(self, *args: Any, clock: Clock, **kwargs: Any) -> None:
        super().__init__(*args, callbacks=[clock], **kwargs)
        self.clock = clock
        self.accelerator.backward = self._timed("backward", self.accelerator.backward)
        self.compute_loss = self._timed("forward", super().compute_loss)

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.clock(name):
                return function(*args, **kwargs)

        return run


def epochs(splits: SequenceSplits, number: int) -> dict[str, float]:
    config = SASRecRecommender.config_class()
    set_seed(0)
    model = SASRec(SASRecConfig(num_items=splits.num_items, hidden_size=config.hidden_size, dropout=config.dropout))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = next_item_arguments(
            folder, max_epochs=number, batch_size=config.batch_size, learning_rate=config.learning_rate
        )
        train, validation = (NextItemRows(rows) for rows in (splits.train, splits.validation))
        TimedTrainer(model, arguments, train, validation, patience=number, clock=clock).train()
    seconds = dict(clock.seconds)
    seconds["work"] = sum(seconds[name] for name in ("forward", "backward", "optimizer"))
    return seconds


def loading(splits: SequenceSplits, rows: int) -> dict[str, float]:
    size = SASRecRecommender.config_class().batch_size
    rows_at_once = NextItemRows(splits.train)
    table = splits.train.to_dataset().select_columns(["history", "target"])
    padded = table.map(lambda row: {"history": [0] * (10 - len(row["history"])) + row["history"]}, keep_in_memory=True)
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))[:rows].tolist()

    def ours() -> None:
        for _ in DataLoader(rows_at_once, size, sampler=order, collate_fn=lambda batch: batch):
            pass

    def plain() -> None:
        for _ in DataLoader(padded, size, sampler=order, collate_fn=default_data_collator):
            pass

    return _results.time_in_turns({"ours": ours, "plain": plain}, repeats=3)


def main() -> None:
    given = _results.options("Share of an epoch spent in forward, backward and optimizer.")
    datasets.disable_progress_bars()
    splits = load().k_core(5).split()
    if given.quick:
        splits = dataclasses.replace(splits, train=splits.train.select(slice(2048)))
    seconds = epochs(splits, 2 if given.quick else 4)
    load_seconds = loading(splits, 512 if given.quick else 5_000)
    for name in ("forward", "backward", "optimizer"):
        print(f"{name}: {seconds[name] / seconds['pass']:.1%} of the passes over the rows")
    work = "forward, backward and optimizer of the same epochs"
    _results.write(
        "data_loading",
        [
            _results.row(
                "SASRec, passes over the training rows",
                ours=seconds["pass"],
                baseline=seconds["work"],
                unit="s",
                goal=0.85,
                baseline_is=work,
            ),
            _results.row(
                "SASRec, epochs with validation and checkpoint",
                ours=seconds["all"],
                baseline=seconds["work"],
                unit="s",
                goal=0.75,
                baseline_is=work,
            ),
            _results.row(
                "loading batches",
                ours=load_seconds["ours"],
                baseline=load_seconds["plain"],
                unit="s",
                goal=20,
                baseline_is="datasets.Dataset, row by row, default collator",
            ),
        ],
        data="MovieTweetings-100K, 5-core, temporal split, history 10; the default SASRec",
        given=given,
        packages=("transformers", "accelerate", "datasets"),
    )


if __name__ == "__main__":
    main()
