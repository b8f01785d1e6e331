"""`TransitionChoice`: users who follow the transitions that the log counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.sparse import csr_array
from scipy.special import expit, logit

from offline_rl_rec.simulation.users import ChoiceLog, UserSimulator, contained, distinct

_PRIOR = 2.0  # events that the rate over all items is worth in an item's rate of purchases


class TransitionChoice(UserSimulator):
    r"""Choice by smoothed counts of transitions between items.

    .. math:: u_j = \log \frac{c_{ij} + \mu p_j}{c_i + \mu} + b \, [j \in h], \qquad
              c_{ij} = \sum_{\text{pairs } (i, j)} \frac{1}{\text{distance}}

    after the last item :math:`i` of the history, over pairs in which `j` comes later than `i` in the history or as the
    target, with :math:`p_j` the share of `j` among all targets (each counted half an event more, so that no item is
    impossible). An empty history has no counts, which leaves :math:`\log p_j`. :math:`\mu` maximises the likelihood
    of each half of the sessions under the counts of the other. :math:`b`, for items of the history, is such that the
    share of repeats expected after the logged histories is that of the log: transitions alone forget what came before
    the last item.

    A purchase has the smoothed rate of the item, apart for items that are in the history and items that are not.

    Source: sequential rules, Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms", UMUAI 2018;
    Dirichlet smoothing, Zhai and Lafferty, "A Study of Smoothing Methods for Language Models", ACM TOIS 2004,
    equation 6. Memory: the pairs that were seen.
    """

    name: ClassVar[str] = "transition"
    purchase_rate: np.ndarray

    def _fit(self, log: ChoiceLog) -> None:
        held = []
        for half in (False, True):
            there, here = log.where(log.half != half), log.where(log.half == half)
            held.append(_looked_up(_Counts(there), here.histories[:, -1], here.target[:, None]))

        def loss(log_mu: float) -> float:
            return -sum(float(_smoothed(*found, np.exp(log_mu)).sum()) for found in held)

        self.mu = float(np.exp(minimize_scalar(loss, bounds=(np.log(0.01), np.log(1e5)), method="bounded").x))
        self._counts = _Counts(log)
        self.habit = 0.0
        again = (log.histories == log.target[:, None]).any(axis=1)
        own = np.where(distinct(log.histories), np.exp(self.utilities(log.histories, log.histories)), 0.0).sum(axis=1)
        self.habit = _habit(own[own > 0], again.sum() + 0.5)
        self._purchase_rates(log)

    def state(self) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        pairs = self._counts.pairs
        tables = {"weights": pairs.data, "second": pairs.indices, "starts_of": pairs.indptr}
        tables |= {"leading": self._counts.leading, "share": self._counts.share, "purchase_rate": self.purchase_rate}
        return {"mu": self.mu, "habit": self.habit}, tables

    def restore(self, numbers: Mapping[str, float], tables: Mapping[str, np.ndarray]) -> None:
        self.mu, self.habit = numbers["mu"], numbers["habit"]
        self.purchase_rate = tables["purchase_rate"]
        width = len(tables["share"])
        pairs = csr_array((tables["weights"], tables["second"], tables["starts_of"]), shape=(width, width))
        self._counts = _Counts.of(pairs, tables["leading"], tables["share"])

    def utilities(self, histories: np.ndarray, slates: np.ndarray) -> np.ndarray:
        utilities = _smoothed(*_looked_up(self._counts, histories[:, -1], slates), self.mu)
        return utilities + self.habit * contained(slates, histories)

    def purchase_probability(self, histories: np.ndarray, items: np.ndarray) -> np.ndarray:
        again = (histories == items[:, None]).any(axis=1).astype(np.int64)
        found: np.ndarray = self.purchase_rate[again, items]
        return found

    def _purchase_rates(self, log: ChoiceLog) -> None:
        again = (log.histories == log.target[:, None]).any(axis=1).astype(np.int64)
        place = again * (log.num_items + 1) + log.target
        size = 2 * (log.num_items + 1)
        events = np.bincount(place, minlength=size).reshape(2, -1)
        bought = np.bincount(place, log.purchase, minlength=size).reshape(2, -1)
        overall = (bought.sum(1) + log.purchase.mean()) / (events.sum(1) + 1)
        self.purchase_rate = (bought + _PRIOR * overall[:, None]) / (events + _PRIOR)


class _Counts:
    """Counts of transitions, sparse, and shares of items."""

    def __init__(self, log: ChoiceLog) -> None:
        width = log.num_items + 1
        length = log.histories.shape[1]
        first, second, weight = [], [], []
        for back in range(1, length + 1):
            before = log.histories[:, -back]
            there = before > 0
            first.append(before[there])
            second.append(log.target[there])
            weight.append(np.full(int(there.sum()), 1 / back))
        pairs = (np.concatenate(first), np.concatenate(second))
        counts: Any = csr_array((np.concatenate(weight), pairs), shape=(width, width))
        counts.sum_duplicates()
        share = log.counts + 0.5
        self._set(counts, np.asarray(counts.sum(axis=1)).ravel(), share / share[1:].sum())

    @classmethod
    def of(cls, pairs: Any, leading: np.ndarray, share: np.ndarray) -> _Counts:
        """Counts that were saved."""
        counts = cls.__new__(cls)
        counts._set(pairs, leading, share)
        return counts

    def _set(self, pairs: Any, leading: np.ndarray, share: np.ndarray) -> None:
        width = len(share)
        row = np.repeat(np.arange(width), np.diff(pairs.indptr))
        self.pairs, self.leading = pairs, leading
        self.keys = row * width + pairs.indices  # ascending: found by bisection
        self.share = share  # place 0 is padding, in no slate


def _looked_up(counts: _Counts, last: np.ndarray, slates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts (n, K) of the items of slates after `last` (n,), their shares (n, K), and the counts (n, 1) of `last`."""
    width = len(counts.share)
    if slates.shape[1] * 4 > width:  # most of a row is asked for
        pairs = np.take_along_axis(counts.pairs[last].toarray(), slates, axis=1)
    else:
        keys = last[:, None] * width + slates
        place = np.minimum(np.searchsorted(counts.keys, keys), max(0, len(counts.keys) - 1))
        pairs = np.where(counts.keys[place] == keys, counts.pairs.data[place], 0.0) if len(counts.keys) else 0.0 * keys
    return pairs, counts.share[slates], counts.leading[last][:, None]


def _habit(own: np.ndarray, repeats: float) -> float:
    """The `b` at which e^b p / (e^b p + 1 - p) sums to `repeats`, `own` (R,) being p, of the history's items."""
    if not len(own):
        return 0.0
    odds = logit(np.clip(own, 1e-12, 1 - 1e-12))
    repeats = min(repeats, len(own) - 0.5)  # where everything is a repeat, `b` would be infinite
    return float(brentq(lambda b: float(expit(odds + b).sum()) - repeats, -100, 100))


def _smoothed(pairs: np.ndarray, share: np.ndarray, leading: np.ndarray, mu: float) -> np.ndarray:
    utilities: np.ndarray = np.log((pairs + mu * share) / (leading + mu))
    return utilities
