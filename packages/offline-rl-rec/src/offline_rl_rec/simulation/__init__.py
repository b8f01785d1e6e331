"""Simulated users, as a Gymnasium environment and as a test of recommenders by what long sessions earn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from offline_rl_rec.simulation.environment import SessionRec as SessionRec
    from offline_rl_rec.simulation.environment import VectorSessionRec as VectorSessionRec
    from offline_rl_rec.simulation.environment import packaged_simulator as packaged_simulator
    from offline_rl_rec.simulation.logit import LogitChoice as LogitChoice
    from offline_rl_rec.simulation.realism import Realism as Realism
    from offline_rl_rec.simulation.registration import ENVIRONMENT as ENVIRONMENT
    from offline_rl_rec.simulation.returns import SimulatedReturns as SimulatedReturns
    from offline_rl_rec.simulation.returns import simulate as simulate
    from offline_rl_rec.simulation.tabular import TabularEnv as TabularEnv
    from offline_rl_rec.simulation.tabular import TabularMDP as TabularMDP
    from offline_rl_rec.simulation.transition import TransitionChoice as TransitionChoice
    from offline_rl_rec.simulation.users import Leaving as Leaving
    from offline_rl_rec.simulation.users import Users as Users
    from offline_rl_rec.simulation.users import UserSimulator as UserSimulator

SIMULATORS = ("logit", "transition")
"""Names of the families of simulated users."""

_HOMES = {
    "environment": ("SessionRec", "VectorSessionRec", "packaged_simulator"),
    "logit": ("LogitChoice",),
    "realism": ("Realism",),
    "registration": ("ENVIRONMENT",),
    "returns": ("SimulatedReturns", "simulate"),
    "tabular": ("TabularEnv", "TabularMDP"),
    "transition": ("TransitionChoice",),
    "users": ("Leaving", "UserSimulator", "Users"),
}

__all__ = [
    "ENVIRONMENT",
    "SIMULATORS",
    "Leaving",
    "LogitChoice",
    "Realism",
    "SessionRec",
    "SimulatedReturns",
    "TabularEnv",
    "TabularMDP",
    "TransitionChoice",
    "UserSimulator",
    "Users",
    "VectorSessionRec",
    "packaged_simulator",
    "simulate",
    "simulator_class",
]


def simulator_class(name: str) -> type[UserSimulator]:
    """The family of that name.

    Raises:
        ValueError: there is none; lists those that there are.
    """
    from offline_rl_rec.simulation.logit import LogitChoice
    from offline_rl_rec.simulation.transition import TransitionChoice

    families: dict[str, type[UserSimulator]] = {kind.name: kind for kind in (LogitChoice, TransitionChoice)}
    if name not in families:
        raise ValueError(f"simulators are {', '.join(families)} (got {name!r})")
    return families[name]


__getattr__, __dir__ = attach(
    __name__, {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names}
)
