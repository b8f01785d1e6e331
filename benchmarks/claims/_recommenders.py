"""What the claims about recommenders share: trainings known by their content, choices on validation rows, kept ranks.

1. Each system has a grid of trainings with the first seed; that with the best metric on the validation rows is chosen.
   Test rows play no part. What the two sides of a claim are given is written into the result (`budget`).
2. The chosen training is repeated with every seed, and ranks the test rows.

A training is known by its method, its whole config with all defaults, the trainings that it starts from, and the
content of its data; a ranking by that, and by how it is done. Another recipe is another file: nothing that is kept is
taken for something else. Fitted models are kept in the work folder, metrics and ranks beside the results. A script
that was killed goes on from there, and copies started together (on one GPU, say) share the work.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import _preferences as shared
from benchmarks.claims._kept import Job, Result, digest, kept, only_one
from benchmarks.claims._results import Options, options_of, row, write_result
from benchmarks.claims._statistics import Array, Estimate, estimate
from filelock import Timeout

from predilect.configuration import plain
from predilect.data import RecDataset, SequenceSplits
from predilect.evaluation import evaluate
from predilect.evaluation.kinds import kinds_of_rows
from predilect.evaluation.ranking import rank_metric
from predilect.recommender import Recommender, recommender_class
from predilect.recommenders import held_apart
from predilect.runs import data_fingerprint


@dataclass(frozen=True)
class Training:
    """A recommender with its options.

    Attributes:
        method: its name in the registry, or its class.
        options: those that differ from the defaults; one that is a folder may be another training, and so may an entry
            of a tuple: that is done first.
        selected_on: "all" validation rows, or those of "half" of the people (`held_apart`).
    """

    method: str | type[Recommender]
    options: Mapping[str, Any] = field(default_factory=dict)
    selected_on: str = "all"

    @property
    def kind(self) -> type[Recommender]:
        return recommender_class(self.method) if isinstance(self.method, str) else self.method

    @property
    def name(self) -> str:
        return self.method if isinstance(self.method, str) else self.method.__name__

    def with_seed(self, seed: int) -> Training:
        """The same with another seed, and so all it starts from."""
        options = {name: _replaced(value, lambda t: t.with_seed(seed)) for name, value in self.options.items()}
        return dataclasses.replace(self, options={**options, "seed": seed})


def _replaced(value: Any, change: Callable[[Training], Any]) -> Any:
    if isinstance(value, Training):
        return change(value)
    return tuple(_replaced(v, change) for v in value) if isinstance(value, tuple) else value


def grid(method: str, options: Mapping[str, Any] | None = None, **choices: Iterable[Any]) -> tuple[Training, ...]:
    """One training for each combination of the choices."""
    points = [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]
    return tuple(Training(method, {**(options or {}), **point}) for point in points)


@dataclass(frozen=True)
class System:
    """Trainings of which one is chosen, and how that one ranks.

    Attributes:
        trainings: the grid.
        like: name of a system whose chosen training is taken, in place of a grid.
        sampling: options of `set_sampling`, after training.
        seeds: how many at most; None: those of the study.
    """

    trainings: tuple[Training, ...] = ()
    like: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    seeds: int | None = None


@dataclass(frozen=True)
class Data:
    """Splits, and how they are ranked: options of `evaluate`."""

    splits: Callable[[], SequenceSplits]
    words: str
    ranking: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """Claims and how they are tested.

    Attributes:
        name: of the script.
        paper: authors, year, number.
        words: more about the data and models.
        data: name -> data set.
        systems: name -> system.
        claims: in words -> pairs of systems, the first of which is claimed to have the higher metric.
        metrics: the first is that of claims and choices.
        seeds: how many.
        quick_splits: of a smoke run.
    """

    name: str
    paper: str
    words: str
    data: Mapping[str, Data]
    systems: Mapping[str, System]
    claims: Mapping[str, Sequence[tuple[str, str]]]
    metrics: tuple[str, ...]
    seeds: int = 3
    quick_splits: Callable[[], SequenceSplits] = lambda: ring(size=12)


class Bench:
    """Trains and ranks on one data set, each once: what is found in the folders is not done again.

    Args:
        name: of the data set.
        data: itself.
        study: name of the study, and of its folder of runs.
        given: folders, and whether this is a smoke run: on a ring of letters, with quick configs and a tiny model.
    """

    def __init__(
        self, name: str, data: Data, study: str, given: Options, quick_splits: Callable[[], SequenceSplits]
    ) -> None:
        self.name, self.data, self.given = name, data, given
        self.models = given.work / "models"
        self.runs = given.output / "runs" / study / "".join(c if c.isalnum() else "_" for c in name)
        self._splits = quick_splits if given.quick else data.splits
        self._fingerprints: dict[tuple[str, int], str] = {}

    @cached_property
    def splits(self) -> SequenceSplits:
        return self._splits()

    def people(self, runs: Mapping[int, Result]) -> Array:
        """(R,) whose row each of the ranked ones is."""
        return self.splits.test.user[rows_of(runs)]

    # --- trainings -----------------------------------------------------------------------------------------------

    def config(self, training: Training, options: Mapping[str, Any] | None = None) -> Any:
        """The whole config; `options` stand for those of the training."""
        kind = training.kind.config_class
        fields = {f.name for f in dataclasses.fields(kind)}
        smoke = self._smoke if self.given.quick else {}
        given = training.options if options is None else options
        config = kind(**{**given, **{name: smoke[name] for name in fields & set(smoke)}})
        return config.quick() if self.given.quick else config

    def content(self, training: Training) -> Result:
        """All that the fitted model depends on; in place of a folder, the key of the training that fills it."""
        keys = {name: _replaced(value, self.key) for name, value in training.options.items()}
        config = plain(self.config(training, keys))
        if self.given.quick:
            config.pop("model", None)  # a folder of this machine
        return {
            "method": training.name,
            "config": config,
            "data": self._fingerprint(training),
        }

    def key(self, training: Training) -> str:
        return digest(self.content(training))

    def _rows_of(self, training: Training) -> SequenceSplits:
        return self.splits if training.selected_on == "all" else self._halves[training.options.get("seed", 0)]

    def _fingerprint(self, training: Training) -> str:
        whose = training.selected_on, 0 if training.selected_on == "all" else training.options.get("seed", 0)
        if whose not in self._fingerprints:
            self._fingerprints[whose] = data_fingerprint(self._rows_of(training))
        return self._fingerprints[whose]

    @cached_property
    def _halves(self) -> Mapping[int, SequenceSplits]:
        return _Halves(self.splits)

    @cached_property
    def _smoke(self) -> dict[str, Any]:
        return tiny_model(self.given.work)

    def folder(self, training: Training) -> Path:
        """Of the fitted model, trained now or before."""
        folder = self.models / f"{training.name}-{self.key(training)}"
        with only_one(folder):
            if not (folder / "method.json").is_file():
                options = {n: _replaced(v, lambda t: str(self.folder(t))) for n, v in training.options.items()}
                start = time.perf_counter()
                fitted = training.kind(self.config(training, options)).fit(self._rows_of(training))
                (folder.parent / f"{folder.name}.seconds").parent.mkdir(parents=True, exist_ok=True)
                (folder.parent / f"{folder.name}.seconds").write_text(f"{time.perf_counter() - start:.0f}")
                fitted.save_pretrained(folder)
        return folder

    # --- rankings ------------------------------------------------------------------------------------------------

    def job(
        self, label: str, training: Training, part: str, sampling: Mapping[str, Any], metrics: Sequence[str]
    ) -> Job:
        """Metrics of the validation rows, or ranks of the test rows."""
        content = self.content(training)
        ranking = {**self.data.ranking, "part": part, "sampling": dict(sampling), "quick": self.given.quick}
        validation = {**ranking, "metrics": list(metrics)} if part == "validation" else ranking
        path = self.runs / f"{digest({**content, 'ranking': validation})}.json"
        seed = training.options.get("seed", 0)

        def make() -> Result:
            folder = self.folder(training)
            recommender = (
                Recommender.from_pretrained(folder)
                if isinstance(training.method, str)
                else (training.method.from_pretrained(folder))
            )
            if sampling:
                recommender.set_sampling(**sampling)  # type: ignore[attr-defined]
            start = time.perf_counter()
            options = {**self.data.ranking, **({"max_rows": 12} if self.given.quick else {})}
            if not self.given.quick and part == "validation":
                options.pop("max_rows", None)
            found = evaluate(recommender, self.splits, part, bootstrap=0, batch_size=128, **options)
            ranks = np.array(found.rows["rank"])
            means = {metric: round(float(rank_metric(ranks, metric).mean()), 5) for metric in metrics}
            seconds = int((folder.parent / f"{folder.name}.seconds").read_text())
            print(f"{self.name}, {label}, seed {seed}: {part} {means}, trained in {seconds} s", flush=True)
            result = {"system": label, "seed": seed, **content, "ranking": ranking, "metrics": means}
            if part == "test":
                result |= {"row": list(found.rows["row"]), "rank": ranks.tolist()}
            return {**result, "fit_seconds": seconds, "rank_seconds": round(time.perf_counter() - start, 1)}

        return path, make


class _Halves(dict[int, SequenceSplits]):
    """Seed -> the splits with the half of the validation rows that members are selected on."""

    def __init__(self, splits: SequenceSplits) -> None:
        self.splits = splits

    def __missing__(self, seed: int) -> SequenceSplits:
        self[seed] = held_apart(self.splits, seed)[0]
        return self[seed]


# --- a study ---------------------------------------------------------------------------------------------------------


class Missing(Exception):
    """A run that is not kept, where nothing is to be run."""


@dataclass(frozen=True)
class Desk:
    """A study at work: does or finds its jobs."""

    study: Study
    given: Options
    benches: Mapping[str, Bench]

    def result(self, job: Job, *, wait: bool = True) -> Result:
        if self.given.kept and not job[0].is_file():
            raise Missing
        return kept(*job, wait=wait)

    def chosen(self, data: str, system: str, *, wait: bool = True) -> Training:
        """The best training of the grid on the validation rows of the first seed."""
        told = self.study.systems[system]
        if told.like is not None:
            return self.chosen(data, told.like, wait=wait)
        trainings = [t.with_seed(0) for t in (told.trainings[:1] if self.given.quick else told.trainings)]
        if len(trainings) == 1:
            return trainings[0]
        jobs = [self.benches[data].job(system, t, "validation", told.sampling, self.study.metrics) for t in trainings]
        found = [self.result(job, wait=wait)["metrics"][self.study.metrics[0]] for job in jobs]
        return trainings[int(np.argmax(found))]

    def seeds(self, system: str) -> range:
        return range(1 if self.given.quick else min(self.study.seeds, self.study.systems[system].seeds or 99))

    def jobs(self, data: str, system: str, *, wait: bool = True) -> Iterator[tuple[int, Job]]:
        training = self.chosen(data, system, wait=wait)
        sampling = self.study.systems[system].sampling
        for seed in self.seeds(system):
            yield seed, self.benches[data].job(system, training.with_seed(seed), "test", sampling, self.study.metrics)

    def work(self) -> None:
        """Do all jobs, first those at which no other process is; nothing with `--kept`."""
        for wait in () if self.given.kept else (False, True):
            for data, system in product(self.benches, self.study.systems):
                with suppress(Timeout):
                    for _, job in self.jobs(data, system, wait=wait):
                        with suppress(Timeout):
                            self.result(job, wait=wait)

    def found(self) -> dict[tuple[str, str], dict[int, Result]]:
        """(data, system) -> seed -> the run, of those that there are."""
        results: dict[tuple[str, str], dict[int, Result]] = {}
        for case in product(self.benches, self.study.systems):
            results[case] = {}
            with suppress(Missing):
                for seed, job in self.jobs(*case):
                    with suppress(Missing):
                        results[case][seed] = self.result(job)
        return results

    def missing(self, results: Mapping[tuple[str, str], Mapping[int, Result]]) -> list[str]:
        """What was not run, in words; a data set without a run as a whole."""
        begun = {data for (data, _), runs in results.items() if runs}
        told = [f"{data}, all systems" for data in self.benches if data not in begun]
        for (data, system), runs in results.items():
            absent = [str(seed) for seed in self.seeds(system) if seed not in runs]
            if data in begun and absent:
                told.append(f"{data}, {system}, seed{'s' if len(absent) > 1 else ''} {', '.join(absent)}")
        return told


def main(study: Study) -> None:
    given = options_of(" ".join(study.claims))
    names = list(study.data)[: 1 if given.quick else None]
    benches = {n: Bench(n, study.data[n], study.name, given, study.quick_splits) for n in names}
    desk = Desk(study, given, benches)
    desk.work()
    results = desk.found()
    values = {case: values_of(study, runs) for case, runs in results.items() if runs}
    rows, groups = [], []
    for (data, system), by_metric in values.items():
        place = rows_of(results[data, system])
        people = benches[data].people(results[data, system])
        rows += [row(f"{data}, {system}", metric, v, people) for metric, v in by_metric.items()]
        groups += _groups(study, data, system, by_metric, benches[data].splits, place)
    claims = {
        claim: {
            f"{data}: {better} - {worse}": _difference(study, results, data, better, worse, benches[data].splits)
            for data, (better, worse) in product(benches, pairs)
            if _common(results[data, better], results[data, worse])
        }
        for claim, pairs in study.claims.items()
    }
    write_result(
        given,
        name=study.name,
        paper=study.paper,
        data="; ".join([*(study.data[n].words for n in names), study.words]),
        seeds=sorted({seed for runs in results.values() for seed in runs}),
        rows=rows,
        claims=claims,
        runs=[run for runs in results.values() for run in runs.values()],
        budget=[b for case, runs in results.items() if runs and (b := budget(desk, *case))],
        groups=groups,
        not_run=desk.missing(results),
    )


def rows_of(runs: Mapping[int, Result]) -> Array:
    return np.array(next(iter(runs.values()))["row"])


def values_of(study: Study, runs: Mapping[int, Result]) -> dict[str, Array]:
    """Metric -> (seeds, rows)."""
    ranks = np.array([runs[seed]["rank"] for seed in sorted(runs)])
    return {metric: rank_metric(ranks, metric) for metric in study.metrics}


def _common(a: Mapping[int, Result], b: Mapping[int, Result]) -> list[int]:
    return sorted(set(a) & set(b))


def _difference(
    study: Study,
    results: Mapping[tuple[str, str], Mapping[int, Result]],
    data: str,
    better: str,
    worse: str,
    splits: SequenceSplits,
) -> Estimate:
    first, second = results[data, better], results[data, worse]
    seeds = _common(first, second)
    ours, theirs = (values_of(study, {s: runs[s] for s in seeds})[study.metrics[0]] for runs in (first, second))
    return estimate(ours - theirs, splits.test.user[rows_of(first)])


def _groups(
    study: Study, data: str, system: str, by_metric: Mapping[str, Array], splits: SequenceSplits, place: Array
) -> list[dict[str, Any]]:
    """The metric of claims by how often the target was taken in training, and by length of history."""
    rows, metric = splits.test.select(place), study.metrics[0]
    told = []
    for by, labels in kinds_of_rows(rows, splits).items():
        for group in labels.names:
            mine = labels.values == group
            if mine.any():
                values = by_metric[metric][:, mine]
                found = row(system, metric, values, rows.user[mine])
                told.append({"data": data, "by": by, "group": group, "rows": int(mine.sum()), **found})
    return told


def budget(desk: Desk, data: str, system: str) -> dict[str, Any] | None:
    told = desk.study.systems[system]
    if told.like is not None:
        return None  # no training of its own
    number = len(told.trainings[:1] if desk.given.quick else told.trainings)
    return {
        "system": f"{data}, {system}",
        "training": "; ".join(dict.fromkeys(amount(desk.benches[data], t) for t in told.trainings[:number])),
        "trainings": number,
        "chosen": f"{desk.study.metrics[0]} on validation rows, first seed" if number > 1 else "nothing",
    }


def amount(bench: Bench, training: Training) -> str:
    """Steps and rows of a training, in words."""
    config = bench.config(training, {n: _replaced(v, lambda t: t.name) for n, v in training.options.items()})
    before = training.options.get("start_from")
    first = [amount(bench, before)] if isinstance(before, Training) else []
    steps = [getattr(config, name, 0) for name in ("sft_steps", "preference_steps")]
    if any(steps):
        parts = [f"{n} steps of {config.batch_size} rows" for n in steps if n]
        return " + ".join([*first, *parts])
    if hasattr(config, "max_epochs"):
        rows = len(bench.splits.train)
        return f"at most {config.max_epochs} epochs of {rows} rows, patience {config.patience}"
    members = [t for t in training.options.get("members", ()) if isinstance(t, Training)]
    if members:
        return ", ".join(f"{t.name}: {amount(bench, t)}" for t in members) + ", weights of their sum"
    return " + ".join(first) or "counting, or no training"


def tiny_model(work: Path) -> dict[str, Any]:
    """Options of a language model of random weights that reads bytes."""
    folder = work / "tiny"
    if not folder.is_dir():
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
