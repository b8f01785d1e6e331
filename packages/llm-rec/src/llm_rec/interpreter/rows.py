"""Rows of each task: vectors, and the items whose titles are the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llm_rec.interpreter.tasks import TASKS
from llm_rec.interpreter.vectors import VectorSource
from predilect.data.rows import SequenceRows
from predilect.data.splits import SequenceSplits


class Row(NamedTuple):
    """One training row: `vectors` (slots, d), `answer` (item ids), and the number that seeds what is drawn for it."""

    task: str
    vectors: Tensor
    answer: list[int]
    number: int


@dataclass(frozen=True)
class Cases:
    """Rows of one task.

    Attributes:
        vectors: (R, slots, d), as the backbone gives them.
        answers: item ids, oldest first: the history for recovery, one item otherwise.
        users: (R,) whose row it is; for the task item the item itself.
        positions: (R,) of the target in the user's sequence; 0 for the task item.
    """

    vectors: Tensor
    answers: list[list[int]]
    users: np.ndarray
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.answers)


def task_cases(
    splits: SequenceSplits, part: str, task: str, source: VectorSource, *, max_rows: int | None = None, seed: int = 0
) -> Cases:
    """Rows of a part; `max_rows` of them, drawn by `seed`, where there are more.

    recovery: the history of every row that has one, cut to what the state looks at. residual: the states before and
    after the row's target, which is the answer; after a full history the oldest item is no longer in the second
    state. item: every item of the catalogue (part train), or those that are a target of the part.
    """
    rows = splits.part(part)
    if TASKS[task].space == "item":
        items = torch.arange(1, splits.num_items + 1) if part == "train" else torch.unique(rows.targets())
        items = items[_drawn(len(items), max_rows, seed)]
        vectors = source.items[items][:, None]
        return Cases(vectors, items[:, None].tolist(), items.numpy(), np.zeros(len(items), dtype=np.int64))
    there = np.arange(len(rows)) if task == "residual" else np.flatnonzero(rows.position)
    return _sequence_cases(rows.select(there[_drawn(len(there), max_rows, seed).numpy()]), task, source)


def _sequence_cases(rows: SequenceRows, task: str, source: VectorSource) -> Cases:
    history, target = rows.histories()[:, -source.max_history :], rows.targets()
    states = [source.states(history)]
    answers = [[i for i in items if i] for items in history.tolist()]
    if task == "residual":
        states.append(source.states(torch.cat([history, target[:, None]], dim=1)))
        answers = target[:, None].tolist()
    return Cases(torch.stack(states, dim=1), answers, rows.user, rows.position)


def _drawn(total: int, wanted: int | None, seed: int) -> Tensor:
    """Ascending numbers of `wanted` of `total` rows."""
    if wanted is None or wanted >= total:
        return torch.arange(total)
    return torch.from_numpy(np.sort(np.random.default_rng(seed).permutation(total)[:wanted]))


class RowStream:
    """Training rows without end; each draws its task by its number, and takes the next row of that task.

    The rows of a task come in a random order of their own, the same in every pass.

    Raises:
        ValueError: a task has no rows.
    """

    def __init__(self, splits: SequenceSplits, source: VectorSource, tasks: Sequence[str], *, seed: int) -> None:
        self.tasks, self.seed = tuple(tasks), seed
        self.cases = {task: task_cases(splits, "train", task, source) for task in tasks}
        for task, cases in self.cases.items():
            if not len(cases):
                raise ValueError(f"no training row has anything to train {task} on: all histories are empty")

    def vectors(self, space: str) -> Tensor:
        """(n, d): those of a space that the rows hold."""
        return torch.cat([c.vectors.flatten(0, 1) for task, c in self.cases.items() if TASKS[task].space == space])

    def __iter__(self) -> Iterator[Row]:
        orders = {
            task: np.random.default_rng((self.seed, place)).permutation(len(self.cases[task]))
            for place, task in enumerate(self.tasks)
        }
        taken = dict.fromkeys(self.tasks, 0)
        for number in count():
            task = self.tasks[int(np.random.default_rng((self.seed, 1, number)).integers(len(self.tasks)))]
            cases, order = self.cases[task], orders[task]
            chosen = int(order[taken[task] % len(order)])
            taken[task] += 1
            yield Row(task, cases.vectors[chosen], cases.answers[chosen], number)
