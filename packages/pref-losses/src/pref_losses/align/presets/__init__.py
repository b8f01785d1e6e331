"""The papers' hyper-parameters by name; each is a YAML file in this folder that says where its values come from."""

from __future__ import annotations

from typing import Any

from predilect.presets import Presets

_PRESETS = Presets(__name__)


def preset_names() -> list[str]:
    """Names that `--preset` takes."""
    return _PRESETS.names()


def read_preset(name: str) -> dict[str, Any]:
    """The options of a preset, `method` among them; an unknown name is a ValueError that names close ones."""
    return _PRESETS.read(name)


def describe_presets() -> str:
    """One line a preset: its name and the first line of its file."""
    return _PRESETS.describe()
