"""PNG plots of a leaderboard, for papers and slides; needs matplotlib (the extra `plots`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from predilect.figures import COLOURS, save_figure
from predilect.leaderboard import charts
from predilect.leaderboard.results import HEADLINE, Leaderboard

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GREY = "#7c8088"


def write_plots(board: Leaderboard, folder: Path) -> list[Path]:
    """Write `ranking.png`, `accuracy_time.png` and, where models learn in epochs, `learning_curves.png`.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    if not board.ranked:
        return []
    drawings = {"ranking.png": _ranking, "accuracy_time.png": _accuracy_time}
    if any(m.curve for m in board.ranked):
        drawings["learning_curves.png"] = _learning_curves
    return [_write(folder / name, draw, board) for name, draw in drawings.items()]


def _write(path: Path, draw: Any, board: Leaderboard) -> Path:
    quick = " (quick run)" if board.config["quick"] else ""

    def draw_with_title(axes: Axes) -> None:
        draw(axes, board)
        axes.set_title(f"{board.protocol['data']}, {board.protocol['strategy']} split{quick}", loc="left", fontsize=10)

    return save_figure(path, draw_with_title)


def _colours(board: Leaderboard) -> dict[str, str]:
    learned = sorted(m.name for m in board.ranked if not m.is_baseline)
    return {m.name: _GREY if m.is_baseline else COLOURS[learned.index(m.name) % len(COLOURS)] for m in board.ranked}


def _ranking(axes: Axes, board: Leaderboard) -> None:
    colours = _colours(board)
    for place, m in enumerate(reversed(board.ranked)):
        axes.plot(m.interval, [place, place], color=colours[m.name], linewidth=2, alpha=0.6)
        axes.plot(m.headline, place, "s" if m.is_baseline else "o", color=colours[m.name], markersize=8)
    axes.set_yticks(range(len(board.ranked)), [m.name for m in reversed(board.ranked)])
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"{board.display.metric} on the test rows, 95 % interval")


def _accuracy_time(axes: Axes, board: Leaderboard) -> None:
    colours, chart = _colours(board), charts.accuracy_and_time(board)
    top = float(chart["y_ticks"][-1]["label"])
    axes.set(xscale="log", ylim=(0, top), xlabel="seconds of training", ylabel=board.display.metric)
    axes.grid(alpha=0.3)
    for m, point in zip(board.ranked, chart["points"], strict=True):
        seconds, label = max(m.fit_seconds, 0.001), top * (1 - point["label_y"] / charts.HEIGHT)
        axes.plot(seconds, m.headline, "s" if m.is_baseline else "o", color=colours[m.name], markersize=8)
        line = {"arrowstyle": "-", "color": colours[m.name], "alpha": 0.4} if point["margin"] else None
        place: Any = (1.02, label / top) if point["margin"] else (seconds, label)
        axes.annotate(
            m.name if point["margin"] else f"   {m.name}",
            (seconds, m.headline),
            xytext=place,
            textcoords="axes fraction" if point["margin"] else "data",
            va="center",
            fontsize=8,
            arrowprops=line,
        )


def _learning_curves(axes: Axes, board: Leaderboard) -> None:
    colours = _colours(board)
    for m in board.ranked:
        if m.curve:
            epochs, values = [r["epoch"] for r in m.curve], [r[HEADLINE] for r in m.curve]
            axes.plot(epochs, values, "o-", color=colours[m.name], markersize=3, label=m.name)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{HEADLINE} on the validation rows")
    axes.legend(frameon=False)
