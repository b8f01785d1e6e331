"""Time and memory of training a sequential model, against single rows and against RecTools.

    python -m benchmarks.speed.sequential [--quick] [--output FOLDER]

Data: a synthetic log of the size of MovieLens-1M, written here, and MovieLens-100K; each person's last event is left
for testing and the one before validates. In the synthetic log tastes lie on a ring of groups: people stay in a group,
drift to the next or go back to their own, take its items by a power law, and often follow an item by its sequel.

Ours is `SASRecRecommender` with its defaults but for what `OURS` says, in three ways: windows; single rows; and
"before", single rows with the logits of a batch at once. RecTools' `SASRecModel` has the same width, blocks, heads,
history, loss and dropout, with its own learning rate and batch (128 people), and learns the last 50 items of each
person; the number of its epochs is chosen on the validation rows (it ends after `PATIENCE` epochs without a better
one). It gets an environment of its own. Every side is a process with one thread; they train one epoch each in turns.
Seconds are those of the processor, so that what else the machine does counts for neither side. Time to a quality:
training seconds, without validation, until validation ndcg@10 reaches RecTools' best.

Single rows are measured on a draw of the rows, and their epoch is scaled up to all.

The last case trains on a million items, where the logits of a batch would be `TARGETS` x 1,000,000.
(--quick: a small log, and no RecTools.)
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from benchmarks import _preferences as shared
from benchmarks.speed import _results
from pyarrow import compute as pc
from pyarrow import csv

from predilect.data import load
from predilect.runs import read_json, write_json

HERE = Path(__file__).parent
RECTOOLS = "rectools[torch]==0.19.0"
HISTORY, STEPS, BATCH, THREADS, TARGETS = 50, 2000, 128, 1, 512
OURS = {"max_history": HISTORY, "threads": THREADS}
THEIRS = {
    "session_max_len": HISTORY,
    "n_factors": 64,
    "n_blocks": 2,
    "n_heads": 2,
    "dropout_rate": 0.2,
    "loss": "softmax",
    "batch_size": BATCH,
    "lr": 1e-3,
    "threads": THREADS,
    "seed": 0,
}


class Size(NamedTuple):
    people: int
    items: int
    events: int
    rows: int  # single rows that are timed
    catalogue: int


FULL = Size(6040, 3706, 1_000_209, rows=20_480, catalogue=1_000_000)
QUICK = Size(60, 100, 1500, rows=128, catalogue=2000)


def synthetic_log(size: Size, seed: int = 0, groups: int = 40, sequel: float = 0.3) -> pa.Table:
    """A log with a planted pattern, in the order of time; nobody takes an item twice.

    Args:
        size: numbers of people, items and events.
        seed: of everything.
        groups: of items, on a ring; an item's weight in its group falls with its rank r as 1 / (r + 5).
        sequel: probability that an event is the sequel of the one before (items have fixed sequels).
    """
    rng = np.random.default_rng(seed)
    share, most = rng.lognormal(0, 1, size.people), size.items // 2
    length = np.full(size.people, min(20, size.events // size.people))
    while missing := size.events - length.sum():
        open_share = share * (length < most)
        length = np.minimum(length + rng.multinomial(missing, open_share / open_share.sum()), most)
    bounds = np.linspace(0, size.items, groups + 1).astype(int)
    rank = np.concatenate([np.arange(n) for n in np.diff(bounds)])
    mass = np.concatenate([[0], np.cumsum(1 / (rank + 5))])
    follows = rng.permutation(size.items)
    own = rng.integers(groups, size=size.people)
    group, last = own.copy(), rng.integers(size.items, size=size.people)
    taken = np.zeros((size.people, size.items), dtype=bool)
    events = []
    for step in range(length.max()):
        who = np.flatnonzero(length > step)
        move = rng.random(len(who))
        group[who] = np.where(move < 0.1, (group[who] + 1) % groups, np.where(move < 0.15, own[who], group[who]))
        item = np.where(rng.random(len(who)) < sequel, follows[last[who]], -1)
        while (open_ := (item < 0) | taken[who, item]).any():
            again = who[open_]
            low, high = mass[bounds[group[again]]], mass[bounds[group[again] + 1]]
            drawn = np.searchsorted(mass, low + rng.random(len(again)) * (high - low), side="right") - 1
            item[open_] = drawn.clip(0, size.items - 1)
            group[again] = (group[again] + (rng.random(len(again)) < 0.2)) % groups  # a group can be used up
        taken[who, item] = True
        last[who] = item
        events.append(np.stack([who, item]))
    user, item = np.concatenate(events, axis=1)
    return pa.table({"user_id": user, "item_id": item, "timestamp": np.arange(len(user))})


def real_log() -> pa.Table:
    """MovieLens-100K in the order of time, ties in the order of the file."""
    log = load(shared.DATA / "ml-100k").interactions.with_format("arrow")[:]
    log = log.take(np.argsort(log["timestamp"].to_numpy(), kind="stable"))
    return pa.table(
        [log["user_id"], log["item_id"], pa.array(np.arange(len(log)))], ["user_id", "item_id", "timestamp"]
    )


class Side:
    """A process that trains one epoch at each call of `epoch`."""

    def __init__(self, command: Sequence[str], options: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [*command, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parents[1],
        )
        self.turns: list[dict[str, float]] = []
        self.rows = self._answer()["rows"]

    def epoch(self) -> None:
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        self.turns.append(self._answer())

    def close(self) -> None:
        """End the process, which waits for its turn."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    @property
    def seconds(self) -> float:
        """Median seconds of an epoch."""
        return float(np.median([turn["seconds"] for turn in self.turns]))

    @property
    def peak(self) -> float:
        return self.turns[-1]["peak"]

    @property
    def best(self) -> float:
        return max(turn["ndcg"] for turn in self.turns)

    def seconds_to(self, quality: float) -> float | None:
        """Training seconds until the validation ndcg@10 reaches `quality`; None: it does not."""
        seconds = np.cumsum([turn["seconds"] for turn in self.turns])
        return next((float(s) for s, turn in zip(seconds, self.turns, strict=True) if turn["ndcg"] >= quality), None)

    def has_stopped(self, most: int) -> bool:
        """After `most` epochs, or a quarter of them without a better one."""
        quality = [turn["ndcg"] for turn in self.turns]
        return len(quality) >= most or len(quality) - 1 - int(np.argmax(quality or [0])) >= most // 4

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, float] = json.loads(line)
                return answer
        raise SystemExit(f"{self.process.args!r} ended with status {self.process.wait()}")


