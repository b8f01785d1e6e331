"""Recommendation as a decision process learned from logs: SQN, SNQN, SA2C, CQL and a reconstruction of MCRL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offline_rl_rec.simulation.registration import register
from predilect.lazy import attach

if TYPE_CHECKING:
    from offline_rl_rec.configuration import AgentConfig as AgentConfig
    from offline_rl_rec.leaderboard import ReturnsOfLists as ReturnsOfLists
    from offline_rl_rec.logged_policies import logged_episodes as logged_episodes
    from offline_rl_rec.metrics import with_returns as with_returns
    from offline_rl_rec.modeling import AgentModel as AgentModel
    from offline_rl_rec.off_policy import LoggedEpisodes as LoggedEpisodes
    from offline_rl_rec.off_policy import off_policy_estimates as off_policy_estimates
    from offline_rl_rec.recommenders import CQL as CQL
    from offline_rl_rec.recommenders import MCRL as MCRL
    from offline_rl_rec.recommenders import SA2C as SA2C
    from offline_rl_rec.recommenders import SNQN as SNQN
    from offline_rl_rec.recommenders import SQN as SQN
    from offline_rl_rec.recommenders import Agent as Agent
    from offline_rl_rec.recommenders import RemainingItems as RemainingItems
    from offline_rl_rec.sessions import RewardRule as RewardRule
    from offline_rl_rec.sessions import Sessions as Sessions
    from offline_rl_rec.sessions import discounted_returns as discounted_returns
    from offline_rl_rec.sessions import with_behaviours as with_behaviours
    from offline_rl_rec.simulation.logit import LogitChoice as LogitChoice
    from offline_rl_rec.simulation.returns import simulate as simulate
    from offline_rl_rec.simulation.transition import TransitionChoice as TransitionChoice
    from offline_rl_rec.simulation.users import UserSimulator as UserSimulator

__version__ = "0.1.0"

_HOMES = {
    "configuration": ("AgentConfig",),
    "leaderboard": ("ReturnsOfLists",),
    "logged_policies": ("logged_episodes",),
    "metrics": ("with_returns",),
    "modeling": ("AgentModel",),
    "off_policy": ("LoggedEpisodes", "off_policy_estimates"),
    "recommenders": ("CQL", "MCRL", "SA2C", "SNQN", "SQN", "Agent", "RemainingItems"),
    "sessions": ("RewardRule", "Sessions", "discounted_returns", "with_behaviours"),
    "simulation.logit": ("LogitChoice",),
    "simulation.returns": ("simulate",),
    "simulation.transition": ("TransitionChoice",),
    "simulation.users": ("UserSimulator",),
}

__all__ = [
    "CQL",
    "MCRL",
    "SA2C",
    "SNQN",
    "SQN",
    "Agent",
    "AgentConfig",
    "AgentModel",
    "LoggedEpisodes",
    "LogitChoice",
    "RemainingItems",
    "ReturnsOfLists",
    "RewardRule",
    "Sessions",
    "TransitionChoice",
    "UserSimulator",
    "__version__",
    "discounted_returns",
    "logged_episodes",
    "off_policy_estimates",
    "simulate",
    "with_behaviours",
    "with_returns",
]

__getattr__, __dir__ = attach(
    __name__, {name: f"offline_rl_rec.{home}" for home, names in _HOMES.items() for name in names}
)

register()  # so that gymnasium.make knows predilect/SessionRec-v0
