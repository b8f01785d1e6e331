"""Our side of `sequential`: a process that trains one epoch at a time, when it is told to.

    python -m benchmarks.speed._next_item MODE LOG OPTIONS

Modes: windows; rows, one row at a time; before, that with all logits at once; million, steps on a million items;
splits, cutting a log of random items and nothing else. Each line on the standard input is an epoch (million: a step;
splits: the cut), each line on the standard output what it took.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa
import torch
from pyarrow import csv
from torch import Tensor
from torch.nn import functional as F
from transformers import TrainerCallback, set_seed

from predilect.data import RecDataset
from predilect.modeling import SASRec, SASRecConfig
from predilect.recommenders import SASRecRecommender


def peak_gib() -> float:
    """Most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def tell(**content: Any) -> None:
    print(json.dumps({**content, "peak": peak_gib()}), flush=True)


class Turns(TrainerCallback):  # type: ignore[misc]  # Any to mypy
    """Waits for a line before each epoch; tells its seconds, without the validation that follows, and ndcg@10."""

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        if not sys.stdin.readline():
            raise SystemExit
        self.start = time.process_time()

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds = time.process_time() - self.start

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        tell(seconds=self.seconds, ndcg=metrics["eval_ndcg@10"])


class AllLogits(SASRec):
    """The softmax with the logits of all targets at once, which autograd keeps."""

    def _loss(self, states: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        return F.cross_entropy(F.linear(states, self.items.weight[1:], self.item_bias), target - 1)


class Before(SASRecRecommender):
    model_class: ClassVar[type[SASRec]] = AllLogits


def train(mode: str, log: str, options: dict[str, Any]) -> None:
    limit = options.pop("rows", None)
    splits = RecDataset.from_raw(csv.read_csv(log)).split("leave_one_out", max_history=options.pop("max_history"))
    if limit:
        chosen = np.random.default_rng(0).permutation(len(splits.train))[:limit]
        splits = dataclasses.replace(splits, train=splits.train.select(chosen))
    kind = Before if mode == "before" else SASRecRecommender
    recommender = kind(**options, examples="windows" if mode == "windows" else "rows", max_epochs=1000, patience=1000)
    recommender.callbacks = [Turns()]
    tell(rows=len(splits.train))
    recommender.fit(splits)


def million(options: dict[str, Any]) -> None:
    items, targets, width = options["items"], options["targets"], options["max_history"]
    set_seed(0)
    model = SASRec(SASRecConfig(num_items=items, max_history=width))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tell(rows=targets)
    while sys.stdin.readline():
        start = time.process_time()
        windows = torch.randint(1, items + 1, (targets // width, width + 1))
        output: Any = model(windows[:, :-1], windows[:, 1:])
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        tell(seconds=time.process_time() - start, ndcg=0.0)


def splits(options: dict[str, Any]) -> None:
    rng, events = np.random.default_rng(0), options["events"]
    user, item = (rng.integers(options[name], size=events) for name in ("people", "items"))
    table = pa.table({"user_id": user, "item_id": item, "timestamp": np.arange(events)})
    del user, item
    tell(rows=events)
    sys.stdin.readline()
    start = time.process_time()
    cut = RecDataset.from_raw(table).split("leave_one_out", max_history=options["max_history"])
    batch = cut.train.histories(slice(1024))
    assert batch.shape == (1024, options["max_history"])
    tell(seconds=time.process_time() - start, ndcg=0.0)


if __name__ == "__main__":
    mode, log, given = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    datasets.disable_progress_bars()
    torch.set_num_threads(given.pop("threads"))
    if mode == "million":
        million(given)
    elif mode == "splits":
        splits(given)
    else:
        train(mode, log, given)