def ours(mode: str, log: Path, **options: Any) -> Side:
    return Side([sys.executable, "-m", "benchmarks.speed._next_item", mode, str(log)], {**OURS, **options})


def rectools(log: Path) -> Side:
    """In an environment that is made once per machine, beside other temporary files."""
    folder = Path(tempfile.gettempdir()) / "predilect-rectools-0.19.0"
    python = folder / "bin" / "python"
    if not (folder / "complete").is_file():
        subprocess.run(["uv", "venv", "--quiet", "--clear", "--python", "3.11", str(folder)], check=True)
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(python), RECTOOLS], check=True)
        (folder / "complete").touch()
    return Side([str(python), str(HERE / "_rectools.py"), str(log)], THEIRS)


def epoch_rows(name: str, log: Path, size: Size) -> list[dict[str, Any]]:
    """An epoch of all targets, in windows and as single rows."""
    sides = {"windows": ours("windows", log), **{mode: ours(mode, log, rows=size.rows) for mode in ("rows", "before")}}
    for _ in range(2):
        for side in sides.values():
            side.epoch()
    for side in sides.values():
        side.close()
    windows = sides["windows"]
    last = {mode: side.turns[-1]["seconds"] * windows.rows / side.rows for mode, side in sides.items()}
    return [
        _results.row(
            f"{name}: an epoch of {windows.rows} targets",
            ours=last["windows"],
            baseline=last[mode],
            unit="s",
            goal=8,
            baseline_is=f"{what} ({sides[mode].rows} timed, scaled)",
        )
        for mode, what in (("before", "single rows, logits at once"), ("rows", "single rows, softmax in chunks"))
    ]


