"""Options of `predilect align`: dataclasses that are flags and YAML at once, by the conventions of TRL's `TrlParser`.

Values come, each over the one before, from the method's defaults, a preset, a YAML file (`--config`), and flags.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from trl import ModelConfig, TrlParser

from predilect.configuration import read_yaml
from pref_losses.align_presets import close_matches, read_preset
from pref_losses.config import AlphaDPOConfig, BetaDPOConfig, DrDPOConfig, PreferenceConfig, SoftmaxDPOConfig

# What TRL's scripts call otherwise.
_SHORT = {"model": "model_name_or_path", "dataset": "dataset_name"}


@dataclass(frozen=True)
class Method:
    """A name on the command line: the defaults of a config class, with changes, and the trainer that cites the paper."""

    config: type[PreferenceConfig]
    trainer: str = "PreferenceTrainer"
    changes: Mapping[str, Any] = field(default_factory=dict)

    def defaults(self) -> dict[str, Any]:
        """What differs from `PreferenceConfig`."""
        plain = {f.name: f.default for f in fields(PreferenceConfig)}
        own = {f.name: f.default for f in fields(self.config) if f.default is not MISSING}
        return {name: value for name, value in own.items() if value != plain[name]} | dict(self.changes)


METHODS = {
    "dpo": Method(PreferenceConfig),
    "cdpo": Method(PreferenceConfig, changes={"label_smoothing": 0.1}),
    "rdpo": Method(PreferenceConfig, changes={"link": "flip_corrected", "label_smoothing": 0.1}),
    "simpo": Method(AlphaDPOConfig, changes={"margin_alpha": 0.0}),
    "alpha-dpo": Method(AlphaDPOConfig, "AlphaDPOTrainer"),
    "beta-dpo": Method(BetaDPOConfig, "BetaDPOTrainer"),
    "dr-dpo": Method(DrDPOConfig, "DrDPOTrainer"),
    "softmax-dpo": Method(SoftmaxDPOConfig, "SoftmaxDPOTrainer"),
}


def _option(help: str, default: Any, *aliases: str) -> Any:
    metadata: dict[str, Any] = {"help": help} | ({"aliases": list(aliases)} if aliases else {})
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class DataOptions:
    """Which preferences, and which of them are held out."""

    dataset_name: str | None = _option(
        "Hub id, or a JSON, JSON lines or Parquet file (gzipped or not): prompt, chosen, rejected; HH dialogues too.",
        None,
        "--dataset",
    )
    dataset_train_split: str = _option("Split of a hub data set to read.", "train")
    test_dataset: str | None = _option("Test on this file or hub id; without it test_size is held out.", None)
    dataset_test_split: str = _option("Split of test_dataset, if that is a hub id.", "test")
    test_size: float = _option("Rows to hold out: below 1 a share, else a number; prompts stay together.", 0.1)
    max_rows: int | None = _option("Use this many rows, training and test together.", None)
    split_seed: int = _option("Seed of the choice of rows, the held-out ones and the flips.", 0)


@dataclass
class StageOptions(DataOptions):
    """What happens around the training: supervised fine-tuning before it, flipped pairs, evaluation after it."""

    flip_rate: float = _option(
        "Exchange chosen and rejected in this share of the training pairs and remember which, [0, 1].", 0.0
    )
    sft_epochs: float = _option("First train on the chosen answers for so many epochs, as the papers do.", 0.0)
    sft_steps: int = _option("The same in optimizer steps; goes before sft_epochs.", 0)
    sft_learning_rate: float = _option("Learning rate of that stage.", 2e-5)
    samples: int = _option("Test prompts to answer, for the KL divergence to the reference; 0: none.", 0)
    max_new_tokens: int = _option("Longest answer sampled.", 128)
    resume: bool = _option("Go on with the run in output_dir, from its newest whole checkpoint.", False)
    overwrite: bool = _option("Throw away the run in output_dir.", False)

    def __post_init__(self) -> None:
        if not 0 <= self.flip_rate <= 1:
            raise ValueError(f"flip_rate is a share and lies in [0, 1] (got {self.flip_rate})")
        if self.resume and self.overwrite:
            raise ValueError("--resume keeps the run in the output folder and --overwrite throws it away: choose one")
        if self.test_size < 0:
            raise ValueError(f"test_size is a share or a number of rows (got {self.test_size})")
        if self.max_rows is not None and self.max_rows < 1:
            raise ValueError(f"max_rows must be at least 1 (got {self.max_rows})")


@dataclass
class AlignOptions(StageOptions):
    """Options of `predilect align`."""

    method: str | None = _option(f"The objective: {', '.join(METHODS)}. Its parts can be set one by one too.", None)
    preset: str | None = _option("Hyper-parameters of a paper by name; `predilect align presets` lists them.", None)


@dataclass
class CompareOptions(StageOptions):
    """Options of `predilect align compare`."""

    methods: list[str] = _option(
        "Methods to compare. In YAML also a mapping from names to options of that method: "
        "{dpo: {beta: 0.1}, mixed: {method: softmax-dpo, reduction: robust}}.",
        ["dpo", "alpha-dpo", "beta-dpo", "dr-dpo"],
    )
    seeds: list[int] = _option("Train every method once with each of these seeds.", [0])


@dataclass
class LanguageModelConfig(ModelConfig):
    """TRL's `ModelConfig`; adapters go on all linear layers."""

    model_name_or_path: str | None = _option(
        "Folder, hub id, or smollm2-135m (needs no network); the folder of a LoRA adapter goes on with that adapter.",
        None,
        "--model",
    )
    lora_target_modules: list[str] | None = _option("LoRA target modules.", ["all-linear"])

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model_name_or_path:
            raise ValueError("name a model: --model FOLDER, a hub id, or --model smollm2-135m")


class OptionParser(TrlParser):
    """`TrlParser` whose mistakes are `ValueError`s that name close matches; flags are never abbreviated."""

    def __init__(self, types: Sequence[type[Any]], **kwargs: Any) -> None:
        super().__init__(types, allow_abbrev=False, **kwargs)
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
