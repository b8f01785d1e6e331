"""Config dataclasses as command-line options: flags override the YAML file, which overrides the defaults."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from predilect.configuration import field_types, make_config, read_yaml, without_none

CONFIG_FLAG = "config_file"


def config_command(config_class: type[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one option per field of `config_class`, and `--config FILE.yaml`.

    The decorated function takes the finished config as its first parameter; its other parameters stay ordinary Typer
    parameters. Flags are the field names with dashes; a tuple takes commas or a repeated flag, `dict[str, str]` and
    `dict[str, Any]` (whose values are read as YAML) take `name=value`, and `dict[str, dict]` takes
    `section.name=value`, all repeatable.

        @app.command()
        @config_command(TrainConfig)
        def train(config: TrainConfig, verbose: bool = False) -> None: ...
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        hints = typing.get_type_hints(function, include_extras=True)
        own = [p.replace(annotation=hints[p.name]) for p in list(inspect.signature(function).parameters.values())[1:]]
        fields = field_types(config_class)
        if clash := {p.name for p in own} & {*fields, CONFIG_FLAG}:
            raise TypeError(f"{function.__name__}: {sorted(clash)} are already options of {config_class.__name__}")

        @functools.wraps(function)
        def command(context: typer.Context, **given: Any) -> Any:
            config = _collect(config_class, context, given)
            return function(config, **{p.name: given[p.name] for p in own})

        parameters = [_keyword("context", typer.Context), *(p.replace(kind=p.KEYWORD_ONLY) for p in own)]
        parameters.append(_config_parameter())
        parameters += [_parameter(field, fields[field.name]) for field in dataclasses.fields(config_class)]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _collect(config_class: type[Any], context: typer.Context, given: Mapping[str, Any]) -> Any:
    """The YAML file's values, overridden by the flags that were typed, as a config."""
    path: Path | None = given[CONFIG_FLAG]
    values = read_yaml(path) if path else {}
    if path:
        make_config(config_class, values, source=str(path))  # its mistakes are reported under the file's name
    for name, annotation in field_types(config_class).items():
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            flag = _parse_flag(annotation, given[name], _flag(name))
            values[name] = _merge(values.get(name), flag)
    return make_config(config_class, values, source="the command line")


def _merge(below: Any, above: Any) -> Any:
    """A mapping from flags adds to the one in YAML, option by option; everything else replaces."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: _merge(below.get(key), value) for key, value in above.items()}}
    return above


def _parse_flag(annotation: Any, value: Any, flag: str) -> Any:
    kind, _ = without_none(annotation)
    origin = typing.get_origin(kind)
    if origin is tuple:
        element = typing.get_args(kind)[0]
        return [_element(element, text, flag) for part in value for text in part.split(",") if text.strip()]
    if origin is dict:
        inner = typing.get_args(kind)[1]
        return functools.reduce(_merge, (_assignment(text, flag, inner) for text in value), {})
    return value


def _element(kind: Any, text: str, flag: str) -> Any:
    try:
        return kind(text.strip())
    except ValueError:
        raise ValueError(f"{flag} takes values of type {kind.__name__} (got {text!r})") from None


def _assignment(text: str, flag: str, inner: Any) -> dict[str, Any]:
    nested = typing.get_origin(inner) is dict
    name, equals, value = text.partition("=")
    section, dot, key = name.partition(".")
    if not equals or not name or (nested and not (dot and key)):
        raise ValueError(f"{flag} takes {'section.name=value' if nested else 'name=value'} (got {text!r})")
    if inner is str:
        return {name: value}
    import yaml

    parsed = yaml.safe_load(value)
    return {section: {key: parsed}} if nested else {name: parsed}


def _parameter(field: dataclasses.Field[Any], annotation: Any) -> inspect.Parameter:
    kind, optional = without_none(annotation)
    origin = typing.get_origin(kind)
    default: Any = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    flags = [_flag(field.name)]
    if kind is bool:
        flags = [f"{flags[0]}/--no-{flags[0].removeprefix('--')}"]
    metavar = None
    if origin is tuple:
        kind, default, metavar = list[str], [str(v) for v in default or ()], "A,B,..."
    elif origin is dict:
        nested = typing.get_origin(typing.get_args(kind)[1]) is dict
        metavar = "SECTION.NAME=VALUE" if nested else "NAME=VALUE"
        kind, default = list[str], []
    elif origin is not Literal and kind not in (int, float, str, bool, Path):
        raise TypeError(f"{field.name}: a config field of type {annotation} cannot become a flag")
    info = typer.Option(
        *flags, help=field.metadata["help"], rich_help_panel=field.metadata.get("panel"), metavar=metavar
    )
    return _keyword(field.name, Annotated[kind | None if optional else kind, info], default)


def _config_parameter() -> inspect.Parameter:
    info = typer.Option(
        "--config", help="YAML file with any of these options; flags override it.", metavar="FILE.yaml"
    )
    return _keyword(CONFIG_FLAG, Annotated[Path | None, info], None)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
