"""How every PNG plot of these packages is made; needs matplotlib (the extra `plots`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0b62a8", "#c2500a", "#0a7f5c", "#9c2a72", "#8a6a00", "#5b4bb5")
"""Of lines and points, in this order; told apart with any colour vision."""


def save_figure(path: Path, draw: Callable[[Axes], None], size: tuple[float, float] = (7, 4.2)) -> Path:
    """Write one plot as PNG, whole or not at all; returns `path`.

    Args:
        path: of the file; its folder is made.
        draw: draws into the axes.
        size: width and height in inches, at 160 dots each.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=160, layout="constrained")  # without pyplot: no global state, no screen
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    figure.savefig(temporary, format="png")
    temporary.replace(path)
    return path
