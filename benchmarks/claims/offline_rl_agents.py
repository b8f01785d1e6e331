"""Agents learned from logs against their backbone, a control without rewards, and each other; MCRL's parts one by one.

    python -m benchmarks.claims.offline_rl_agents [--quick] [--kept] [--output FOLDER] [--work FOLDER]

Every system has the same budget: the same backbone of the same size, the same number of epochs, patience and learning
rate, and its published or default weights; nothing is tuned for any of them. The epoch is chosen by ndcg@10 of the
head that ranks, on the validation rows. Ranks are told apart for clicks and purchases. Returns are those of 500
sessions of simulated users of two kinds, fitted on the test part, which no agent was trained on; all systems and
seeds meet the same users. MCRL is our reconstruction: its paper is not public, and no number here reproduces one.

For reasons of time the budget was cut once, from 60 epochs with patience 8 (SA2C's advantage after 100 steps), when
four runs of the first seed had been seen; these runs are not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from benchmarks._preferences import DATA as DATA_FOLDER
from benchmarks.claims import _recommenders
from benchmarks.claims._kept import Job, Result, digest, kept
from benchmarks.claims._recommenders import Data, Missing, Training
from benchmarks.claims._results import Options, options_of, row, write_result
from benchmarks.claims._statistics import Array, Estimate, estimate

import predilect
from offline_rl_rec import RewardRule, Sessions, simulate
from offline_rl_rec.simulation import SIMULATORS, UserSimulator, simulator_class
from predilect.data import SequenceSplits, load
from predilect.evaluation import evaluate
from predilect.evaluation.ranking import rank_metric
from predilect.recommender import Recommender
from predilect.testing import planted_splits

NAME = "offline_rl_agents"
BACKBONES = {"SASRec": "sasrec", "GRU4Rec": "gru4rec"}
SEEDS = range(5)
BUDGET: Mapping[str, Any] = {"hidden_size": 32, "max_epochs": 15, "patience": 5, "batch_size": 64}
TOLD = (
    "hidden size 32, at most 15 epochs of batches of 64 windows, patience 5, learning rate 0.002; cut from 60 epochs "
    "and patience 8, for time, when four runs of the first seed had been seen"
)
SYSTEMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "backbone alone": ("rl-plain", {}),
    "control": ("rl-control", {}),
    "SQN": ("sqn", {}),
    "SNQN": ("snqn", {}),
    "SA2C": ("sa2c", {"advantage_after": 60}),  # the default, 500 steps, would be longer than a training here
    "CQL": ("cql", {}),  # which is MCRL without both contrasts
    "MCRL": ("mcrl", {}),
    "MCRL without conservative values": ("mcrl", {"conservative_weight": 0.0}),
    "MCRL without the reward model": ("mcrl", {"reward_weight": 0.0}),
    "MCRL without the transition model": ("mcrl", {"transition_weight": 0.0}),
    "MCRL with cross-entropy, which ranks": ("mcrl", {"cross_entropy_weight": 1.0, "head": "ce"}),
    "MCRL with imagined targets": ("mcrl", {"imagined_weight": 0.1}),
}
BEHAVIOURS = ("click", "purchase")
METRICS = tuple(f"{kind}@{k}" for kind in ("hr", "ndcg") for k in (5, 10, 20))
SIMULATION: Mapping[str, Any] = {"sessions": 500, "slate_size": 10, "max_steps": 50, "discount": 0.9, "seed": 0}


def _parts(data: predilect.RecDataset) -> SequenceSplits:
    """A quarter of the log for the users, and one to choose the epoch by."""
    return data.k_core(20).split(ratios=(0.5, 0.25, 0.25))


DATA: Mapping[str, tuple[Data, RewardRule]] = {
    "rc15-sample": (
        Data(
            lambda: load(DATA_FOLDER / "rc15-sample", format="rc15-sample").split("official", max_history=10),
            "sample of RecSys Challenge 2015, its authors' parts",
            {"mask_seen": False},
        ),
        RewardRule(),
    ),
    "MovieTweetings": (
        Data(
            lambda: _parts(predilect.load("movietweetings-100k")),
            "MovieTweetings-100K, 20-core, parts .5, .25, .25 by time, ratings from 8 of 10 on are purchases",
            {"mask_seen": True},
        ),
        RewardRule(liked=8),
    ),
    "ML-100K": (
        Data(
            lambda: _parts(load(DATA_FOLDER / "ml-100k")),
            "ML-100K, 20-core, parts .5, .25, .25 by time, ratings from 4 of 5 on are purchases",
            {"mask_seen": True},
        ),
        RewardRule(liked=4),
    ),
}


class Bench(_recommenders.Bench):
    """Trains, ranks and simulates on one data set, each once."""

    def __init__(self, name: str, given: Options) -> None:
        data, self.rule = DATA[name]
        self.rule = RewardRule() if given.quick else self.rule
        super().__init__(name, data, NAME, given, planted_splits)

    @property
    def backbones(self) -> Sequence[str]:
        return list(BACKBONES)[: 1 if self.given.quick else None]

    @property
    def seeds(self) -> range:
        return range(1) if self.given.quick else SEEDS

    @cached_property
    def behaviours(self) -> Array:
        """(R,) of the test rows."""
        return Sessions.of(self.splits.test, self.rule).behaviours(self.splits.test)

    @cached_property
    def simulators(self) -> Mapping[str, UserSimulator]:
        s = self.splits
        return {name: simulator_class(name)().fit(s.test, s.num_items, self.rule) for name in SIMULATORS}

    def training(self, backbone: str, system: str, seed: int) -> Training:
        method, options = SYSTEMS[system]
        budget = {**BUDGET, **({"hidden_size": 8, "max_epochs": 1} if self.given.quick else {})}
        shared_options = {"backbone": BACKBONES[backbone], "liked": self.rule.liked, "seed": seed}
        return Training(method, {**budget, **shared_options, **options})

    def job(self, backbone: str, system: str, seed: int) -> Job:  # type: ignore[override]
        """Ranks of the test rows, and returns of simulated sessions."""
        training = self.training(backbone, system, seed)
        setting = {**SIMULATION, **({"sessions": 20, "slate_size": 3} if self.given.quick else {})}
        content = {**self.content(training), "ranking": dict(self.data.ranking), "simulation": setting}

        def make() -> Result:
            folder = self.folder(training)
            agent = Recommender.from_pretrained(folder)
            found = evaluate(agent, self.splits, bootstrap=0, batch_size=256, **self.data.ranking)
            returns = {
                name: simulate(agent, users, bootstrap=0, exclude_history=self.data.ranking["mask_seen"], **setting)
                for name, users in self.simulators.items()
            }
            seconds = int((folder.parent / f"{folder.name}.seconds").read_text())
            means = {name: round(r.results["return"], 3) for name, r in returns.items()}
            ndcg = round(found.results["ndcg@10"], 4)
            told = f"ndcg@10 {ndcg}, returns {means}, trained in {seconds} s"
            print(f"{self.name}, {backbone}, {system}, seed {seed}: {told}", flush=True)
            return {
                "system": f"{backbone}, {system}",
                "seed": seed,
                **content,
                "rank": list(found.rows["rank"]),
                "return": {name: np.round(r.sessions["return"], 3).tolist() for name, r in returns.items()},
                "lists": {
                    name: {key: round(r.results[key], 4) for key in ("coverage", "repetition", "acceptance")}
                    for name, r in returns.items()
                },
                "fit_seconds": seconds,
            }

        return self.runs / f"{digest(content)}.json", make

    def result(self, job: Job) -> Result:
        if self.given.kept and not job[0].is_file():
            raise Missing
        return kept(*job)


class Found:
    """The runs of a data set, as values (seeds, rows)."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.runs: dict[tuple[str, str], dict[int, Result]] = {}
        for backbone, system in product(bench.backbones, SYSTEMS):
            mine = self.runs[backbone, system] = {}
            for seed in bench.seeds:
                with suppress(Missing):
                    mine[seed] = bench.result(bench.job(backbone, system, seed))

    @property
    def begun(self) -> bool:
        return any(self.runs.values())

    def ranked(self, backbone: str, system: str, behaviour: str, metric: str, seeds: Sequence[int]) -> Array:
        here = self.bench.behaviours == behaviour
        ranks = np.array([self.runs[backbone, system][seed]["rank"] for seed in seeds])
        values: Array = rank_metric(ranks[:, here], metric)
        return values

    def returns(self, backbone: str, system: str, users: str, seeds: Sequence[int]) -> Array:
        found: Array = np.array([self.runs[backbone, system][seed]["return"][users] for seed in seeds])
        return found

    def people(self, behaviour: str) -> Array:
        found: Array = self.bench.splits.test.user[self.bench.behaviours == behaviour]
        return found

    def difference(self, backbone: str, system: str, other: str, what: str) -> Estimate | None:
        """Of purchases' ndcg@10, or of the return under the users `what`; over the seeds that both have."""
        seeds = sorted(set(self.runs[backbone, system]) & set(self.runs[backbone, other]))
        if not seeds:
            return None
        ours, theirs = ((self._values(backbone, name, what, seeds)) for name in (system, other))
        return estimate(ours - theirs, None if what in SIMULATORS else self.people(what))

    def _values(self, backbone: str, system: str, what: str, seeds: Sequence[int]) -> Array:
        if what in SIMULATORS:
            return self.returns(backbone, system, what, seeds)
        return self.ranked(backbone, system, what, "ndcg@10", seeds)


