"""`predilect mol leaderboard`, `predict` and `evaluate`; light, so that `predilect --help` stays fast."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mol_llm.command import DATA, PARTS, PairLeaderboardConfig, PairOptions, Task
from predilect.cli.options import config_command
from predilect.configuration import option

if TYPE_CHECKING:
    from mol_llm.pair_method import PairMethod
    from mol_llm.pairs import PairData

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Answers about pairs of molecules. `predilect train moltc`, `pair-fingerprints`, ... train what answers.",
)


@app.command()
@config_command(PairLeaderboardConfig)
def leaderboard(config: PairLeaderboardConfig) -> None:
    """Train and compare methods on one file of pairs: table, results.json, plots and report.html."""
    from mol_llm.leaderboard import Pairs
    from predilect.cli.leaderboard import compare

    compare(config, Pairs())


Folder = Annotated[Path, typer.Argument(help="A trained method of pairs, such as runs/moltc.")]


@app.command("predict")
def predict(
    folder: Folder,
    source: Annotated[Path, typer.Option("--input", help="CSV file with a header, .gz too.")],
    output: Annotated[
        Path, typer.Option(help="CSV file to write, .gz too: all columns of the input and the answers.")
    ],
    first: Annotated[str, typer.Option(help="Column of the first molecule's SMILES (the solute).")] = "first",
    second: Annotated[str, typer.Option(help="Column of the second molecule's SMILES (the solvent).")] = "second",
    largest_fragment: Annotated[bool, typer.Option(help="Of salts take the largest part.")] = False,
    canonical: Annotated[bool, typer.Option(help="Read every SMILES as RDKit writes it; as in training.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows that are in memory at once.")] = 1024,
) -> None:
    """Answer for every pair in a CSV file; a row that cannot be used keeps its place, and has its reason."""
    from mol_llm.molecules import SmilesReader
    from mol_llm.predicting import predict_csv
    from predilect.cli.progress import file_progress

    if not source.is_file():  # before the model is loaded, which takes longer
        raise FileNotFoundError(f"there is no file {source}")
    method = _load(folder)
    reader = SmilesReader("largest-fragment" if largest_fragment else "skip", canonical)
    with file_progress(method.name) as progress:
        found = predict_csv(
            method,
            source,
            output,
            first=first,
            second=second,
            reader=reader,
            batch_size=batch_size,
            progress=progress,
        )
    if found.failed == found.rows:
        raise ValueError(
            f"none of {found.rows:,} rows has a prediction; the column reason of {output} says why, first: "
            f"{found.first_reason}"
        )
    typer.echo(f"{method.name}: {found.rows - found.failed:,} of {found.rows:,} rows predicted in {output}")
    if found.failed:
        typer.echo(f"{found.failed:,} are not; the column reason says why, first: {found.first_reason}", err=True)


@dataclass(kw_only=True)
class EvaluateConfig(PairOptions):
    """Which rows a trained method is measured on."""

    task: Task | None = option(  # type: ignore[assignment]
        "What the rows ask; none: what the method was trained on.", panel=DATA, default=None
    )
    part: Literal["train", "validation", "test", "all"] = option(
        "Which rows: a part, with the options of the training; or all, undivided, whatever --split and --ratios say.",
        panel=PARTS,
        default="test",
    )
    test_rows: int | None = option(
        "Measure on this many of them, drawn at random; none: all.", panel=PARTS, default=None
    )
    output_dir: Path | None = option("Write evaluation.json and rows.parquet here.", default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_rows is not None and self.test_rows < 1:
            raise ValueError(f"test_rows must be at least 1 (got {self.test_rows})")


@app.command("evaluate")
@config_command(EvaluateConfig)
def evaluate(
    config: EvaluateConfig,
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a trained method on rows with answers, with 95 % intervals.

    The test part is the one of the training where --data, --split, --ratios, --seed and what is said of the SMILES
    are those of the training.
    """
    from rich.console import Console

    from predilect.cli.results import results_table

    console = Console(stderr=as_json)
    method = _load(folder)
    if method.task.kind == "text":
        raise ValueError(f"{folder} was trained to write texts ({method.task.name}), which have no measure here")
    data = _read(config, method)
    console.print(data.describe())
    part = "test" if config.part == "all" else config.part
    with console.status(f"{method.name} answers the {config.part} rows"):
        evaluation = method.measure(data, part, config)[""]
    if config.output_dir is not None:
        evaluation.save(config.output_dir)
    if as_json:
        results = {name: None if value != value else value for name, value in evaluation.results.items()}
        typer.echo(json.dumps({"method": method.name, "part": config.part, **results}, indent=2))
    else:
        console.print(results_table(f"{method.name}, {config.part} rows", evaluation.results))


def _read(config: EvaluateConfig, method: PairMethod) -> PairData:
    if config.task not in (None, method.task.name):
        raise ValueError(f"the method was trained on {method.task.name} (got --task {config.task})")
    if (tasks := config.published_tasks) and method.task.name not in tasks:
        published = " or ".join(tasks)
        raise ValueError(f"the layout {config.layout} is of the task {published}; the method's is {method.task.name}")
    whole: dict[str, Any] = {"split": "random", "ratios": (0.0, 0.0, 1.0)} if config.part == "all" else {}
    return replace(config, **whole).read(method.task)


def _load(folder: Path) -> PairMethod:
    from mol_llm.pair_method import PairMethod

    return PairMethod.from_pretrained(folder)
