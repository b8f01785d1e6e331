"""IFairLRS on MovieTweetings and ML-100K: re-weighting, re-ranking and both, on recommenders without a language model.

    python -m benchmarks.claims.fair_rec_mitigation [--quick] [--kept] [--language-model] [--output F] [--work F]

Groups are five by popularity, or the categories (unit counting); shares are compared with those of the training
histories. Every recommender is trained once as it is, and once for each grouping on re-weighted rows; item-kNN counts
and has no loss to weight. The paper's rule re-ranks both: its alpha is that with the lowest MGU@10 on the validation
rows of the first seed among those that keep 95 % of the ndcg@10 there (the smallest where none does). The linear
programme re-ranks the plain one: its tolerance is that with the highest ndcg@10 on these rows among those with an
MGU@10 of at most the paper's rule's (the fairest where there is none).

MGU and DGU are no means over rows. Near their value they are linear in the counts of people, and it is this linear
form that the intervals are made of (infinitesimal jackknife; Efron 1982, The Jackknife, the Bootstrap and Other
Resampling Plans, chapter 6): a row has the value of the metric plus its person's part of the slope, so that the mean
is the metric, and people and seeds count as in every other study.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from benchmarks.claims import _recommenders
from benchmarks.claims._kept import Job, Result, digest, kept
from benchmarks.claims._recommenders import Missing, Training, ring
from benchmarks.claims._results import Options, options_of, row, write_result
from benchmarks.claims._statistics import Array, Estimate, estimate
from benchmarks.claims.seqrec_diffusion_dreamrec import CONDITIONAL, DATA, ENOUGH

from fair_rec import (
    ItemGroups,
    as_lists,
    category_groups,
    dgu,
    frontier,
    item_counts,
    mgu,
    popularity_groups,
    reference_proportions,
)
from predilect.evaluation import evaluate
from predilect.evaluation.ranking import rank_metric
from predilect.recommender import Recommender

NAME = "fair_rec_mitigation"
GROUPINGS = ("popularity", "category")
KS = (1, 5, 10, 20)
ALPHAS, TOLERANCES = (0.01, 0.02, 0.05, 0.1), (0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)
KEPT_ACCURACY = 0.95
PLAIN, WEIGHTED, RERANKED, BOTH, PROGRAMME = "plain", "re-weighted", "re-ranked", "both", "programme"
ALL_ROWS = 1_000_000  # of the validation part


@dataclass(frozen=True)
class Base:
    """A recommender that is mitigated.

    Attributes:
        method: name in the registry.
        options: those that differ from the defaults.
        training: in words.
        weights: whether its training takes weights of rows.
        chance: whether its seeds differ; one run of a method without chance stands for all of them.
        seeds: how many.
        quick: further options of a smoke run.
    """

    method: str
    options: Mapping[str, Any]
    training: str
    weights: bool = True
    chance: bool = True
    seeds: int = 5
    quick: Mapping[str, Any] | None = None


BASES = {
    "item-kNN": Base("item-knn", {}, "counting, the same for all seeds: one run", weights=False, chance=False),
    "SASRec": Base("sasrec", {}, "at most 10 epochs, patience 3", quick={"max_epochs": 1, "hidden_size": 8}),
    "DreamRec": Base(
        "dreamrec",
        {**ENOUGH, **CONDITIONAL},
        "at most 100 epochs, patience 15",
        quick={"max_epochs": 1, "hidden_size": 8},
    ),
}
LANGUAGE_MODEL = "language model"
LANGUAGE = Base(
    "bigrec", {"batch_size": 32, "sft_steps": 900}, "900 steps of 32 rows", seeds=3, quick={"sft_steps": 1}
)


class Bench(_recommenders.Bench):
    """Trains, chooses strengths and ranks on one data set, each once."""

    def __init__(self, name: str, bases: Mapping[str, Base], given: Options) -> None:
        super().__init__(name, DATA[name], NAME, given, lambda: ring(size=12))
        self.bases = bases

    @cached_property
    def groups(self) -> Mapping[str, ItemGroups]:
        return {
            "popularity": popularity_groups(item_counts(self.splits), 5),
            "category": category_groups(self.splits.catalogue),
        }

    @cached_property
    def references(self) -> Mapping[str, Array]:
        return {g: reference_proportions(groups, "train", self.splits) for g, groups in self.groups.items()}

    def seeds(self, base: str) -> range:
        """Of the runs that are made; a method without chance needs one."""
        told = self.bases[base]
        return range(1 if self.given.quick or not told.chance else told.seeds)

    def variants(self, base: str) -> list[tuple[str, str]]:
        """(variant, grouping); what is plain belongs to no grouping."""
        found = [RERANKED, PROGRAMME, *((WEIGHTED, BOTH) if self.bases[base].weights else ())]
        return [(PLAIN, ""), *product(found, GROUPINGS)]

    # --- trainings -----------------------------------------------------------------------------------------------

    def training(self, base: str, variant: str, grouping: str, seed: int, *, wait: bool = True) -> Training:
        told = self.bases[base]
        options = {**told.options, **((told.quick or {}) if self.given.quick else {})}
        if self.given.quick and told is LANGUAGE:
            options |= self._smoke
        if variant == PLAIN:
            return Training(told.method, {**options, "seed": seed})
        about = {"groups": grouping, "seed": seed}
        if variant == WEIGHTED:
            reweighted = {"base": told.method, "base_options": options, "reweight": True, "rule": "none"}
            return Training("group-reranker", {**about, **reweighted})
        before = self.training(base, WEIGHTED if variant == BOTH else PLAIN, grouping, seed)
        chosen = self.strength(base, variant, grouping, wait=wait)
        return Training("group-reranker", {**about, "base": before, "rows": ALL_ROWS, **chosen})

    def content(self, training: Training) -> Result:
        """Without the folder of the tiny model of a smoke run, which is one of this machine."""
        found = super().content(training)
        if self.given.quick and isinstance(before := found["config"].get("base_options"), dict):
            found["config"]["base_options"] = {name: v for name, v in before.items() if name != "model"}
        return found

    # --- strengths -----------------------------------------------------------------------------------------------

    def strength(self, base: str, variant: str, grouping: str, *, wait: bool = True) -> dict[str, Any]:
        """Options of the rule, by the validation rows of the first seed."""
        found = self.result(self.frontier(base, WEIGHTED if variant == BOTH else PLAIN, grouping), wait=wait)
        points = found["frontier"]
        paper = chosen_alpha(points)
        if variant != PROGRAMME:
            return {"rule": "paper", "alpha": paper["strength"]}
        return {"rule": "programme", "tolerance": chosen_tolerance(points, paper)["strength"], "k": 10}

    def frontier(self, base: str, variant: str, grouping: str) -> Job:
        """Accuracy and fairness of the rules over their strengths, on the validation rows of the first seed."""
        training = self.training(base, variant, grouping, 0)
        tolerances = TOLERANCES if variant == PLAIN else ()
        recipe = {"alphas": ALPHAS, "tolerances": tolerances, "grouping": grouping, "quick": self.given.quick}
        content = {**self.content(training), "frontier of": recipe}

        def make() -> Result:
            points = frontier(
                Recommender.from_pretrained(self.folder(training)),
                self.splits,
                self.groups[grouping],
                alphas=(0.0, *ALPHAS),
                tolerances=tolerances,
                rows=ALL_ROWS,
                max_rows=12 if self.given.quick else None,
            ).to_dict("records")
            print(f"{self.name}, {base}, {variant}, by {grouping}, seed 0: frontier", flush=True)
            return {"system": base, "variant": variant, "seed": 0, **content, "frontier": points}

        return self.runs / f"{digest(content)}.json", make

    # --- rankings ------------------------------------------------------------------------------------------------

    def ranking(self, base: str, variant: str, grouping: str, seed: int, *, wait: bool = True) -> Job:
        """Ranks of the test rows, and how often every person's lists hold each group, by K."""
        training = self.training(base, variant, grouping, seed, wait=wait)
        measured = (grouping,) if grouping else GROUPINGS
        content = {**self.content(training), "ranking": {"ks": KS, "groupings": measured, "quick": self.given.quick}}

        def make() -> Result:
            recommender = Recommender.from_pretrained(self.folder(training))
            options = {**self.data.ranking, **({"max_rows": 12} if self.given.quick else {})}
            found = evaluate(recommender, self.splits, bootstrap=0, top=max(KS), batch_size=256, **options)
            items = as_lists(found, catalogue=self.splits.catalogue).items
            items = np.pad(items, ((0, 0), (0, max(KS) - items.shape[1])))
            user = self.splits.test.user[found.rows["row"]]
            means = {f"ndcg@{k}": round(found.results[f"ndcg@{k}"], 5) for k in KS}
            print(f"{self.name}, {base}, {variant} by {grouping or 'nothing'}, seed {seed}: {means}", flush=True)
            return {
                "system": base,
                "variant": variant,
                "seed": seed,
                **content,
                "row": [] if len(user) == len(self.splits.test) else list(found.rows["row"]),
                "rank": list(found.rows["rank"]),
                "counts": {g: packed(counts_of(items, user, self.groups[g])) for g in measured},
            }

        return self.runs / f"{digest(content)}.json", make

    def result(self, job: Job, *, wait: bool = True) -> Result:
        if self.given.kept and not job[0].is_file():
            raise Missing
        return kept(*job, wait=wait)


