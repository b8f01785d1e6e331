"""The columns that this package adds to `predilect leaderboard` and `predilect evaluate` where a log has rewards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from offline_rl_rec.metrics import with_returns
from offline_rl_rec.sessions import CLICK, PURCHASE, RewardRule, Sessions
from predilect.evaluation import Evaluation
from predilect.evaluation.further import FurtherMetric
from predilect.evaluation.ranking import rank_metric

if TYPE_CHECKING:
    from datasets import Dataset

    from predilect.data import SequenceSplits

K, DISCOUNT = 10, 0.5
BY_BEHAVIOUR = (
    f"hr@{K} and ndcg@{K} apart for targets that are clicks and for those that are purchases (events such as buy or "
    "addtocart; without events, ratings of at least 0.8 of the highest)."
)
RETURNS = (
    f"Mean over sessions of the discounted rewards (click 0.2, purchase 1, discount {DISCOUNT:g}) of the logged "
    f"events whose item is among the first {K}: what lists earn if sessions go on as they were logged, no answer to "
    "how people would have reacted."
)
REPETITION = "Share of a list that was in the same person's list one event earlier."


class ReturnsOfLists:
    """`return@10`, `hr@10` and `ndcg@10` by behaviour, and repetition of a model's lists.

    Rewards are found once for all models; a model costs one pass over its ranks. A log without rewards, or with one
    behaviour, has none of these columns. Where rows were drawn, sessions have gaps, so that there is no return and no
    repetition.

    Args:
        splits: the data.

    Examples:
        >>> import predilect
        >>> from predilect.recommenders import Popularity
        >>> splits = predilect.load().k_core(20).split()
        >>> rows = predilect.evaluate(Popularity().fit(splits), splits, bootstrap=0).rows
        >>> [metric.name for metric in ReturnsOfLists(splits)(rows)][:3]
        ['return@10', 'hr@10 click', 'ndcg@10 click']
    """

    def __init__(self, splits: SequenceSplits) -> None:
        self.splits = splits
        self.sessions: Sessions | None = None
        try:
            self.sessions = Sessions.of(splits.train, RewardRule())
        except ValueError:  # no rewards: nothing to show
            return

    def __call__(self, rows: Dataset) -> list[FurtherMetric]:
        """The metrics of the rows of an evaluation."""
        part = None if self.sessions is None else self._part(rows)
        if self.sessions is None or part is None:
            return []
        ranked = self.splits.part(part).select(np.asarray(rows["row"]))
        rank, behaviours = np.asarray(rows["rank"]), self.sessions.behaviours(ranked)
        apart = [
            FurtherMetric(f"{kind}@{K} {behaviour}", float(values.mean()), BY_BEHAVIOUR)
            for behaviour in (CLICK, PURCHASE)
            for kind in ("hr", "ndcg")
            if len(values := rank_metric(rank[behaviours == behaviour], f"{kind}@{K}"))
        ]
        if len(rows) < len(self.splits.part(part)):
            return apart
        made = Evaluation("", {"part": part}, {}, rows)
        found = with_returns(made, self.splits, discount=DISCOUNT, ks=(K,)).results
        repetition = [
            FurtherMetric(name, value, REPETITION, lower_is_better=True)
            for name, value in found.items()
            if name.startswith("repetition")
        ]
        return [FurtherMetric(f"return@{K}", found[f"return@{K}"], RETURNS), *apart, *repetition]

    def _part(self, rows: Dataset) -> str | None:
        """The part that was ranked: the one with these targets at these places."""
        numbers, target = np.asarray(rows["row"]), np.asarray(rows["target"])
        for name in ("test", "validation"):
            part = self.splits.part(name)
            if len(numbers) and numbers.max() < len(part) and np.array_equal(part.target[numbers], target):
                return name
        return None
