"""A decision process small enough to know its optimum, to test learners on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete


@dataclass(frozen=True)
class TabularMDP:
    """States, actions, rewards and where they lead, in tables.

    Attributes:
        transition: (S, A, S) probabilities of the next state; what is missing to 1 ends the episode.
        reward: (S, A).
        start: (S,) probabilities of the first state.
        discount: in [0, 1).

    Raises:
        ValueError: tables whose shapes differ; probabilities that are none; a reward that is not finite; a discount
            outside [0, 1).

    Examples:
        >>> mdp = TabularMDP.lures()
        >>> mdp.reward[0].argmax(), mdp.optimal_values()[0].argmax()
        (np.int64(2), np.int64(1))
    """

    transition: np.ndarray
    reward: np.ndarray
    start: np.ndarray
    discount: float

    def __post_init__(self) -> None:
        states, actions = self.reward.shape
        if self.transition.shape != (states, actions, states) or self.start.shape != (states,):
            raise ValueError(
                f"rewards of {states} states and {actions} actions need transitions ({states}, {actions}, {states}) "
                f"and starts ({states},) (got {self.transition.shape} and {self.start.shape})"
            )
        total = self.transition.sum(axis=2)
        if (
            self.transition.min() < 0
            or total.max() > 1 + 1e-9
            or self.start.min() < 0
            or abs(self.start.sum() - 1) > 1e-9
        ):
            raise ValueError("transitions must be probabilities that sum to at most 1, and starts ones that sum to 1")
        if not np.isfinite(self.reward).all():
            raise ValueError(f"rewards must be finite (got {self.reward[~np.isfinite(self.reward)][0]})")
        if not 0 <= self.discount < 1:
            raise ValueError(f"the discount must be in [0, 1) (got {self.discount})")

    @classmethod
    def lures(cls, discount: float = 0.9) -> Self:
        """Four items; the state is the last one. Item 3 earns most at once and ends the session nine times of ten; the
        others earn less and lead on, best along the ring of 1, 2 and 4. Who looks at rewards alone takes the lure."""
        reward = np.array([[0.1, 0.3, 1.0, 0.2], [0.2, 0.1, 1.0, 0.3], [0.2, 0.2, 1.0, 0.2], [0.3, 0.2, 1.0, 0.1]])
        leave = np.array([0.05, 0.05, 0.9, 0.05])
        transition = np.eye(4)[None] * (1 - leave)[None, :, None]
        return cls(np.broadcast_to(transition, (4, 4, 4)).copy(), reward, np.full(4, 0.25), discount)

    def optimal_values(self) -> np.ndarray:
        r"""(S, A) :math:`Q^*(s, a) = r(s, a) + \gamma \sum_{s'} P(s' | s, a) \max_{a'} Q^*(s', a')`, by value
        iteration until nothing moves by more than 1e-12."""
        q = self.reward.astype(np.float64)
        while True:
            better: np.ndarray = self.reward + self.discount * self.transition @ q.max(axis=1)
            if np.abs(better - q).max() <= 1e-12:
                return better
            q = better

    def values(self, policy: np.ndarray) -> np.ndarray:
        r"""(S, A) :math:`Q^\pi` of a policy (S, A), probabilities of actions: the solution of Bellman's linear
        equations."""
        states = len(self.start)
        leads = np.einsum("sa,sat->st", policy, self.transition)
        earned = (policy * self.reward).sum(axis=1)
        value = np.linalg.solve(np.eye(states) - self.discount * leads, earned)
        q: np.ndarray = self.reward + self.discount * self.transition @ value
        return q


class TabularEnv(gymnasium.Env[np.int64, np.int64]):
    """A `TabularMDP` to act in: states and actions are numbers from 0; it passes Gymnasium's `check_env`.

    Args:
        mdp: the tables.
    """

    def __init__(self, mdp: TabularMDP) -> None:
        self.mdp = mdp
        states, actions = mdp.reward.shape
        self.observation_space, self.action_space = Discrete(states), Discrete(actions)
        self._state = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Draw a first state; there are no `options`."""
        super().reset(seed=seed)
        self._state = int(self.np_random.choice(len(self.mdp.start), p=self.mdp.start))
        return np.int64(self._state), {}

    def step(self, action: Any) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Take an action; where the episode ends, the state stays."""
        if not self.action_space.contains(action):
            raise ValueError(f"an action is a number in 0..{self.mdp.reward.shape[1] - 1} (got {action})")
        reward = float(self.mdp.reward[self._state, action])
        leads = self.mdp.transition[self._state, action]
        place = int(np.searchsorted(np.cumsum(leads), self.np_random.random(), side="right"))
        ended = place == len(leads)
        self._state = self._state if ended else place
        return np.int64(self._state), reward, ended, False, {}
