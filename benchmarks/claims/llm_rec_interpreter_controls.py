"""RecInterpreter on MovieTweetings: recovery and residual, beside random, shuffled, popularity and a linear probe.

    python -m benchmarks.claims.llm_rec_interpreter_controls [--quick] [--kept] [--output FOLDER] [--work FOLDER]

Recovery is measured by the share of the history's titles that the text names, residual by exact titles. The adapter is
the best of `ADAPTERS` on validation rows (mean of the two) with the first seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.claims import _recommenders
from benchmarks.claims._kept import Job, digest, only_one, share
from benchmarks.claims._recommenders import Data, Training, ring
from benchmarks.claims._results import Options, options_of, row, write_result
from benchmarks.claims._statistics import estimate
from benchmarks.claims.llm_rec_llara_hybrid import splits

from llm_rec.interpreter import SYSTEMS, RecInterpreter, evaluate
from predilect.configuration import plain
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
    try:
        adapter = bench.choose()
        found = bench.results(bench.reading(adapter, seed, "test", SYSTEMS) for seed in seeds)
    except _recommenders.Missing:
        raise SystemExit("not all runs are kept: run the script without --kept") from None
    rows, claims = [], {}
    for task, metric in METRIC.items():
        groups = np.array(found[0]["users"][task])
        values = {s: np.array([result["values"][task][s] for result in found]) for s in SYSTEMS}
        rows += [row(f"{task}, {system}", metric, per_row, groups) for system, per_row in values.items()]
        claims[CLAIMS[task]] = {
            f"{task}: trained - {control}": estimate(values["trained"] - values[control], groups)
            for control in ("random", "shuffled", "popularity")
        }
    write_result(
        given,
        name=NAME,
        paper="Yang et al. 2023, RecInterpreter (arXiv 2310.20487)",
        data="MovieTweetings-100K, 5-core, temporal split; SASRec, SmolLM2-135M-Instruct frozen; "
        f"{ROWS} test rows; adapter: {adapter}",
        seeds=seeds,
        rows=rows,
        claims=claims,
        runs=found,
        budget=[
            {
                "system": "trained",
                "training": f"{STEPS} steps of {BATCH} rows",
                "trainings": len(ADAPTERS),
                "chosen": "mean of the two metrics on validation rows, first seed",
            },
            {"system": "controls", "training": "none, or those of the trained", "trainings": 1, "chosen": "nothing"},
        ],
    )


class Bench(_recommenders.Bench):
    """Fits and reads, each once."""

    def __init__(self, given: Options) -> None:
        data = Data(splits, "MovieTweetings-100K", {})
        super().__init__("MovieTweetings", data, NAME, given, lambda: ring(size=12))

    def choose(self) -> str:
        """Name of the adapter."""
        names = list(ADAPTERS)[: 1 if self.given.quick else None]
        found = self.results(self.reading(name, 0, "validation", ("trained",)) for name in names)
        scores = {
            name: float(np.mean([np.mean(values["trained"]) for values in result["values"].values()]))
            for name, result in zip(names, found, strict=True)
        }
        print(f"on validation rows: {scores}", flush=True)
        return max(names, key=lambda name: scores[name])

    def results(self, jobs: Any) -> list[dict[str, Any]]:
        """Those that are kept, or all."""
        jobs = list(jobs)
        if self.given.kept and not all(path.is_file() for path, _ in jobs):
            raise _recommenders.Missing
        return share(jobs)

    def reading(self, adapter: str, seed: int, part: str, systems: tuple[str, ...]) -> Job:
        """The metric of every row, system and task."""
        rows = 8 if self.given.quick else ROWS
        content = {**self._recipe(adapter, seed), "part": part, "systems": list(systems), "rows": rows}
        return self.runs / f"{digest(content)}.json", lambda: self._read(adapter, seed, part, systems, rows)

    def _recipe(self, adapter: str, seed: int) -> dict[str, Any]:
        config = plain(self._config(adapter, seed))
        if self.given.quick:
            config.pop("model")  # a folder of this machine
        return {"config": config, "backbone": self.content(backbone(seed))}

    def _config(self, adapter: str, seed: int) -> Any:
        options = {"steps": STEPS, "batch_size": BATCH, **ADAPTERS[adapter], "seed": seed}
        if self.given.quick:
            options |= {"steps": 2, **self._smoke}
        return RecInterpreter.config_class(**options)

    def _read(self, adapter: str, seed: int, part: str, systems: tuple[str, ...], rows: int) -> dict[str, Any]:
        interpreter = RecInterpreter.from_pretrained(self._fitted(adapter, seed))
        values: dict[str, dict[str, list[float]]] = {}
        users: dict[str, list[int]] = {}
        for task, metric in METRIC.items():
            results = evaluate(interpreter, self.splits, part, task=task, systems=systems, max_rows=rows, bootstrap=0)
            values[task] = {system: list(result.rows[metric]) for system, result in results.items()}
            means = {system: round(float(np.mean(v)), 4) for system, v in values[task].items()}
            print(f"{adapter}, seed {seed}: {task} on {part} rows {means}", flush=True)
            users[task] = list(results["trained"].rows["user_id"])
        recipe = self._recipe(adapter, seed)
        return {"adapter": adapter, "seed": seed, **recipe, "users": users, "values": values}

    def _fitted(self, adapter: str, seed: int) -> Path:
        folder = self.models / f"interpreter-{digest(self._recipe(adapter, seed))}"
        with only_one(folder):
            if not (folder / "method.json").is_file():
                model = RecInterpreter(self._config(adapter, seed))
                checkpoints = folder.with_name(f"fit-{folder.name}")
                trained = SASRecRecommender.from_pretrained(self.folder(backbone(seed)))
                model.fit(self.splits, backbone=trained, output_dir=checkpoints, resume=True).save_pretrained(folder)
        return folder


def backbone(seed: int) -> Training:
    return Training("sasrec", {"seed": seed})


if __name__ == "__main__":
    main()
