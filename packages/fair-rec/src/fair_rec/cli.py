"""`predilect fair audit`; light, so that `predilect --help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from predilect.cli.options import config_command
from predilect.configuration import option
from predilect.leaderboard.config import ProtocolConfig

if TYPE_CHECKING:
    from fair_rec.audit import Audit

AUDIT = "Audit"
MADE = ("popularity", "category", "year")  # groupings that need no table

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Fairness of groups of items. `predilect train group-reranker` repairs it.",
)


@app.callback()
def root() -> None:
    """Keeps `audit` a command by name while it is the only one."""


@dataclass(kw_only=True)
class AuditConfig(ProtocolConfig):
    """What is compared with what."""

    groups: tuple[str, ...] = option(
        "Groupings of the items: popularity, category, year, or columns of --group-table; popularity+category are "
        "the intersections of the two. None: popularity, and category where items have any.",
        panel=AUDIT,
        default=(),
    )
    group_table: Path | None = option(
        "A table of your own (.csv, .tsv, .parquet) with item_id and the columns that --groups names; | parts the "
        "groups of an item, or each has a row. --on-error skip leaves out unknown items, and items may be missing.",
        panel=AUDIT,
        default=None,
    )
    num_groups: int = option("Number of groups by popularity.", panel=AUDIT, default=5)
    counting: Literal["unit", "fractional"] = option(
        "An item of several categories counts once in each, or in parts that sum to one.", panel=AUDIT, default="unit"
    )
    reference: Literal["train", "validation", "test", "catalogue"] = option(
        "What shares are compared with: the histories of a part, or the catalogue.", panel=AUDIT, default="train"
    )
    k: int = option("Length of the lists.", panel=AUDIT, default=10)
    test_rows: int | None = option("Of a model, rank this many rows, drawn at random; none: all.", default=None)
    frontier: bool = option(
        "Of a model, also rank the validation rows with both re-ranking rules at several strengths.",
        panel=AUDIT,
        default=False,
    )
    max_mgu: float | None = option(
        "End with exit status 1 where the MGU of any grouping is above this, for checks before a release.",
        panel=AUDIT,
        default=None,
    )
    output: Path = option("The page.", panel=AUDIT, default=Path("runs/fairness.html"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise ValueError(f"k must be at least 1 (got {self.k})")
        if self.max_mgu is not None and not 0 <= self.max_mgu <= 1:
            raise ValueError(f"max_mgu must be in 0..1 (got {self.max_mgu})")
        self._check_groups()

    @staticmethod
    def parts(name: str) -> list[str]:
        """The groupings of which this is the intersection."""
        return [part.strip() for part in name.split("+")]

    def _check_groups(self) -> None:
        parts = [part for name in self.groups for part in self.parts(name)]
        own = [part for part in parts if part not in MADE]
        if own and self.group_table is None:
            raise ValueError(f"groups are {', '.join(MADE)}, or a column of --group-table (got {own[0]!r})")
        if self.group_table is not None and not own:
            raise ValueError(f"--group-table {self.group_table} is not used: name a column of it with --groups")
        if twice := [name for name in self.groups if len(set(self.parts(name))) < len(self.parts(name))]:
            raise ValueError(f"a grouping is intersected with another one (got {twice[0]!r})")


@app.command("audit")
@config_command(AuditConfig)
def audit(
    config: AuditConfig,
    source: Annotated[
        Path,
        typer.Argument(
            help="A table of lists (.csv, .tsv, .parquet: user_id, item_id, rank), a saved evaluation, a saved "
            "recommender, or a leaderboard's output folder: its best model."
        ),
    ],
) -> None:
    """Compare the groups' shares of recommendations with their shares of what people consumed, as a page."""
    from fair_rec.audit import run, write_page

    found = run(config, source)
    write_page(found, config.output)
    _print(found)
    typer.echo(f"written to {config.output}")
    worst = max(found.groupings, key=lambda grouping: grouping.mgu)
    if config.max_mgu is not None and worst.mgu > config.max_mgu:
        typer.secho(
            f"MGU@{config.k} by {worst.name} is {worst.mgu:.4f}, above --max-mgu {config.max_mgu:g}",
            fg="red",
            err=True,
        )
        raise typer.Exit(1)


def _print(found: Audit) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    for grouping in found.groupings:
        table = Table(title=f"{found.title} by {grouping.name}", title_style="bold", header_style="bold")
        for column in ("group", found.reference_name, f"first {found.k}", "difference", "95 % interval"):
            table.add_column(column, justify="left" if column == "group" else "right")
        for row in grouping.rows:
            ends = f"{row['low']:+.4f} to {row['high']:+.4f}"
            shares = (f"{row['reference']:.1%}", f"{row['share']:.1%}", f"{row['unfairness']:+.4f}")
            table.add_row(Text(row["group"]), *shares, ends)
        table.caption = f"MGU@{found.k} {grouping.mgu:.4f}, DGU@{found.k} {grouping.dgu:.4f}"
        Console().print(table)
