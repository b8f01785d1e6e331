"""`predilect dreamrec`: evaluate, sample; light, so that `predilect --help` stays fast."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from predilect.cli.options import config_command
from predilect.configuration import option
from predilect.leaderboard.config import PROTOCOL, ProtocolConfig

if TYPE_CHECKING:
    from predilect.data import SequenceSplits
    from predilect.evaluation import Evaluation

DEFAULT = Path("runs/dreamrec")
SAMPLING = "Sampling (none: as trained)"

Points = list[tuple[dict[str, Any], "Evaluation"]]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="DreamRec: sweeps of its sampling, and what it imagines. `predilect train dreamrec` trains it.",
)


@dataclass(kw_only=True)
class EvaluateConfig(ProtocolConfig):
    """A trained recommender, ranked; several steps or guidances are compared on the validation rows."""

    model: Path = option("Folder of the recommender.", default=DEFAULT)
    part: Literal["validation", "test"] | None = option(
        "Which rows to rank; none: the test rows, but the validation rows where several samplings are compared.",
        panel=PROTOCOL,
        default=None,
    )
    test_rows: int | None = option("Rank this many rows, drawn at random; none: all.", panel=PROTOCOL, default=None)
    sampler: Literal["ddpm", "ddim", "dpm-solver++"] | None = option(
        "How items are generated from noise; none: as the recommender does.", panel=SAMPLING, default=None
    )
    steps: tuple[int, ...] = option(
        "Steps from noise to an item; several are compared; none: as the recommender does.", panel=SAMPLING, default=()
    )
    guidance: tuple[float, ...] = option(
        "How far the history pushes the generated item, at least 0; several are compared; none: as the "
        "recommender does.",
        panel=SAMPLING,
        default=(),
    )
    draws: int | None = option(
        "Generated items a history, which are averaged; none: as the recommender does.", panel=SAMPLING, default=None
    )
    similarity: Literal["dot", "cosine"] | None = option(
        "How real items are compared with the generated one; none: as the recommender does.",
        panel=SAMPLING,
        default=None,
    )
    sampling_seed: int | None = option(
        "Seed of the noise that items are generated from; none: as the recommender does.", panel=SAMPLING, default=None
    )
    output_dir: Path | None = option("Write the results, the rank of every row and the plots here.", default=None)
    map_users: int = option("Users in the map of real and generated items, 0..6; 0: no map.", default=4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.map_users <= 6:
            raise ValueError(f"map_users must be in 0..6, for as many can be told apart (got {self.map_users})")


@app.command("evaluate")
@config_command(EvaluateConfig)
def evaluate(config: EvaluateConfig) -> None:
    """Rank the rows of a data set, sampling as trained or otherwise: nothing is trained again.

    Several --steps or --guidance, as in --steps 5,20,100, are each measured: a table, and plots in --output-dir.
    """
    from rich.console import Console

    from predilect.cli.evaluate import require_same_catalogue
    from predilect.cli.train import measure
    from predilect.leaderboard.preparation import prepare

    console = Console()
    recommender = _load(config.model)
    samplings = _samplings(recommender, config)
    part = config.part or ("validation" if len(samplings) > 1 else "test")
    splits = prepare(config)
    console.print(splits.describe())
    require_same_catalogue(recommender.catalogue, splits.catalogue)
    points: Points = []
    for sampling in samplings:
        with console.status(f"{recommender.name} ranks the {part} rows {_described(sampling)}"):
            recommender.set_sampling(**sampling)
            evaluation = measure(recommender, splits, part, config, console.print)[""]
        points.append((_sampling(recommender), evaluation))
    _print(console, points)
    if config.output_dir is not None:
        _keep(points, config.output_dir)
        _plot(points, recommender, splits, part, config)


@app.command("sample")
def sample(
    items: Annotated[list[str], typer.Argument(help="Titles or ids of what a person took, oldest first.")],
    model: Annotated[Path, typer.Option(help="Folder of the recommender.")] = DEFAULT,
    draws: Annotated[int, typer.Option(min=1, help="Oracle items to draw, each from its own noise.")] = 3,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Real items to show for each.")] = 5,
    guidance: Annotated[float | None, typer.Option(help="w, at least 0; none: as trained.")] = None,
    steps: Annotated[int | None, typer.Option(help="Of the sampler; none: as trained.")] = None,
    sampling_seed: Annotated[int | None, typer.Option(help="Of the first draw's noise; none: as trained.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Imagine what a person would take next, several times, and show the real items nearest to each oracle item."""
    import torch

    from seqrec_diffusion.plots import oracle_draws

    recommender = _load(model)
    catalogue = recommender.catalogue
    history = catalogue.resolve(items)
    given = {"guidance": guidance, "steps": steps, "sampling_seed": sampling_seed}
    recommender.set_sampling(draws=1, **{name: value for name, value in given.items() if value is not None})
    similarity, first = recommender.config.similarity, recommender.config.sampling_seed
    oracles = oracle_draws(recommender, torch.tensor([history]), draws)[:, 0]
    best = recommender.model.nearest(oracles.to(recommender.model.device), k, similarity=similarity)
    drawn = []
    for seed, (scores, ids) in enumerate(zip(*(part.tolist() for part in best), strict=True), start=first):
        nearest = [
            {"item_id": i, "title": catalogue.title(i), "score": score} for i, score in zip(ids, scores, strict=True)
        ]
        drawn.append({"sampling_seed": seed, "nearest": nearest})
    took = [{"item_id": i, "title": catalogue.title(i)} for i in history]
    if as_json:
        typer.echo(json.dumps({"history": took, "draws": drawn}, indent=2, ensure_ascii=False))
    else:
        _print_draws(took, drawn, similarity)


