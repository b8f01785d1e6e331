"""`predilect/SessionRec-v0`: sessions of simulated users as a Gymnasium environment, alone and many at a time."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from offline_rl_rec.simulation.users import Step, Users, UserSimulator


@lru_cache(maxsize=2)
def packaged_simulator(name: str) -> UserSimulator:
    """A simulator by its name, "logit" or "transition", fitted on the last quarter of the packaged MovieTweetings.

    Films and users with at least 20 ratings; ratings of at least 8 of 10 are purchases.

    Raises:
        ValueError: another name.
    """
    from offline_rl_rec.simulation import simulator_class
    from predilect.data import load

    family = simulator_class(name)
    splits = load().k_core(20).split(ratios=(0.5, 0.25, 0.25))
    return family().fit(splits.test, splits.num_items)


class _Sessions:
    """What both environments share: the spaces of one, `n` users, steps, checks and masks."""

    def __init__(
        self,
        simulator: UserSimulator | str | None,
        users: str | Path | None,
        n: int,
        slate_size: int,
        exclude_history: bool,
        max_steps: int,
    ) -> None:
        if users is not None:
            if simulator is not None:
                raise ValueError(f"simulator ({simulator}) and users ({users}) are two kinds of users: give one")
            simulator = UserSimulator.from_pretrained(users)
        simulator = simulator or "logit"
        if isinstance(simulator, str):
            simulator = packaged_simulator(simulator)
        size = simulator.num_items
        if not 1 <= slate_size <= size:
            raise ValueError(f"slate_size must be in 1..{size}, the number of items (got {slate_size})")
        if exclude_history and slate_size + simulator.max_history > size:
            raise ValueError(
                f"exclude_history leaves at least {size - simulator.max_history} of {size} items, fewer than "
                f"slate_size {slate_size}: choose a shorter slate, or a simulator with a shorter max_history"
            )
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1 (got {max_steps})")
        self.users = Users(simulator, n)
        self.slate_size, self.exclude_history, self.max_steps = slate_size, exclude_history, max_steps
        self.observation_space = Box(0, size, (simulator.max_history,), np.int64)
        self.action_space: Discrete[Any] | MultiDiscrete = (
            Discrete(size, start=1) if slate_size == 1 else MultiDiscrete([size] * slate_size, start=[1] * slate_size)
        )
        self._everything = np.broadcast_to(np.ones(size, dtype=np.int8), (n, size))  # read-only

    def begin(self, rng: np.random.Generator) -> None:
        self.users.begin(rng)
        self.steps = np.zeros(len(self.users), dtype=np.int64)
        self.ended = np.zeros(len(self.users), dtype=bool)

    def step(self, actions: Any, rng: np.random.Generator) -> tuple[Step, np.ndarray]:
        """One step of all; where the episode ended before, a new one begins instead. Returns what users did, and
        where the episode was cut off."""
        slates = self._slates(actions)
        begins = self.ended
        step = self.users.step(slates, rng, ~begins)
        self.users.begin(rng, begins)
        self.steps = np.where(begins, 0, self.steps + 1)
        truncated = (self.steps >= self.max_steps) & ~step.left
        self.ended = step.left | truncated
        return step, truncated

    def observation(self) -> np.ndarray:
        return self.users.histories.copy()

    def mask(self) -> np.ndarray:
        """(n, N) int8: 1 where an item may be shown; column `j` is item `j + 1`."""
        if not self.exclude_history:
            return self._everything
        mask = np.ones((len(self.users), self._everything.shape[1] + 1), dtype=np.int8)
        np.put_along_axis(mask, self.users.histories, 0, axis=1)
        return mask[:, 1:]

    def _slates(self, actions: Any) -> np.ndarray:
        """(n, slate_size) checked."""
        size, n = self._everything.shape[1], len(self.users)
        slates = np.asarray(actions)
        if slates.dtype.kind not in "iu" or slates.size != n * self.slate_size:
            raise ValueError(
                f"an action is {self.slate_size} item ids for each of {n} environments "
                f"(got the shape {slates.shape}, {slates.dtype})"
            )
        slates = slates.reshape(n, self.slate_size).astype(np.int64)
        if slates.min() < 1 or slates.max() > size:
            wrong = slates[(slates < 1) | (slates > size)][0]
            raise ValueError(f"an action holds item ids in 1..{size} (got {wrong})")
        if self.exclude_history:
            taken = (slates[:, :, None] == self.users.histories[:, None]).any(axis=2) & ~self.ended[:, None]
            if taken.any():
                where, place = np.argwhere(taken)[0]
                raise ValueError(
                    f"the item {slates[where, place]} is masked, it is in the history (environment {where}): choose "
                    "by info['action_mask']"
                )
        return slates


class SessionRec(gymnasium.Env[np.ndarray, Any]):
    """A session of one simulated user.

    * Observation: the history, (max_history,) int64 item ids, oldest first, padded with 0 on the left: what
      `Recommender.score` takes.
    * Action: the id of the item that is shown, or `slate_size` ids; an id that stands twice in a slate counts once.
    * Reward: of the taken item, by the simulator's `RewardRule`; 0 where nothing is taken.
    * Terminated when the user leaves; truncated after `max_steps` steps.
    * `info`: `action_mask` (N,) int8, 1 for items that may be shown (column `j` is item `j + 1`), `taken` (id, or 0)
      and `purchase`.

    What decides when the user leaves, the number of events and of idle steps, is no part of the observation.

    Args:
        simulator: one that was fitted, or "logit" or "transition": see `packaged_simulator`; None: "logit".
        users: folder of saved ones, in place of `simulator`; see `UserSimulator.save_pretrained`.
        slate_size: items that are shown at a time.
        exclude_history: items of the history may not be shown.
        max_steps: longest episode.

    Raises:
        ValueError: an option outside its range; in `step` an item outside the catalogue, or one that is masked.
    """

    def __init__(
        self,
        simulator: UserSimulator | str | None = None,
        *,
        users: str | Path | None = None,
        slate_size: int = 1,
        exclude_history: bool = False,
        max_steps: int = 100,
    ) -> None:
        self._sessions = _Sessions(simulator, users, 1, slate_size, exclude_history, max_steps)
        self.observation_space, self.action_space = self._sessions.observation_space, self._sessions.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a session with a history of the log; there are no `options`."""
        super().reset(seed=seed)
        self._sessions.begin(self.np_random)
        return self._sessions.observation()[0], self._info(0, False)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Show an item or a slate."""
        step, truncated = self._sessions.step(action, self.np_random)
        info = self._info(int(step.taken[0]), bool(step.purchase[0]))
        return self._sessions.observation()[0], float(step.reward[0]), bool(step.left[0]), bool(truncated[0]), info

    def _info(self, taken: int, purchase: bool) -> dict[str, Any]:
        return {"action_mask": self._sessions.mask()[0].copy(), "taken": taken, "purchase": purchase}


class VectorSessionRec(gymnasium.vector.VectorEnv[np.ndarray, Any, np.ndarray]):
    """Sessions of `num_envs` simulated users; a step of all is one computation on arrays.

    As `SessionRec`, with a first dimension more everywhere. Where an episode ended, the next step begins a new one,
    whatever the action (`AutoresetMode.NEXT_STEP`). One generator serves all: `reset(seed=...)` takes one number.
    Where `exclude_history` is false, `action_mask` is a read-only array of ones.

    Args:
        num_envs: users at a time.
        simulator, users, slate_size, exclude_history, max_steps: see `SessionRec`.

    Raises:
        ValueError: as `SessionRec`, and less than one environment.
    """

    def __init__(
        self,
        num_envs: int = 1,
        simulator: UserSimulator | str | None = None,
        *,
        users: str | Path | None = None,
        slate_size: int = 1,
        exclude_history: bool = False,
        max_steps: int = 100,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1 (got {num_envs})")
        self.num_envs = num_envs
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}
        self._sessions = _Sessions(simulator, users, num_envs, slate_size, exclude_history, max_steps)
        self.single_observation_space = self._sessions.observation_space
        self.single_action_space = self._sessions.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._all = np.ones(num_envs, dtype=bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a session everywhere; there are no `options`."""
        super().reset(seed=seed)
        self._sessions.begin(self.np_random)
        nothing = np.zeros(self.num_envs, dtype=np.int64)
        return self._sessions.observation(), self._info(nothing, nothing.astype(bool))

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Show an item or a slate to every user."""
        step, truncated = self._sessions.step(actions, self.np_random)
        return self._sessions.observation(), step.reward, step.left, truncated, self._info(step.taken, step.purchase)

    def _info(self, taken: np.ndarray, purchase: np.ndarray) -> dict[str, Any]:
        info: dict[str, Any] = {"action_mask": self._sessions.mask(), "taken": taken, "purchase": purchase}
        return info | {f"_{name}": self._all for name in info}
