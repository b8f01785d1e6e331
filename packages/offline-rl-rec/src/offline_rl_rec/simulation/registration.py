"""The environment under its name in Gymnasium."""

from __future__ import annotations

import gymnasium

ENVIRONMENT = "predilect/SessionRec-v0"

_ENTRY = "offline_rl_rec.simulation.environment"


def register() -> None:
    """Make `gymnasium.make` and `gymnasium.make_vec` know the environment; twice does no harm."""
    if ENVIRONMENT not in gymnasium.registry:
        gymnasium.register(
            id=ENVIRONMENT, entry_point=f"{_ENTRY}:SessionRec", vector_entry_point=f"{_ENTRY}:VectorSessionRec"
        )
