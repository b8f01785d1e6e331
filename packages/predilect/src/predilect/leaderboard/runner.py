"""`run_leaderboard`: prepare the data once; fit, measure and keep every model; compare them at the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from predilect.configuration import make_config, plain
from predilect.leaderboard.contest import Contest, Recommenders
from predilect.leaderboard.model_run import ModelRun
from predilect.leaderboard.observer import Observer
from predilect.leaderboard.results import Leaderboard, sort_models
from predilect.runs import OutputFolder, hardware, versions, write_json, write_text

if TYPE_CHECKING:
    from predilect.method import Method


def run_leaderboard(
    config: Any,
    *,
    contest: Contest | None = None,
    splits: Any = None,
    observer: Observer | None = None,
    command: str | None = None,
) -> Leaderboard:
    """Fit and measure every chosen method under one protocol, and write what was found to `config.output_dir`.

    The folder holds `results.json`, `config.yaml`, and per model `models/<name>/` with its result, every test row and
    the fitted method. All of it is written so that a killed run can be resumed: `config.resume` keeps finished models,
    continues the interrupted one from its checkpoint, and gives the numbers of an unbroken run.

    Args:
        config: the run: a `LeaderboardConfig`, or the config of another contest.
        contest: what is compared; None: recommenders.
        splits: data of your own; the data and protocol options of `config` then only name what was done.
        observer: is told about progress.
        command: how the run was started, for the results.

    Raises:
        ValueError: an unknown model or option; an output folder in use, or one of another run.
    """
    contest, observer = contest or Recommenders(), observer or Observer()
    names = list(config.models or _installed(contest, quick=config.quick))
    configs = {name: _model_config(contest, name, config) for name in names}
    _require_known(getattr(config, contest.section), names)
    with OutputFolder(config.output_dir, "leaderboard", resume=config.resume, overwrite=config.overwrite) as output:
        data = contest.prepare(config) if splits is None else splits
        fingerprint = {**contest.fingerprint(config, data), "quick": config.quick}
        output.claim(fingerprint)
        _write_config(config)
        if not config.models:
            names = [name for name in names if _suits(contest.method_class(name), configs[name], data, observer)]
        observer.prepared(data, names)
        display = contest.display(config, data)
        results = []
        for name in names:
            run = ModelRun(config, contest, name, configs[name], run_fingerprint=fingerprint, metric=display.metric)
            results.append(run.result(data, observer))
        models = sort_models(results, display.sign)
        board = Leaderboard(
            config=plain(config),
            models=models,
            display=display,
            versions=versions(),
            hardware=hardware(),
            command=command or " ".join(["predilect", *sys.argv[1:]]),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            **contest.conclude(models, config.output_dir / "models", data, config),
        )
        write_json(config.output_dir / "results.json", board.to_dict())
    return board


def _installed(contest: Contest, *, quick: bool) -> list[str]:
    """All installed methods that take part without being named."""
    sizes = ("quick",) if quick else ("quick", "default")
    return [name for name in contest.available() if contest.method_class(name).runs_in in sizes]


def _suits(kind: type[Method], model_config: Any, data: Any, observer: Observer) -> bool:
    """Whether a method that nobody named can run; tells if not."""
    why = kind(model_config).unsuited(data)
    if why is not None:
        observer.note(f"{kind.name} is left out: {why}")
    return why is None


def _model_config(contest: Contest, name: str, config: Any) -> Any:
    """The options of one method: its defaults, or its quick ones, then the run's seed, then what the run sets."""
    kind = contest.method_class(name)
    base: Any = kind.config_class(seed=config.seed)
    if config.quick:
        base = base.quick()
    values = {**plain(base), **getattr(config, contest.section).get(name, {})}
    section = f"{contest.section}.{name}"
    made = make_config(kind.config_class, values, source=section)
    try:
        kind(made).require_ready()
    except (ValueError, FileNotFoundError) as error:  # what the method itself refuses, said before any data are read
        raise ValueError(f"{section}: {error}") from error
    return made


def _require_known(sections: Mapping[str, Any], names: list[str]) -> None:
    if unknown := sorted(set(sections) - set(names)):
        raise ValueError(
            f"options for {', '.join(unknown)}, which the run does not compare: it has {', '.join(names)}"
        )


def _write_config(config: Any) -> None:
    """The options of the run as YAML, so that `--config` repeats it."""
    import yaml

    ways = {"resume", "overwrite", "output_dir"}
    values = {key: value for key, value in plain(config).items() if key not in ways}
    write_text(config.output_dir / "config.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
