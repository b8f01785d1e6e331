"""Configs are dataclasses: the same class is Python, YAML and (through `predilect.cli.options`) command-line flags.

Field types may be `int`, `float`, `str`, `bool`, `Path`, `Literal[...]`, `tuple[...]`, `dict[str, str]`,
`dict[str, Any]`, `dict[str, dict[str, Any]]`, and any of these `| None`. Every field carries
`metadata={"help": ...}`; an optional `"panel"` groups flags in `--help`.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from predilect.encoding import require_path

T = TypeVar("T")


def option(help: str, *, panel: str = "Options", default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field with its help text; a mutable default is copied for every instance.

    Examples:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Config:
        ...     epochs: int = option("Number of epochs.", default=3)
        >>> Config().epochs
        3
    """
    return _field(default, {"help": help, "panel": panel})


def _field(default: Any, metadata: Mapping[str, Any]) -> Any:
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def new_defaults(**defaults: Any) -> Callable[[type[T]], type[T]]:
    """Class decorator, below `@dataclass`: other defaults for inherited options, which keep type, help and panel.

    Raises:
        TypeError: a name that is not an inherited option.

    Examples:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Config:
        ...     epochs: int = option("Number of epochs.", default=3)
        >>> @dataclass
        ... @new_defaults(epochs=10)
        ... class Longer(Config):
        ...     pass
        >>> Longer().epochs
        10
    """

    def decorate(cls: type[T]) -> type[T]:
        inherited = {field.name: field for base in cls.__bases__ for field in dataclasses.fields(base)}
        if unknown := sorted(set(defaults) - set(inherited)):
            raise TypeError(f"{cls.__name__} inherits no option {', '.join(unknown)}")
        types = typing.get_type_hints(cls)
        for name, default in defaults.items():
            cls.__annotations__[name] = types[name]
            setattr(cls, name, _field(default, inherited[name].metadata))
        return cls

    return decorate


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, or not a mapping of names to values.
    """
    import yaml

    if not path.is_file():
        raise FileNotFoundError(f"there is no config file {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"{path} must be a mapping of option names to values (got {type(values).__name__})")
    return values


def make_config(config_class: type[T], values: Mapping[str, Any], *, source: str) -> T:
    """An instance of a config dataclass from plain values such as YAML gives.

    Args:
        config_class: the dataclass.
        values: field name -> value; absent fields keep their defaults.
        source: where the values come from, for messages ("run.yaml", "recommenders.sasrec").

    Raises:
        ValueError: a key that is not a field (close matches are named), or a value of the wrong type.
    """
    hints = field_types(config_class)
    for key in values:
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(hints))}"
            raise ValueError(f"{source} has no option {key!r}; {hint}")
    return config_class(**{key: convert(hints[key], value, f"{source}: {key}") for key, value in values.items()})


def plain(config: Any) -> dict[str, Any]:
    """A config as values that JSON and YAML can hold; `make_config` turns them back."""
    return {key: _plain(value) for key, value in dataclasses.asdict(config).items()}


def field_types(config_class: type[Any]) -> dict[str, Any]:
    """Field name -> resolved type, in the order of the fields."""
    hints = typing.get_type_hints(config_class)
    return {field.name: hints[field.name] for field in dataclasses.fields(config_class) if field.init}


def without_none(annotation: Any) -> tuple[Any, bool]:
    """`X | None` -> (X, True); `X` -> (X, False)."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [a for a in typing.get_args(annotation) if a is not type(None)]
        if len(members) != 1:
            raise TypeError(f"a config field may be one type, or that type or None (got {annotation})")
        return members[0], True
    return annotation, False


def convert(annotation: Any, value: Any, where: str) -> Any:
    """`value` as the field's type, or a ValueError that names `where`, the value and what is expected."""
    kind, optional = without_none(annotation)
    if value is None and optional:
        return None
    origin = typing.get_origin(kind)
    if origin is Literal:
        if value in (choices := typing.get_args(kind)):
            return value
        raise _wrong(where, value, "one of " + ", ".join(str(c) for c in choices))
    if origin is tuple:
        return _convert_tuple(typing.get_args(kind), value, where)
    if origin is dict or kind is dict:
        return _convert_dict(typing.get_args(kind), value, where)
    return _convert_scalar(kind, value, where)


def at_least(config: Any, **lowest: int) -> None:
    """Raise ValueError where a named field of the config is below the given number; None is none."""
    for name, least in lowest.items():
        value = getattr(config, name)
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least} (got {value})")


def _convert_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if kind is float and not isinstance(value, bool):
        try:  # YAML 1.1 reads 1e-3 as text: a number without a dot
            return float(value)
        except (TypeError, ValueError):
            raise _wrong(where, value, "a number") from None
    if kind is Path and isinstance(value, str | Path):
        require_path(value)
        return Path(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    names = {int: "a whole number", str: "text", bool: "true or false", float: "a number", Path: "a path"}
    if kind not in names:
        raise TypeError(f"{where}: config fields of type {kind} are not supported")
    raise _wrong(where, value, names[kind])


def _convert_tuple(elements: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _wrong(where, value, "a list")
    if elements[-1] is Ellipsis:
        elements = (elements[0],) * len(value)
    if len(value) != len(elements):
        raise _wrong(where, value, f"a list of {len(elements)} values")
    return tuple(convert(kind, v, where) for kind, v in zip(elements, value, strict=True))


def _convert_dict(arguments: tuple[Any, ...], value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, value, "a mapping")
    kind = arguments[1] if arguments else Any
    return {str(key): convert(kind, v, f"{where}.{key}") for key, v in value.items()}


def _wrong(where: str, value: Any, expected: str) -> ValueError:
    return ValueError(f"{where} must be {expected} (got {value!r})")


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
