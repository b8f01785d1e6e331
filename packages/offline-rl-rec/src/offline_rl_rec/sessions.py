"""Sessions as episodes: a behaviour and a reward for every event of a log, and the returns that follow."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from predilect.data.rows import PARTS, SequenceRows, UserSequences
from predilect.data.splits import SequenceSplits

CLICK, PURCHASE = "click", "purchase"
BEHAVIOUR, REWARD = "behaviour", "reward"


@dataclass(frozen=True)
class RewardRule:
    """What an event is worth.

    Where the log names behaviours, those in `purchases` are purchases and all others clicks. Where it has ratings
    only, a rating of at least `liked` counts as a purchase, every other as a click.

    Source: Xin et al., "Self-Supervised Reinforcement Learning for Recommender Systems", SIGIR 2020 (arXiv
    2006.05779): 0.2 and 1.0. There, the behaviour is read off the reward; here it is kept apart, so that both may be
    worth the same.

    Args:
        click: reward of a click.
        purchase: reward of a purchase.
        liked: lowest rating that counts as a purchase; None: 0.8 of the highest rating in the log (4 of 5, 8 of 10).
        purchases: names of behaviours that are purchases. RetailRocket's is "addtocart", as in the paper.

    Raises:
        ValueError: a reward that is negative, infinite or NaN, or all of them 0; a `liked` that is NaN.
    """

    click: float = 0.2
    purchase: float = 1.0
    liked: float | None = None
    purchases: tuple[str, ...] = ("buy", "purchase", "addtocart", "transaction", "order")

    def __post_init__(self) -> None:
        for name in ("click", "purchase"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"the reward of a {name} must be a finite number of at least 0 (got {value})")
        if not self.click + self.purchase > 0:
            raise ValueError("click and purchase are both worth 0: there is nothing to learn from")
        if self.liked is not None and math.isnan(self.liked):
            raise ValueError("liked must be a number, the lowest rating that counts as a purchase (got nan)")

    def is_purchase(self, sequences: UserSequences) -> np.ndarray:
        """(interactions,) bool, in the order of the flat arrays of `sequences`.

        Raises:
            ValueError: a log without behaviours and without ratings that differ; or with one behaviour only; a rating
                that is NaN.
        """
        if sequences.event is not None:
            bought = np.array([*(name in self.purchases for name in sequences.events), False])[sequences.event]
            found = f"the behaviours {', '.join(sequences.events)}, of which {', '.join(self.purchases)} are purchases"
        else:
            rating = sequences.rating
            if rating is None or not len(rating) or bool((rating == rating[0]).all()):
                raise ValueError(
                    "the log has no rewards: it needs a column event (such as click, buy) or ratings that differ"
                )
            if np.isnan(rating).any():
                raise ValueError(f"ratings must not be NaN (got one in event {int(np.isnan(rating).argmax())})")
            liked = 0.8 * float(rating.max()) if self.liked is None else self.liked
            bought = rating >= np.float32(liked)
            found = f"ratings of {rating.min():g} to {rating.max():g}, of which those from {liked:g} on are purchases"
        if not bought.any() or bought.all():
            only = PURCHASE if bought.any() else CLICK
            raise ValueError(f"the log has one behaviour only, {only}: {found}; set purchases or liked")
        return np.asarray(bought, dtype=bool)


@dataclass(frozen=True)
class Sessions:
    """A log as episodes: each user's (session's) events in order, with rewards.

    The state before an event is the history, the action the item, the reward what the rule says, and the episode of a
    part ends with its last row there (`SequenceRows.done`).

    Attributes:
        sequences: all events, as the rows have them.
        purchase: of each event, (interactions,) bool: whether it is a purchase.
        reward: of each event, (interactions,) float32.
    """

    sequences: UserSequences
    purchase: np.ndarray
    reward: np.ndarray

    @classmethod
    def of(cls, rows: SequenceRows, rule: RewardRule | None = None) -> Sessions:
        """The sessions that rows are places of.

        Raises:
            ValueError: see `RewardRule.is_purchase`.
        """
        rule = rule or RewardRule()
        purchase = rule.is_purchase(rows.sequences)
        return cls(rows.sequences, purchase, np.where(purchase, rule.purchase, rule.click).astype(np.float32))

    def rewards(self, rows: SequenceRows) -> np.ndarray:
        """(R,) float32: of the targets."""
        values: np.ndarray = self.reward[rows.target_place]
        return values

    def behaviours(self, rows: SequenceRows) -> np.ndarray:
        """(R,) "click" or "purchase": of the targets."""
        return np.where(self.purchase[rows.target_place], PURCHASE, CLICK)

    def returns(self, rows: SequenceRows, discount: float) -> np.ndarray:
        """(R,) float64: discounted sum of the rewards from each row on, to the end of its episode in the part."""
        order = np.lexsort((rows.position, rows.user))
        values = np.empty(len(rows))
        values[order] = discounted_returns(self.rewards(rows)[order], rows.done[order], discount)
        return values

    def labelled(self, rows: SequenceRows) -> SequenceRows:
        """The rows with the columns `behaviour` and `reward`, by which an evaluation can be grouped."""
        return rows.with_column(BEHAVIOUR, self.behaviours(rows)).with_column(REWARD, self.rewards(rows))


def with_behaviours(splits: SequenceSplits, rule: RewardRule | None = None) -> SequenceSplits:
    """Splits whose rows have the columns `behaviour` and `reward`: `evaluate(..., group_by=["behaviour"])`.

    Raises:
        ValueError: see `RewardRule.is_purchase`.
    """
    sessions = Sessions.of(splits.train, rule)
    train, validation, test = (sessions.labelled(splits.part(part)) for part in PARTS)
    return replace(splits, train=train, validation=validation, test=test)


def discounted_returns(reward: np.ndarray, done: np.ndarray, discount: float) -> np.ndarray:
    r""":math:`G_t = r_t + \gamma (1 - done_t) G_{t+1}`.

    Args:
        reward: (T,) episode after episode, each in time order.
        done: (T,) bool, the last event of each episode.
        discount: gamma, in [0, 1].

    Returns:
        (T,) float64.

    Raises:
        ValueError: a reward that is NaN or infinite; shapes that differ; an episode without an end; gamma outside
            [0, 1].

    Examples:
        >>> discounted_returns(np.array([1.0, 1.0, 4.0]), np.array([False, True, True]), 0.5)
        array([1.5, 1. , 4. ])
    """
    reward, done = np.asarray(reward, dtype=np.float64), np.asarray(done, dtype=bool)
    if not 0 <= discount <= 1:
        raise ValueError(f"the discount must be in [0, 1] (got {discount})")
    if reward.shape != done.shape or reward.ndim != 1:
        raise ValueError(f"rewards and done must be flat and alike (got {reward.shape} and {done.shape})")
    if not np.isfinite(reward).all():
        place = int(np.isfinite(reward).argmin())
        raise ValueError(f"rewards must be finite (got {reward[place]} in event {place})")
    if len(done) and not done[-1]:
        raise ValueError("the last episode has no end: its last event must be done")
    ends = np.flatnonzero(done)
    left = ends[np.searchsorted(ends, np.arange(len(done)))] - np.arange(len(done))  # events that follow
    order = np.argsort(left, kind="stable")
    starts = np.searchsorted(left[order], np.arange(left.max(initial=-1) + 2))
    returns = reward.copy()
    for start, stop in pairwise(starts[1:]):  # a step further from the end each time
        places = order[start:stop]
        returns[places] += discount * returns[places + 1]
    return returns
