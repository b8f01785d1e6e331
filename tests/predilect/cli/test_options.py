from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from predilect.cli import config_command
from predilect.configuration import option


@dataclass
class Options:
    epochs: int = option("Passes.", default=3)
    rate: float = option("Step size.", default=0.1)
    shuffle: bool = option("Order.", default=True)
    kind: Literal["a", "b"] = option("Kind.", default="a")
    where: Path | None = option("Folder.", default=None)
    sizes: tuple[int, ...] = option("Sizes.", default=(1, 2))
    names: dict[str, str] = option("Names.", default={})
    parts: dict[str, dict[str, Any]] = option("Parts.", default={})

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1 (got {self.epochs})")


@pytest.fixture
def parse(tmp_path: Path) -> Callable[..., Any]:
    """`parse("--epochs", "4", yaml="rate: 2")`: the config that the command got, or the failed result."""

    def run(*arguments: str, yaml: str | None = None) -> Any:
        got: list[Options] = []
        app = typer.Typer()

        @app.command()
        @config_command(Options)
        def command(config: Options, extra: int = 0) -> None:
            got.append(config)

        if yaml is not None:
            (tmp_path / "run.yaml").write_text(yaml)
            arguments = ("--config", str(tmp_path / "run.yaml"), *arguments)
        result = CliRunner().invoke(app, list(arguments))
        return got[0] if got else result

    return run


def test_without_anything_the_defaults(parse: Callable[..., Any]) -> None:
    assert parse() == Options()


def test_flags_override_the_file_which_overrides_the_defaults(parse: Callable[..., Any]) -> None:
    config = parse("--epochs", "9", yaml="epochs: 5\nrate: 1e-3\nkind: b")
    assert (config.epochs, config.rate, config.kind, config.shuffle) == (9, 0.001, "b", True)


def test_a_flag_with_the_default_value_still_overrides_the_file(parse: Callable[..., Any]) -> None:
    assert parse("--epochs", "3", yaml="epochs: 5").epochs == 3


def test_every_kind_of_field(parse: Callable[..., Any]) -> None:
    flags = (
        "--rate 2 --no-shuffle --kind b --where x --sizes 4,5 --sizes 6 --names a=b=c --parts m.n=[1] --parts m.o=x"
    )
    config = parse(*flags.split())
    assert config == Options(3, 2.0, False, "b", Path("x"), (4, 5, 6), {"a": "b=c"}, {"m": {"n": [1], "o": "x"}})


def test_sections_from_flags_and_file_are_merged(parse: Callable[..., Any]) -> None:
    config = parse("--parts", "m.n=2", yaml="parts: {m: {n: 1, o: 5}, q: {r: 0}}")
    assert config.parts == {"m": {"n": 2, "o": 5}, "q": {"r": 0}}


@pytest.mark.parametrize(
    ("arguments", "yaml", "message"),
    [
        ((), "epoch: 3", "run.yaml has no option 'epoch'; did you mean epochs?"),
        ((), "epochs: three", "run.yaml: epochs must be a whole number (got 'three')"),
        ((), "epochs: true", "run.yaml: epochs must be a whole number (got True)"),
        ((), "kind: c", "run.yaml: kind must be one of a, b (got 'c')"),
        ((), "sizes: 3", "run.yaml: sizes must be a list (got 3)"),
        ((), "epochs: 0", "epochs must be at least 1 (got 0)"),
        ((), "- 1", "run.yaml must be a mapping of option names to values (got list)"),
        ((), "a: [", "run.yaml is not valid YAML"),
        (("--sizes", "4,x"), None, "--sizes takes values of type int (got 'x')"),
        (("--names", "ab"), None, "--names takes name=value (got 'ab')"),
        (("--parts", "a=1"), None, "--parts takes section.name=value (got 'a=1')"),
        (("--config", "nowhere.yaml"), None, "there is no config file nowhere.yaml"),
    ],
)
def test_mistakes_are_named(
    parse: Callable[..., Any], arguments: tuple[str, ...], yaml: str | None, message: str
) -> None:
    result = parse(*arguments, yaml=yaml)
    assert message in str(result.exception)


def test_an_option_of_the_command_may_not_hide_a_field() -> None:
    def command(config: Options, epochs: int = 0) -> None: ...

    with pytest.raises(TypeError, match=r"command: \['epochs'\] are already options of Options"):
        config_command(Options)(command)


@dataclass
class Odd:
    value: list[int] = option("A list.", default=None)


def test_a_field_without_a_flag_is_refused_at_once() -> None:
    def command(config: Odd) -> None: ...

    with pytest.raises(TypeError, match="value: a config field of type"):
        config_command(Odd)(command)
