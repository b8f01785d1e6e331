"""RecTools' side of `sequential`, in an environment of its own: it needs numpy 1.

    PYTHON _rectools.py LOG OPTIONS

As `_next_item`: trains an epoch when it is told to; a line in is an epoch, a line out what it took. The clock runs
from the start to the end of the epoch of Lightning's trainer; preparing the data and recommending for the validation
are not counted.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

CLOCK = {"start": 0.0, "seconds": 0.0}  # the trainer, and a callback with it, is copied


class Clock(Callback):  # type: ignore[misc]  # Any to mypy
    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        CLOCK["start"] = time.process_time()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        CLOCK["seconds"] = time.process_time() - CLOCK["start"]


def make_trainer() -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Clock()],
    )


def tell(**content: Any) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({**content, "peak": peak}), flush=True)


def main() -> None:
    given = json.loads(sys.argv[2])
    torch.set_num_threads(given.pop("threads"))
    seed_everything(given.pop("seed"))
    log = pd.read_csv(sys.argv[1]).rename(columns={"timestamp": Columns.Datetime})
    log[Columns.Datetime] = pd.to_datetime(log[Columns.Datetime], unit="s")
    log[Columns.Weight] = 1
    left = log.groupby(Columns.User).cumcount(ascending=False)
    training, validation = log[left >= 2], log[left == 1]
    del log
    dataset = Dataset.construct(training)
    model = SASRecModel(get_trainer_func=make_trainer, **given)
    targets = validation.set_index(Columns.User)[Columns.Item]
    users = training[Columns.User].unique()
    tell(rows=len(training) - len(users))
    del training
    while sys.stdin.readline():
        model.fit_partial(dataset, min_epochs=1, max_epochs=1)
        listed = model.recommend(users, dataset, k=10, filter_viewed=True)
        hits = listed[listed[Columns.Item].to_numpy() == targets[listed[Columns.User]].to_numpy()]
        tell(seconds=CLOCK["seconds"], ndcg=float((1 / np.log2(1 + hits[Columns.Rank])).sum() / len(targets)))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
