"""Results of an evaluation as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def results_table(title: str, results: Mapping[str, Any], caption: str | None = None) -> Table:
    """Metrics with their intervals (`<metric>_low`, `<metric>_high`), one a line; below, how many rows they are of."""
    from rich.table import Table

    table = Table(title=title, title_style="bold", header_style="bold")
    for column in ("metric", "value", "95 % interval"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for name, value in results.items():
        if isinstance(value, float) and not name.endswith(("_low", "_high")):
            low, high = results.get(f"{name}_low"), results.get(f"{name}_high")
            table.add_row(name, f"{value:.4f}", f"{low:.4f} to {high:.4f}" if low is not None else "")
    counts = [f"{results[name]:,} {name}" for name in ("rows", "users") if name in results]
    table.caption = caption or " of ".join(counts)
    return table
