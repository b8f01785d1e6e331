"""The loss of DreamRec: one error and two auxiliary terms against collapse."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def reconstruction_error(predicted: Tensor, target: Tensor, kind: str) -> Tensor:
    r"""Error of each row, (B,).

    "squared": :math:`\frac1d \|\hat x_0 - x_0\|^2`, the paper's. "cosine": :math:`(1 - \cos(\hat x_0, x_0))^2`, after
    the official code of PreferDiff (arXiv 2410.13117).

    Examples:
        >>> predicted, target = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> reconstruction_error(predicted, target, "squared"), reconstruction_error(predicted, target, "cosine")
        (tensor([5.]), tensor([1.]))
    """
    if kind == "squared":
        return F.mse_loss(predicted, target, reduction="none").mean(1)
    return (1 - F.cosine_similarity(predicted, target, dim=1)) ** 2


def catalogue_cross_entropy(predicted: Tensor, vectors: Tensor, target: Tensor, temperature: float) -> Tensor:
    r"""Of each row, (B,): :math:`-\log softmax_i(\hat x_0 \cdot e_i / T)` at the target, over all N items.

    Taken of the predicted x_0 and not of the state: recommendation ranks by this very product, so the term trains what
    is used, at every noise level and through the denoiser; and it pushes all other items away from the prediction,
    which keeps the table from collapsing. Of the state it would train a classifier beside the diffusion: that is the
    control, `objective="softmax"`. With `error_weight=0` it is the objective of DiffuRec (arXiv 2304.00686) on
    DreamRec's network.

    Args:
        predicted: (B, d).
        vectors: items 1..N, (N, d).
        target: item ids 1..N, (B,).
        temperature: T.
    """
    logits = F.linear(predicted, vectors) / temperature
    return F.cross_entropy(logits.float(), target - 1, reduction="none")


def preference_loss(error: Tensor, negative_error: Tensor, scale: float) -> Tensor:
    r"""Of each row, (B,): :math:`-\log\sigma(s (error^- - error^+))`.

    The errors are those of denoising the target and of denoising a negative with the same state and time.

    Source: PreferDiff (arXiv 2410.13117). There the errors are averaged over the batch before the sigmoid; here each
    row has its own preference, as in BPR.

    Args:
        error: of the target, (B,).
        negative_error: of the negative, (B,).
        scale: s > 0.
    """
    return -F.logsigmoid(scale * (negative_error - error))


def others_mean(vectors: Tensor, weight: Tensor | None = None) -> Tensor:
    """For each row the mean of the other rows, (B, d): PreferDiff's one negative for many; a single row has itself.

    Args:
        vectors: (B, d).
        weight: of the rows in the mean, (B,), at least 0; None: all alike. Where the others weigh nothing, a row has
            itself.

    Examples:
        >>> others_mean(torch.tensor([[0.0], [2.0], [4.0]]))
        tensor([[3.],
                [2.],
                [1.]])
    """
    weight = vectors.new_ones(len(vectors)) if weight is None else weight.to(vectors.dtype)
    others, weighted = (weight.sum() - weight)[:, None], weight[:, None] * vectors
    mean = (weighted.sum(0) - weighted) / torch.where(others > 0, others, 1)
    return torch.where(others > 0, mean, vectors)
