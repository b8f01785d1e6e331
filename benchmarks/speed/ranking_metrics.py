"""Ranking metrics against one `topk`, against `torchmetrics.retrieval`, and the memory they take.

    python -m benchmarks.speed.ranking_metrics [--quick] [--output FOLDER]

All numbers are `hr@k` and `ndcg@k` at k = 1, 5, 10, 20 and `mrr`, from float32 scores. `torchmetrics.retrieval` wants
every score with the index of its query in one flat list and then works query by query, too slowly for 10,000 of them.
Both sides of that row therefore get the same first 100 histories of the same scores; nothing is scaled up. Its nine
metrics are one `MetricCollection`, whose compute groups share the accumulated lists, as its documentation recommends.
"""

from __future__ import annotations

import torch
from benchmarks.speed import _results
from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

from predilect.evaluation import RankingMetrics

KS = (1, 5, 10, 20)


def ours(scores: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    metrics = RankingMetrics(KS)
    metrics.update(scores, targets)
    return metrics.compute()


def torchmetrics_retrieval(scores: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    metrics = MetricCollection(
        {
            **{f"hr@{k}": RetrievalHitRate(top_k=k) for k in KS},
            **{f"ndcg@{k}": RetrievalNormalizedDCG(top_k=k) for k in KS},
            "mrr": RetrievalMRR(),
        }
    )
    rows, items = scores.shape
    relevant = torch.zeros(scores.shape, dtype=torch.bool).scatter_(1, targets[:, None] - 1, True)
    queries = torch.arange(rows).repeat_interleave(items)
    metrics.update(scores.flatten(), relevant.flatten(), indexes=queries)
    return {name: float(value) for name, value in metrics.compute().items()}


def main() -> None:
    given = _results.options("Speed and memory of the ranking metrics.")
    histories, items, few, repeats = (64, 500, 16, 1) if given.quick else (10_000, 10_000, 100, 7)
    generator = torch.Generator().manual_seed(0)
    # Positive: `RetrievalMRR` takes a target with a score of 0 or less as not retrieved.
    scores = torch.randn(histories, items, generator=generator).exp_()
    targets = torch.randint(1, items + 1, (histories,), generator=generator)
    memory = _results.peak_extra_bytes(lambda: ours(scores, targets)) / 2**20
    batch = scores.numel() * scores.element_size() / 2**20
    large = _results.time_in_turns(
        {"ours": lambda: ours(scores, targets), "topk": lambda: scores.topk(20)}, repeats=repeats
    )
    some, some_targets = scores[:few], targets[:few]
    for name, value in torchmetrics_retrieval(some, some_targets).items():
        if abs(value - ours(some, some_targets)[name]) > 1e-5:  # float32 on their side
            raise SystemExit(
                f"{name}: ours {ours(some, some_targets)[name]}, torchmetrics {value}: not the same metric"
            )
    small = _results.time_in_turns(
        {
            "ours": lambda: ours(some, some_targets),
            "torchmetrics": lambda: torchmetrics_retrieval(some, some_targets),
        },
        repeats=min(repeats, 3),
    )
    size = f"{histories:,} histories x {items:,} items"
    _results.write(
        "ranking_metrics",
        [
            _results.row(
                f"all metrics, {size}",
                ours=large["ours"],
                baseline=large["topk"],
                unit="s",
                goal=0.83,
                baseline_is="one scores.topk(20)",
            ),
            _results.row(
                f"all metrics, {few:,} histories x {items:,} items",
                ours=small["ours"],
                baseline=small["torchmetrics"],
                unit="s",
                goal=20,
                baseline_is="torchmetrics.retrieval",
            ),
            _results.row(
                f"peak extra memory, {size}",
                ours=memory,
                baseline=batch,
                unit="MiB",
                goal=1,
                baseline_is="one batch of scores",
            ),
        ],
        data="log-normal scores, uniform targets, float32, seed 0; medians of timings in turns; memory of tensors by "
        "PyTorch's profiler",
        given=given,
        packages=("torchmetrics",),
    )


if __name__ == "__main__":
    main()
