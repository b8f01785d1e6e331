"""`predilect recommend`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from predilect.cli.models import DEFAULT, find_model


def recommend(
    items: Annotated[
        list[str] | None, typer.Argument(help="Titles or ids of what the person took, oldest first.")
    ] = None,
    model: Annotated[
        Path, typer.Option(help="A saved recommender, or a leaderboard's output folder: its best model.")
    ] = DEFAULT,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Length of the list.")] = 10,
    exclude_history: Annotated[bool, typer.Option(help="Never recommend what the person took.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    histories: Annotated[
        Path | None,
        typer.Option(help="A file of people, .csv, .jsonl or .parquet, with a column history; in place of items."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where the lists of --histories go; the same format.")] = None,
) -> None:
    """Recommend items to a person, from the titles that they type, or to everybody in a file."""
    if (histories is None) != (output is None):
        raise ValueError("--histories FILE and --output FILE belong together")
    if bool(items) == (histories is not None):
        raise typer.BadParameter("give titles or ids of one person, or --histories FILE", param_hint="ITEMS...")
    folder = find_model(model)
    from predilect.recommender import Recommender

    recommender = Recommender.from_pretrained(folder)
    if histories is not None and output is not None:
        from predilect.cli.people import recommend_people

        people, failed = recommend_people(recommender, histories, output, k=k, exclude_history=exclude_history)
        typer.echo(f"{recommender.name}: lists for {people - failed:,} of {people:,} people in {output}")
        if failed:
            typer.echo(f"{failed:,} have none; the column error says why", err=True)
        return
    assert items is not None
    history = recommender.catalogue.resolve(items)
    recommendations = recommender.recommend(history, k, exclude_history=exclude_history)
    took = [{"item_id": i, "title": recommender.catalogue.title(i)} for i in history]
    if as_json:
        answer = {
            "recommender": recommender.name,
            "history": took,
            "recommendations": [r._asdict() for r in recommendations],
        }
        typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{recommender.name} recommends", title_style="bold", header_style="bold")
    for column in ("", "title", "categories", "score"):
        table.add_column(column, justify="right" if column in ("", "score") else "left")
    for place, r in enumerate(recommendations, start=1):
        categories = ", ".join(recommender.catalogue.categories[r.item_id - 1])
        table.add_row(str(place), Text(r.title), Text(categories, style="dim"), f"{r.score:.3f}")
    console = Console()
    console.print(Text("after " + ", ".join(map(recommender.catalogue.title, history))))
    console.print(table)
