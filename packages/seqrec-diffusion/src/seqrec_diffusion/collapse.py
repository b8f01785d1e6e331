"""Whether the item table collapses: what a squared error to a target that is itself learned invites."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 512


@torch.no_grad()
def item_table_metrics(vectors: Tensor, *, sample: int = 512) -> dict[str, float]:
    """Three numbers that fall when items become alike; the mean vector, which ranks nothing, is taken off before.

    - `variance`: of the entries, averaged over the dimensions. 1 at the start of DreamRec; towards 0 all items shrink
      into one point.
    - `effective_rank`: exp of the entropy of the normalised singular values, between 1 and d (Roy and Vetterli,
      EUSIPCO 2007); 0 for a table of equal rows. Falls when items lie in few directions.
    - `margin`: mean distance to the nearest other item over the root mean square distance of two items. Towards 0,
      items cannot be told apart by what is generated.

    Args:
        vectors: (N, d), without the row of padding.
        sample: the margin is that of so many items, spread evenly over the ids.

    Examples:
        >>> metrics = item_table_metrics(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        >>> {name: round(value, 3) for name, value in metrics.items()}
        {'variance': 0.5, 'effective_rank': 2.0, 'margin': 0.866}
    """
    count, width = vectors.shape
    centred = (vectors - vectors.mean(0)).double()
    eigenvalues = torch.linalg.eigvalsh(centred.T @ centred / count).clamp_min(0)
    total = float(eigenvalues.sum())
    if count < 2 or total == 0:
        return {"variance": 0.0, "effective_rank": 0.0, "margin": 0.0}
    shares = eigenvalues.sqrt() / eigenvalues.sqrt().sum()
    rank = float(torch.special.entr(shares).sum().exp())
    chosen = torch.linspace(0, count - 1, min(sample, count), dtype=torch.float64).round().long()
    nearest = torch.cat([_nearest(vectors, rows.to(vectors.device)) for rows in torch.split(chosen, _CHUNK)])
    typical = (2 * total * count / (count - 1)) ** 0.5  # of two different items
    return {
        "variance": total / width,
        "effective_rank": rank,
        "margin": float(nearest.mean()) / typical,
    }


def _nearest(vectors: Tensor, rows: Tensor) -> Tensor:
    """Distance of each of these rows to the nearest other one."""
    distances = torch.cdist(vectors[rows].float(), vectors.float())
    distances[torch.arange(len(rows), device=rows.device), rows] = torch.inf
    return distances.amin(1)
