"""What a recommender earns in sessions of simulated users, until they leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from offline_rl_rec.simulation.users import Users, UserSimulator
from predilect.evaluation import PairedResult, paired_bootstrap
from predilect.evaluation.bootstrap import bootstrap_intervals
from predilect.evaluation.ranking import top_items
from predilect.recommender import Recommender

COLUMNS = ("return", "discounted_return", "taken", "purchases")

_BATCH = 1024  # histories scored at once


@dataclass(frozen=True)
class SimulatedReturns:
    """Simulated sessions of one recommender, and what they earned.

    Attributes:
        recommender, simulator: their names.
        setting: what else the numbers depend on.
        sessions: of each session, (S,) float64: `return`, `discounted_return`, `taken` (items), `purchases`, `steps`.
        results: means over sessions of the first four, with the ends of their 95 % intervals (`<name>_low`,
            `<name>_high`); `acceptance`, the share of steps in which something was taken; `coverage`, the share of the
            catalogue that was shown; `repetition`, the mean share of a slate that was in the slate before.
    """

    recommender: str
    simulator: str
    setting: Mapping[str, Any]
    sessions: Mapping[str, np.ndarray]
    results: Mapping[str, float]

    def minus(self, other: SimulatedReturns, column: str = "return", *, resamples: int = 1000) -> PairedResult:
        """The difference to another recommender whose sessions have the same setting, hence the same users.

        Raises:
            ValueError: another simulator or setting, or a column that there is not.
        """
        if (self.simulator, self.setting) != (other.simulator, other.setting):
            raise ValueError(
                f"returns are compared under one simulator and setting (got {self.simulator}, {self.setting} and "
                f"{other.simulator}, {other.setting})"
            )
        if column not in self.sessions:
            raise ValueError(f"sessions have the columns {', '.join(self.sessions)} (got {column!r})")
        return paired_bootstrap(self.sessions[column], other.sessions[column], resamples=resamples)


def simulate(
    recommender: Recommender[Any],
    simulator: UserSimulator,
    *,
    sessions: int = 1000,
    slate_size: int = 10,
    discount: float = 0.9,
    max_steps: int = 100,
    exclude_history: bool = True,
    bootstrap: int = 1000,
    seed: int = 0,
) -> SimulatedReturns:
    r"""Show simulated users a recommender's lists until they leave.

    At step :math:`t` every user who is still there sees the `slate_size` best items after their history. The reward
    of what they take, or 0, counts once in the return and :math:`\gamma^t` times in the discounted return. All
    sessions go on at the same time: a step is one scoring of the recommender and one computation of the users. With
    equal seeds two recommenders meet the same users, who decide by the same random numbers: `SimulatedReturns.minus`.

    Args:
        recommender: fitted on the same catalogue.
        simulator: fitted, on a part of the log that the recommender has not seen.
        sessions: how many.
        slate_size: items in a slate.
        discount: gamma, in [0, 1].
        max_steps: sessions are cut off after as many.
        exclude_history: never show an item of the history that the user remembers.
        bootstrap: resamples of the intervals; 0: no intervals.
        seed: of the users.

    Raises:
        ValueError: a recommender of another catalogue; options outside their ranges; see also `Recommender.score`.
    """
    kept = simulator.max_history if exclude_history else 0
    _require(recommender, simulator, sessions, slate_size, simulator.num_items - kept, discount, max_steps)
    users, rng = Users(simulator, sessions), np.random.default_rng(seed)
    users.begin(rng)
    found = {name: np.zeros(sessions) for name in (*COLUMNS, "steps")}
    active = np.ones(sessions, dtype=bool)
    before = np.zeros((sessions, slate_size), dtype=np.int64)
    shown = np.zeros(simulator.num_items + 1, dtype=bool)
    again, compared = 0.0, 0
    for t in range(max_steps):
        if not active.any():
            break
        slates = np.ones((sessions, slate_size), dtype=np.int64)  # of those who left: not looked at
        slates[active] = best_items(recommender, users.histories[active], slate_size, exclude_history)
        shown[slates[active]] = True
        if t:
            again += (slates[active, :, None] == before[active, None]).any(axis=2).mean(axis=1).sum()
            compared += int(active.sum())
        before = slates
        found["steps"] += active
        step = users.step(slates, rng, active)
        found["return"] += step.reward
        found["discounted_return"] += discount**t * step.reward
        found["taken"] += step.taken > 0
        found["purchases"] += step.purchase
        active &= ~step.left
    results = _means({name: found[name] for name in COLUMNS}, bootstrap, seed)
    results["acceptance"] = float(found["taken"].sum() / found["steps"].sum())
    results["coverage"] = float(shown[1:].mean())
    results["repetition"] = again / max(1, compared)
    setting = {
        "sessions": sessions,
        "slate_size": slate_size,
        "discount": discount,
        "max_steps": max_steps,
        "exclude_history": exclude_history,
        "seed": seed,
    }
    return SimulatedReturns(recommender.name, simulator.name, setting, found, results)


def _require(
    recommender: Recommender[Any],
    simulator: UserSimulator,
    sessions: int,
    slate_size: int,
    longest_slate: int,
    discount: float,
    max_steps: int,
) -> None:
    size = simulator.num_items
    if len(recommender.catalogue) != size:
        raise ValueError(
            f"{recommender.name} knows {len(recommender.catalogue)} items and the simulator {size}: "
            "fit both on the same data"
        )
    if not 1 <= slate_size <= longest_slate:
        raise ValueError(
            f"slate_size must be in 1..{longest_slate}, the items less those that may be left out (got {slate_size})"
        )
    if not 0 <= discount <= 1:
        raise ValueError(f"the discount must be in [0, 1] (got {discount})")
    for name, value, least in (("sessions", sessions, 2), ("max_steps", max_steps, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least} (got {value})")


def best_items(
    recommender: Recommender[Any],
    histories: np.ndarray,
    slate_size: int,
    exclude_history: bool,
    batch_size: int = 1024,
) -> np.ndarray:
    """(n, slate_size) the best items after each history."""
    slates = []
    for start in range(0, len(histories), _BATCH):
        some = histories[start : start + _BATCH]
        exclude = None
        if exclude_history:
            rows, columns = np.nonzero(some)
            exclude = (rows, some[rows, columns])
        slates.append(top_items(recommender.score(torch.from_numpy(some)), slate_size, exclude=exclude).numpy())
    return np.concatenate(slates)


def _means(columns: Mapping[str, np.ndarray], bootstrap: int, seed: int) -> dict[str, float]:
    if not bootstrap:
        return {name: float(values.mean()) for name, values in columns.items()}
    results: dict[str, float] = {}
    for name, (mean, low, high) in bootstrap_intervals(columns, resamples=bootstrap, seed=seed).items():
        results |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return results
