"""From flags and YAML to options, by the conventions of TRL's `TrlParser`.

Values come, each over the one before, from the method's defaults, a preset, a YAML file (`--config`), and flags.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from trl import TrlParser

from predilect.configuration import read_yaml
from predilect.presets import close_matches
from predilect.runs import read_json
from predilect.runs.output import FILE
from pref_losses.align.options import METHODS, AlignOptions, CompareOptions, EvaluateOptions, LanguageModelConfig
from pref_losses.align.presets import read_preset
from pref_losses.config import PreferenceConfig

# What TRL's scripts call otherwise.
_SHORT = {"model": "model_name_or_path", "dataset": "dataset_name"}


class OptionParser(TrlParser):
    """`TrlParser` whose mistakes are `ValueError`s that name close matches; flags are never abbreviated."""

    def __init__(self, types: Sequence[type[Any]], **kwargs: Any) -> None:
        usage = "%(prog)s [--option VALUE ...]"  # argparse's own would list some two hundred
        super().__init__(types, allow_abbrev=False, usage=usage, **kwargs)
        self.add_argument(
            "--config", metavar="FILE.yaml", help="YAML file with any of these options; flags override it."
        )

    def error(self, message: str) -> Any:
        raise ValueError(message)

    def names(self) -> set[str]:
        """Every option as a key of YAML."""
        return {action.dest for action in self._actions} - {"help", "config"}

    def parse(self, arguments: Sequence[str], below: Mapping[str, Any], *, source: str) -> tuple[Any, ...]:
        """The dataclasses, from flags over `below`.

        Raises:
            ValueError: an unknown flag or key of `below` (named with `source`), or a wrong value.
        """
        known = self.names()
        for key in below:
            if key not in known:
                raise ValueError(f"{source} has no option {key!r}; {close_matches(key, known)}")
        self.set_defaults_with_config(**below)
        _, rest = self.parse_known_args(list(arguments))
        if rest:
            flags = {flag for action in self._actions for flag in action.option_strings}
            raise ValueError(f"there is no option {rest[0]}; {close_matches(rest[0], flags)}")
        self.set_defaults(config=None)
        *parsed, _ = self.parse_args_into_dataclasses(list(arguments), look_for_args_file=False)
        return tuple(parsed)


def read_config(arguments: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The YAML file that `--config` names, and its name; its `env` goes to the environment, as with TRL."""
    finder = OptionParser([])
    path = finder.parse_known_args(list(arguments))[0].config if "--help" not in arguments else None
    if path is None:
        return {}, "the command line"
    values = read_yaml(Path(path))
    env = values.pop("env", {})
    if not isinstance(env, dict):
        raise ValueError(f"{path}: env must be a mapping (got {env!r})")
    os.environ.update({str(key): str(value) for key, value in env.items()})
    return {_SHORT.get(key, key): value for key, value in values.items()}, path


def parse_align(arguments: Sequence[str]) -> tuple[AlignOptions, PreferenceConfig, LanguageModelConfig]:
    """The options of `predilect align`."""
    values, source = read_config(arguments)
    method, preset = _choose_method(arguments, values)
    below = METHODS[method].defaults() | {"output_dir": f"runs/align/{method}"} | preset | values
    options, training, model = _parse(AlignOptions, arguments, below, source, prog="predilect align")
    options.method = method
    return options, training, model


def parse_compare(
    arguments: Sequence[str],
) -> tuple[CompareOptions, dict[str, tuple[str, PreferenceConfig]], LanguageModelConfig]:
    """The options of `predilect align compare`, and for every name its method and finished training options."""
    values, source = read_config(arguments)
    listed = values.get("methods")
    own: dict[str, dict[str, Any]] = {}
    if isinstance(listed, dict):
        own = {str(name): dict(changes or {}) for name, changes in listed.items()}
        values = values | {"methods": list(own)}
    below = {"output_dir": "runs/compare"} | values
    options, _, model = _parse(CompareOptions, arguments, below, source, prog="predilect align compare")
    if len(set(options.methods)) < len(options.methods) or not options.methods:
        raise ValueError(f"methods are different names (got {options.methods})")
    runs = {}
    for name in options.methods:
        changes = dict(own.get(name, {}))
        method = _known(changes.pop("method", name))
        where = f"{source}: methods.{name}"
        parser = OptionParser([PreferenceConfig])
        for key in changes:
            if key not in parser.names():
                raise ValueError(f"{where} has no option {key!r}; {close_matches(key, parser.names())}")
        flags = [part for key, value in changes.items() for part in _as_flag(key, value)]
        _, training, _ = _parse(CompareOptions, [*arguments, *flags], METHODS[method].defaults() | below, source)
        runs[name] = (method, training)
    return options, runs, model


def parse_evaluate(arguments: Sequence[str]) -> EvaluateOptions:
    """The options, those left out taken from the run's `run.json`."""
    values, source = read_config(arguments)
    values = {"model" if key == "model_name_or_path" else key: value for key, value in values.items()}
    parser = OptionParser([EvaluateOptions], prog="predilect align evaluate")
    options: EvaluateOptions
    (options,) = parser.parse(arguments, values, source=source)
    if options.model is None:
        raise ValueError("name the model to evaluate: --model FOLDER")
    if evaluation := (read_json(Path(options.model) / FILE) or {}).get("about"):
        (options,) = parser.parse(arguments, evaluation | values, source=source)
    for name, flag in (("reference", "reference"), ("dataset_name", "dataset")):
        if getattr(options, name) is None:
            raise ValueError(f"{options.model} is not the folder of a run of predilect align, so name --{flag}")
    return options


def _parse(kind: type[Any], arguments: Sequence[str], below: Mapping[str, Any], source: str, **names: Any) -> Any:
    parser = OptionParser([kind, PreferenceConfig, LanguageModelConfig], **names)
    # TRL's default is bf16, which most processors compute many times more slowly than float32.
    accelerated = torch.accelerator.is_available()
    below = {"use_cpu": not accelerated, "bf16": accelerated} | dict(below)
    options, training, model = parser.parse(arguments, below, source=source)
    if options.dataset_name is None:
        raise ValueError("name the preferences: --dataset FILE or a hub id")
    if training.trust_remote_code:
        raise ValueError("code that comes with a model is not run: leave trust_remote_code out")
    return options, training, model


def _choose_method(arguments: Sequence[str], values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method, from the flags, the YAML file or the preset, and the preset's other values."""
    finder = OptionParser([], add_help=False)
    for flag in ("method", "preset"):
        finder.add_argument(f"--{flag}", default=values.get(flag))
    given = finder.parse_known_args(list(arguments))[0]
    preset = read_preset(given.preset) if given.preset else {}
    of_preset = preset.pop("method", None)
    method = given.method or of_preset
    if method is None:
        if {"--help", "-h"} & set(arguments):
            return "dpo", {}
        raise ValueError(f"choose a --method ({', '.join(METHODS)}) or a --preset (predilect align presets)")
    if of_preset not in (None, method):
        raise ValueError(f"the preset {given.preset} belongs to --method {of_preset} (got {method})")
    return _known(method), preset


def _known(method: str) -> str:
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}; {close_matches(method, METHODS)}")
    return method


def _as_flag(key: str, value: Any) -> Iterable[str]:
    parts = value if isinstance(value, list) else [value]
    return [f"--{key}", *map(str, parts)]
