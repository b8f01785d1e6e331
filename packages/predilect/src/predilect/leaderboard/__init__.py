"""The leaderboard: fit every recommender on one data set under one protocol, compare, report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from predilect.leaderboard.config import DataConfig as DataConfig
    from predilect.leaderboard.config import LeaderboardConfig as LeaderboardConfig
    from predilect.leaderboard.config import ProtocolConfig as ProtocolConfig
    from predilect.leaderboard.config import SplitConfig as SplitConfig
    from predilect.leaderboard.preparation import prepare as prepare
    from predilect.leaderboard.preparation import read_data as read_data
    from predilect.leaderboard.results import Leaderboard as Leaderboard
    from predilect.leaderboard.results import ModelResult as ModelResult
    from predilect.leaderboard.runner import run_leaderboard as run_leaderboard

__all__ = [
    "DataConfig",
    "Leaderboard",
    "LeaderboardConfig",
    "ModelResult",
    "ProtocolConfig",
    "prepare",
    "read_data",
    "run_leaderboard",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "DataConfig": "predilect.leaderboard.config",
        "LeaderboardConfig": "predilect.leaderboard.config",
        "ProtocolConfig": "predilect.leaderboard.config",
        "SplitConfig": "predilect.leaderboard.config",
        "read_data": "predilect.leaderboard.preparation",
        "prepare": "predilect.leaderboard.preparation",
        "Leaderboard": "predilect.leaderboard.results",
        "ModelResult": "predilect.leaderboard.results",
        "run_leaderboard": "predilect.leaderboard.runner",
    },
)
