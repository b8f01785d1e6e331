"""PNG plots of training runs, from what the trainer logged; needs matplotlib (the extra `plots`)."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predilect.figures import COLOURS, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Log = Sequence[Mapping[str, Any]]
_COLOURS = (*COLOURS, "#7c8088", "#b03030")

# file: what its axis says, and the logged keys with the style of their lines
_PLOTS: dict[str, tuple[str, dict[str, str]]] = {
    "margins.png": ("margin of rewards", {"rewards/margins": "-", "eval_rewards/margins": "o"}),
    "accuracy.png": ("accuracy of rewards", {"rewards/accuracies": "-", "eval_rewards/accuracies": "o"}),
    "beta.png": ("beta in force", {"beta": "-"}),
    "weights.png": (
        "weight of an example (mean 1)",
        {"weights/clean": "-", "weights/flipped": "--", "weights/max": ":"},
    ),
}


def write_plots(
    logs: Mapping[str, Log], folder: Path, weights: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None
) -> list[Path]:
    """One file a quantity, one colour a run.

    Args:
        logs: name of a run -> its trainer's `log_history`.
        folder: where the files go.
        weights: name of a run -> weights of its clean and of its flipped examples, for `weights_histogram.png`.

    Returns:
        The files written: `margins.png`, `accuracy.png`, `beta.png`, `weights.png`, those of them for which something
        was logged; none, after a message, where matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        print("no plots: matplotlib is not installed (pip install 'pref-losses[plots]')", file=sys.stderr)
        return []
    written = []
    for name, (label, keys) in _PLOTS.items():
        if any(key in entry for log in logs.values() for entry in log for key in keys):
            written.append(save_figure(folder / name, partial(_curves, logs=logs, keys=keys, label=label)))
    if weights:
        written.append(save_figure(folder / "weights_histogram.png", lambda axes: _histogram(axes, weights)))
    return written


def _curves(axes: Axes, logs: Mapping[str, Log], keys: Mapping[str, str], label: str) -> None:
    several = {key for key in keys if any(key in entry for log in logs.values() for entry in log)}
    for number, (name, log) in enumerate(logs.items()):
        for key, style in keys.items():
            points = [(entry["step"], entry[key]) for entry in log if key in entry]
            if points:
                text = f"{name}, {_meaning(key)}" if len(several) > 1 or key.startswith("weights/") else name
                axes.plot(*zip(*points, strict=True), style, color=_COLOURS[number % len(_COLOURS)], label=text)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)


def _meaning(key: str) -> str:
    if key.startswith("weights/"):
        return {"clean": "clean pairs", "flipped": "flipped pairs", "max": "largest"}[key.removeprefix("weights/")]
    return "test" if key.startswith("eval_") else "training"


def _histogram(axes: Axes, weights: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    for number, (name, parts) in enumerate(weights.items()):
        for values, kind, style in zip(parts, ("clean", "flipped"), ("-", "--"), strict=True):
            colour = _COLOURS[number % len(_COLOURS)]
            axes.ecdf(list(values), color=colour, linestyle=style, label=f"{name}, {kind} pairs")
    axes.set_xlabel("weight of an example when last seen (mean 1)")
    axes.set_ylabel("share of examples with at most that weight")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
