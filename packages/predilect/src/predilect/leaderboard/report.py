"""`report.html`: a leaderboard as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from predilect.leaderboard import charts
from predilect.leaderboard.results import HEADLINE, GroupComparison, Leaderboard, ModelComparison
from predilect.runs import write_text

STRATEGIES = {
    "temporal": "by time: two moments cut everybody's log into training, validation and test",
    "leave_one_out": "leave one out: everybody's last item is tested, the one before validates",
    "by_user": "by user: whole users go to training, validation or test",
    "official": "the split that the data set comes with",
}
_KINDS = {
    "target_frequency": "By how often the target was taken in training",
    "history_length": "By how much the user had taken before",
    "repeat": "By whether the user had taken the target before",
}
_ORDER = ("never", "0 to 5", "1 to 5", "6 to 20", "6 to 50", "21 to 50", "more", "new", "repeat")
_COLUMNS = {"more": "more than 50"}


def write_report(board: Leaderboard, path: str | Path) -> None:
    """Render the page and write it.

    Everything is in the one file: styles, scripts and drawings; it makes no request, and its content security policy
    forbids any. All text from the data is escaped.
    """
    write_text(Path(path), render(board))


def render(board: Leaderboard) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("predilect.leaderboard", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, duration=charts.duration, percent=percent)
    return environment.get_template("report.html.j2").render(
        board=board,
        display=board.display,
        headline=headline(board),
        finding=finding(board),
        sampled=sampled(board),
        columns=metric_columns(board),
        best=best_values(board),
        lowest={name for name in metric_columns(board) if lower_is_better(board, name)},
        meanings=further_meanings(board),
        marks={m.name: mark(board, m.name) for m in board.ranked},
        kinds=kind_tables(board),
        repeats=repeat_share(board),
        styles=charts.series(board),
        ranking=charts.ranking(board),
        scatter=charts.accuracy_and_time(board),
        curves=charts.learning_curves(board),
        figures=[charts.figure(drawn, charts.series(board)) for drawn in board.figures],
        strategy=STRATEGIES.get(board.protocol["strategy"], ""),
        date=datetime.fromisoformat(board.date).strftime("%d %B %Y, %H:%M UTC"),
        counted=[name for name in board.counts[0] if name != "step"] if board.counts else [],
    )


def headline(board: Leaderboard) -> str:
    """The finding in one sentence."""
    best, baseline, verb = board.best, board.best_baseline, board.display.verb
    if best is None:
        return "No model finished."
    if baseline is None:
        return f"{best.name} {verb}."
    if best.name == baseline.name:
        others = [m for m in board.ranked if not m.is_baseline]
        if not others:
            return f"{best.name} {verb}."
        won = max((c for c in board.group_comparisons if c.beats), key=lambda c: c.low, default=None)
        if won is None:
            return f"No trained model beats {best.name}."
        return f"On the whole no trained model beats {best.name}; for {whom(won)} {won.model} does."
    gain = board.display.sign * (best.headline / baseline.headline - 1) if baseline.headline else None
    compared = board.compared(best.name, baseline.name)
    if compared is None or not compared.is_significant:
        return f"{best.name} comes first, but its lead over {baseline.name} is within the noise."
    if gain is None:
        return f"{best.name} {verb}."
    return (
        f"{best.name} {verb}, {gain:.0%} {'above' if board.display.sign > 0 else 'less error than'} {baseline.name}."
    )


def finding(board: Leaderboard) -> str:
    """What stands behind the headline: level, interval, and who is as good."""
    best = board.best
    if best is None:
        return "Every model failed; the table gives the reasons."
    m = best.metrics
    low, high = best.interval
    sentence = (
        f"{board.display.sentence.format(**m)} ({board.display.metric} {number(best.headline)}, 95 % interval "
        f"{number(low)} to {number(high)})."
    )
    pairs = [(other.name, board.compared(best.name, other.name)) for other in board.ranked[1:]]
    close = [name for name, c in pairs if c is not None and not c.is_significant]
    if close:
        return f"{sentence} Its difference to {_join(close)} is within the noise."
    return f"{sentence} Its lead over every other model is larger than the noise." if pairs else sentence


def whom(compared: GroupComparison) -> str:
    """The rows of a kind in words.

    Examples:
        >>> whom(GroupComparison("a", "b", "target_frequency", "1 to 5", 9, 9, 0.1, 0.0, 0.2, False, False))
        'items taken 1 to 5 times in training'
    """
    if compared.by == "history_length":
        return f"people with {_number(compared.group)} items before"
    if compared.group == "never":
        return "items never taken in training"
    return f"items taken {_number(compared.group)} times in training"


def _number(group: str) -> str:
    return "more than 50" if group == "more" else group


def kind_tables(board: Leaderboard) -> list[dict[str, Any]]:
    """A table for each kind of row: its title, its columns with their number of rows, and a line for each model.

    What was taken before is a kind of its own where that is more than 1 % of the rows.
    """
    tables = []
    for by, title in _KINDS.items():
        if by == "repeat" and repeat_share(board) <= 0.01:
            continue
        models = [m for m in board.ranked if by in m.groups]
        columns = {group: int(found["rows"]) for m in reversed(models) for group, found in m.groups[by].items()}
        if not columns:
            continue
        order = [group for group in _ORDER if group in columns]
        best = {g: max(m.groups[by][g][HEADLINE] for m in models if g in m.groups[by]) for g in order}
        lines = [
            {"name": m.name, "cells": [_kind_cell(board, m.name, by, g, m.groups[by].get(g), best[g]) for g in order]}
            for m in models
        ]
        tables.append({"title": title, "columns": [(_COLUMNS.get(g, g), columns[g]) for g in order], "lines": lines})
    return tables


def _kind_cell(
    board: Leaderboard, model: str, by: str, group: str, found: dict[str, float] | None, best: float
) -> dict[str, Any] | None:
    if found is None:
        return None
    compared = next((c for c in board.group_comparisons if (c.model, c.by, c.group) == (model, by, group)), None)
    sign = "" if compared is None else "▲" if compared.beats else "▼" if compared.loses else "≈"
    ends = [found.get(f"{HEADLINE}_{end}") for end in ("low", "high")]
    return {"value": found[HEADLINE], "low": ends[0], "high": ends[1], "best": found[HEADLINE] == best, "sign": sign}


def repeat_share(board: Leaderboard) -> float:
    """Share of the test rows whose target its user had taken before."""
    best = board.best
    return float(best.metrics.get("repeat_targets", 0)) / float(best.metrics["rows"]) if best else 0.0


def sampled(board: Leaderboard) -> str:
    """Which models ranked some of the rows only, in words; empty where none did."""
    counts = [f"{m.name} ranked {m.metrics['rows']:,}" for m in board.sampled]
    if not counts:
        return ""
    return (
        f"{_join(counts)} of the {board.num_rows:,} test rows, drawn at random; comparisons are on the rows that both "
        "models ranked."
    )


def metric_columns(board: Leaderboard) -> list[str]:
    """The metrics that any model reports, in the order of the table."""
    return [name for name in (*board.display.columns, *board.further) if any(name in m.metrics for m in board.ranked)]


def lower_is_better(board: Leaderboard, name: str) -> bool:
    """Whether the lowest value of a column is its best."""
    return name in board.display.lower or bool(board.further.get(name, {}).get("lower_is_better", False))


def best_values(board: Leaderboard) -> dict[str, float]:
    """The best value of every column of the table."""
    return {
        name: (min if lower_is_better(board, name) else max)(
            float(m.metrics[name]) for m in board.ranked if name in m.metrics
        )
        for name in metric_columns(board)
    }


def further_meanings(board: Leaderboard) -> list[tuple[str, str]]:
    """(columns, meaning) of the metrics of other packages; columns with the same meaning together."""
    columns: dict[str, list[str]] = {}
    for name in metric_columns(board):
        if name in board.further:
            columns.setdefault(board.further[name]["meaning"], []).append(name)
    return [(", ".join(names), meaning) for meaning, names in columns.items()]


def mark(board: Leaderboard, model: str) -> tuple[str, str]:
    """Sign and explanation of a model's difference to the best counting method; empty for that method itself."""
    baseline = board.best_baseline
    compared = board.compared(model, baseline.name) if baseline else None
    if compared is None:
        return "", ""
    sign = "≈" if not compared.is_significant else "▲" if board.display.sign * compared.difference > 0 else "▼"
    return sign, describe(compared)


def describe(compared: ModelComparison) -> str:
    """A comparison in words."""
    return (
        f"{compared.difference:+.4f} against {compared.other} "
        f"(95 % interval {compared.low:+.4f} to {compared.high:+.4f}, p = {compared.p_value:.3g})"
    )


def number(value: float) -> str:
    """A metric as the table prints it."""
    return f"{value:.4f}"


def percent(value: float) -> str:
    """A share of 0..1 as a percentage."""
    return f"{value:.1%}"


def _join(names: Sequence[Any]) -> str:
    return str(names[0]) if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
