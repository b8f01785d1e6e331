"""`predilect llm-rec`: evaluate and interpret; light, so that `predilect --help` stays fast."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from predilect.cli.options import config_command
from predilect.configuration import option
from predilect.leaderboard.config import PROTOCOL, ProtocolConfig

if TYPE_CHECKING:
    from predilect.data import SequenceSplits

READER = Path("runs/rec-interpreter")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Language models as recommenders: free generation, and reading. `predilect train NAME` trains them.",
)


@dataclass(kw_only=True)
class EvaluateConfig(ProtocolConfig):
    """A trained recommender, ranked."""

    model: Path = option("Folder of the recommender.", default=Path("runs/language"))
    part: Literal["validation", "test"] = option("Which rows to rank.", panel=PROTOCOL, default="test")
    test_rows: int | None = option("Rank this many rows, drawn at random; none: all.", panel=PROTOCOL, default=None)
    generate: bool = option(
        "Also let the model write titles freely and match them, as the papers do.", panel=PROTOCOL, default=False
    )
    output_dir: Path | None = option("Write the results and the rank of every row here.", default=None)


@app.command("evaluate")
@config_command(EvaluateConfig)
def evaluate(config: EvaluateConfig) -> None:
    """Rank the rows of a data set with a trained recommender; --generate also matches what it writes freely."""
    from rich.console import Console

    from predilect.cli.evaluate import require_same_catalogue
    from predilect.cli.models import find_model
    from predilect.leaderboard.preparation import prepare
    from predilect.method import Method

    console = Console()
    model: Any = Method.from_pretrained(find_model(config.model))
    splits = prepare(config)
    console.print(splits.describe())
    require_same_catalogue(model.catalogue, splits.catalogue)
    _evaluate(model, splits, config.part, config, config.output_dir, console)


@app.command("interpret")
def interpret(
    items: Annotated[list[str], typer.Argument(help="Titles or ids of what a person took, oldest first.")],
    model: Annotated[Path, typer.Option(help="Folder of `predilect train rec-interpreter`.")] = Path(
        "runs/rec-interpreter"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a language model reads in a sequential recommender's representation of a history."""
    from llm_rec.interpreter import RecInterpreter

    interpreter = RecInterpreter.from_pretrained(model)
    catalogue = interpreter.catalogue
    interpretation = interpreter.interpret(items)
    shown = {
        "history": [catalogue.title(i) for i in catalogue.resolve(items)],
        "text": interpretation.text,
        "recovered": [catalogue.title(i) for i in interpretation.recovered],
        "invented": [catalogue.title(i) for i in interpretation.invented],
    }
    if as_json:
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    for name, value in shown.items():
        typer.echo(f"{name}: {value if isinstance(value, str) else '; '.join(value) or 'nothing'}")


def _evaluate(
    model: Any, splits: SequenceSplits, part: str, config: EvaluateConfig, folder: Path | None, console: Any
) -> None:
    """Measure, keep and print; an interpreter beside its controls."""
    from llm_rec.base import PromptedRecommender
    from predilect.cli.results import results_table
    from predilect.cli.train import measure

    evaluations = dict(measure(model, splits, part, config, console.print))
    if config.generate and isinstance(model, PromptedRecommender):
        from llm_rec.generate_protocol import evaluate_generation

        shared: dict[str, Any] = {"max_rows": config.test_rows, "bootstrap": config.bootstrap, "seed": config.seed}
        evaluations["generate"] = evaluate_generation(model, splits, part, **shared)
    for name, evaluation in evaluations.items():
        if folder is not None:
            evaluation.save(folder / name)
        console.print(results_table(name or model.name, evaluation.results))
