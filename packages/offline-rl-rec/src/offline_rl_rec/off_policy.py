"""What another policy would have earned, from sessions that were logged: importance sampling and its kin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

_LEVEL = 0.95


@dataclass(frozen=True)
class LoggedEpisodes:
    r"""Logged sessions, and how likely two policies were to act as the log did.

    Attributes:
        reward: (E, T) of each step, sessions in rows; what stands behind a session's last step is not read.
        behaviour: (E, T) probability of the logged action under the policy that made the log, in (0, 1].
        target: (E, T) its probability under the policy that is judged, in [0, 1].
        steps: (E, T) bool, true up to the session's last step; every session has a first.
        discount: gamma, in [0, 1].
        action_value: (E, T) an estimate of :math:`Q^\pi(s_t, a_t)` under the target policy, and
        state_value: (E, T) one of :math:`V^\pi(s_t)`: for `doubly_robust`; None: not known.

    Raises:
        ValueError: shapes that differ, fewer than two sessions, gaps in `steps`, rewards or values that are not
            finite, probabilities outside their ranges.
    """

    reward: np.ndarray
    behaviour: np.ndarray
    target: np.ndarray
    steps: np.ndarray
    discount: float
    action_value: np.ndarray | None = None
    state_value: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = self.reward.shape
        if len(shape) != 2 or shape[0] < 2 or not shape[1]:
            raise ValueError(f"rewards are (sessions, steps), of two sessions at least (got the shape {shape})")
        if not 0 <= self.discount <= 1:
            raise ValueError(f"the discount must be in [0, 1] (got {self.discount})")
        for name in ("behaviour", "target", "steps", "action_value", "state_value"):
            values = getattr(self, name)
            if values is not None and values.shape != shape:
                raise ValueError(f"{name} must have the shape of the rewards, {shape} (got {values.shape})")
        if not self.steps[:, 0].all() or (self.steps[:, 1:] & ~self.steps[:, :-1]).any():
            raise ValueError("steps must be true from a session's first step to its last, and false behind")
        for name in ("reward", "action_value", "state_value"):
            values = getattr(self, name)
            if values is not None:
                self._require(name, np.isfinite(values), values, "finite")
        self._require("behaviour", (self.behaviour > 0) & (self.behaviour <= 1), self.behaviour, "in (0, 1]")
        self._require("target", (self.target >= 0) & (self.target <= 1), self.target, "in [0, 1]")

    def _require(self, name: str, right: np.ndarray, values: np.ndarray, what: str) -> None:
        if (wrong := self.steps & ~right).any():
            session, step = np.argwhere(wrong)[0]
            raise ValueError(f"{name} must be {what} (got {values[session, step]} in session {session}, step {step})")

    @property
    def ratios(self) -> np.ndarray:
        """(E, T) target / behaviour of each step; 1 behind the end."""
        ratios: np.ndarray = np.where(self.steps, self.target / np.where(self.steps, self.behaviour, 1), 1.0)
        return ratios

    @property
    def weights(self) -> np.ndarray:
        """(E, T) product of the ratios up to each step; behind the end that of the whole session."""
        return np.cumprod(self.ratios, axis=1)

    @property
    def earned(self) -> np.ndarray:
        """(E, T) discounted rewards, 0 behind the end."""
        powers = self.discount ** np.arange(self.reward.shape[1])
        earned: np.ndarray = np.where(self.steps, self.reward, 0.0) * powers
        return earned


@dataclass(frozen=True)
class OffPolicyEstimate:
    r"""An estimate of a policy's discounted return, with a 95 % t interval over sessions.

    Attributes:
        value, low, high: the estimate and the ends of its interval.
        effective: effective number of sessions, :math:`(\sum w)^2 / \sum w^2` of the weights of whole sessions
            (Kish, Survey Sampling, 1965): below some thirty the interval says little.
        sessions: (E,) what each session adds; their mean is the estimate, and sessions of two policies on one log can
            be compared in pairs.
    """

    value: float
    low: float
    high: float
    effective: float
    sessions: np.ndarray


def on_policy(episodes: LoggedEpisodes) -> OffPolicyEstimate:
    """What the log itself earned: the mean discounted return of its sessions."""
    return _estimate(episodes.earned.sum(axis=1), np.ones(len(episodes.reward)))


def importance_sampling(episodes: LoggedEpisodes, *, clip: float | None = None) -> OffPolicyEstimate:
    r"""Importance sampling per decision.

    .. math:: \hat V = \frac{1}{E} \sum_e \sum_t \gamma^t w_{et} r_{et}, \qquad
              w_{et} = \prod_{t' \le t} \frac{\pi(a_{et'} | s_{et'})}{b(a_{et'} | s_{et'})}

    Unbiased, with a variance that grows with the length of sessions. With `clip` the weights are
    :math:`\min(w_{et}, clip)`, which has less variance and, where rewards are positive, a bias downwards.

    Source: Precup, Sutton and Singh, "Eligibility Traces for Off-Policy Policy Evaluation", ICML 2000; clipped
    weights: Ionides, "Truncated Importance Sampling", JCGS 2008.

    Raises:
        ValueError: a `clip` that is not above 0.
    """
    weights = episodes.weights
    if clip is not None:
        if not clip > 0:
            raise ValueError(f"clip must be above 0 (got {clip})")
        weights = np.minimum(weights, clip)
    return _estimate((weights * episodes.earned).sum(axis=1), weights[:, -1])


def self_normalised(episodes: LoggedEpisodes) -> OffPolicyEstimate:
    r"""Weighted importance sampling per decision: weights divided by their mean at each step.

    .. math:: \hat V = \sum_t \gamma^t \frac{\sum_e w_{et} r_{et}}{\sum_e w_{et}}

    Sessions that have ended keep their weight and earn 0. Consistent; within the range of the rewards, whatever the
    weights. The interval is that of the linearised ratio.

    Source: Precup, Sutton and Singh 2000, as above; Swaminathan and Joachims, "The Self-Normalized Estimator for
    Counterfactual Learning", NeurIPS 2015.

    Raises:
        ValueError: no session acts at some step as the target policy may.
    """
    weights, earned = episodes.weights, episodes.earned
    mean = weights.mean(axis=0)
    if not mean.all():
        raise ValueError(
            f"no logged session agrees with the target policy up to step {int((mean == 0).argmax())}: judge fewer "
            "steps, or a policy that explores"
        )
    rate = (weights * earned).mean(axis=0) / mean
    sessions = rate.sum() + (weights * (earned - rate) / mean).sum(axis=1)
    return _estimate(sessions, weights[:, -1])


def doubly_robust(episodes: LoggedEpisodes) -> OffPolicyEstimate:
    r"""Doubly robust, per decision.

    .. math:: \hat V_t = V(s_t) + \rho_t \left(r_t + \gamma \hat V_{t + 1} - Q(s_t, a_t)\right)

    from the last step to the first, :math:`\rho_t` the ratio of the step. Unbiased if the behaviour's probabilities
    are right, whatever the values; without variance where the values are right and the process is deterministic.

    Source: Jiang and Li, "Doubly Robust Off-policy Value Evaluation for Reinforcement Learning", ICML 2016, equation
    10.

    Raises:
        ValueError: episodes without values.
    """
    if episodes.action_value is None or episodes.state_value is None:
        raise ValueError("doubly_robust needs action_value and state_value of the episodes")
    ratios = episodes.ratios
    value = np.zeros(len(ratios))
    for step in reversed(range(ratios.shape[1])):
        behind = episodes.reward[:, step] + episodes.discount * value - episodes.action_value[:, step]
        here = episodes.state_value[:, step] + ratios[:, step] * behind
        value = np.where(episodes.steps[:, step], here, 0.0)
    return _estimate(value, episodes.weights[:, -1])


def off_policy_estimates(episodes: LoggedEpisodes, *, clip: float = 10.0) -> Mapping[str, OffPolicyEstimate]:
    """All estimators that the episodes allow, by name; `logged` is what the log itself earned."""
    found = {
        "logged": on_policy(episodes),
        "importance": importance_sampling(episodes),
        "clipped": importance_sampling(episodes, clip=clip),
        "self-normalised": self_normalised(episodes),
    }
    if episodes.action_value is not None and episodes.state_value is not None:
        found["doubly-robust"] = doubly_robust(episodes)
    return found


def _estimate(sessions: np.ndarray, weights: np.ndarray) -> OffPolicyEstimate:
    number, value = len(sessions), float(sessions.mean())
    half = float(student.ppf((1 + _LEVEL) / 2, number - 1) * sessions.std(ddof=1) / np.sqrt(number))
    squares = float(np.square(weights).sum())
    effective = float(weights.sum()) ** 2 / squares if squares else 0.0
    return OffPolicyEstimate(value, value - half, value + half, effective, sessions)
