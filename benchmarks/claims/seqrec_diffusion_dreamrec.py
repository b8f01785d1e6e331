"""DreamRec with the paper's and with the stable objective against classifiers, on three data sets.

    python -m benchmarks.claims.seqrec_diffusion_dreamrec [--quick] [--output FOLDER] [--work FOLDER]

The claims: the paper's (its DreamRec ranks better than the classifiers), the stable objective's against the paper's
and against the best classifier, and what guidance and more steps do to the models chosen here, without another
training.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from benchmarks.claims._kept import share
from benchmarks.claims._results import Array, Interval, interval, options_of, row, write_result
from benchmarks.claims._seqrec_diffusion import DATA, METRICS, Bench, System, grid, seeds

from predilect.evaluation.ranking import rank_metric
from seqrec_diffusion.presets import read_preset

NAME = "seqrec_diffusion_dreamrec"
CLASSIFIERS = ("SASRec", "GRU4Rec", "Caser", "DreamRec's encoder as a classifier")
PLAIN, STABLE = "DreamRec, paper's objective", "DreamRec, stable objective"
GUIDANCES, STEPS = (0.0, 1.0, 2.0, 4.0), (1, 5, 20, 100, 500)

ENOUGH = {"batch_size": 256, "max_epochs": 40, "patience": 5}
LONGER = {"batch_size": 256, "max_epochs": 100, "patience": 10}
PAPERS = {**read_preset("zhihu"), "sampler": "ddim", "steps": 20}
RATES = grid(learning_rate=(1e-3, 2e-3), dropout=(0.3, 0.5))
WAYS = grid(steps=(20,), guidance=GUIDANCES, similarity=("dot", "cosine"))
SYSTEMS = {
    "popularity": System("popularity", {}),
    "SASRec": System("sasrec", {**ENOUGH, "num_layers": 1}, RATES),
    "GRU4Rec": System("gru4rec", ENOUGH, RATES),
    "Caser": System("caser", ENOUGH, RATES),
    "DreamRec's encoder as a classifier": System(
        "dreamrec", {**ENOUGH, "encoder": "transformer", "objective": "softmax"}, RATES
    ),
    PLAIN: System("dreamrec", {**PAPERS, **LONGER}, grid(learning_rate=(1e-2, 1e-3, 1e-4, 5e-5)), WAYS),
    STABLE: System("dreamrec", ENOUGH, RATES, WAYS),
}


def main() -> None:
    given = options_of("Diffusion recommenders against classifiers.")
    benches = {name: Bench(name, given) for name in (list(DATA)[:1] if given.quick else DATA)}
    cases = list(product(benches.values(), SYSTEMS.items()))
    share(bench.choice(*system) for bench, system in cases)
    print("all options are chosen", flush=True)
    share(bench.ranking(*system, seed) for bench, system in cases for seed in seeds(given))
    values = {
        (data, system): np.stack([bench.test(system, SYSTEMS[system], seed) for seed in seeds(given)])
        for data, bench in benches.items()
        for system in SYSTEMS
    }
    rows = [
        row(f"{data}, {system}", metric, rank_metric(ranks, metric), benches[data].users)
        for (data, system), ranks in values.items()
        for metric in METRICS
    ]
    best = {data: max(CLASSIFIERS, key=lambda c: _validation(bench, c)) for data, bench in benches.items()}

    def against(system: str, others: Mapping[str, str]) -> dict[str, Interval]:
        return {
            f"{data}: {system} - {other}": _difference(values[data, system], values[data, other], benches[data].users)
            for data, other in others.items()
        }

    claims = {
        "DreamRec with the paper's objective ranks better than the best classifier.": against(PLAIN, best),
        "The stable objective (no paper's) ranks better than the paper's.": against(
            STABLE, dict.fromkeys(benches, PLAIN)
        ),
        "DreamRec with the stable objective ranks better than the best classifier.": against(STABLE, best),
    }
    for system in (PLAIN, STABLE):
        more, further = _sampling(system, benches, seeds(given))
        rows += more
        claims |= further
    words = "; ".join(bench.data.words for bench in benches.values())
    write_result(
        given,
        name=NAME,
        paper="Yang et al. 2023, DreamRec (arXiv 2310.20453)",
        data=f"{words}; options by ndcg@20 on validation rows, first seed, four trainings for each system (rate and "
        "dropout; paper's objective: rate); the claims are about ndcg@20",
        seeds=seeds(given),
        rows=rows,
        claims=claims,
        runs=[result for bench in benches.values() for result in bench.found],
    )


def _sampling(
    system: str, benches: Mapping[str, Bench], seeds: range
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Interval]]]:
    """Guidance and steps of the models that were chosen, without another training; the similarity is that chosen."""
    rows, claims = [], {}
    for option, tried, better, worse, claim in (
        ("guidance", GUIDANCES, 2.0, 0.0, "Guidance helps: w = 2 ranks better than conditional sampling"),
        ("steps", STEPS, 20, 1, "More steps help: 20 rank better than one"),
    ):
        differences = {}
        for data, bench in benches.items():
            chosen = bench.choose(system, SYSTEMS[system])["best"]["sampling"]
            ways = {value: {**chosen, option: value} for value in tried}
            share(bench.ranking(system, SYSTEMS[system], seed, way) for way in ways.values() for seed in seeds)
            found = {
                value: np.stack([bench.test(system, SYSTEMS[system], seed, way) for seed in seeds])
                for value, way in ways.items()
            }
            rows += [
                row(f"{data}, {system}, {option} {value:g}", metric, rank_metric(ranks, metric), bench.users)
                for value, ranks in found.items()
                for metric in METRICS
            ]
            name = f"{data}: {option} {better:g} - {option} {worse:g}"
            differences[name] = _difference(found[better], found[worse], bench.users)
        claims[f"{claim} ({system})."] = differences
    return rows, claims


def _difference(better: Array, worse: Array, users: Array) -> Interval:
    return interval(rank_metric(better, METRICS[1]) - rank_metric(worse, METRICS[1]), users)


def _validation(bench: Bench, system: str) -> float:
    found: float = bench.choose(system, SYSTEMS[system])["best"][METRICS[1]]
    return found


if __name__ == "__main__":
    main()
