"""RecInterpreter on MovieTweetings: recovery and residual, beside random, shuffled, popularity and a linear probe.

    python -m benchmarks.claims.llm_rec_interpreter_controls [--quick] [--output FOLDER] [--work FOLDER]

Recovery is measured by the share of the history's titles that the text names, residual by exact titles. The adapter is
the best of `ADAPTERS` on validation rows (mean of the two) with the first seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.claims._kept import Job, only_one, share
from benchmarks.claims._llm_rec import tiny_model
from benchmarks.claims._results import Options, interval, options_of, row, write_result
from benchmarks.claims.llm_rec_llara_hybrid import splits

from llm_rec.interpreter import SYSTEMS, RecInterpreter, evaluate
from predilect.recommenders import SASRecRecommender

NAME = "llm_rec_interpreter_controls"
STEPS, BATCH, ROWS, SEEDS = 800, 32, 300, 3
ADAPTERS: dict[str, dict[str, Any]] = {
    "the paper's: linear, one token": {},
    "linear, 8 tokens": {"num_tokens": 8},
    "linear, 8 tokens, learning rate 5e-3": {"num_tokens": 8, "learning_rate": 5e-3},
    "one hidden layer, 8 tokens": {"num_tokens": 8, "projector": "mlp"},
}
CLAIMS = {
    "recovery": "From the state of a history more of its titles are recovered than by the controls.",
    "residual": "From two states the item between them is named more often than by the controls.",
}
METRIC = {"recovery": "recovered_share", "residual": "exact"}


def main() -> None:
    given = options_of("RecInterpreter beside its controls.")
    seeds = range(1 if given.quick else SEEDS)
    bench = Bench(given)
    adapter = bench.choose()
    found = share(bench.reading(adapter, seed, "test", SYSTEMS) for seed in seeds)
    rows, claims = [], {}
    for task, metric in METRIC.items():
        groups = np.array(found[0]["users"][task])
        values = {s: np.array([result["values"][task][s] for result in found]) for s in SYSTEMS}
        rows += [row(f"{task}, {system}", metric, per_row, groups) for system, per_row in values.items()]
        claims[CLAIMS[task]] = {
            f"trained - {control}": interval(values["trained"] - values[control], groups)
            for control in ("random", "shuffled", "popularity")
        }
    write_result(
        given,
        name=NAME,
        paper="Yang et al. 2023, RecInterpreter (arXiv 2310.20487)",
        data="MovieTweetings-100K, 5-core, temporal split; SASRec, SmolLM2-135M-Instruct frozen, "
        f"{STEPS} steps of {BATCH} rows; {ROWS} test rows; adapter: {adapter}",
        seeds=seeds,
        rows=rows,
        claims=claims,
        runs=found,
    )


class Bench:
    """Fits and reads, each once."""

    def __init__(self, given: Options) -> None:
        self.given, self.data = given, splits(quick=given.quick)
        self.options: dict[str, Any] = {"steps": STEPS, "batch_size": BATCH}
        if given.quick:
            self.options |= {"steps": 2, **tiny_model(given.work)}

    def choose(self) -> str:
        """Name of the adapter."""
        names = list(ADAPTERS)[: 1 if self.given.quick else None]
        found = share(self.reading(name, 0, "validation", ("trained",)) for name in names)
        scores = {
            name: float(np.mean([np.mean(values["trained"]) for values in result["values"].values()]))
            for name, result in zip(names, found, strict=True)
        }
        print(f"on validation rows: {scores}", flush=True)
        return max(names, key=lambda name: scores[name])

    def reading(self, adapter: str, seed: int, part: str, systems: tuple[str, ...]) -> Job:
        """The metric of every row, system and task."""
        name = f"{list(ADAPTERS).index(adapter)}-seed{seed}"
        path = self.given.output / "runs" / NAME / f"{part}-adapter{name}.json"
        return path, lambda: self._read(adapter, seed, part, systems)

    def _read(self, adapter: str, seed: int, part: str, systems: tuple[str, ...]) -> dict[str, Any]:
        interpreter = RecInterpreter.from_pretrained(self._fitted(adapter, seed))
        rows = 8 if self.given.quick else ROWS
        values: dict[str, dict[str, list[float]]] = {}
        users: dict[str, list[int]] = {}
        for task, metric in METRIC.items():
            results = evaluate(interpreter, self.data, part, task=task, systems=systems, max_rows=rows, bootstrap=0)
            values[task] = {system: list(result.rows[metric]) for system, result in results.items()}
            told = {system: round(float(np.mean(v)), 4) for system, v in values[task].items()}
            print(f"{adapter}, seed {seed}: {task} on {part} rows {told}", flush=True)
            users[task] = list(results["trained"].rows["user_id"])
        return {"adapter": adapter, "options": ADAPTERS[adapter], "seed": seed, "users": users, "values": values}

    def _fitted(self, adapter: str, seed: int) -> Path:
        folder = self.given.work / NAME / f"{list(ADAPTERS).index(adapter)}-seed{seed}"
        with only_one(folder):
            if not (folder / "method.json").is_file():
                model = RecInterpreter(**self.options, **ADAPTERS[adapter], seed=seed)
                checkpoints = folder.with_name(f"fit-{folder.name}")
                backbone = self._backbone(seed)
                model.fit(self.data, backbone=backbone, output_dir=checkpoints, resume=True).save_pretrained(folder)
        return folder

    def _backbone(self, seed: int) -> SASRecRecommender:
        folder = self.given.work / NAME / f"sasrec-seed{seed}"
        with only_one(folder):
            if not (folder / "method.json").is_file():
                epochs = 1 if self.given.quick else 10
                SASRecRecommender(seed=seed, max_epochs=epochs).fit(self.data).save_pretrained(folder)
        return SASRecRecommender.from_pretrained(folder)


if __name__ == "__main__":
    main()
