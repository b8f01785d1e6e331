"""Simulated users: what is fitted on a log's sessions, and many users that take one step as one computation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

import numpy as np

from offline_rl_rec.sessions import RewardRule, Sessions
from predilect.data.rows import SequenceRows

if TYPE_CHECKING:
    from predilect.data import Catalogue

_PRIOR = 1.0  # sessions that the overall rate of leaving is worth where few sessions are that long
_CHUNK = 1 << 22  # scores held at once


@dataclass(frozen=True)
class Leaving:
    r"""Probability to leave after an event, given the number of events so far.

    .. math:: h_t = \frac{d_t + \alpha \bar h}{n_t + \alpha}, \qquad \bar h = \frac{\sum_t d_t}{\sum_t n_t}

    with :math:`d_t` sessions that end after `t` events and :math:`n_t` that have at least `t`: the life-table estimate
    of a hazard in discrete time, drawn towards the overall rate where few sessions are left. Longer sessions than any
    in the log go on with the overall rate.

    Attributes:
        hazard: (T + 1,) float64; place t: after t events. Place 0 is 0 (nobody leaves before the first), the last
            place is for all later ones.
    """

    hazard: np.ndarray

    @classmethod
    def of(cls, lengths: np.ndarray) -> Leaving:
        """From the lengths of sessions, (S,) integers of at least 1.

        Raises:
            ValueError: no sessions, or one that is empty.
        """
        if not len(lengths) or int(lengths.min()) < 1:
            raise ValueError(
                "leaving is learned from sessions with at least one event each (got none, or an empty one)"
            )
        ended = np.bincount(lengths).astype(np.float64)[1:]
        reached = np.cumsum(ended[::-1])[::-1]
        overall = ended.sum() / reached.sum()
        return cls(np.concatenate([[0.0], (ended + _PRIOR * overall) / (reached + _PRIOR), [overall]]))

    def after(self, events: np.ndarray) -> np.ndarray:
        """Probabilities (n,) after these numbers of events (n,)."""
        found: np.ndarray = self.hazard[np.minimum(events, len(self.hazard) - 1)]
        return found


class UserSimulator(ABC):
    r"""A model of users, fitted on the sessions of a log's part that no agent was trained on.

    A session begins with a history from the log. At each step the user sees a slate :math:`S` and takes one of its
    items or none,

    .. math:: P(j) = \frac{e^{u_j}}{e^{u_0} + \sum_{k \in S} e^{u_k}},

    with utilities :math:`u_j` of the history and the item that a subclass fits. A taken item is a purchase with a
    probability that a subclass fits too, and else a click; it is appended to the history, and then the user leaves
    with the probability of `Leaving`. Who takes nothing `patience` times in a row leaves as well.

    Two numbers no log of what people took can tell, because it does not hold what they were shown and left:
    `patience`, and the utility of taking nothing,

    .. math:: u_0 = \log(reluctance) + \operatorname{median}_h \log \sum_j e^{u_j}

    over all items `j`, after the histories `h` of the log. So a slate that holds the share `reluctance` of what users
    take next is taken from half of the time, and one that holds little of it seldom.

    Args:
        max_history: items that a user remembers; None: those of the rows that it is fitted on.
        patience: steps without a taken item, in a row, after which a user leaves.
        reluctance: see above, in (0, 1).
        seed: of alternatives that are drawn while fitting, and of the halves of the log.

    Attributes:
        num_items: of the catalogue.
        leaving: when users leave.
        outside: :math:`u_0`.
        starts: (S, max_history) int64: histories with which the sessions of the log begin.
        rule: rewards.

    Raises:
        ValueError: a patience below 1; a reluctance outside (0, 1).
    """

    name: ClassVar[str]

    def __init__(
        self, *, max_history: int | None = None, patience: int = 3, reluctance: float = 0.1, seed: int = 0
    ) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1 step (got {patience})")
        if not 0 < reluctance < 1:
            raise ValueError(f"reluctance must be a share between 0 and 1 (got {reluctance})")
        if max_history is not None and max_history < 1:
            raise ValueError(f"max_history must be at least 1 (got {max_history})")
        self.patience, self.reluctance, self.seed = patience, reluctance, seed
        self._wanted_history = max_history

    def fit(self, rows: SequenceRows, num_items: int, rule: RewardRule | None = None) -> Self:
        """Fit on the rows of a part, such as `splits.test`.

        A user's rows in the part are one session; it begins with the history before the first.

        Args:
            rows: of the part.
            num_items: of the catalogue, `splits.num_items`.
            rule: what an event is worth; None: 0.2 and 1.0.

        Raises:
            ValueError: fewer than two sessions; a log without rewards or with one behaviour, see
                `RewardRule.is_purchase`.
        """
        if len(np.unique(rows.user)) < 2:
            raise ValueError(f"a simulator is fitted on at least two sessions (got {len(np.unique(rows.user))})")
        self.rule, self.num_items = rule or RewardRule(), num_items
        sessions = Sessions.of(rows, self.rule)
        rows = rows.select(np.lexsort((rows.position, rows.user)))
        session, first, lengths = np.unique(rows.user, return_index=True, return_counts=True)
        histories = rows.histories().numpy()
        self.max_history = self._wanted_history or rows.max_history
        histories = _window(histories, self.max_history)
        self.starts = histories[first]
        self.leaving = Leaving.of(lengths)
        half = np.random.default_rng(self.seed).permutation(len(session)) % 2
        log = ChoiceLog(
            histories=histories,
            target=rows.target,
            purchase=sessions.purchase[rows.target_place],
            session=np.repeat(np.arange(len(session)), lengths),
            half=np.repeat(half, lengths).astype(bool),
            num_items=num_items,
        )
        self._fit(log)
        total = np.concatenate([np.logaddexp.reduce(u, axis=1) for _, u in self._all_utilities(histories)])
        self.outside = float(np.log(self.reluctance) + np.median(total))
        return self

    @abstractmethod
    def _fit(self, log: ChoiceLog) -> None:
        """Fit utilities and purchases."""

    @abstractmethod
    def state(self) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """What `_fit` found: numbers and tables by name, for `save_pretrained`."""

    @abstractmethod
    def restore(self, numbers: Mapping[str, float], tables: Mapping[str, np.ndarray]) -> None:
        """Take what `state` gave."""

    def save_pretrained(self, folder: str | Path, catalogue: Catalogue) -> None:
        """Write the fitted users into a folder; see `offline_rl_rec.simulation.saved`."""
        from offline_rl_rec.simulation.saved import save_users

        save_users(self, folder, catalogue)

    @classmethod
    def from_pretrained(cls, folder: str | Path, catalogue: Catalogue | None = None) -> UserSimulator:
        """Users that were saved; of any family where this is `UserSimulator`, and else of this one.

        Args:
            folder: of `save_pretrained`.
            catalogue: of the data at hand, where users of another one are to be refused.

        Raises:
            FileNotFoundError: no saved users there.
            ValueError: users of another family or catalogue, or damaged files.
        """
        from offline_rl_rec.simulation import SIMULATORS, simulator_class
        from offline_rl_rec.simulation.saved import load_users

        families = {name: simulator_class(name) for name in SIMULATORS}
        return load_users(folder, {n: k for n, k in families.items() if issubclass(k, cls)}, catalogue)

    @abstractmethod
    def utilities(self, histories: np.ndarray, slates: np.ndarray) -> np.ndarray:
        """(n, K) float64 utilities of the items in `slates` (n, K) after `histories` (n, L), ids padded with 0 on the
        left."""

    @abstractmethod
    def purchase_probability(self, histories: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(n,) probability that an item (n,), taken after a history (n, L), is a purchase."""

    def choice_probabilities(self, histories: np.ndarray, slates: np.ndarray) -> np.ndarray:
        """(n, 1 + K): of taking nothing, and of each item of the slate; an item's second place in a slate gets 0."""
        utilities = self.utilities(histories, slates)
        if slates.shape[1] > 1:
            utilities = np.where(distinct(slates), utilities, -np.inf)
        utilities = np.concatenate([np.full((len(slates), 1), self.outside), utilities], axis=1)
        utilities -= utilities.max(axis=1, keepdims=True)
        np.exp(utilities, out=utilities)
        utilities /= utilities.sum(axis=1, keepdims=True)
        return utilities

    def browse(self, histories: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """(n,) items taken out of the whole catalogue, where nobody recommends and taking nothing is no choice.

        Args:
            histories: (n, L).
            uniform: (n,) numbers in [0, 1) that decide.
        """
        taken = np.empty(len(histories), dtype=np.int64)
        for some, utilities in self._all_utilities(histories):
            utilities -= utilities.max(axis=1, keepdims=True)
            taken[some] = 1 + draw(np.exp(utilities), uniform[some])
        return taken

    def _all_utilities(self, histories: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Utilities (block, N) of all items, block by block."""
        items = np.arange(1, self.num_items + 1)[None]
        step = max(1, _CHUNK // self.num_items)
        for start in range(0, len(histories), step):
            some = histories[start : start + step]
            slates = np.broadcast_to(items, (len(some), self.num_items))
            yield slice(start, start + len(some)), self.utilities(some, slates)


@dataclass(frozen=True)
class ChoiceLog:
    """What a simulator's utilities are fitted on: rows, session after session.

    Attributes:
        histories: (R, L) int64, padded with 0 on the left.
        target: (R,) int64.
        purchase: (R,) bool.
        session: (R,) int64, 0, 1, ...
        half: (R,) bool, which random half of the sessions the row is in.
        num_items: of the catalogue.
    """

    histories: np.ndarray
    target: np.ndarray
    purchase: np.ndarray
    session: np.ndarray
    half: np.ndarray
    num_items: int

    def where(self, chosen: np.ndarray) -> ChoiceLog:
        """The rows where `chosen` (R,) is true."""
        columns = ("histories", "target", "purchase", "session", "half")
        return ChoiceLog(**{name: getattr(self, name)[chosen] for name in columns}, num_items=self.num_items)

    @property
    def counts(self) -> np.ndarray:
        """(N + 1,) float64: how often each item is a target."""
        return np.bincount(self.target, minlength=self.num_items + 1).astype(np.float64)


class Step(NamedTuple):
    """What a step of `Users` gave; all (n,).

    Attributes:
        taken: ids, 0 where nothing was taken.
        purchase: whether what was taken is a purchase.
        reward: what it is worth.
        left: whether the user has left.
    """

    taken: np.ndarray
    purchase: np.ndarray
    reward: np.ndarray
    left: np.ndarray


class Users:
    """`n` users of one simulator; a step of all is one computation on arrays.

    Attributes:
        histories: (n, L) int64, padded with 0 on the left.
        events: (n,) int64, items taken in the session.
        idle: (n,) int64, steps since the last one.
    """

    def __init__(self, simulator: UserSimulator, n: int) -> None:
        self.simulator = simulator
        self.histories = np.zeros((n, simulator.max_history), dtype=np.int64)
        self.events = np.zeros(n, dtype=np.int64)
        self.idle = np.zeros(n, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.events)

    def begin(self, rng: np.random.Generator, which: np.ndarray | None = None) -> None:
        """New sessions for the users where `which` (n,) is true; None: for all."""
        which = np.ones(len(self), dtype=bool) if which is None else which
        starts = self.simulator.starts
        self.histories[which] = starts[rng.integers(len(starts), size=int(which.sum()))]
        self.events[which] = self.idle[which] = 0

    def step(self, slates: np.ndarray, rng: np.random.Generator, active: np.ndarray | None = None) -> Step:
        """Show slates (n, K) of item ids; users that are not `active` stay as they are, and take nothing.

        The generator is used alike whatever is shown: the users of two recommenders with equal seeds decide by the
        same numbers.
        """
        uniform = rng.random((3, len(self)))
        simulator, active = self.simulator, np.ones(len(self), dtype=bool) if active is None else active
        place = draw(simulator.choice_probabilities(self.histories, slates), uniform[0])
        taken = np.where((place > 0) & active, slates[np.arange(len(self)), np.maximum(place - 1, 0)], 0)
        return self._take(taken, uniform[1:], active)

    def browse(self, rng: np.random.Generator, active: np.ndarray | None = None) -> Step:
        """As `step`, where nobody recommends: an item out of the whole catalogue."""
        uniform = rng.random((3, len(self)))
        active = np.ones(len(self), dtype=bool) if active is None else active
        return self._take(np.where(active, self.simulator.browse(self.histories, uniform[0]), 0), uniform[1:], active)

    def _take(self, taken: np.ndarray, uniform: np.ndarray, active: np.ndarray) -> Step:
        simulator, took = self.simulator, taken > 0
        purchase = took & (uniform[0] < simulator.purchase_probability(self.histories, taken))
        rewards = np.where(purchase, simulator.rule.purchase, simulator.rule.click) * took
        pushed = np.concatenate([self.histories[:, 1:], taken[:, None]], axis=1)
        self.histories = np.where(took[:, None], pushed, self.histories)
        self.events += took
        self.idle = np.where(took, 0, self.idle + active)
        left = active & (self.idle >= simulator.patience)
        left |= took & (uniform[1] < simulator.leaving.after(self.events))
        return Step(taken, purchase, rewards, left)


def draw(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """(n,) columns drawn in proportion to `weights` (n, K), of which none is negative, by `uniform` (n,) in [0, 1).

    Examples:
        >>> draw(np.array([[1.0, 0.0, 3.0]] * 2), np.array([0.2, 0.3]))
        array([0, 2])
    """
    ends = np.cumsum(weights, axis=1)
    place = (ends <= (uniform * ends[:, -1])[:, None]).sum(axis=1)
    inside: np.ndarray = np.minimum(place, weights.shape[1] - 1)  # rounding must not lead outside
    return inside


def contained(slates: np.ndarray, histories: np.ndarray) -> np.ndarray:
    """(n, K) bool: whether the item of `slates` (n, K) is in the row's history (n, L)."""
    found = np.zeros(slates.shape, dtype=bool)
    for column in histories.T:  # never (n, K, L)
        found |= slates == column[:, None]
    return found


def distinct(slates: np.ndarray) -> np.ndarray:
    """(n, K) bool: whether an item stands here, and not further left in its row as well."""
    order = np.argsort(slates, axis=1, kind="stable")
    ordered = np.take_along_axis(slates, order, axis=1)
    first = slates > 0
    np.put_along_axis(first, order[:, 1:], (ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, 1:] > 0), axis=1)
    return first


def _window(histories: np.ndarray, length: int) -> np.ndarray:
    """The newest `length` columns, with padding on the left where there are fewer."""
    more = max(0, length - histories.shape[1])
    cut: np.ndarray = np.pad(histories, ((0, 0), (more, 0)))[:, -length:]
    return cut
