"""Words and paths from a terminal whose locale cannot write them, as in old containers (`LC_ALL=C`)."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def typed_text(text: str) -> str:
    """What was typed: bytes that the locale could not decode are UTF-8, if they are.

    Examples:
        >>> typed_text("Matrix")
        'Matrix'
    """
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return text


def require_path(path: str | Path) -> None:
    """Refuse a path that this locale cannot hand to every library, before anything is computed for it.

    Raises:
        ValueError: names the path and the way out.
    """
    whole = os.path.abspath(path)
    try:
        whole.encode("utf-8")
        os.fsencode(whole)
    except UnicodeEncodeError:
        named = ascii(typed_text(whole))
        raise ValueError(
            f"the path {named} cannot be written in this locale, whose file names are {sys.getfilesystemencoding()}: "
            "set PYTHONUTF8=1 or LC_ALL=C.UTF-8, or choose a path of ASCII letters"
        ) from None
