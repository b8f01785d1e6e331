"""`ItemKNN`: items that the same people took."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from predilect.configuration import option
from predilect.data.splits import SequenceSplits
from predilect.recommender import Recommender, RecommenderConfig

_FILE = "neighbours.safetensors"
_BUDGET = 20_000_000  # numbers held at a time while counting


@dataclass
class ItemKNNConfig(RecommenderConfig):
    """Options of `ItemKNN`."""

    num_neighbours: int = option("Most similar items kept per item.", default=100)
    shrinkage: float = option(
        "Added to the denominator of a similarity: the higher, the less two items count that few people took both.",
        default=10.0,
    )
    recency: float = option("Weight of an item of the history relative to the item after it, in (0, 1].", default=0.7)

    def __post_init__(self) -> None:
        if self.num_neighbours < 1:
            raise ValueError(f"num_neighbours must be at least 1 (got {self.num_neighbours})")
        if not 0 <= self.shrinkage < float("inf"):
            raise ValueError(f"shrinkage must be at least 0 (got {self.shrinkage})")
        if not 0 < self.recency <= 1:
            raise ValueError(f"recency must be in (0, 1] (got {self.recency})")


class ItemKNN(Recommender[ItemKNNConfig]):
    r"""Nearest neighbours between items by shrunk cosine of who took them.

    With :math:`U_i` the users who took item :math:`i` in the training part,

    .. math:: sim(i, j) = \frac{|U_i \cap U_j|}{\sqrt{|U_i| |U_j|} + shrinkage}, \qquad
              score_j = \sum_{p=0}^{L-1} recency^p \, sim(h_p, j),

    where :math:`h_p` is the item at place `p` from the end of the history and :math:`sim(i, \cdot)` is kept for the
    `num_neighbours` most similar items of :math:`i`, without :math:`i`. Scores are at least 0; a history without
    neighbours scores all items 0.

    Source: Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms", ACM TOIS 22(1), 2004; shrinkage as in
    Bell and Koren, ICDM 2007. Memory: neighbours (N, num_neighbours), and counts of a few items against all while
    fitting; never users x items, never items x items.
    """

    name = "item-knn"
    config_class = ItemKNNConfig

    def __init__(self, config: ItemKNNConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self.neighbours = torch.zeros(0, 0, dtype=torch.int64)
        self.similarities = torch.zeros(0, 0)

    def _fit(self, data: SequenceSplits, folder: Path) -> None:
        columns = data.train_interactions.with_format("numpy")
        users, items = (np.asarray(columns[name][:]).astype(np.int64) for name in ("user_id", "item_id"))
        width = data.num_items + 1
        taken = np.unique(users * width + items)  # a user counts once per item
        users, items = taken // width, taken % width
        num_items = data.num_items
        kept = min(self.config.num_neighbours, num_items)
        counts = torch.from_numpy(np.bincount(items, minlength=width)[1:]).float()
        self.neighbours = torch.zeros(width, kept, dtype=torch.int64)  # row 0: padding has no neighbours
        self.similarities = torch.zeros(width, kept)
        for first, together in _together(users, items, num_items):
            norms = (counts[first - 1 : first - 1 + len(together), None] * counts).sqrt() + self.config.shrinkage
            similarity = torch.where(together > 0, together / norms, 0.0)
            rows = torch.arange(len(together))
            similarity[rows, rows + first - 1] = 0.0
            best, columns_of_best = similarity.topk(kept, dim=1)
            self.similarities[first : first + len(together)] = best
            self.neighbours[first : first + len(together)] = columns_of_best

    def _score(self, histories: Tensor) -> Tensor:
        weights = self.config.recency ** torch.arange(histories.shape[1] - 1, -1, -1, dtype=torch.float32)
        values = self.similarities[histories] * weights[:, None]
        scores = torch.zeros(len(histories), len(self.catalogue))
        scores.scatter_add_(1, self.neighbours[histories].flatten(1), values.flatten(1))
        return scores

    def _save(self, folder: Path) -> None:
        save_file({"neighbours": self.neighbours, "similarities": self.similarities}, folder / _FILE)

    def _load(self, folder: Path) -> None:
        tensors = load_file(folder / _FILE)
        self.neighbours, self.similarities = tensors["neighbours"], tensors["similarities"]


def _together(users: np.ndarray, items: np.ndarray, num_items: int) -> Iterator[tuple[int, Tensor]]:
    """Blocks (first item, number of users who took it and each item j: (block, N)), in order of the items.

    A block's events are joined with all events of their users; its size keeps both the joined events and the counts
    within the budget (one item alone may exceed it).
    """
    size = np.bincount(users)
    starts = np.cumsum(size) - size  # events are sorted by user
    order = np.argsort(items, kind="stable")
    work = np.bincount(items, size[users], minlength=num_items + 1)[1:]  # joined events per item
    cost = np.cumsum(work + num_items)
    first = 0
    while first < num_items:
        done = cost[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(cost, done + _BUDGET, side="right")))
        low, high = np.searchsorted(items[order], (first + 1, last + 1))
        events = order[low:high]
        lengths = size[users[events]]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        others = items[np.repeat(starts[users[events]], lengths) + within] - 1
        cells = np.repeat(items[events] - 1 - first, lengths) * num_items + others
        counts = np.bincount(cells, minlength=(last - first) * num_items).reshape(last - first, num_items)
        yield first + 1, torch.from_numpy(counts).float()
        first = last
