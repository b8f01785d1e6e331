"""Simulated users, as a Gymnasium environment and as a test of recommenders by what long sessions earn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from offline_rl_rec.simulation.logit import LogitChoice as LogitChoice
    from offline_rl_rec.simulation.transition import TransitionChoice as TransitionChoice
    from offline_rl_rec.simulation.users import Leaving as Leaving
    from offline_rl_rec.simulation.users import Users as Users
    from offline_rl_rec.simulation.users import UserSimulator as UserSimulator

_HOMES = {
    "logit": ("LogitChoice",),
    "transition": ("TransitionChoice",),
    "users": ("Leaving", "UserSimulator", "Users"),
}

__all__ = ["Leaving", "LogitChoice", "TransitionChoice", "UserSimulator", "Users"]

__getattr__, __dir__ = attach(
    __name__, {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names}
)