def rectools_rows(name: str, log: Path, people: int) -> list[dict[str, Any]]:
    """Epochs in turns until RecTools is at its best, then ours until it is there, too.

    An epoch of RecTools is one window per person, a few steps of its optimizer: it may take `STEPS` of them.
    """
    mine, theirs = ours("windows", log), rectools(log)
    most = math.ceil(STEPS / math.ceil(people / BATCH))
    while not theirs.has_stopped(most):
        theirs.epoch()
        if not mine.has_stopped(most) and (not mine.turns or mine.best < theirs.best + 0.01):
            mine.epoch()
        print({"rectools": theirs.turns[-1], "ours": mine.turns[-1]}, flush=True)
    while mine.best < theirs.best and not mine.has_stopped(most):
        mine.epoch()
    for side in (mine, theirs):
        side.close()
    quality = theirs.best
    reached = mine.seconds_to(quality)
    rows = [
        _results.row(
            f"{name}: peak memory",
            ours=mine.peak,
            baseline=theirs.peak,
            unit="GiB",
            goal=1 / 0.6,
            baseline_is="RecTools",
        ),
        _results.row(
            f"{name}: best validation ndcg@10",
            ours=mine.best,
            baseline=theirs.best,
            unit="",
            goal=1,
            baseline_is="RecTools",
            lower_is_better=False,
        ),
    ]
    target = theirs.seconds_to(quality)
    if reached is None or target is None:
        print(f"{name}: ours did not reach {quality:.4f}")
        return rows
    case = f"{name}: training until validation ndcg@10 is {quality:.4f}"
    return [
        _results.row(case, ours=reached, baseline=target, unit="s", goal=1 / 0.7, baseline_is="RecTools"),
        *rows,
    ]


def million_rows(size: Size) -> list[dict[str, Any]]:
    side = ours("million", Path(), items=size.catalogue, targets=TARGETS // HISTORY * HISTORY)
    for _ in range(3):
        side.epoch()
    side.close()
    return [
        _results.row(
            f"{size.catalogue} items: peak memory of training, AdamW and {side.seconds:.1f} s a step included",
            ours=side.peak,
            baseline=4.0,
            unit="GiB at most",
            goal=1,
            baseline_is="limit",
        )
    ]


def splits_rows() -> list[dict[str, Any]]:
    side = ours("splits", Path(), events=10_000_000, people=60_000, items=30_000, max_history=200)
    side.epoch()
    side.close()
    return [
        _results.row(
            f"10,000,000 interactions, history 200: peak memory of splits, the log included ({side.seconds:.0f} s)",
            ours=side.peak,
            baseline=3.0,
            unit="GiB at most",
            goal=1,
            baseline_is="limit",
        )
    ]


def measure(given: _results.Options) -> list[dict[str, Any]]:
    size = QUICK if given.quick else FULL
    logs = {f"synthetic, {size.events} events": synthetic_log(size)}
    if not given.quick:
        logs["MovieLens-100K"] = real_log()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, log) in enumerate(logs.items()):
            path = Path(folder) / f"{number}.csv"
            csv.write_csv(log, path)
            rows += kept(f"{number}-epoch", partial(epoch_rows, name, path, size), given)
            if not given.quick:
                people = len(pc.unique(log["user_id"]))
                rows += kept(f"{number}-rectools", partial(rectools_rows, name, path, people), given)
    if not given.quick:
        rows += kept("splits", splits_rows, given)
    return rows + kept("million", partial(million_rows, size), given)


def kept(name: str, measured: Callable[[], list[dict[str, Any]]], given: _results.Options) -> list[dict[str, Any]]:
    """What is measured; a run that was killed goes on behind the parts that it finished on this machine."""
    if given.quick:
        return measured()
    file = Path(tempfile.gettempdir()) / "predilect-sequential" / f"{name}.json"
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        write_json(file, measured())
    rows: list[dict[str, Any]] = read_json(file)
    return rows


def main() -> None:
    given = _results.options("Time and memory of training sequential models.")
    _results.write(
        "sequential",
        measure(given),
        data=f"a synthetic log of {FULL.people} people, {FULL.items} items and {FULL.events} events (seed 0) and "
        f"MovieLens-100K, leave one out, history {HISTORY}; SASRec with 64 dimensions and 2 blocks; RecTools 0.19.0 "
        "in an environment of its own; epochs in turns",
        given=given,
        packages=("transformers",),
    )


if __name__ == "__main__":
    main()
