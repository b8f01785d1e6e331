"""What installed packages register under entry points, found without importing it."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

RECOMMENDERS = "predilect.recommenders"  # methods that rank items
METHODS = "predilect.methods"  # those that do not
PROJECTORS = "predilect.projectors"  # classes of `predilect.modeling.projectors.Projector`
METRICS = "predilect.metrics"  # columns of the leaderboard: see `predilect.evaluation.further`
SPLITS = "predilect.splits"  # formats of data that come cut and with candidates: functions of a `ProtocolConfig`


def registered(*groups: str) -> dict[str, EntryPoint]:
    """Name -> entry point of everything registered in the groups, by default of every method."""
    return {e.name: e for group in groups or (RECOMMENDERS, METHODS) for e in entry_points(group=group)}


def load_registered(name: str, *groups: str, kind: str) -> Any:
    """What is registered as `name`.

    Raises:
        ValueError: nothing is; `kind` says what was looked for, and those that there are are listed.
    """
    there = registered(*groups)
    if name not in there:
        raise ValueError(f"no {kind} {name!r} is installed; there are {', '.join(sorted(there))}")
    return there[name].load()
