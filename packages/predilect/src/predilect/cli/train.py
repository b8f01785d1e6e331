"""`predilect train NAME` and `predilect options NAME`, for every method that an installed package registers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from predilect.cli.options import config_command
from predilect.configuration import make_config, option, plain
from predilect.leaderboard.config import PROTOCOL, RUN, ProtocolConfig
from predilect.presets import Presets, close_matches
from predilect.registry import RECOMMENDERS, registered

if TYPE_CHECKING:
    from predilect.method import Method

_WAYS = {"resume", "overwrite", "output_dir", "test_rows"}  # they change no number of a training


@dataclass(kw_only=True)
class TrainOptions:
    """One method, trained, kept and measured; beside the options of its data."""

    preset: str | None = option(
        "Settings of a paper or of a machine by name; `predilect options NAME` lists them.", panel=RUN, default=None
    )
    set: dict[str, Any] = option(
        "An option of the method, such as batch_size=64, over the preset's; `predilect options NAME` lists them.",
        panel=RUN,
        default={},
    )
    output_dir: Path | None = option("Folder of the method and its results; none: runs/NAME.", panel=RUN, default=None)
    quick: bool = option("A few steps, to see that all works.", panel=RUN, default=False)
    resume: bool = option("Continue the run in the output folder.", panel=RUN, default=False)
    overwrite: bool = option("Throw away the run in the output folder.", panel=RUN, default=False)
    test_rows: int | None = option(
        "Measure on this many test rows, drawn at random; none: all.", panel=PROTOCOL, default=None
    )

    def __post_init__(self) -> None:
        if (others := getattr(super(), "__post_init__", None)) is not None:  # the options of the data
            others()
        if self.resume and self.overwrite:
            raise ValueError("resume keeps the run in the output folder and overwrite throws it away: choose one")


class Methods(TyperGroup):
    """A command for each registered method; its package is imported when it is named."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return sorted(registered())

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        return _command(cmd_name)

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        super(TyperGroup, self).format_help(ctx, formatter)

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        entries = sorted(registered().items())
        with formatter.section("Methods"):
            formatter.write_dl([(name, f"of {e.dist.name}" if e.dist else "") for name, e in entries])


app = typer.Typer(
    cls=Methods,
    no_args_is_help=True,
    add_completion=False,
    help="Train a method and measure it: `predilect train NAME --help` lists what it takes.",
)


@app.callback()
def _train() -> None:
    """Methods are found through entry points."""


def options(name: Annotated[str, typer.Argument(metavar="NAME", help="Of the method.")]) -> None:
    """Every option of a method that --set takes, with its default, and its presets."""
    kind = method_named(name)
    defaults = plain(kind.config_class())
    for field in fields(kind.config_class):
        typer.echo(f"{field.name} = {json.dumps(defaults[field.name])}\n    {field.metadata['help']}")
    if presets := presets_of(kind):
        typer.echo("\nPresets:")
        width = max(map(len, presets))
        for preset, about in presets.items():
            typer.echo(f"{preset:<{width}}  {about}")


def method_named(name: str) -> type[Method]:
    """The class of a method; an unknown name is a ValueError that names close ones."""
    there = registered()
    if name not in there:
        raise ValueError(f"there is no method {name!r}; {close_matches(name, there)}")
    kind: type[Method] = there[name].load()
    return kind


def presets_of(kind: type[Method]) -> dict[str, str]:
    """Name -> what it is, of the presets that are for a method."""
    if kind.presets is None:
        return {}
    presets = Presets(kind.presets)
    return {name: presets.summary(name) for name in presets.names() if presets.read(name)["method"] == kind.name}


def new_method(kind: type[Method], config: TrainOptions, seed: int) -> Method:
    """What the preset, the file and the flags describe."""
    values: dict[str, Any] = {"seed": seed}
    if config.preset is not None:
        if kind.presets is None:
            raise ValueError(f"there is no preset {config.preset!r}: {kind.name} has none")
        preset = Presets(kind.presets).read(config.preset)
        if preset["method"] != kind.name:
            raise ValueError(f"the preset {config.preset} is for {preset['method']} (got {kind.name})")
        values |= preset["set"]
    settings = make_config(kind.config_class, {**values, **config.set}, source="--set")
    return kind(settings.quick() if config.quick else settings)


