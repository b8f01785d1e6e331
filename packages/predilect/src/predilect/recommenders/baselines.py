"""Baselines that know no sequence: `Random`, `Popularity`, `RecentPopularity`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from predilect.configuration import option
from predilect.data.splits import SequenceSplits
from predilect.method import ConfigT
from predilect.recommender import Recommender, RecommenderConfig

_FILE = "scores.safetensors"


class Random(Recommender[RecommenderConfig]):
    """Scores uniform in [0, 1), a fixed function of seed, history and item.

    The same history gets the same list, whatever else is in the batch and however it is padded; another history gets
    an unrelated one. `hr@k` is k / (number of rankable items) in expectation.
    """

    name = "random"

    def _fit(self, data: SequenceSplits, folder: Path) -> None:
        pass

    def _score(self, histories: Tensor) -> Tensor:
        num_items = len(self.catalogue)
        state = torch.zeros(len(histories), dtype=torch.int64, device=histories.device)
        for column in histories.unbind(1):
            state = _mix(state * 1_000_003 + column)  # stays 0 while there is only padding
        state = _mix(state + self.config.seed + 1)
        items = _mix(torch.arange(1, num_items + 1, device=histories.device) * _GOLDEN)
        bits = (state[:, None] ^ items).mul_(_GOLDEN)
        bits = bits.bitwise_right_shift_(40).bitwise_and_(0xFFFFFF)  # 24 bits: what float32 holds exactly
        return bits.float().div_(2**24)

    def _save(self, folder: Path) -> None:
        pass

    def _load(self, folder: Path) -> None:
        pass


_GOLDEN = -7046029254386353131  # 2^64 / golden ratio as a signed integer: spreads close numbers far apart


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele et al., OOPSLA 2014): all bits of the input change all bits; 0 stays 0."""
    x = (x ^ _shifted(x, 30)) * -4658895280553007687
    x = (x ^ _shifted(x, 27)) * -7723592293110705685
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # tensors have no logical shift


class _StaticScores(Recommender[ConfigT]):
    """One list for everybody."""

    counts = True

    def __init__(self, config: ConfigT | None = None, **options: object) -> None:
        super().__init__(config, **options)
        self.item_scores = torch.zeros(0)

    def _score(self, histories: Tensor) -> Tensor:
        return self.item_scores.expand(len(histories), -1)

    def _count(self, splits: SequenceSplits, weights: np.ndarray | None = None) -> None:
        items = np.asarray(splits.train_interactions.with_format("numpy")["item_id"][:])
        counts = np.bincount(items, weights, minlength=splits.num_items + 1)[1:]
        self.item_scores = torch.from_numpy(counts).float()

    def _save(self, folder: Path) -> None:
        save_file({"item_scores": self.item_scores}, folder / _FILE)

    def _load(self, folder: Path) -> None:
        self.item_scores = load_file(folder / _FILE)["item_scores"]


class Popularity(_StaticScores[RecommenderConfig]):
    """Score of an item: how often it was taken in the training part of the log (its last day counts like its
    first)."""

    name = "popularity"

    def _fit(self, data: SequenceSplits, folder: Path) -> None:
        self._count(data)


@dataclass
class RecentPopularityConfig(RecommenderConfig):
    """Options of `RecentPopularity`."""

    fraction: float = option(
        "Share of the training interactions that count, the newest ones; in (0, 1].", default=0.05
    )

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1] (got {self.fraction})")


class RecentPopularity(_StaticScores[RecentPopularityConfig]):
    """Score of an item: how often it was taken among the newest `fraction` of the training interactions.

    A share of the log and not a number of days, so that it also means something for logs without a clock. Equal times
    are kept together: all interactions of the oldest moment that is needed count. Items that nobody took lately are
    ordered by their count over all of the training part (below every item that somebody took).

    The default was chosen on the validation part of MovieTweetings-100K (temporal split, 5-core): ndcg@10 .098 for .05
    (about a week), .092 for .02, .095 for .1, .077 for .2, .036 for all. An exponential decay was not better (.098 at
    a half-life of 2 days).
    """

    name = "recent-popularity"
    config_class = RecentPopularityConfig

    def _fit(self, data: SequenceSplits, folder: Path) -> None:
        times = np.asarray(data.train_interactions.with_format("numpy")["timestamp"][:])
        newest = math.ceil(len(times) * self.config.fraction)
        since = np.partition(times, -newest)[-newest]
        # Sums of shares below 1 / 2 each order the items that have no recent count
        self._count(data, np.where(times >= since, 1.0, 0.5 / len(times)))
