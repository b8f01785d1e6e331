"""Fairness: all metrics against making the lists, intervals against one pass, and re-ranking against sorting.

    python -m benchmarks.speed.fairness [--quick] [--output FOLDER]

The lists are the top 20 of 10,000 scores a person, made in chunks of people by `topk`: what has to be computed before
there is anything to measure. The groups are 18, an item is in one to three of them. The bootstrap resamples counts of
people, never lists; its row is the time of 1,000 draws, against 20 times one pass over the lists. Re-ranking takes the
prices of the items as given, since they are found once on a sample: it subtracts them and takes the best, chunk by
chunk. Its baseline sorts the same candidates.
"""

from __future__ import annotations

import numpy as np
import torch
from benchmarks.speed import _results

from fair_rec import (
    ItemGroups,
    Lists,
    average_popularity,
    coverage,
    exposure,
    gini,
    group_unfairness,
    unfairness_report,
)

K, GROUPS, DRAWS, CANDIDATES, CHUNK = 20, 18, 1000, 100, 10_000


def top_lists(scores: torch.Tensor, people: int) -> np.ndarray:
    """(people, K): the same chunk of scores again and again, so that memory is that of one chunk."""
    chunks = [scores[: people - start].topk(K).indices + 1 for start in range(0, people, len(scores))]
    return torch.cat(chunks).numpy()


def overlapping_groups(items: int, rng: np.random.Generator) -> ItemGroups:
    """Each item in one to three of the groups."""
    membership = np.zeros((items + 1, GROUPS))
    for _ in range(3):
        membership[np.arange(1, items + 1), rng.integers(0, GROUPS, items)] = 1
    return ItemGroups("group", tuple(str(g) for g in range(GROUPS)), membership)


def metrics(lists: Lists, groups: ItemGroups, reference: np.ndarray, counts: np.ndarray) -> None:
    unfairness_report(lists, groups, reference, bootstrap=0)
    exposure(lists, groups, K)
    gini(lists, K)
    coverage(lists, K)
    average_popularity(lists, counts, K)


def reranked(scores: torch.Tensor, items: torch.Tensor, prices: torch.Tensor, chunks: int) -> None:
    for _ in range(chunks):
        items.gather(1, (scores - prices[items]).topk(K).indices)


def ordered(scores: torch.Tensor, items: torch.Tensor, chunks: int) -> None:
    for _ in range(chunks):
        items.gather(1, scores.sort(dim=1, descending=True).indices)


def main() -> None:
    given = _results.options("Speed of fairness metrics, intervals and re-ranking.")
    people, catalogue, chunk, repeats = (300, 500, 100, 1) if given.quick else (100_000, 10_000, 1000, 3)
    reranked_lists, rows = (200, 100) if given.quick else (1_000_000, CHUNK)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    scores = torch.randn(chunk, catalogue, generator=generator)
    lists = Lists(top_lists(scores, people), np.arange(people), catalogue)
    groups, counts = overlapping_groups(catalogue, rng), rng.integers(1, 1000, catalogue)
    reference = np.full(GROUPS, 1 / GROUPS)
    if abs(group_unfairness(lists, groups, reference, K).sum()) > 1e-9:
        raise SystemExit("the groups' unfairness does not sum to 0: not the same metric")
    measured = _results.time_in_turns(
        {
            "metrics": lambda: metrics(lists, groups, reference, counts),
            "lists": lambda: top_lists(scores, people),
            "one pass": lambda: unfairness_report(lists, groups, reference, [K], bootstrap=0),
            "intervals": lambda: unfairness_report(lists, groups, reference, [K], bootstrap=DRAWS),
        },
        repeats=repeats,
    )
    candidates = torch.randn(rows, CANDIDATES, generator=generator)
    items = torch.stack([torch.randperm(catalogue, generator=generator)[:CANDIDATES] + 1 for _ in range(rows)])
    prices, chunks = torch.randn(catalogue + 1, generator=generator), reranked_lists // rows
    ordering = _results.time_in_turns(
        {
            "re-ranked": lambda: reranked(candidates, items, prices, chunks),
            "sorted": lambda: ordered(candidates, items, chunks),
        },
        repeats=repeats,
    )
    size = f"{people:,} lists of {K}, {GROUPS} overlapping groups"
    _results.write(
        "fairness",
        [
            _results.row(
                f"all metrics at k = 1, 5, 10, 20, {size}",
                ours=measured["metrics"],
                baseline=measured["lists"],
                unit="s",
                goal=1,
                baseline_is=f"making the lists from scores of {catalogue:,} items",
            ),
            _results.row(
                f"intervals of {DRAWS:,} draws, {size}",
                ours=measured["intervals"],
                baseline=measured["one pass"],
                unit="s",
                goal=0.05,
                baseline_is="one pass without intervals",
            ),
            _results.row(
                f"re-ranking {reranked_lists:,} lists of {CANDIDATES} candidates by prices",
                ours=ordering["re-ranked"],
                baseline=ordering["sorted"],
                unit="s",
                goal=0.1,
                baseline_is="sorting the candidates",
            ),
        ],
        data=f"normal scores in chunks of {chunk:,} people (lists) and {rows:,} lists (re-ranking), the same chunk "
        "again and again, seed 0; medians of timings in turns",
        given=given,
        packages=("fair-rec",),
    )


if __name__ == "__main__":
    main()
