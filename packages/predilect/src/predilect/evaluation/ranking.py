"""The rank of the one relevant item, and the metrics that depend on nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from predilect.evaluation.metric import Metric

Pairs = tuple[Any, Any]
"""(rows, item ids): two integer tensors or arrays of equal length."""

# Scores compared at a time. The comparison of a block stays in the processor's cache, which makes counting it three
# to seven times faster than counting the comparison of a whole batch, and bounds the extra memory.
_BLOCK = 1 << 19

MISS = 2**31 - 1
"""The rank of a target that is hidden: beyond every cut-off; its reciprocal, 5e-10, is what `mrr` adds for it."""


def target_ranks(
    scores: torch.Tensor,
    targets: torch.Tensor,
    *,
    candidates: torch.Tensor | None = None,
    exclude: Pairs | None = None,
    hide_targets: bool = False,
) -> torch.Tensor:
    """Rank of each row's target: the number of rankable items whose score is at least the target's.

    Best is 1. Ties count against the target (the rank is the worst it could have among its equals), so a model that
    scores all items alike gets the last rank and not the first. Nothing is sorted: one pass over the scores, in
    blocks.

    Args:
        scores: (B, N), column `j` is item `j + 1`; or (B, C) with `candidates`.
        targets: (B,) item ids, 1..N.
        candidates: (B, C) item ids of the columns of `scores`; 0 is padding and is never ranked.
        exclude: pairs (row, item id) that are not rankable, for example what a user has seen; repeated pairs count
            once.
        hide_targets: what a pair that names its row's target does. False: nothing, the target can always be ranked.
            True: the target is not rankable either and its rank is `MISS`. Without it, in a data set where people take
            items again, a target taken before would meet new items only: a recommender that cannot show what it hides
            would be given the hit.

    Returns:
        (B,) int64, 1..N (1..C), or `MISS`.

    Raises:
        ValueError: wrong shapes; NaN in the scores; a target outside 1..N (0 is padding), or not exactly once among
            its candidates; an excluded row or item that does not exist.

    Examples:
        >>> scores = torch.tensor([[0.5, 0.9, 0.5, 0.1]])
        >>> target_ranks(scores, torch.tensor([3])), target_ranks(scores, torch.tensor([3]), exclude=([0], [2]))
        (tensor([3]), tensor([2]))
    """
    _check(scores, targets, candidates)
    targets = targets.to(scores.device, torch.int64)
    if candidates is None:
        columns = targets - 1
    else:
        candidates = candidates.to(scores.device, torch.int64)
        columns = _target_columns(candidates, targets)
    own = scores.gather(1, columns[:, None])
    block = max(1, _BLOCK // scores.shape[1])
    pieces = [(part.amax(1), (part >= mine).sum(1, dtype=torch.int32)) for part, mine in _blocks(scores, own, block)]
    if torch.cat([best for best, _ in pieces]).isnan().any():  # the maximum of a row with a NaN is NaN
        row, column = torch.nonzero(scores.isnan())[0].tolist()
        raise ValueError(f"scores must not be NaN (got NaN first in row {row}, column {column})")
    ranks = torch.cat([count for _, count in pieces]).long()
    if candidates is not None:
        rows, hidden = _hidden_candidates(exclude, targets, candidates)
    elif exclude is not None:
        rows, hidden = _hidden_items(exclude, targets, scores.shape[1])
    else:
        return ranks
    ranks.index_add_(0, rows, -(scores[rows, hidden] >= own[rows, 0]).long())
    if hide_targets and exclude is not None:
        excluded, items = _pairs(exclude, len(targets), None, targets.device)
        ranks[excluded[items == targets[excluded]]] = MISS
    return ranks


def top_items(
    scores: torch.Tensor, k: int, *, candidates: torch.Tensor | None = None, exclude: Pairs | None = None
) -> torch.Tensor:
    """The k best items of each row, best first; of equal scores the lower id first, as in `Recommender.recommend`.

    Args:
        scores: (B, N), column `j` is item `j + 1`; or (B, C) with `candidates`.
        k: length of the list.
        candidates: (B, C) item ids of the columns of `scores`; 0 is padding.
        exclude: pairs (row, item id) that are left out.

    Returns:
        (B, min(k, N)) or (B, min(k, C)) item ids; 0 fills a row with fewer items.
    """
    if candidates is not None:
        candidates, order = candidates.to(scores.device).sort(dim=1)
        no_target = candidates.new_full((len(scores),), -1)
        hidden = _hidden_candidates(exclude, no_target, candidates)
        scores = scores.gather(1, order).index_put(hidden, scores.new_tensor(-torch.inf))
        values, columns = scores.sort(dim=1, descending=True, stable=True)
        best = torch.where(values > -torch.inf, candidates.gather(1, columns), 0)
        return best[:, :k]
    if exclude is not None:
        rows, items = _pairs(exclude, len(scores), scores.shape[1], scores.device)
        scores = scores.index_put((rows, items - 1), scores.new_tensor(-torch.inf))
    k = min(k, scores.shape[1])
    values, columns = scores.topk(k)
    # `topk` takes any of several items that tie for the last places: those rows are sorted whole.
    block = max(1, _BLOCK // scores.shape[1])
    counts = torch.cat([(part >= last).sum(1) for part, last in _blocks(scores, values[:, -1:], block)])
    tied = torch.nonzero(counts > k)[:, 0]
    for some in torch.split(tied, block):
        columns[some] = scores[some].argsort(dim=1, descending=True, stable=True)[:, :k]
    columns = columns.sort(1).values
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return torch.where(values > -torch.inf, columns.gather(1, order) + 1, 0)


def rank_metric(ranks: np.ndarray, name: str) -> np.ndarray:
    """One value per rank, float64, for a row with a single relevant item.

    `hr@k` = 1 if rank <= k else 0; `ndcg@k` = 1 / log2(1 + rank) if rank <= k else 0 (the ideal list has gain 1);
    `mrr` = 1 / rank.

    Examples:
        >>> rank_metric(np.array([1, 3, 11]), "ndcg@10")
        array([1. , 0.5, 0. ])
    """
    if name == "mrr":
        return 1.0 / ranks
    match = re.fullmatch(r"(hr|ndcg)@([1-9]\d*)", name)
    if match is None:
        raise ValueError(f"a ranking metric is 'hr@k', 'ndcg@k' or 'mrr' (got {name!r})")
    inside = ranks <= int(match[2])
    return inside.astype(np.float64) if match[1] == "hr" else np.where(inside, 1.0 / np.log2(1.0 + ranks), 0.0)


class RankingMetrics(Metric):
    """`hr@k`, `ndcg@k` and `mrr` of one target per row, from its rank (`target_ranks`; definitions in `rank_metric`).

    A `k` beyond the list is allowed: every target is then a hit. `mrr` has no cut-off. All lie in 0..1, higher is
    better.

    Args:
        ks: the cut-offs.

    Examples:
        >>> metrics = RankingMetrics(ks=(1, 2))
        >>> metrics.update(torch.tensor([[0.1, 0.7, 0.2], [0.3, 0.2, 0.5]]), torch.tensor([2, 1]))
        >>> {name: round(value, 4) for name, value in metrics.compute().items()}
        {'hr@1': 0.5, 'hr@2': 1.0, 'ndcg@1': 0.5, 'ndcg@2': 0.8155, 'mrr': 0.75}
    """

    def __init__(self, ks: Sequence[int] = (1, 5, 10, 20)) -> None:
        super().__init__()
        if not ks or any(k < 1 for k in ks):
            raise ValueError(f"ks must be cut-offs of at least 1 (got {tuple(ks)})")
        self.names = (*(f"hr@{k}" for k in ks), *(f"ndcg@{k}" for k in ks), "mrr")

    def update(
        self,
        scores: torch.Tensor,
        targets: torch.Tensor,
        *,
        candidates: torch.Tensor | None = None,
        exclude: Pairs | None = None,
        hide_targets: bool = False,
    ) -> None:
        """Add one batch; the arguments are those of `target_ranks`."""
        self.update_ranks(
            target_ranks(scores, targets, candidates=candidates, exclude=exclude, hide_targets=hide_targets)
        )

    def update_ranks(self, ranks: torch.Tensor) -> None:
        """Add rows whose ranks, shape (B,), are known already."""
        if ranks.ndim != 1 or not _is_integer(ranks):
            raise ValueError(f"ranks must be integers of shape (B,) (got {ranks.dtype}, {tuple(ranks.shape)})")
        if (ranks < 1).any():
            raise ValueError(f"a rank is at least 1 (got {int(ranks.min())})")
        self._add(rank=ranks.cpu().numpy())

    def compute(self) -> dict[str, float]:
        ranks = self._column("rank")
        return {name: float(rank_metric(ranks, name).mean()) for name in self.names}

    def per_row(self) -> dict[str, np.ndarray]:
        """`rank` and every metric of each row."""
        ranks = self._column("rank")
        return {"rank": ranks, **{name: rank_metric(ranks, name) for name in self.names}}


def _is_integer(values: torch.Tensor) -> bool:
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)


def _blocks(first: torch.Tensor, second: torch.Tensor, rows: int) -> zip[tuple[torch.Tensor, torch.Tensor]]:
    return zip(torch.split(first, rows), torch.split(second, rows), strict=True)


def _check(scores: torch.Tensor, targets: torch.Tensor, candidates: torch.Tensor | None) -> None:
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"scores must have the shape (B, N) with N > 0 (got {tuple(scores.shape)})")
    if targets.shape != scores.shape[:1] or not _is_integer(targets):
        raise ValueError(
            f"targets must be item ids of shape ({len(scores)},) (got {targets.dtype}, {tuple(targets.shape)})"
        )
    if candidates is not None and (candidates.shape != scores.shape or not _is_integer(candidates)):
        raise ValueError(
            f"candidates must be item ids in the shape of the scores, {tuple(scores.shape)} "
            f"(got {candidates.dtype}, {tuple(candidates.shape)})"
        )
    last = scores.shape[1] if candidates is None else None
    outside = (targets < 1) if last is None else (targets < 1) | (targets > last)
    if outside.any():
        row = int(outside.int().argmax())
        raise ValueError(
            f"a target is an item id in 1..{last or 'N'}, 0 is padding (got {int(targets[row])}, row {row})"
        )


def _target_columns(candidates: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    is_target = candidates == targets[:, None]
    times = is_target.sum(1)
    if (times != 1).any():
        row = int((times != 1).int().argmax())
        raise ValueError(
            f"a target must be exactly once among its candidates (got item {int(targets[row])} {int(times[row])} "
            f"times in row {row})"
        )
    return is_target.int().argmax(1)


def _pairs(
    exclude: Pairs, num_rows: int, last_item: int | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, items = (torch.as_tensor(part, dtype=torch.int64, device=device) for part in exclude)
    if rows.ndim != 1 or rows.shape != items.shape:
        raise ValueError(
            f"exclude must be rows and item ids of equal length (got {tuple(rows.shape)} and {tuple(items.shape)})"
        )
    if not len(rows):
        return rows, items
    if rows.min() < 0 or rows.max() >= num_rows or items.min() < 1 or (last_item and items.max() > last_item):
        raise ValueError(
            f"exclude must name rows 0..{num_rows - 1} and items 1..{last_item or 'N'} (got rows {int(rows.min())}.."
            f"{int(rows.max())}, items {int(items.min())}..{int(items.max())})"
        )
    return rows, items


def _hidden_items(exclude: Pairs, targets: torch.Tensor, num_items: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(row, column) of every item that is not rankable, each once, never a target."""
    rows, items = _pairs(exclude, len(targets), num_items, targets.device)
    keys = torch.unique(rows * num_items + items - 1)
    rows, columns = keys // num_items, keys % num_items
    keep = columns != targets[rows] - 1
    return rows[keep], columns[keep]


def _hidden_candidates(
    exclude: Pairs | None, targets: torch.Tensor, candidates: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(row, column) of every candidate that is excluded or padding, never a target."""
    hidden = candidates == 0
    if exclude is not None and candidates.numel():
        rows, items = _pairs(exclude, len(targets), None, targets.device)
        base = int(max(candidates.max(), items.max() if len(items) else 0)) + 1
        row = torch.arange(len(targets), device=targets.device)[:, None]
        hidden |= torch.isin(row * base + candidates, rows * base + items)
    hidden &= candidates != targets[:, None]
    rows, columns = torch.nonzero(hidden, as_tuple=True)
    return rows, columns
