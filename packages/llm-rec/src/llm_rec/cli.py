"""`predilect llm-rec`: train and evaluate; light, so that `predilect --help` stays fast."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from predilect.cli.options import config_command
from predilect.configuration import make_config, option, plain
from predilect.leaderboard.config import PROTOCOL, RUN, ProtocolConfig

if TYPE_CHECKING:
    from predilect.data import SequenceSplits

FINISHED = "method.json"  # by which a finished folder is known
METHODS = ("language", "softmax-dpo", "llara", "bigrec", "rec-interpreter")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Language models as recommenders: train, evaluate, interpret. A trained one answers `predilect recommend`.",
)


@dataclass(kw_only=True)
class SourceConfig(ProtocolConfig):
    """Which data; besides the formats of every command, the files of S-DPO's and LLaRA's repositories."""

    format: str | None = option(
        "Name of the reader where the files do not show it; sdpo and llara read those repositories' data.",
        panel="Data",
        default=None,
    )


@dataclass(kw_only=True)
class TrainConfig(SourceConfig):
    """One recommender, trained."""

    method: Literal["language", "softmax-dpo", "llara", "bigrec", "rec-interpreter"] | None = option(
        "What to train; a preset brings its own.", panel=RUN, default=None
    )
    preset: str | None = option(
        "Settings of a paper or of a machine by name; see `predilect llm-rec presets`.", panel=RUN, default=None
    )
    set: dict[str, Any] = option(
        "An option of the recommender, such as sft_steps=200; over the preset's.", panel=RUN, default={}
    )
    output_dir: Path = option("Folder of the recommender and its results.", panel=RUN, default=Path("runs/llm-rec"))
    quick: bool = option("A few steps, to see that all works.", panel=RUN, default=False)
    resume: bool = option("Continue the run in the output folder.", panel=RUN, default=False)
    overwrite: bool = option("Throw away the run in the output folder.", panel=RUN, default=False)
    test_rows: int | None = option(
        "Rank this many test rows, drawn at random; none: all.", panel=PROTOCOL, default=None
    )
    generate: bool = option(
        "Also let the model write titles freely and match them, as the papers do.", panel=PROTOCOL, default=False
    )


@dataclass(kw_only=True)
class EvaluateConfig(SourceConfig):
    """A trained recommender, ranked."""

    model: Path = option("Folder of the recommender.", default=Path("runs/llm-rec"))
    part: Literal["validation", "test"] = option("Which rows to rank.", panel=PROTOCOL, default="test")
    test_rows: int | None = option("Rank this many rows, drawn at random; none: all.", panel=PROTOCOL, default=None)
    generate: bool = option(
        "Also let the model write titles freely and match them, as the papers do.", panel=PROTOCOL, default=False
    )
    output_dir: Path | None = option("Write the results and the rank of every row here.", default=None)


@app.command("train")
@config_command(TrainConfig)
def train(config: TrainConfig) -> None:
    """Train a recommender, rank the test rows, keep it; `predilect recommend --model FOLDER` asks it.

    With --method rec-interpreter: train the reader of a sequential recommender; `predilect llm-rec interpret` asks it.
    """
    from rich.console import Console

    from predilect.processes import processes
    from predilect.runs import OutputFolder, data_fingerprint

    state = processes()  # `accelerate launch -m predilect llm-rec train ...` spreads training over processes
    console = Console(quiet=not state.is_main_process)
    model = _model(config)
    folder = config.output_dir
    with OutputFolder(folder, "train", resume=config.resume, overwrite=config.overwrite) as output:
        with state.main_process_first():
            splits = _splits(config)
        output.claim(_run(config, model) | {"data": data_fingerprint(splits)})
        console.print(splits.describe())
        if not (folder / FINISHED).is_file():
            from llm_rec.progress import StepBar

            with StepBar(console) as bar:
                model.callbacks = (bar,)
                model.fit(splits, output_dir=folder / "fit", resume=True)
            if state.is_main_process:
                model.save_pretrained(folder)
                shutil.rmtree(folder / "fit")
        else:
            model = type(model).from_pretrained(folder)
        if not state.is_main_process:
            return
        _evaluate(model, splits, "test", config, folder / "evaluation", console)
    console.print(f"model and results: {folder}")


@app.command("evaluate")
@config_command(EvaluateConfig)
def evaluate(config: EvaluateConfig) -> None:
    """Rank the rows of a data set with a trained recommender; --generate also matches what it writes freely."""
    from rich.console import Console

    from predilect.cli.evaluate import require_same_catalogue
    from predilect.cli.models import find_model
    from predilect.method import Method

    console = Console()
    model: Any = Method.from_pretrained(find_model(config.model))
    splits = _splits(config)
    console.print(splits.describe())
    require_same_catalogue(model.catalogue, splits.catalogue)
    _evaluate(model, splits, config.part, config, config.output_dir, console)


@app.command("interpret")
def interpret(
    items: Annotated[list[str], typer.Argument(help="Titles or ids of what a person took, oldest first.")],
    model: Annotated[Path, typer.Option(help="Folder of `train --method rec-interpreter`.")] = Path("runs/llm-rec"),
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


@app.command("presets")
def presets() -> None:
    """The settings that `--preset` knows."""
    from llm_rec.presets import describe_presets

    typer.echo(describe_presets())


@app.command("options")
def options(
    method: Annotated[str, typer.Argument(help=f"One of {', '.join(METHODS)}.")],
) -> None:
    """Every option of a recommender that `--set` takes, with its default."""
    import dataclasses

    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}; there are {', '.join(METHODS)}")
    kind: Any = _kind(method).config_class
    defaults = plain(kind())
    for field in dataclasses.fields(kind):
        typer.echo(f"{field.name} = {json.dumps(defaults[field.name])}\n    {field.metadata['help']}")


def _kind(method: str) -> Any:
    """The class of a method."""
    from predilect.method import method_class

    return method_class(method)


def _model(config: TrainConfig) -> Any:
    """What the preset, the file and the flags describe."""
    from llm_rec.presets import read_preset

    given: dict[str, Any] = {"seed": config.seed}
    method = config.method
    if config.preset is not None:
        preset = read_preset(config.preset)
        if method is not None and method != preset["method"]:
            raise ValueError(f"the preset {config.preset} is for {preset['method']} (got --method {method})")
        method = preset["method"]
        given |= preset["set"]
    if method is None:
        raise ValueError(f"what to train? Give --method ({', '.join(METHODS)}) or --preset")
    kind = _kind(method)
    settings = make_config(kind.config_class, {**given, **config.set}, source="--set")
    return kind(settings.quick() if config.quick else settings)


def _run(config: TrainConfig, model: Any) -> dict[str, Any]:
    """All that the result depends on."""
    ways = {"resume", "overwrite", "output_dir", "test_rows", "generate"}
    return {
        "model": {"name": model.name, **plain(model.config)},
        "run": {key: value for key, value in plain(config).items() if key not in ways},
    }


def _splits(config: SourceConfig) -> SequenceSplits:
    from predilect.leaderboard.preparation import prepare

    if config.format == "sdpo":
        from llm_rec.converters import read_sdpo

        return read_sdpo(config.data, ratios=config.ratios, seed=config.seed)
    if config.format == "llara":
        from llm_rec.converters import read_llara

        return read_llara(config.data).with_candidates(config.num_candidates, seed=config.seed)
    return prepare(config)


def _evaluate(
    model: Any,
    splits: SequenceSplits,
    part: str,
    config: TrainConfig | EvaluateConfig,
    folder: Path | None,
    console: Any,
) -> None:
    """Measure, keep and print; an interpreter beside its controls."""
    from llm_rec.interpreter import RecInterpreter

    read = _read if isinstance(model, RecInterpreter) else _rank
    for name, evaluation in read(model, splits, part, config).items():
        if folder is not None:
            evaluation.save(folder / name)
        _print(console, name, evaluation)


def _read(model: Any, splits: SequenceSplits, part: str, config: TrainConfig | EvaluateConfig) -> dict[str, Any]:
    from llm_rec.interpreter import SYSTEMS
    from llm_rec.interpreter import evaluate as evaluate_interpreter

    results_by_system: dict[str, Any] = {}
    for task in model.config.tasks:
        systems = [s for s in SYSTEMS if not (task == "item" and s == "probe")]
        results = evaluate_interpreter(
            model,
            splits,
            part,
            task=task,
            systems=systems,
            max_rows=config.test_rows,
            bootstrap=config.bootstrap,
            seed=config.seed,
        )
        results_by_system |= {f"{task}-{system}": result for system, result in results.items()}
    return results_by_system


def _rank(recommender: Any, splits: SequenceSplits, part: str, config: TrainConfig | EvaluateConfig) -> dict[str, Any]:
    from llm_rec.generate_protocol import evaluate_generation
    from predilect.evaluation import evaluate

    fixed = "candidates" if splits.part(part).candidates is not None else config.protocol
    shared: dict[str, Any] = {"max_rows": config.test_rows, "bootstrap": config.bootstrap, "seed": config.seed}
    evaluations: dict[str, Any] = {
        fixed: evaluate(
            recommender, splits, part, protocol=fixed, mask_seen=config.mask_seen, batch_size=256, **shared
        )
    }
    if config.generate:
        evaluations["generate"] = evaluate_generation(recommender, splits, part, **shared)
    return evaluations


def _print(console: Any, name: str, evaluation: Any) -> None:
    from rich.table import Table

    results = evaluation.results
    table = Table(title=name, title_style="bold")
    for column in ("metric", "value", "95 % interval"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for metric, value in results.items():
        if isinstance(value, float) and not metric.endswith(("_low", "_high")):
            low, high = results.get(f"{metric}_low"), results.get(f"{metric}_high")
            table.add_row(metric, f"{value:.4f}", f"{low:.4f} to {high:.4f}" if low is not None else "")
    table.caption = f"{results['rows']:,} rows of {results['users']:,} users"
    console.print(table)