def chosen_alpha(points: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The fairest point of the paper's rule that keeps the accuracy; the weakest where none does."""
    plain, *paper = sorted((p for p in points if p["rule"] == "paper"), key=lambda p: p["strength"])
    enough = [p for p in paper if p["ndcg"] >= KEPT_ACCURACY * plain["ndcg"]]
    return min(enough, key=lambda p: p["mgu"]) if enough else paper[0]


def chosen_tolerance(points: Sequence[Mapping[str, Any]], paper: Mapping[str, Any]) -> Mapping[str, Any]:
    """The most accurate point of the programme that is as fair as the paper's; the fairest where none is."""
    programme = [p for p in points if p["rule"] == "programme"]
    as_fair = [p for p in programme if p["mgu"] <= paper["mgu"]]
    return max(as_fair, key=lambda p: p["ndcg"]) if as_fair else min(programme, key=lambda p: p["mgu"])


# --- counts of people and what is made of them -----------------------------------------------------------------------


def counts_of(items: Array, user: Array, groups: ItemGroups) -> Array:
    """(KS, U, G) memberships in the first K places of the lists of every person, people in the order of their ids."""
    people = np.unique(user, return_inverse=True)[1]
    counts = np.zeros((len(KS), int(people.max()) + 1, len(groups)), dtype=np.uint16)
    for place, k in enumerate(KS):
        np.add.at(counts[place], people, groups.membership[items[:, :k]].sum(axis=1).astype(np.uint16))
    return counts


def packed(counts: Array) -> dict[str, Any]:
    """Whole numbers as text that JSON can hold."""
    return {"shape": list(counts.shape), "zlib": base64.b64encode(zlib.compress(counts.tobytes(), 9)).decode()}


def unpacked(told: Mapping[str, Any]) -> Array:
    return np.frombuffer(zlib.decompress(base64.b64decode(told["zlib"])), dtype=np.uint16).reshape(told["shape"])


def linear_values(counts: Array, reference: Array, people: Array) -> dict[str, Array]:
    """MGU and DGU as a value a row, whose mean is the metric and whose spread over people is that of its slope.

    With c_ug the counts of person u, n their sum, p_g the shares and s the slope of the metric in the shares (MGU:
    sign(GU_g) / G; DGU: 1 for the group with the largest GU, -1 for that with the smallest), person u's part is
    `sum_g s_g (c_ug - p_g sum_h c_uh) / n`, divided among its rows.

    Args:
        counts: (U, G).
        reference: (G,) what shares are compared with.
        people: (R,) place of every row's person in `counts`.
    """
    counts = counts.astype(float)
    share = counts.sum(axis=0) / counts.sum()
    unfairness = share - reference
    ends = np.zeros(len(share))
    ends[unfairness.argmax()] += 1
    ends[unfairness.argmin()] -= 1
    change = (counts - counts.sum(axis=1, keepdims=True) * share) / counts.sum()
    rows_of_person = np.bincount(people, minlength=len(counts))
    slopes = {"MGU": (mgu(unfairness), np.sign(unfairness) / len(share)), "DGU": (dgu(unfairness), ends)}
    return {
        name: value + len(people) * (change @ slope / rows_of_person)[people]
        for name, (value, slope) in slopes.items()
    }


class Found:
    """The runs of a data set, as values (seeds, rows)."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.runs: dict[tuple[str, str, str], dict[int, Result]] = {}
        for base in bench.bases:
            for variant, grouping in bench.variants(base):
                mine = self.runs[base, variant, grouping] = {}
                with suppress(Missing):
                    for seed in bench.seeds(base):
                        with suppress(Missing):
                            mine[seed] = bench.result(bench.ranking(base, variant, grouping, seed))
        self.seeds = {seed for runs in self.runs.values() for seed in runs}

    def there(self, base: str, variant: str, grouping: str) -> list[int]:
        """Seeds; one run of a method without chance stands for every seed of the other methods."""
        runs = self.runs.get((base, variant, "" if variant == PLAIN else grouping), {})
        if runs and not self.bench.bases[base].chance and not self.bench.given.quick:
            return sorted(self.seeds | {0, 1})
        return sorted(runs)

    def people(self) -> Array:
        """(R,) whose row each is."""
        row = next(run["row"] for runs in self.runs.values() for run in runs.values())
        user = self.bench.splits.test.user
        return user[row] if row else user

    def values(self, base: str, variant: str, grouping: str, metric: str, seeds: Sequence[int]) -> Array:
        runs = self.runs[base, variant, "" if variant == PLAIN else grouping]
        found = [runs[seed if self.bench.bases[base].chance else 0] for seed in seeds]
        if metric.startswith("ndcg"):
            return rank_metric(np.array([run["rank"] for run in found]), metric)
        name, k = metric.split("@")
        people = np.unique(self.people(), return_inverse=True)[1]
        reference = self.bench.references[grouping]
        return np.array(
            [
                linear_values(unpacked(run["counts"][grouping])[KS.index(int(k))], reference, people)[name]
                for run in found
            ]
        )

    def difference(self, grouping: str, parts: Sequence[tuple[float, str, str, str]]) -> Estimate | None:
        """Of weighted terms (weight, base, variant, metric), over the seeds that all have; None where none is."""
        seeds = sorted(set.intersection(*(set(self.there(base, v, grouping)) for _, base, v, _ in parts)))
        if not seeds:
            return None
        total = sum(w * self.values(base, v, grouping, metric, seeds) for w, base, v, metric in parts)
        return estimate(np.asarray(total), self.people())


def claims_of(found: Found) -> Iterator[tuple[str, str, Estimate]]:
    """(claim, difference in words, its estimate); above 0 it holds."""

    def gain(base: str, variant: str, k: int, sign: float = 1.0) -> list[tuple[float, str, str, str]]:
        return [(sign, base, PLAIN, f"MGU@{k}"), (-sign, base, variant, f"MGU@{k}")]

    def kept(base: str, variant: str) -> list[tuple[float, str, str, str]]:
        return [(1.0, base, variant, "ndcg@10"), (-KEPT_ACCURACY, base, PLAIN, "ndcg@10")]

    for base, grouping in product(found.bench.bases, GROUPINGS):
        told: dict[str, dict[str, list[tuple[float, str, str, str]]]] = {
            "Re-weighting makes shares fairer at K = 1.": {"MGU@1, plain - re-weighted": gain(base, WEIGHTED, 1)},
            "Re-weighting helps mostly at K = 1.": {
                "what MGU loses at 1 - at 20": [*gain(base, WEIGHTED, 1), *gain(base, WEIGHTED, 20, -1.0)]
            },
            "Re-ranking makes shares fairer at K = 20.": {"MGU@20, plain - re-ranked": gain(base, RERANKED, 20)},
            "Re-ranking helps at larger K: more at 20 than at 1.": {
                "what MGU loses at 20 - at 1": [*gain(base, RERANKED, 20), *gain(base, RERANKED, 1, -1.0)]
            },
            "At the chosen alpha less than 5 % of the accuracy is lost.": {
                f"ndcg@10, {variant} - 0.95 plain": kept(base, variant) for variant in (RERANKED, BOTH)
            },
            "The programme dominates the paper's rule: it ranks better and is fairer.": {
                "ndcg@10, programme - re-ranked": [
                    (1.0, base, PROGRAMME, "ndcg@10"),
                    (-1.0, base, RERANKED, "ndcg@10"),
                ],
                "MGU@10, re-ranked - programme": [
                    (1.0, base, RERANKED, "MGU@10"),
                    (-1.0, base, PROGRAMME, "MGU@10"),
                ],
            },
        }
        if base == LANGUAGE_MODEL:
            told["A language model is less fair than a sequential model at K = 1."] = {
                "MGU@1, language model - SASRec": [(1.0, base, PLAIN, "MGU@1"), (-1.0, "SASRec", PLAIN, "MGU@1")]
            }
        for claim, differences in told.items():
            for words, parts in differences.items():
                estimated = found.difference(grouping, parts)
                if estimated is not None:
                    yield claim, f"{found.bench.name}, {base}, by {grouping}: {words}", estimated


def rows_of(found: Found) -> Iterator[dict[str, Any]]:
    people = found.people()
    for base, variant, grouping in found.runs:
        seeds = found.there(base, variant, grouping)
        if not seeds:
            continue
        label = f"{found.bench.name}, {base}, {variant}" + (f" by {grouping}" if grouping else "")
        for k in KS:
            yield row(label, f"ndcg@{k}", found.values(base, variant, grouping, f"ndcg@{k}", seeds), people)
        for by, name, k in product((grouping,) if grouping else GROUPINGS, ("MGU", "DGU"), KS):
            values = found.values(base, variant, by, f"{name}@{k}", seeds)
            yield row(label, f"{name}@{k} by {by}", values, people)


def budget_of(found: Found) -> Iterator[dict[str, Any]]:
    for base, variant, grouping in found.runs:
        if not found.there(base, variant, grouping):
            continue
        told, chosen = found.bench.bases[base], "nothing"
        if variant in (RERANKED, BOTH, PROGRAMME):
            options = found.bench.strength(base, variant, grouping)
            strength = next(name for name in ("alpha", "tolerance") if name in options)
            chosen = f"validation rows, first seed: {strength} {options[strength]:g}"
        system = f"{found.bench.name}, {base}, {variant}" + (f" by {grouping}" if grouping else "")
        yield {"system": system, "training": told.training, "trainings": 1, "chosen": chosen}


def missing_of(found: Found) -> Iterator[str]:
    for base in found.bench.bases:
        mine = {key: runs for key, runs in found.runs.items() if key[0] == base}
        if not any(mine.values()):
            yield f"{found.bench.name}, {base}, all variants"
            continue
        for (_, variant, grouping), runs in mine.items():
            if absent := [str(seed) for seed in found.bench.seeds(base) if seed not in runs]:
                by = f" by {grouping}" if grouping else ""
                seeds = f"seed{'s' if len(absent) > 1 else ''} {', '.join(absent)}"
                yield f"{found.bench.name}, {base}, {variant}{by}, {seeds}"


def work(bench: Bench) -> None:
    """All jobs, seed by seed, so that a script that is killed has whole seeds."""
    for base in bench.bases:
        for seed in bench.seeds(base):
            for variant, grouping in bench.variants(base):
                bench.result(bench.ranking(base, variant, grouping, seed))


def main() -> None:
    given = options_of(
        "Re-weighting and re-ranking of IFairLRS.",
        {"language_model": "Also BIGRec on SmolLM2-135M-Instruct, which needs a GPU."},
    )
    asked = bool(given.flags) or given.kept
    bases = {**BASES, **({LANGUAGE_MODEL: LANGUAGE} if asked else {})}
    benches = [Bench(name, bases, given) for name in ("MovieTweetings", "ML-100K")[: 1 if given.quick else None]]
    for bench in () if given.kept else benches:
        work(bench)
    found = [Found(bench) for bench in benches]
    begun = [one for one in found if any(one.runs.values())]
    claims: dict[str, dict[str, Estimate]] = {}
    for one in begun:
        for claim, words, estimated in claims_of(one):
            claims.setdefault(claim, {})[words] = estimated
    missing = [text for one in found for text in missing_of(one)]
    if not asked and not given.quick:
        missing.append(f"{LANGUAGE_MODEL}, all data sets (--language-model)")
    write_result(
        given,
        name=NAME,
        paper="Jiang et al. 2024, IFairLRS (arXiv 2402.15215)",
        data=f"{'; '.join(one.bench.data.words for one in begun)}; five groups by popularity, or categories; shares "
        "against those of the training histories",
        seeds=sorted({seed for one in begun for seed in one.seeds}),
        rows=[r for one in begun for r in rows_of(one)],
        claims=claims,
        runs=[run for one in begun for runs in one.runs.values() for run in runs.values()],
        budget=[b for one in begun for b in budget_of(one)],
        not_run=missing,
    )


if __name__ == "__main__":
    main()
