"""`LogitChoice`: users who weigh taste, popularity and habit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit

from offline_rl_rec.simulation.users import ChoiceLog, UserSimulator, contained

_TABLES = ("decays", "popularity", "vectors", "weights", "purchase_weights")
_RIDGE = 1e-3  # keeps a weight finite that the log would make infinite, such as that of repeats where there are none


class LogitChoice(UserSimulator):
    r"""Conditional logit: :math:`u_j = \beta^\top x(h, j)`, with four features of history and item.

    * similarity: cosine of the item's vector and the running taste :math:`\sum_p decay^p v_{h_p}`, `p` counted from
      the end of the history. Vectors are a truncated singular value decomposition of sessions x items, entries
      :math:`\log(1 + count)`, columns weighted by the root of the singular values;
    * popularity: :math:`\log(1 + count)` of the targets, less its mean;
    * repeat: whether the item is in the history;
    * last: whether it is the last item of the history.

    :math:`\beta` maximises the likelihood of the taken item among it and `alternatives` others, drawn uniformly: under
    a conditional logit that is consistent for the choice out of all items. Similarities of each half of the sessions
    come from vectors of the other half; otherwise vectors that have seen the answer would make taste look decisive.

    A purchase has a logistic regression on the same features, with a constant.

    Source: McFadden, "Conditional Logit Analysis of Qualitative Choice Behavior", 1974; alternatives that are drawn:
    McFadden, "Modelling the Choice of Residential Location", 1978. Memory: vectors (N + 1, dimension), and features
    (rows, alternatives + 1, 4) while fitting.

    Args:
        dimension: length of the vectors.
        decay: weight of an item of the history relative to the one after it, in (0, 1].
        alternatives: drawn for each row while fitting.
        **options: of `UserSimulator`.

    Raises:
        ValueError: an option outside its range.
    """

    name: ClassVar[str] = "logit"

    def __init__(
        self, *, dimension: int = 16, decay: float = 0.8, alternatives: int = 50, **options: int | float | None
    ) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        if dimension < 1 or alternatives < 1:
            raise ValueError(f"dimension and alternatives must be at least 1 (got {dimension} and {alternatives})")
        if not 0 < decay <= 1:
            raise ValueError(f"decay must be in (0, 1] (got {decay})")
        self.dimension, self.decay, self.alternatives = dimension, decay, alternatives

    def _fit(self, log: ChoiceLog) -> None:
        rng = np.random.default_rng(self.seed)
        others = rng.integers(1, log.num_items, size=(len(log.target), self.alternatives))
        others += others >= log.target[:, None]  # uniform over all items but the taken one
        shown = np.concatenate([log.target[:, None], others], axis=1)
        features = np.empty((*shown.shape, 4), dtype=np.float32)
        self.decays = (self.decay ** np.arange(log.histories.shape[1] - 1, -1, -1)).astype(np.float32)
        popularity = np.log1p(log.counts)
        self.popularity = (popularity - popularity[1:].mean()).astype(np.float32)
        for half in (False, True):
            mine = log.half == half
            self.vectors = _item_vectors(log.where(~mine), self.dimension, self.seed)
            features[mine] = self._features(log.histories[mine], shown[mine])
        self.weights = _conditional_logit(features)
        self.purchase_weights = _logistic(features[:, 0].astype(np.float64), log.purchase)
        self.vectors = _item_vectors(log, self.dimension, self.seed)

    def state(self) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        numbers = {"dimension": self.dimension, "decay": self.decay, "alternatives": self.alternatives}
        return numbers, {name: getattr(self, name) for name in _TABLES}

    def restore(self, numbers: Mapping[str, float], tables: Mapping[str, np.ndarray]) -> None:
        self.dimension, self.alternatives = int(numbers["dimension"]), int(numbers["alternatives"])
        self.decay = numbers["decay"]
        for name in _TABLES:
            setattr(self, name, tables[name])

    def _features(self, histories: np.ndarray, slates: np.ndarray) -> np.ndarray:
        """(n, K, 4) float32."""
        taste = np.einsum("l,nld->nd", self.decays, self.vectors[histories])
        taste /= np.maximum(np.linalg.norm(taste, axis=1, keepdims=True), 1e-9)
        repeat = contained(slates, histories)
        return np.stack(
            [
                np.matmul(self.vectors[slates], taste[:, :, None])[..., 0],
                self.popularity[slates],
                repeat,
                slates == histories[:, -1:],
            ],
            axis=-1,
        )

    def utilities(self, histories: np.ndarray, slates: np.ndarray) -> np.ndarray:
        utilities: np.ndarray = self._features(histories, slates) @ self.weights
        return utilities

    def purchase_probability(self, histories: np.ndarray, items: np.ndarray) -> np.ndarray:
        score = (
            self._features(histories, items[:, None])[:, 0] @ self.purchase_weights[:-1] + self.purchase_weights[-1]
        )
        probability: np.ndarray = expit(score)
        return probability


def _item_vectors(log: ChoiceLog, dimension: int, seed: int) -> np.ndarray:
    """(N + 1, dimension) float32 of length 1; of 0 for padding and for items of which nothing is known."""
    first = np.append(True, np.diff(log.session) != 0)
    session = np.concatenate([log.session, np.repeat(log.session[first], log.histories.shape[1])])
    items = np.concatenate([log.target, log.histories[first].ravel()])
    session = np.unique(session, return_inverse=True)[1]
    there = items > 0
    places = torch.from_numpy(np.stack([session[there], items[there]]))
    ones = torch.ones(places.shape[1], dtype=torch.float64)
    counts = torch.sparse_coo_tensor(places, ones, check_invariants=True).coalesce().log1p()
    rank = min(dimension, *counts.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, singular, right = torch.svd_lowrank(counts, q=min(rank + 10, *counts.shape), niter=4)
    found = (right * singular.sqrt())[:, :rank].numpy()
    vectors = np.zeros((log.num_items + 1, dimension), dtype=np.float32)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    vectors[: len(found), :rank] = np.where(length > 1e-9, found / np.maximum(length, 1e-9), 0.0)
    return vectors


def _conditional_logit(features: np.ndarray) -> np.ndarray:
    """Weights (F,) float64 under which the first alternative of each row of (R, K, F) is likeliest to be taken."""

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        utility = (features @ weights.astype(np.float32)).astype(np.float64)
        utility -= utility.max(axis=1, keepdims=True)
        probability = np.exp(utility)
        total = probability.sum(axis=1, keepdims=True)
        probability /= total
        value = np.mean(np.log(total[:, 0]) - utility[:, 0]) + _RIDGE / 2 * weights @ weights
        expected = np.einsum("rk,rkf->f", probability.astype(np.float32), features) / len(features)
        return float(value), expected - features[:, 0].mean(axis=0) + _RIDGE * weights

    found: np.ndarray = minimize(loss, np.zeros(features.shape[-1]), jac=True, method="L-BFGS-B").x
    return found


def _logistic(features: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Weights (F + 1,) of a logistic regression of `label` (R,) on features (R, F); the last one is the constant."""
    sign = np.where(label, 1.0, -1.0)
    inputs = np.concatenate([features, np.ones((len(features), 1))], axis=1)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (inputs @ weights)
        slope = -sign * expit(-margin)
        value = np.mean(np.logaddexp(0, -margin)) + _RIDGE / 2 * weights @ weights
        return float(value), inputs.T @ slope / len(inputs) + _RIDGE * weights

    found: np.ndarray = minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B").x
    return found
