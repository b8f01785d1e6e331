"""Evaluate an interpreter and its controls on the same rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset

from llm_rec.interpreter.controls import LinearProbe, most_popular, of_others, random_adapter
from llm_rec.interpreter.interpreter import RecInterpreter
from llm_rec.interpreter.metrics import histogram, naming_row, recovery_row, summary
from llm_rec.interpreter.rows import Cases, task_cases
from predilect.data.splits import SequenceSplits

SYSTEMS = ("trained", "random", "shuffled", "popularity", "probe")


@dataclass(frozen=True)
class InterpreterEvaluation:
    """Result of one system.

    Attributes:
        system: one of `SYSTEMS`.
        setting: task, part, max_rows, seed, and the protocol of the splits: two results are comparable where it is
            equal, and have the same rows then.
        results: `rows`, `users`, the means of the metrics (`recovery_row`, `naming_row`), `<metric>_low` and
            `<metric>_high`, `<metric>_rows` where a metric is not defined in all rows, and for recovery the histogram
            `recovered=0`, `recovered=1`, ...
        rows: `user_id`, `position`, `answer` (item ids), `text`, `items` (ids that it names), and the metrics per row.
    """

    system: str
    setting: dict[str, Any]
    results: dict[str, float]
    rows: Dataset

    @property
    def metrics(self) -> dict[str, Any]:
        """System, setting and results as one flat dict."""
        return {"system": self.system, **self.setting, **self.results}

    def save(self, folder: str | Path) -> None:
        """Write `evaluation.json` (a metric without rows is null) and `rows.parquet` into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        results = {name: None if value != value else value for name, value in self.results.items()}
        summary = {"system": self.system, "setting": self.setting, "results": results}
        pq.write_table(self.rows.with_format("arrow")[:], folder / "rows.parquet")
        (folder / "evaluation.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def evaluate(
    interpreter: RecInterpreter,
    splits: SequenceSplits,
    part: str = "test",
    *,
    task: str = "recovery",
    systems: Sequence[str] = ("trained",),
    max_rows: int | None = None,
    probe: LinearProbe | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, InterpreterEvaluation]:
    """Read the vectors of every row and compare the texts with what the vectors stand for.

    Args:
        interpreter: fitted.
        splits: the data, of the interpreter's catalogue.
        part: "test", "validation" or "train".
        task: one of the interpreter's; rows: `llm_rec.interpreter.rows.task_cases`.
        systems: "trained": the interpreter; "random": with an adapter as before training; "shuffled": with the vectors
            of rows of other users; "popularity": the most popular titles, as many as the answer has, no language
            model; "probe": `LinearProbe` on training rows, an upper bound rather than a control, which is told the
            length of the answer. Popularity and probe know nothing of order.
        max_rows: as many rows, drawn by `seed`; None: all.
        probe: its settings; None: defaults.
        bootstrap: resamples of the 95 % intervals over users (over items for the task item); 0: no intervals.
        seed: of the rows, the controls and the bootstrap.

    Returns:
        System -> result, all on the same rows.

    Raises:
        ValueError: an unknown system, a task that was not trained, another catalogue, no rows, fewer than two users to
            resample, or a probe for the task item, whose training rows are its test rows.
    """
    interpreter.task(task)
    if unknown := sorted(set(systems) - set(SYSTEMS)):
        raise ValueError(f"systems are {', '.join(SYSTEMS)} (got {', '.join(unknown)})")
    if task == "item" and "probe" in systems:
        raise ValueError("the task item has no probe: its training rows and its test rows are the same items")
    if splits.catalogue.raw_ids != interpreter.catalogue.raw_ids:
        raise ValueError("the interpreter was trained on another catalogue than that of the splits")
    some = len(splits.part(part)) > 0
    cases = task_cases(splits, part, task, interpreter.source, max_rows=max_rows, seed=seed) if some else None
    if not cases:
        raise ValueError(f"the part {part!r} has no rows for {task}")
    setting = {"task": task, "part": part, "max_rows": max_rows, "seed": seed, **splits.protocol}
    evaluations = {}
    for system in dict.fromkeys(systems):
        texts = _texts(system, interpreter, splits, cases, task, probe or LinearProbe(seed=seed), seed)
        evaluations[system] = _evaluated(system, setting, interpreter, cases, texts, bootstrap, seed)
    return evaluations


def _texts(
    system: str,
    interpreter: RecInterpreter,
    splits: SequenceSplits,
    cases: Cases,
    task: str,
    probe: LinearProbe,
    seed: int,
) -> list[str]:
    def describe(vectors: Any) -> list[str]:
        return interpreter.describe(vectors.squeeze(1) if vectors.shape[1] == 1 else vectors, task=task)

    if system == "trained":
        return describe(cases.vectors)
    if system == "shuffled":
        return describe(of_others(cases, seed))
    if system == "random":
        with random_adapter(interpreter.model, seed + interpreter.config.seed + 1):
            return describe(cases.vectors)
    if system == "popularity":
        lists = most_popular(splits.catalogue, [len(answer) for answer in cases.answers])
    else:
        lists = probe.fit(task_cases(splits, "train", task, interpreter.source), splits.num_items).answers(cases)
    return [interpreter.titles.write(items) for items in lists]


def _evaluated(
    system: str,
    setting: dict[str, Any],
    interpreter: RecInterpreter,
    cases: Cases,
    texts: Sequence[str],
    bootstrap: int,
    seed: int,
) -> InterpreterEvaluation:
    titles, rows, named = interpreter.titles, [], []
    for text, answer in zip(texts, cases.answers, strict=True):
        reading, wanted = titles.read(text), titles.same(answer)
        named.append(reading.items)
        if setting["task"] == "recovery":
            rows.append(recovery_row(wanted, reading))
        else:
            rows.append(naming_row(wanted[0], titles.only(text), reading))
    results: dict[str, float] = {"rows": len(cases), "users": len(set(cases.users.tolist()))}
    results |= summary(rows, cases.users, resamples=bootstrap, seed=seed)
    if setting["task"] == "recovery":
        results |= histogram([row["recovered"] for row in rows], interpreter.source.max_history)
    columns = {"user_id": cases.users, "position": cases.positions, "answer": cases.answers, "text": list(texts)}
    table = Dataset.from_dict({**columns, "items": named, **{k: [row[k] for row in rows] for k in rows[0]}})
    return InterpreterEvaluation(system, setting, results, table)