CLAIMS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "SQN ranks purchases better than its backbone alone.": ("SQN", "backbone alone", ("purchase",)),
    "SQN ranks purchases better than a control without rewards.": ("SQN", "control", ("purchase",)),
    "MCRL (our reconstruction) ranks purchases better than its backbone alone.": (
        "MCRL",
        "backbone alone",
        ("purchase",),
    ),
    "MCRL (our reconstruction) ranks purchases better than CQL, which lacks its contrasts.": (
        "MCRL",
        "CQL",
        ("purchase",),
    ),
    "MCRL (our reconstruction) earns more of simulated users than its backbone alone.": (
        "MCRL",
        "backbone alone",
        SIMULATORS,
    ),
}


def claims_of(found: Found) -> Iterator[tuple[str, str, Estimate]]:
    """(claim, difference in words, its estimate); above 0 it holds."""
    for (claim, (system, other, measures)), backbone in product(CLAIMS.items(), found.bench.backbones):
        for what in measures:
            estimated = found.difference(backbone, system, other, what)
            if estimated is not None:
                measure = f"return, {what} users" if what in SIMULATORS else f"ndcg@10 of {what}s"
                yield claim, f"{found.bench.name}, {backbone}: {measure}, {system} - {other}", estimated


def rows_of(found: Found) -> Iterator[dict[str, Any]]:
    for (backbone, system), runs in found.runs.items():
        if not runs:
            continue
        label, seeds = f"{found.bench.name}, {backbone}, {system}", sorted(runs)
        for behaviour, metric in product(BEHAVIOURS, METRICS):
            values = found.ranked(backbone, system, behaviour, metric, seeds)
            yield row(label, f"{metric} of {behaviour}s", values, found.people(behaviour))
        for users in SIMULATORS:
            yield row(label, f"return, {users} users", found.returns(backbone, system, users, seeds))


