"""Geometry of the report's charts: x in percent of the width, y in pixels, so that text keeps its size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from predilect.leaderboard.results import HEADLINE, Leaderboard

HEIGHT = 260
_LABEL_GAP = 16  # pixels between direct labels
_MARGIN_FROM = 55  # percent


def series(board: Leaderboard) -> dict[str, str]:
    """A style class per model: learned models get a colour each, counting methods share a neutral one."""
    learned = sorted(m.name for m in board.ranked if not m.is_baseline)
    return {m.name: "base" if m.is_baseline else f"s{learned.index(m.name) % 6}" for m in board.ranked}


def ranking(board: Leaderboard) -> dict[str, Any]:
    """One row per model: the metric and its interval on a common axis that begins at 0."""
    top = max((m.interval[1] for m in board.ranked), default=1.0)
    ticks = nice_ticks(0, top)
    end = max(top, ticks[-1])
    styles = series(board)

    def at(value: float) -> float:
        return round(100 * value / end, 3)

    rows = [
        {
            "name": m.name,
            "style": styles[m.name],
            "value": m.headline,
            "low": m.interval[0],
            "high": m.interval[1],
            "x": at(m.headline),
            "x_low": at(m.interval[0]),
            "x_high": at(m.interval[1]),
        }
        for m in board.ranked
    ]
    return {"rows": rows, "ticks": [{"x": at(t), "label": f"{t:g}"} for t in ticks]}


def accuracy_and_time(board: Leaderboard) -> dict[str, Any]:
    """Metric against seconds of fitting, on a logarithmic axis of at least two decades."""
    if not board.ranked:
        return {}
    seconds = [max(m.fit_seconds, 0.001) for m in board.ranked]
    low, high = math.floor(math.log10(min(seconds))), math.ceil(math.log10(max(seconds)) + 1e-9)
    high = max(high, low + 2)
    y_ticks = nice_ticks(0, max(m.interval[1] for m in board.ranked))
    styles = series(board)
    points = [
        {
            "name": m.name,
            "style": styles[m.name],
            "value": m.headline,
            "seconds": m.fit_seconds,
            "x": round(100 * (math.log10(s) - low) / (high - low), 3),
            "y": _y(m.headline, 0, y_ticks[-1]),
            "y_low": _y(m.interval[0], 0, y_ticks[-1]),
            "y_high": _y(m.interval[1], 0, y_ticks[-1]),
        }
        for m, s in zip(board.ranked, seconds, strict=True)
    ]
    _place_labels(points)
    return {
        "points": points,
        "x_ticks": [
            {"x": round(100 * (d - low) / (high - low), 3), "label": _duration(10.0**d)} for d in range(low, high + 1)
        ],
        "y_ticks": [{"y": _y(t, 0, y_ticks[-1]), "label": f"{t:g}"} for t in y_ticks],
        "height": HEIGHT,
    }


def learning_curves(board: Leaderboard) -> dict[str, Any]:
    """Validation metric by epoch, for models that learn in epochs; empty without one."""
    curves = {m.name: [r for r in m.curve if HEADLINE in r] for m in board.ranked}
    curves = {name: curve for name, curve in curves.items() if curve}
    if not curves:
        return {}
    last = max(r["epoch"] for curve in curves.values() for r in curve)
    first = min(1.0, *(float(curve[0]["epoch"]) for curve in curves.values()))
    y_ticks = nice_ticks(0, max(r[HEADLINE] for curve in curves.values() for r in curve))
    styles = series(board)

    def at(epoch: float) -> float:
        return float(round(100 * (epoch - first) / max(last - first, 1), 3))

    lines: list[dict[str, Any]] = []
    for name, curve in curves.items():
        points = [
            {"x": at(r["epoch"]), "y": _y(r[HEADLINE], 0, y_ticks[-1]), **r, "value": r[HEADLINE]} for r in curve
        ]
        best = max(points, key=lambda p: p["value"])
        lines.append({"name": name, "style": styles[name], "points": points, "best": best})
    labels = [{"name": line["name"], "x": 0.0, "y": line["points"][-1]["y"]} for line in lines]
    _spread(labels)
    for line, label in zip(lines, labels, strict=True):
        line["label_y"] = label["label_y"]
    steps = [t for t in nice_ticks(first, last) if first <= t <= last and t == int(t)]
    return {
        "lines": lines,
        "x_ticks": [{"x": at(t), "label": f"{t:g}"} for t in steps],
        "y_ticks": [{"y": _y(t, 0, y_ticks[-1]), "label": f"{t:g}"} for t in y_ticks],
        "height": HEIGHT,
    }


def figure(drawn: dict[str, Any], styles: dict[str, str]) -> dict[str, Any]:
    """One of `Leaderboard.figures`: points, or lines, of several models on common axes."""
    points = [point for series in drawn["series"] for point in series["points"]]
    x_ticks, y_ticks = (nice_ticks(min(axis), max(axis)) for axis in zip(*points, strict=True))
    if drawn["diagonal"]:
        x_ticks = y_ticks = nice_ticks(min(x_ticks[0], y_ticks[0]), max(x_ticks[-1], y_ticks[-1]))

    def place(x: float, y: float) -> dict[str, float]:
        across = round(100 * (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]), 3)
        return {"x": across, "y": _y(y, y_ticks[0], y_ticks[-1])}

    series = [
        {**one, "style": styles[one["name"]], "points": [place(*point) for point in one["points"]]}
        for one in drawn["series"]
    ]
    return {
        **drawn,
        "series": series,
        "x_ticks": [{"x": place(t, y_ticks[0])["x"], "label": f"{t:g}"} for t in x_ticks],
        "y_ticks": [{"y": place(x_ticks[0], t)["y"], "label": f"{t:g}"} for t in y_ticks],
        "height": HEIGHT,
    }


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about `count` of them.

    Examples:
        >>> nice_ticks(0, 0.063)
        [0.0, 0.02, 0.04, 0.06, 0.08]
    """
    if not high > low:
        high = low + 1.0
    raw = (high - low) / max(count - 1, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    begin, end = math.floor(low / step), math.ceil(high / step - 1e-9)
    return [round(n * step, 10) for n in range(begin, end + 1)]


def _place_labels(points: list[dict[str, Any]]) -> None:
    """Points in the left part have their label beside them; those in the right part in one column at the margin."""
    for point in points:
        point["margin"] = point["x"] > _MARGIN_FROM
    _spread([p for p in points if p["margin"]])
    beside: list[dict[str, Any]] = []
    for point in sorted((p for p in points if not p["margin"]), key=lambda p: p["x"]):
        near = [
            p["label_y"] for p in beside if point["x"] - p["x"] < 35 and abs(p["label_y"] - point["y"]) < _LABEL_GAP
        ]
        point["label_y"] = point["y"] + (_LABEL_GAP + max(near) - point["y"] if near else 0)
        beside.append(point)


def _spread(labels: Sequence[dict[str, Any]]) -> None:
    """Move apart labels that would overlap: down, in the order of their marks; then up where they leave the plot."""
    ordered = sorted(labels, key=lambda label: label["y"])
    floor = -math.inf
    for label in ordered:
        label["label_y"] = floor = max(label["y"], floor + _LABEL_GAP)
    ceiling = HEIGHT - 4.0
    for label in reversed(ordered):
        label["label_y"] = ceiling = min(label["label_y"], ceiling)
        ceiling -= _LABEL_GAP


def _y(value: float, low: float, high: float) -> float:
    return round(HEIGHT - HEIGHT * (value - low) / (high - low), 2)


def _duration(seconds: float) -> str:
    """1 ms, 0.1 s, 10 s, 17 min."""
    if seconds < 0.01:
        return f"{seconds * 1000:g} ms"
    return f"{seconds:g} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 41 ms, 3.2 s, 1 min 05 s.

    Examples:
        >>> duration(0.041), duration(0.416), duration(3.21), duration(65), duration(3700)
        ('41 ms', '0.42 s', '3.2 s', '1 min 05 s', '1 h 01 min')
    """
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2g} s" if seconds < 0.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