def _command(name: str) -> Any:
    """The click command that trains a method on what it learns from.

    Recommenders learn from a log: their help needs none of their code, and comes at once.
    """
    data_options = ProtocolConfig if name in registered(RECOMMENDERS) else method_named(name).data_options
    data_options = data_options or ProtocolConfig

    @dataclass(kw_only=True)
    class TrainConfig(TrainOptions, data_options):  # type: ignore[misc, valid-type]
        """What to train on, and how."""

    def run(config: TrainConfig) -> None:
        train(method_named(name), config)

    run.__annotations__ = {"config": TrainConfig, "return": None}
    run.__doc__ = f"Train {name}, keep it, and measure it on the test rows."
    single = typer.Typer(add_completion=False)
    single.command(name)(config_command(TrainConfig)(run))
    command = typer.main.get_command(single)
    command.name = name
    return command


def train(kind: type[Method], config: Any) -> None:
    """Train into the output folder; what is finished is loaded, and measured again."""
    from rich.console import Console

    from predilect.cli.progress import TrainingProgress
    from predilect.cli.results import results_table
    from predilect.method import METHOD_FILE
    from predilect.processes import processes
    from predilect.runs import OutputFolder

    state = processes()  # `accelerate launch -m predilect train ...` spreads training over processes
    console = Console(quiet=not state.is_main_process)
    method = new_method(kind, config, config.seed)
    method.require_ready()
    folder = config.output_dir or Path("runs") / kind.name
    with OutputFolder(folder, "train", resume=config.resume, overwrite=config.overwrite) as output:
        with state.main_process_first():
            data = read_data(kind, config)
        output.claim(_run(config, method) | {"data": method.fingerprint(data)})
        if (about := getattr(data, "describe", None)) is not None:
            console.print(about())
        if (folder / METHOD_FILE).is_file():
            method = kind.from_pretrained(folder)
        else:
            with TrainingProgress(console) as progress:
                method.callbacks = (progress,)
                method.fit(data, output_dir=folder / "fit", resume=True)
            if state.is_main_process:
                method.save_pretrained(folder)
        if not state.is_main_process:
            return
        shutil.rmtree(folder / "fit", ignore_errors=True)
        for name, evaluation in measure(method, data, "test", config, console.print).items():
            evaluation.save(folder / "evaluation" / name)
            console.print(results_table(name or method.name, evaluation.results))
    console.print(f"model and results: {folder}")


def read_data(kind: type[Method], config: Any) -> Any:
    """What the method learns from."""
    from predilect.leaderboard.preparation import prepare

    return prepare(config) if kind.data_options is None else config.read()


def measure(method: Any, data: Any, part: str, config: Any, note: Callable[[str], None]) -> Mapping[str, Any]:
    """Name -> result; of a recommender one, whose name is empty, with the metrics that other packages add.

    `note` is told in one line about metrics that are left out.
    """
    from predilect.evaluation import evaluate
    from predilect.evaluation.further import with_further_metrics
    from predilect.recommender import Recommender

    if not isinstance(method, Recommender):
        results: Mapping[str, Any] = method.measure(data, part, config)
        return results
    fixed = data.part(part).candidates is not None
    evaluation = evaluate(
        method,
        data,
        part,
        protocol="candidates" if fixed else config.protocol,
        mask_seen=config.mask_seen,
        bootstrap=config.bootstrap,
        seed=config.seed,
        max_rows=config.test_rows,
    )
    return {"": with_further_metrics(evaluation, data, note)}


def _run(config: Any, method: Method) -> dict[str, Any]:
    """All that the result depends on, but for the data."""
    return {
        "model": {"name": method.name, **plain(method.config)},
        "run": {key: value for key, value in plain(config).items() if key not in _WAYS},
    }
