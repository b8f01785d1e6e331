"""What all scorers share."""

from __future__ import annotations

import torch
from torch import Tensor


def check_ids(ids: Tensor, num_items: int, *, lowest: int, what: str) -> None:
    """Raise ValueError unless `ids` is (B, L) of integers in lowest..num_items."""
    if ids.dim() != 2 or ids.is_floating_point():
        raise ValueError(f"{what} must be (batch, length) of integer ids (got {tuple(ids.shape)}, {ids.dtype})")
    if ids.numel() and (int(ids.min()) < lowest or int(ids.max()) > num_items):
        raise ValueError(f"{what} must hold ids in {lowest}..{num_items} (got {int(ids.min())}..{int(ids.max())})")


def choose(scores: Tensor, candidates: Tensor | None) -> Tensor:
    """The columns of `candidates` (B, C) from scores of all items (B, N); all of them for None."""
    if candidates is None:
        return scores
    check_ids(candidates, scores.shape[1], lowest=1, what="candidates")
    if len(candidates) != len(scores):
        raise ValueError(f"candidates must have one row per history (got {len(candidates)} for {len(scores)})")
    return scores.gather(1, candidates.to(scores.device, torch.int64) - 1)
