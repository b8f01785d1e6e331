"""Settings by name: a package's folder of YAML files, each of which says in comments where its values come from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.resources import files
from typing import Any


class Presets:
    """The YAML files of a package.

    Args:
        package: its name; the module in which they lie.
    """

    def __init__(self, package: str) -> None:
        self._folder = files(package)

    def names(self) -> list[str]:
        """In alphabetical order."""
        return sorted(p.name.removesuffix(".yaml") for p in self._folder.iterdir() if p.name.endswith(".yaml"))

    def read(self, name: str) -> dict[str, Any]:
        """The content of a preset: `method`, and `set`, its options.

        Raises:
            ValueError: an unknown name; close ones are named.
        """
        import yaml

        if name not in self.names():
            raise ValueError(f"there is no preset {name!r}; {close_matches(name, self.names())}")
        values: dict[str, Any] = yaml.safe_load(self._text(name))
        return values

    def summary(self, name: str) -> str:
        """The first line of a preset's file."""
        return self._text(name).splitlines()[0].removeprefix("# ")

    def describe(self) -> str:
        """One line a preset: its name and its summary."""
        width = max(map(len, self.names()))
        return "\n".join(f"{name:<{width}}  {self.summary(name)}" for name in self.names())

    def _text(self, name: str) -> str:
        return (self._folder / f"{name}.yaml").read_text(encoding="utf-8")


def close_matches(name: str, names: Iterable[str]) -> str:
    """What a mistyped name may have meant, as the end of a message."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
