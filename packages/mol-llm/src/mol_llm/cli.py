"""`predilect mol`: questions about pairs of molecules."""

from __future__ import annotations

import typer

from mol_llm.leaderboard import PairLeaderboardConfig
from predilect.cli.options import config_command

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Pairs of molecules: compare methods.")


@app.callback()
def _mol() -> None:
    """Commands about pairs of molecules."""


@app.command()
@config_command(PairLeaderboardConfig)
def leaderboard(config: PairLeaderboardConfig) -> None:
    """Train and compare methods on one file of pairs: table, results.json, plots and report.html."""
    from mol_llm.leaderboard import Pairs
    from predilect.cli.leaderboard import compare

    compare(config, Pairs())
