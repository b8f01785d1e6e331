"""`predilect evaluate`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from predilect.cli.models import DEFAULT, find_model
from predilect.cli.options import config_command
from predilect.cli.results import results_table
from predilect.configuration import option
from predilect.leaderboard.config import PROTOCOL, ProtocolConfig

if TYPE_CHECKING:
    from predilect.data import Catalogue


@dataclass(kw_only=True)
class EvaluateConfig(ProtocolConfig):
    """Options of `predilect evaluate`."""

    model: Path = option("A saved recommender, or a leaderboard's output folder: its best model.", default=DEFAULT)
    part: Literal["validation", "test"] = option("Which rows to rank.", panel=PROTOCOL, default="test")
    output_dir: Path | None = option("Write evaluation.json and rows.parquet here.", default=None)


@config_command(EvaluateConfig)
def evaluate(
    config: EvaluateConfig, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Evaluate a saved recommender on a data set that has the items it was fitted on."""
    folder = find_model(config.model)
    from rich.console import Console

    from predilect.evaluation import evaluate as evaluate_recommender
    from predilect.evaluation.further import with_further_metrics
    from predilect.leaderboard.preparation import prepare
    from predilect.recommender import Recommender

    console = Console(stderr=as_json)
    recommender = Recommender.from_pretrained(folder)
    splits = prepare(config)
    console.print(splits.describe())
    require_same_catalogue(recommender.catalogue, splits.catalogue)
    with console.status(f"{recommender.name} ranks the {config.part} rows"):
        evaluation = evaluate_recommender(
            recommender,
            splits,
            config.part,
            protocol=config.protocol,
            mask_seen=config.mask_seen,
            bootstrap=config.bootstrap,
            seed=config.seed,
        )
    evaluation = with_further_metrics(evaluation, splits, console.print)
    if config.output_dir is not None:
        evaluation.save(config.output_dir)
    metrics = {"recommender": recommender.name, **evaluation.metrics}
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))
    else:
        names = ("protocol", "part", "seen", "candidates", "rows", "users", "repeat_targets")
        caption = ", ".join(f"{name} {metrics[name]}" for name in names)
        console.print(results_table(recommender.name, evaluation.results, caption))


def require_same_catalogue(fitted: Catalogue, data: Catalogue) -> None:
    """Refuse data whose item numbers mean other items than those that the recommender learned.

    Raises:
        ValueError: says how the catalogues differ.
    """
    if fitted.raw_ids == data.raw_ids:
        return
    ours, theirs = set(fitted.raw_ids), set(data.raw_ids)
    differences = []
    for items, catalogue, where in (
        (ours - theirs, fitted, "the data lacks"),
        (theirs - ours, data, "only the data has"),
    ):
        if items:
            first = next(i for i, raw in enumerate(catalogue.raw_ids, start=1) if raw in items)
            differences.append(f"{where} {len(items):,} items, such as {catalogue.title(first)!r}")
    differences = differences or ["both have the same items in another order"]
    raise ValueError(
        f"the recommender was fitted on {len(fitted):,} items and the prepared data has {len(data):,}: "
        f"{'; '.join(differences)}. Give the data and the options (--data, --k-core) that it was fitted with"
    )
