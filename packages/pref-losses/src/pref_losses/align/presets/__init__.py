"""The papers' hyper-parameters by name; each is a YAML file in this folder that says where its values come from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

_FOLDER = files(__name__)


def preset_names() -> list[str]:
    """Names that `--preset` takes."""
    return sorted(p.name.removesuffix(".yaml") for p in _FOLDER.iterdir() if p.name.endswith(".yaml"))


def read_preset(name: str) -> dict[str, Any]:
    """The options of a preset, `method` among them.

    Raises:
        ValueError: an unknown name; close ones are named.
    """
    import yaml

    if name not in preset_names():
        raise ValueError(f"there is no preset {name!r}; {close_matches(name, preset_names())}")
    values: dict[str, Any] = yaml.safe_load(_text(name))
    return values


def describe_presets() -> str:
    """One line a preset: its name and the first line of its file."""
    names = preset_names()
    width = max(map(len, names))
    return "\n".join(f"{name:<{width}}  {_text(name).splitlines()[0].removeprefix('# ')}" for name in names)


def close_matches(name: str, names: Iterable[str]) -> str:
    """What a mistyped name may have meant, as the end of a message."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"


def _text(name: str) -> str:
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
