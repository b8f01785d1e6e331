"""The leaderboard as a table in the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from predilect.leaderboard.charts import duration
from predilect.leaderboard.report import best_values, mark, metric_columns, number, percent
from predilect.leaderboard.results import HEADLINE, Leaderboard, ModelResult

_SHARES = ("coverage@10", "valid_ratio")


def results_table(board: Leaderboard) -> Table:
    """One row per model, best first; the best value of each column is bold, failed models come last with their reason."""
    columns = metric_columns(board)
    baseline = board.best_baseline
    caption = ["ndcg@10 with its 95 % interval, bootstrap over users"]
    if baseline is not None:
        caption.append(
            f"against {baseline.name}, the best method without training: ▲ better ▼ worse ≈ within the noise"
        )
    title = f"{board.protocol['data']}, {board.protocol['strategy']} split" + (
        " (quick)" if board.config["quick"] else ""
    )
    table = Table(title=title, caption="\n".join(caption), title_style="bold", header_style="bold")
    table.add_column("model", no_wrap=True)
    for name in [*columns, "parameters", "fit", "rank"]:
        table.add_column(name, justify="right", no_wrap=True)
    best = best_values(board)
    for model in board.ranked:
        table.add_row(model.name, *(_cell(board, model, name, best[name]) for name in columns), *_costs(model))
    for model in board.failed:
        table.add_row(Text(model.name, style="red"), Text("failed", style="red"))
    return table


def _cell(board: Leaderboard, model: ModelResult, name: str, best: float) -> Text:
    if name not in model.metrics:
        return Text("-", style="dim")
    value = float(model.metrics[name])
    shown = percent(value) if name in _SHARES else number(value)
    text = Text(shown, style="bold" if value == best else "")
    if name != HEADLINE:
        return text
    low, high = model.metrics[f"{HEADLINE}_low"], model.metrics[f"{HEADLINE}_high"]
    sign = mark(board, model.name)[0]
    colours = {"▲": "green", "▼": "red"}
    return Text.assemble((f"{sign} ", colours.get(sign, "")), text, (f" {number(low)}-{number(high)}", "dim"))


def _costs(model: ModelResult) -> list[str]:
    parameters = f"{model.num_parameters:,}" if model.num_parameters else "-"
    return [parameters, duration(model.fit_seconds), duration(model.evaluation_seconds)]
