"""Settings by name; each is a YAML file of options in this folder that says where its values come from."""

from __future__ import annotations

from typing import Any

from predilect.presets import Presets

_PRESETS = Presets(__name__)


def read_preset(name: str) -> dict[str, Any]:
    """Options of `DreamRec` by name; an unknown preset is a ValueError that names close ones."""
    return _PRESETS.read(name)


def describe_presets() -> str:
    """One line a preset."""
    return _PRESETS.describe()