def _load(folder: Path) -> Any:
    from predilect.cli.models import find_model
    from predilect.recommender import Recommender
    from seqrec_diffusion.recommender import DreamRec

    recommender = Recommender.from_pretrained(find_model(folder))
    if not isinstance(recommender, DreamRec):
        raise ValueError(f"{folder} holds {recommender.name!r}, which is no diffusion recommender")
    return recommender


def _samplings(recommender: Any, config: EvaluateConfig) -> list[dict[str, Any]]:
    """The changes to the recommender's sampling, one for each combination of steps and guidance; checked."""
    names = ("sampler", "draws", "similarity", "sampling_seed")
    fixed = {name: value for name in names if (value := getattr(config, name)) is not None}
    grid = {name: values for name in ("steps", "guidance") if (values := getattr(config, name))}
    if (fixed or grid) and recommender.config.objective == "softmax":
        raise ValueError(
            f"a recommender of objective 'softmax' samples nothing: leave out {', '.join([*fixed, *grid])}"
        )
    for name, values in grid.items():
        if len(set(values)) < len(values):
            raise ValueError(f"{name} must be distinct (got {', '.join(map(str, values))})")
    samplings = [fixed | dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for sampling in samplings:
        recommender.set_sampling(**sampling)
    return samplings


def _sampling(recommender: Any) -> dict[str, Any]:
    """How it samples; the softmax control does not."""
    config = recommender.config
    if config.objective == "softmax":
        return {}
    return {**asdict(config.sampling), "steps": config.steps or config.timesteps}


def _save(sampling: Mapping[str, Any], evaluation: Evaluation, folder: Path) -> None:
    """The result, and how it was sampled."""
    from predilect.runs import write_json

    evaluation.save(folder)
    write_json(folder / "sampling.json", sampling)


def _keep(points: Points, folder: Path) -> None:
    """One result in the folder itself; several in a folder each, with what their plots show."""
    from predilect.runs import write_json

    if len(points) == 1:
        _save(*points[0], folder)
        return
    for sampling, evaluation in points:
        _save(sampling, evaluation, folder / f"steps-{sampling['steps']}-guidance-{sampling['guidance']:g}")
    setting = points[0][1].setting
    results = [{"sampling": sampling, "results": evaluation.results} for sampling, evaluation in points]
    write_json(folder / "sweep.json", {"setting": setting, "points": results})


def _plot(points: Points, recommender: Any, splits: SequenceSplits, part: str, config: EvaluateConfig) -> None:
    """What can be drawn of these points; a map shows the best of them."""
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        typer.echo("no plots: matplotlib is not installed (pip install 'seqrec-diffusion[plots]')", err=True)
        return
    from seqrec_diffusion.plots import plot_map, plot_sweep

    folder: Any = config.output_dir
    best, _ = max(points, key=lambda point: point[1].results["ndcg@10"])
    if best:
        plot_sweep([{"sampling": how, "results": evaluation.results} for how, evaluation in points], folder, part=part)
    if best and config.map_users:
        recommender.set_sampling(steps=best["steps"], guidance=best["guidance"])
        plot_map(recommender, splits, folder / "map.png", part=part, users=config.map_users, seed=config.seed)


def _described(sampling: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sampling.items())


def _print(console: Any, points: Points) -> None:
    """One row a sampling, the best in bold; what all share is named below."""
    from rich.table import Table

    metrics = ("ndcg@10", "hr@10", "ndcg@20", "hr@20")
    evaluation = points[0][1]
    varied = [name for name, value in points[0][0].items() if any(s[name] != value for s, _ in points)]
    table = Table(title=f"{evaluation.recommender}, {evaluation.setting['part']} rows", title_style="bold")
    for column in (*varied, metrics[0], "95 % interval", *metrics[1:]):
        table.add_column(column, justify="right")
    best = max(evaluation.results[metrics[0]] for _, evaluation in points)
    for sampling, ranked in points:
        first, *others = (f"{ranked.results[name]:.4f}" for name in metrics)
        low, high = (ranked.results[f"{metrics[0]}_{end}"] for end in ("low", "high"))
        style = "bold" if varied and ranked.results[metrics[0]] == best else None
        how = (f"{sampling[name]:g}" for name in varied)
        table.add_row(*how, first, f"{low:.4f} to {high:.4f}", *others, style=style)
    shared = {name: value for name, value in points[0][0].items() if name not in varied}
    table.caption = (
        f"{evaluation.results['rows']:,} rows of {evaluation.results['users']:,} users\n{_described(shared)}"
    )
    console.print(table)


def _print_draws(took: list[dict[str, Any]], drawn: list[dict[str, Any]], similarity: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="imagined, and the nearest real items", title_style="bold", header_style="bold")
    for column, side in (("draw", "right"), ("", "right"), ("title", "left"), (similarity, "right")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    for number, draw in enumerate(drawn, start=1):
        for place, item in enumerate(draw["nearest"], start=1):
            shown = str(number) if place == 1 else ""
            table.add_row(shown, str(place), Text(item["title"]), f"{item['score']:.3f}")
        table.add_section()
    console = Console()
    console.print(Text("after " + ", ".join(item["title"] for item in took)))
    console.print(table)
