"""What the claims about language-model recommenders share: kept runs, intervals over seeds and users, verdicts.

A study fits systems on the same splits, once per seed, and ranks the same candidate sets of the same test rows. Each
finished run is kept as a file with the rank of every row; a fitted model that other systems start from is kept in the
work folder. A script that was killed goes on from there, and copies started together (on one GPU, say) share the runs.
Hyper-parameters are those of the systems as written in the script: nothing is chosen on test rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import _preferences as shared
from benchmarks.claims._kept import Job, only_one, share
from benchmarks.claims._results import Interval, Options, interval, options_of, row, write_result

from predilect.data import RecDataset, SequenceSplits
from predilect.evaluation import evaluate
from predilect.evaluation.ranking import rank_metric
from predilect.recommender import Recommender

METRICS = ("hr@1", "ndcg@5")


@dataclass(frozen=True)
class Bench:
    """What a system may use.

    Attributes:
        splits: the data.
        folder: of this seed's kept models.
        options: model, device and size options of a quick or a whole run.
        quick: a smoke run.
    """

    splits: SequenceSplits
    folder: Path
    options: Mapping[str, Any]
    quick: bool

    def steps(self, number: int) -> int:
        """Optimizer steps; two in a smoke run."""
        return 2 if self.quick else number

    def of_seed(self, seed: int) -> Bench:
        """The same with another seed's folder."""
        return replace(self, folder=self.folder.with_name(f"seed{seed}"))

    def kept(self, name: str, fit: Callable[[], Recommender]) -> Path:
        """The folder of a fitted recommender, fitted now or before."""
        folder = self.folder / name
        with only_one(folder):
            if not (folder / "method.json").is_file():
                fit().save_pretrained(folder)
        return folder


System = Callable[[Bench, int], Recommender]


@dataclass(frozen=True)
class Study:
    """Claims and how they are tested.

    Attributes:
        name: of the script.
        paper: authors, year, number.
        splits: quick or not -> splits with candidates.
        words: what the data is.
        systems: name -> (bench, seed) -> a fitted recommender.
        claims: in words -> pairs of systems, the first of which is claimed to have the higher hr@1.
        once: systems that no claim rests on, which are run for the first seed only.
        rows: test rows that are ranked.
        seeds: how many.
        options: of every language model.
    """

    name: str
    paper: str
    splits: Callable[..., SequenceSplits]
    words: str
    systems: Mapping[str, System]
    claims: Mapping[str, Sequence[tuple[str, str]]]
    options: Mapping[str, Any]
    once: frozenset[str] = frozenset()
    rows: int = 400
    seeds: int = 3


def main(study: Study) -> None:
    given = options_of(" ".join(study.claims))
    splits = study.splits(quick=given.quick)
    options = {**study.options, **tiny_model(given.work)} if given.quick else study.options
    seeds = range(1 if given.quick else study.seeds)
    runs = [(system, seed) for system in study.systems for seed in seeds if seed == 0 or system not in study.once]
    results = share(_job(study, *one, splits, options, given) for one in runs)
    rows, claims = summarise(study, dict(zip(runs, results, strict=True)), list(seeds))
    write_result(
        given,
        name=study.name,
        paper=study.paper,
        data=study.words,
        seeds=seeds,
        rows=rows,
        claims=claims,
        runs=results,
    )


def _job(
    study: Study, system: str, seed: int, splits: SequenceSplits, options: Mapping[str, Any], given: Options
) -> Job:
    """Ranks of the test rows, kept beside the result."""

    def make() -> dict[str, Any]:
        start = time.perf_counter()
        bench = Bench(splits, given.work / study.name / f"seed{seed}", options, given.quick)
        recommender = study.systems[system](bench, seed)
        fitted = time.perf_counter()
        rows = 12 if given.quick else study.rows
        evaluation = evaluate(recommender, splits, protocol="candidates", max_rows=rows, bootstrap=0, batch_size=128)
        # a result names no folder of the machine it was made on
        folders = {"retriever_folder", "start_from", *(["model"] if given.quick else [])}
        found: dict[str, Any] = {
            "system": system,
            "seed": seed,
            "config": {k: v for k, v in vars(recommender.config).items() if k not in folders},
            "user": list(evaluation.rows["user_id"]),
            "rank": [int(r) for r in evaluation.rows["rank"]],
            "fit_seconds": fitted - start,
            "rank_seconds": time.perf_counter() - fitted,
        }
        hit = float(np.mean(np.array(found["rank"]) == 1))
        print(f"{system}, seed {seed}: hr@1 {hit:.4f}, fitted in {found['fit_seconds']:.0f} s", flush=True)
        return found

    return given.output / "runs" / study.name / f"{system.replace(' ', '_')}-seed{seed}.json", make


def summarise(
    study: Study, found: Mapping[tuple[str, int], dict[str, Any]], seeds: list[int]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Interval]]]:
    """Rows, and the differences of every claim, from the ranks of all runs."""
    groups = np.array(found[next(iter(study.systems)), seeds[0]]["user"])
    values = {
        (system, metric): np.array(
            [rank_metric(np.array(found[system, seed]["rank"]), metric) for seed in seeds if (system, seed) in found]
        )
        for system in study.systems
        for metric in METRICS
    }
    rows = [row(system, metric, per_row, groups) for (system, metric), per_row in values.items()]
    claims = {
        claim: {
            f"{better} - {worse}": interval(values[better, "hr@1"] - values[worse, "hr@1"], groups)
            for better, worse in pairs
        }
        for claim, pairs in study.claims.items()
    }
    return rows, claims


def tiny_model(work: Path) -> dict[str, Any]:
    """Options of a language model of random weights that reads bytes."""
    folder = work / "tiny"
    model, tokenizer = shared.language_model(quick=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"model": str(folder), "dtype": "float32", "max_length": 2000}


def ring(*, size: int) -> SequenceSplits:
    """Splits for smoke runs: 40 people walk around a ring of 24 letters and pairs of letters."""
    from datasets import Dataset

    names = [*"abcdefghijklmnopqrst", "ab", "cd", "ef", "gh"]
    walks = [[(start * 5 + step) % 24 + 1 for step in range(10)] for start in range(40)]
    log = {
        "user_id": [u for u, walk in enumerate(walks) for _ in walk],
        "item_id": [i for walk in walks for i in walk],
        "timestamp": [100 * step + u for u, walk in enumerate(walks) for step in range(len(walk))],
        "rating": [1.0] * 400,
    }
    items = {
        "item_id": list(range(1, 25)),
        "raw_id": names,
        "title": names,
        "categories": [["x"]] * 24,
    }
    data = RecDataset(Dataset.from_dict(log), Dataset.from_dict(items), name="ring")
    return data.split("temporal", max_history=4).with_candidates(size)
