"""The entry-point groups under which packages offer their methods; looked up without importing them."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

RECOMMENDERS = "predilect.recommenders"
METHODS = "predilect.methods"


def registered(*groups: str) -> list[EntryPoint]:
    """What is installed under these groups, by name; a name that several packages register stands for the first."""
    found: dict[str, EntryPoint] = {}
    for group in groups or (RECOMMENDERS, METHODS):
        for entry in entry_points(group=group):
            found.setdefault(entry.name, entry)
    return [found[name] for name in sorted(found)]
