"""The recommenders that `--model` names: saved ones, and ones that are fitted on the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predilect.cli.evaluate import require_same_catalogue
from predilect.data import SequenceSplits
from predilect.recommender import Recommender, available_recommenders, recommender_class
from predilect.training import quiet

if TYPE_CHECKING:
    from offline_rl_rec.cli import JudgedConfig

Methods = Mapping[str, tuple[Recommender[Any], bool]]


def named_methods(config: JudgedConfig) -> Methods:
    """Name -> the recommender, and whether it was saved; to be asked before data are read.

    Raises:
        ValueError: options that it refuses, or options for a saved one.
        FileNotFoundError: neither a folder nor the name of a recommender.
    """
    return {name: _method(name, config) for name in config.model}


def fitted(
    methods: Methods, splits: SequenceSplits, tell: Callable[[str], Any]
) -> Iterator[tuple[str, Recommender[Any]]]:
    """Each name with its recommender, fitted on the training part where it was not saved.

    Raises:
        ValueError: a saved one of another catalogue.
    """
    for name, (recommender, saved) in methods.items():
        if saved:
            require_same_catalogue(recommender.catalogue, splits.catalogue)
        else:
            tell(f"fitting {name}")
            with quiet():
                recommender.fit(splits)
        yield name, recommender


def _method(name: str, config: JudgedConfig) -> tuple[Recommender[Any], bool]:
    """The recommender saved in a folder, and true; or one of that name, which has not been fitted, and false."""
    from predilect.cli.models import find_model
    from predilect.configuration import make_config

    if name in available_recommenders() and not Path(name).exists():
        kind = recommender_class(name)
        values = {"seed": config.seed, **config.recommenders.get(name, {})}
        method = kind(make_config(kind.config_class, values, source=f"recommenders.{name}"))
        method.require_ready()
        return method, False
    if not Path(name).exists():
        names = ", ".join(available_recommenders())
        raise FileNotFoundError(f"--model {name} is neither a folder nor a recommender; there are {names}")
    if name in config.recommenders:
        raise ValueError(f"{name} is a saved recommender, whose options are those it was fitted with")
    return Recommender.from_pretrained(find_model(Path(name))), True
