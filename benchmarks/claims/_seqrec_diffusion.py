"""What the claims about DreamRec share: data, systems with grids of options, runs that are kept, intervals.

1. Options: each trained system gets a grid of the same number of trainings with the first seed. Its best point, and
   for a diffusion its best way of sampling, has the best ndcg@20 on the validation rows. Test rows play no part.
2. The chosen options are trained with every seed, and rank the test rows.

Every fitted model is kept in the work folder, every choice and every rank beside the results. A script that was killed
goes on from there, and copies started together share the work.

The metrics are hr@20 and ndcg@20 as in the paper. Zhihu's official split is ranked as there (nothing is left out of
the ranking); on the other data what a person took before is not ranked, as in the leaderboard.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from benchmarks import _preferences as shared
from benchmarks.claims._kept import Job, kept
from benchmarks.claims._llm_rec import ring
from benchmarks.claims._results import Array, Options

import predilect
from predilect.data import SequenceSplits, load
from predilect.evaluation import evaluate
from predilect.evaluation.ranking import rank_metric
from predilect.recommender import Recommender, recommender_class

SEEDS = 3
METRICS = ("hr@20", "ndcg@20")
Point = dict[str, Any]


class Data(NamedTuple):
    """Splits by name; `mask_seen` as in `evaluate`."""

    splits: Callable[[], SequenceSplits]
    mask_seen: bool
    words: str


def _temporal(data: Any) -> SequenceSplits:
    splits: SequenceSplits = data.k_core(5).split("temporal", max_history=10)
    return splits


DATA = {
    "Zhihu": Data(
        lambda: load(shared.DATA / "dreamrec-zhihu").split("official", max_history=10, min_history=0),
        mask_seen=False,
        words="Zhihu, DreamRec's official split",
    ),
    "MovieTweetings": Data(
        lambda: _temporal(predilect.load("movietweetings-100k")),
        mask_seen=True,
        words="MovieTweetings-100K, 5-core, temporal split",
    ),
    "ML-100K": Data(
        lambda: _temporal(load(shared.DATA / "ml-100k")), mask_seen=True, words="ML-100K, 5-core, temporal split"
    ),
}


@dataclass(frozen=True)
class System:
    """A recommender, its fixed options, the grid of others, and the ways to sample that validation chooses from."""

    kind: str
    fixed: Mapping[str, Any]
    grid: tuple[Point, ...] = ({},)
    sampling: tuple[Point, ...] = ({},)


def grid(**choices: Iterable[Any]) -> tuple[Point, ...]:
    """All combinations, as options."""
    return tuple(dict(zip(choices, values, strict=True)) for values in product(*choices.values()))


class Bench:
    """Fits, chooses and ranks on one data set, each once: what is found in the folders is not done again.

    Args:
        name: key of `DATA`.
        given: folders, and whether this is a smoke run: on a ring of letters, one epoch, one point of each grid.
    """

    def __init__(self, name: str, given: Options) -> None:
        self.name, self.quick = name, given.quick
        self.data = DATA[name]
        self.models = given.work / "seqrec_diffusion" / name
        self.found: list[dict[str, Any]] = []  # every ranking that was asked for
        self.kept = given.output / "runs" / "seqrec_diffusion" / name

    @cached_property
    def splits(self) -> SequenceSplits:
        return ring(size=12) if self.quick else self.data.splits()

    def choose(self, name: str, system: System) -> dict[str, Any]:
        """The best `options` and `sampling` by validation, and all that was tried."""
        return kept(*self.choice(name, system))

    def choice(self, name: str, system: System) -> Job:
        return self.kept / f"{_slug(name)}-{_digest(vars(system))}.json", lambda: self._choose(name, system)

    def _choose(self, name: str, system: System) -> dict[str, Any]:
        tried: list[dict[str, Any]] = []
        for point in system.grid[:1] if self.quick else system.grid:
            recommender, seconds = self._fit(system, point, 0)
            for sampling in system.sampling:
                found = self.ranks(recommender, sampling, "validation")
                metrics = {metric: round(float(rank_metric(found, metric).mean()), 5) for metric in METRICS}
                tried.append({"options": point, "sampling": sampling, **metrics, "seconds": round(seconds)})
            best = max((t for t in tried if t["options"] == point), key=lambda t: t["ndcg@20"])
            print(f"{self.name}, {name}: {best}", flush=True)
        best = max(tried, key=lambda t: t["ndcg@20"])
        return {"system": name, "fixed": dict(system.fixed), "best": best, "tried": tried}

    def test(self, name: str, system: System, seed: int, sampling: Point | None = None) -> Array:
        """Rank of every test row with the chosen options; `sampling` None: the chosen way."""
        result = kept(*self.ranking(name, system, seed, sampling))
        self.found.append(result)
        return np.array(result["rank"])

    def ranking(self, name: str, system: System, seed: int, sampling: Point | None = None) -> Job:
        chosen = self.choose(name, system)["best"]
        sampling = chosen["sampling"] if sampling is None else sampling

        def make() -> dict[str, Any]:
            recommender, _ = self._fit(system, chosen["options"], seed)
            found = self.ranks(recommender, sampling, "test")
            print(f"{self.name}, {name}, {sampling}, seed {seed} ranked the test rows", flush=True)
            told = {"system": name, "seed": seed, "options": chosen["options"], "sampling": sampling}
            return {**told, "rank": found.tolist()}

        digest = _digest([vars(system), chosen["options"], sampling])
        return self.kept / f"{_slug(name)}-{digest}-seed{seed}.json", make

    def ranks(self, recommender: Recommender, sampling: Point, part: str) -> Array:
        if sampling:
            recommender.set_sampling(**sampling)  # type: ignore[attr-defined]
        found = evaluate(recommender, self.splits, part, mask_seen=self.data.mask_seen, bootstrap=0)
        return np.array(found.rows["rank"])

    @property
    def users(self) -> Array:
        """Whose test row each is."""
        return self.splits.test.user

    def _fit(self, system: System, point: Point, seed: int) -> tuple[Recommender, float]:
        options = {**system.fixed, **point, "seed": seed}
        folder = self.models / f"{system.kind}-{_digest(options)}"

        def fit() -> dict[str, Any]:
            start = time.perf_counter()
            kind: Any = recommender_class(system.kind)
            config = kind.config_class(**options)
            kind(config.quick() if self.quick else config).fit(self.splits).save_pretrained(folder)
            return {"seconds": time.perf_counter() - start}

        seconds = kept(folder / "done.json", fit)["seconds"]
        return Recommender.from_pretrained(folder), seconds


def seeds(given: Options) -> range:
    return range(1 if given.quick else SEEDS)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
