"""`run_leaderboard`: prepare the data once; fit, rank and keep every model; compare them at the end."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from predilect.configuration import make_config, plain
from predilect.leaderboard.config import DataConfig, LeaderboardConfig, ProtocolConfig
from predilect.leaderboard.model_run import ModelRun
from predilect.leaderboard.observer import Observer
from predilect.leaderboard.preparation import prepare
from predilect.leaderboard.results import Leaderboard, ModelResult, sort_models
from predilect.runs import OutputFolder, data_fingerprint, write_json, write_text

if TYPE_CHECKING:
    from predilect.data import SequenceSplits
    from predilect.recommender import Recommender


def run_leaderboard(
    config: LeaderboardConfig,
    *,
    splits: SequenceSplits | None = None,
    observer: Observer | None = None,
    command: str | None = None,
) -> Leaderboard:
    """Fit and rank every chosen recommender under one protocol, and write what was found to `config.output_dir`.

    The folder holds `results.json`, `config.yaml`, and per model `models/<name>/` with its result, the rank of every
    test row and the fitted recommender. All of it is written so that a killed run can be resumed: `config.resume`
    keeps finished models, continues the interrupted one from its checkpoint, and gives the numbers of an unbroken run.

    Args:
        config: the run.
        splits: data of your own; the data and protocol options of `config` then only name what was done.
        observer: is told about progress.
        command: how the run was started, for the results.

    Raises:
        ValueError: an unknown model or option; an output folder in use, or one of another run.
    """
    observer = observer or Observer()
    names = list(config.models or _installed(quick=config.quick))
    configs = {name: _model_config(name, config) for name in names}
    _require_known(config.recommenders, names)
    with OutputFolder(config.output_dir, "leaderboard", resume=config.resume, overwrite=config.overwrite) as output:
        splits = prepare(config) if splits is None else splits
        fingerprint = _run_fingerprint(config, splits)
        output.claim(fingerprint)
        _write_config(config)
        if not config.models:
            names = [name for name in names if _suits(name, configs[name], splits, observer)]
        observer.prepared(splits, names)
        results = []
        for name in names:
            run = ModelRun(config, name, configs[name], run_fingerprint=fingerprint)
            results.append(run.result(splits, observer))
        board = _conclude(config, splits, results, command or " ".join(["predilect", *sys.argv[1:]]))
        write_json(config.output_dir / "results.json", board.to_dict())
    return board


def _installed(*, quick: bool) -> list[str]:
    """All installed recommenders that take part without being named."""
    from predilect.recommender import available_recommenders, recommender_class

    sizes = ("quick",) if quick else ("quick", "default")
    return [name for name in available_recommenders() if recommender_class(name).runs_in in sizes]


def _suits(name: str, model_config: Any, splits: SequenceSplits, observer: Observer) -> bool:
    """Whether a recommender that nobody named can run; tells if not."""
    from predilect.recommender import recommender_class

    why = recommender_class(name)(model_config).unsuited(splits)
    if why is not None:
        observer.note(f"{name} is left out: {why}")
    return why is None


def _model_config(name: str, config: LeaderboardConfig) -> Any:
    """The options of one recommender: its defaults, or its quick ones, then the run's seed, then what the run sets."""
    from predilect.recommender import recommender_class

    kind: type[Recommender] = recommender_class(name)
    base: Any = kind.config_class(seed=config.seed)
    if config.quick:
        base = base.quick()
    values = {**plain(base), **config.recommenders.get(name, {})}
    made = make_config(kind.config_class, values, source=f"recommenders.{name}")
    try:
        kind(made).require_ready()
    except (ValueError, FileNotFoundError) as error:  # what the method itself refuses, said before any data are read
        raise ValueError(f"recommenders.{name}: {error}") from error
    return made


def _require_known(sections: Mapping[str, Any], names: list[str]) -> None:
    if unknown := sorted(set(sections) - set(names)):
        raise ValueError(
            f"options for {', '.join(unknown)}, which the run does not compare: it has {', '.join(names)}"
        )


def _run_fingerprint(config: LeaderboardConfig, splits: SequenceSplits) -> dict[str, Any]:
    """What every number of the run depends on; the data by its content and not by its name."""
    by_content = {f.name for f in dataclasses.fields(DataConfig)}
    kept = [f.name for f in dataclasses.fields(ProtocolConfig) if f.name not in by_content]
    values = plain(config)
    return {**{name: values[name] for name in kept}, "quick": config.quick, "data": data_fingerprint(splits)}


def _write_config(config: LeaderboardConfig) -> None:
    """The options of the run as YAML, so that `--config` repeats it."""
    import yaml

    ways = {"resume", "overwrite", "output_dir"}
    values = {key: value for key, value in plain(config).items() if key not in ways}
    write_text(config.output_dir / "config.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _conclude(
    config: LeaderboardConfig, splits: SequenceSplits, results: list[ModelResult], command: str
) -> Leaderboard:
    from predilect.leaderboard.comparisons import compare_in_groups, compare_models
    from predilect.leaderboard.examples import pick_examples
    from predilect.runs import hardware, versions

    models = sort_models(results)
    folder = config.output_dir / "models"
    return Leaderboard(
        config=plain(config),
        protocol={**splits.protocol, "ranking": config.protocol, "seen": "masked" if config.mask_seen else "kept"},
        counts=[dataclasses.asdict(c) for c in splits.counts],
        models=models,
        comparisons=compare_models(models, folder, config),
        group_comparisons=compare_in_groups(models, folder, config),
        examples=pick_examples(models, folder, splits, config),
        versions=versions(),
        hardware=hardware(),
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
