"""The command `predilect`; packages add theirs through the entry-point group `predilect.commands`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from predilect.cli.options import config_command as config_command
    from predilect.cli.root import app as app
    from predilect.cli.root import main as main

__all__ = ["app", "config_command", "main"]

# Lazy, because a plug-in that imports `predilect.cli.options` must not set off the loading of plug-ins.
__getattr__, __dir__ = attach(
    __name__,
    {"app": "predilect.cli.root", "main": "predilect.cli.root", "config_command": "predilect.cli.options"},
)
