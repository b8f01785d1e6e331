"""`predilect data inspect` and `predilect data convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from predilect.cli.options import config_command
from predilect.encoding import require_path
from predilect.leaderboard.config import ReaderConfig

if TYPE_CHECKING:
    from rich.console import Console

    from predilect.data import RecDataset

app = typer.Typer(help="Look at data sets and convert them.", no_args_is_help=True, add_completion=False)


@app.command("inspect")
@config_command(ReaderConfig)
def inspect_data(
    config: ReaderConfig,
    source: Annotated[
        str | None, typer.Argument(metavar="[NAME_OR_PATH]", help="A packaged data set, or a folder or file.")
    ] = None,
    list_readers: Annotated[bool, typer.Option("--list", help="List the formats and where to get the files.")] = False,
) -> None:
    """Say what is in a data set and what is wrong with it; without an argument, list the known formats."""
    from rich.console import Console

    console = Console()
    if source is None or list_readers:
        _print_readers(console)
        return
    from predilect.leaderboard.preparation import read_data

    data = read_data(source, config)
    _print_counts(console, data)
    _print_head(console, data)
    console.print(f"\n[bold]Check[/] {len(data.report.errors)} errors, {len(data.report.warnings)} warnings")
    console.print(str(data.report), markup=False, highlight=False, soft_wrap=True)


@app.command("convert")
@config_command(ReaderConfig)
def convert_data(
    config: ReaderConfig,
    source: Annotated[str, typer.Argument(help="A packaged data set, or a folder or file in a known format.")],
    destination: Annotated[Path, typer.Argument(help="Folder to write; it must not exist, or be empty.")],
    to: Annotated[
        Literal["parquet", "recbole"], typer.Option(help="Parquet folder of predilect, or RecBole's atomic files.")
    ] = "parquet",
) -> None:
    """Convert a data set from any known format."""
    require_path(destination)
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ValueError(f"{destination} exists and is not an empty folder: choose another destination")
    from predilect.cli.recbole import write_recbole
    from predilect.leaderboard.preparation import read_data

    data = read_data(source, config)
    if to == "parquet":
        data.save(destination)
    else:
        write_recbole(data, destination)
    typer.echo(f"wrote {data!r} to {destination}")
    dropped = data.report.errors
    if dropped:
        typer.echo(f"rows with errors were dropped:\n{data.report}", err=True)


def _print_readers(console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from predilect.data import READERS, available_data

    console.print(f"In the package: {', '.join(available_data())}\n", highlight=False)
    table = Table(title="Formats that are read from files", title_style="bold", header_style="bold", show_lines=True)
    for column in ("format", "files", "where to get them"):
        table.add_column(column, overflow="fold", no_wrap=column == "format")
    for name, reader in READERS.items():
        table.add_row(name, Text("\n".join(reader.files)), Text(reader.where))
    console.print(table)


def _print_counts(console: Console, data: RecDataset) -> None:
    from rich.table import Table

    table = Table(title=data.name, title_style="bold", header_style="bold")
    for column in ("step", "interactions", "users", "items"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for c in data.counts:
        table.add_row(c.step, f"{c.interactions:,}", f"{c.users:,}", f"{c.items:,}")
    console.print(table)
    last = data.counts[-1]
    filled = last.interactions / (last.users * last.items)
    console.print(f"sparsity    {1 - filled:.3%} of all pairs of user and item are empty", highlight=False)
    times = data.interactions.with_format("arrow")[:]["timestamp"].to_numpy()
    console.print(f"time        {_moment(int(times.min()))} to {_moment(int(times.max()))}", highlight=False)
    repeats, protocol = repeated(data)
    console.print(f"repeats     {repeats:.1%} of the interactions: {protocol}", highlight=False)
    titled = sum(bool(title) for title in data.catalogue.titles)
    console.print(f"titles      {titled:,} of {last.items:,} items", highlight=False)


def repeated(data: RecDataset) -> tuple[float, str]:
    """Share of the interactions whose user had taken the item before, and the protocol that suits such a log."""
    import numpy as np

    table = data.interactions.with_format("arrow")[:]
    pairs = np.stack([table["user_id"].to_numpy(), table["item_id"].to_numpy()], axis=1)
    share = 1 - len(np.unique(pairs, axis=0)) / len(pairs)
    if share > 0.01:
        return share, "people come back to items, rank with --no-mask-seen, which hides nothing"
    return share, "people take an item once, rank without what they took before (--mask-seen, the default)"


def _print_head(console: Console, data: RecDataset, rows: int = 5) -> None:
    from rich.table import Table
    from rich.text import Text

    for name, dataset in (("interactions", data.interactions), ("items", data.items)):
        table = Table(title=f"\n{name}: first {min(rows, len(dataset))} of {len(dataset):,}", header_style="bold")
        for column in dataset.column_names:
            table.add_column(column, overflow="ellipsis", max_width=36)
        for row in dataset.select(range(min(rows, len(dataset)))):
            table.add_row(*(Text(_shown(value)) for value in row.values()))
        console.print(table)


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _moment(seconds: int) -> str:
    """A date for Unix seconds; small numbers are an order without a clock."""
    from datetime import UTC, datetime

    if seconds < 86_400 * 365:
        return str(seconds)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
