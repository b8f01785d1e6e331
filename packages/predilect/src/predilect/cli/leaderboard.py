"""`predilect leaderboard`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from predilect.cli.options import config_command
from predilect.leaderboard.config import LeaderboardConfig

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from predilect.leaderboard.contest import Contest
    from predilect.leaderboard.results import Leaderboard


@config_command(LeaderboardConfig)
def leaderboard(config: LeaderboardConfig) -> None:
    """Train and compare recommenders on one data set: table, results.json, plots and report.html."""
    from predilect.leaderboard.contest import Recommenders

    compare(config, Recommenders())


def compare(config: Any, contest: Contest) -> None:
    """Run a leaderboard, print its table and write its pages; exit status 1 where a model failed.

    Args:
        config: of the run.
        contest: what is compared.
    """
    from rich.console import Console

    from predilect.leaderboard.progress import TerminalProgress
    from predilect.leaderboard.runner import run_leaderboard
    from predilect.leaderboard.table import results_table

    console = Console()
    try:
        with TerminalProgress(console) as progress:
            board = run_leaderboard(config, contest=contest, observer=progress)
    except KeyboardInterrupt:
        console.print("\nStopped. Finished models are kept; continue with --resume.", style="yellow")
        raise typer.Exit(130) from None
    console.print()
    console.print(results_table(board, console.width))
    for model in board.failed:
        console.print(f"{model.name} failed: {model.error}", style="red", markup=False, highlight=False)
    _write_pages(board, config.output_dir, console)
    if board.failed:
        raise typer.Exit(1)


def _write_pages(board: Leaderboard, folder: Path, console: Console) -> None:
    from predilect.leaderboard.plots import write_plots
    from predilect.leaderboard.report import write_report

    write_report(board, folder / "report.html")
    try:
        write_plots(board, folder)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        console.print("no PNG plots: matplotlib is not installed (pip install 'predilect[plots]')", style="yellow")
    console.print(f"results: {folder / 'results.json'}\nreport:  {folder / 'report.html'}")
