"""The leaderboard as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from predilect.leaderboard.charts import duration
from predilect.leaderboard.report import best_values, lower_is_better, mark, metric_columns, number, percent, sampled
from predilect.leaderboard.results import Leaderboard, ModelResult

_UNBOUND = Console(width=10_000)
_COSTS = ("parameters", "fit", "rank")
_LAST_TO_GO = ("hr@10", "fit", "coverage@10", "mrr", "hr@1")  # where the screen is narrow


def results_table(board: Leaderboard, width: int | None = None) -> Table:
    """One row per model, best first, the best value of each column bold; failed models last, with the reason.

    Args:
        board: the leaderboard.
        width: of the screen, in characters; columns that do not fit are left out, and the caption says so.
    """
    columns = [*metric_columns(board), *_COSTS]
    last = (board.display.metric, *_LAST_TO_GO)
    by_need = sorted(columns, key=lambda c: last.index(c) if c in last else len(last))
    for kept in range(len(columns), 0, -1):
        table = _table(board, [c for c in columns if c in by_need[:kept]], complete=kept == len(columns))
        if width is None or Measurement.get(_UNBOUND, _UNBOUND.options, table).maximum <= width:
            break
    return table


def _table(board: Leaderboard, columns: Sequence[str], *, complete: bool) -> Table:
    caption = [f"{board.display.metric} with its 95 % interval, bootstrap over {board.display.units}"]
    if (baseline := board.best_baseline) is not None:
        caption += [
            f"against {baseline.name}, the best method without training:",
            "▲ better ▼ worse ≈ within the noise",
        ]
    if low := [name for name in columns if lower_is_better(board, name)]:
        caption.append(f"lower is better: {', '.join(low)}")
    if board.sampled:
        caption.append(sampled(board))
    if not complete:
        caption.append("more columns on a wider screen, all in results.json")
    title = f"{board.protocol['data']}, {board.protocol['strategy']} split"
    title += " (quick)" if board.config["quick"] else ""
    table = Table(title=title, caption="\n".join(caption), title_style="bold", header_style="bold")
    table.add_column("model", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    best = best_values(board)
    for model in board.ranked:
        costs = dict(zip(_COSTS, _costs(model), strict=True))
        cells = [costs[c] if c in costs else _cell(board, model, c, best[c]) for c in columns]
        table.add_row(model.name, *cells)
    for model in board.failed:
        table.add_row(Text(model.name, style="red"), Text("failed", style="red"))
    return table


def _cell(board: Leaderboard, model: ModelResult, name: str, best: float) -> Text:
    if name not in model.metrics:
        return Text("-", style="dim")
    value = float(model.metrics[name])
    shown = percent(value) if name in board.display.shares else number(value)
    text = Text(shown, style="bold" if value == best else "")
    if name != board.display.metric:
        return text
    low, high = model.interval
    sign = mark(board, model.name)[0]
    colours = {"▲": "green", "▼": "red"}
    return Text.assemble((f"{sign} ", colours.get(sign, "")), text, (f" {number(low)}-{number(high)}", "dim"))


def _costs(model: ModelResult) -> list[str]:
    parameters = f"{model.num_parameters:,}" if model.num_parameters else "-"
    return [parameters, duration(model.fit_seconds), duration(model.evaluation_seconds)]