def budget_of(found: Found) -> Iterator[dict[str, Any]]:
    for (backbone, system), runs in found.runs.items():
        if runs:
            label = f"{found.bench.name}, {backbone}, {system}"
            yield {"system": label, "training": TOLD, "trainings": 1, "chosen": "nothing"}


def missing_of(found: Found) -> Iterator[str]:
    if not found.begun:
        yield f"{found.bench.name}, all systems"
        return
    for (backbone, system), runs in found.runs.items():
        if absent := [str(seed) for seed in found.bench.seeds if seed not in runs]:
            yield f"{found.bench.name}, {backbone}, {system}, seeds {', '.join(absent)}"


def work(bench: Bench) -> None:
    """All jobs: first the systems of the claims, seed by seed, so that a script that is killed has whole seeds."""
    claimed = {system for pair in CLAIMS.values() for system in pair[:2]}
    for among in (claimed, set(SYSTEMS) - claimed):
        for backbone, seed, system in product(bench.backbones, bench.seeds, SYSTEMS):
            if system in among:
                bench.result(bench.job(backbone, system, seed))


def main() -> None:
    given = options_of("Agents learned from logs.")
    benches = [Bench(name, given) for name in list(DATA)[: 1 if given.quick else None]]
    for bench in () if given.kept else benches:
        work(bench)
    found = [Found(bench) for bench in benches]
    begun = [one for one in found if one.begun]
    claims: dict[str, dict[str, Estimate]] = {claim: {} for claim in CLAIMS}
    for one in begun:
        for claim, words, estimated in claims_of(one):
            claims[claim][words] = estimated
    write_result(
        given,
        name=NAME,
        paper="the abstract of Li et al. 2023, MCRL (arXiv 2310.16566), reconstructed; Xin et al. 2020, SQN "
        "(arXiv 2006.05779)",
        data=f"{'; '.join(one.bench.data.words for one in begun)}; returns of 500 sessions of simulated users fitted "
        "on the test part",
        seeds=sorted({seed for one in begun for runs in one.runs.values() for seed in runs}),
        rows=[r for one in begun for r in rows_of(one)],
        claims=claims,
        runs=[run for one in begun for runs in one.runs.values() for run in runs.values()],
        budget=[b for one in begun for b in budget_of(one)],
        not_run=[text for one in found for text in missing_of(one)],
    )


if __name__ == "__main__":
    main()
