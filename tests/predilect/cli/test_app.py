from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest
import typer
from typer.testing import Result

from predilect import __version__
from predilect.cli import root

Run = Callable[..., Result]
COMMANDS = ["leaderboard", "evaluate", "recommend", "data"]


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """`plugin(loads)`: the command `extra` comes from an installed package; `loads` is what it gives, or raises."""

    def install(loads: object) -> None:
        class Entry:
            name, dist = "extra", None

            def load(self) -> object:
                if isinstance(loads, Exception):
                    raise loads
                return loads

        monkeypatch.setattr(root, "entry_points", lambda group: [Entry()] if group == root.PLUGINS else [])

    return install


def test_help_lists_every_command_and_explains_it(predilect: Run) -> None:
    result = predilect("--help")
    assert result.exit_code == 0
    lines = {line.split()[0]: line.split(maxsplit=1)[1:] for line in result.output.splitlines() if line.strip()}
    assert all(lines.get(name) for name in COMMANDS), result.output


@pytest.mark.parametrize("command", [*COMMANDS, "data inspect", "data convert"])
def test_every_command_has_help(predilect: Run, command: str) -> None:
    result = predilect(*command.split(), "--help")
    assert result.exit_code == 0, result.output
    assert "Usage: " in result.output


def test_help_imports_neither_torch_nor_the_report() -> None:
    script = (
        "import sys; from predilect.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('heavy:', [m for m in ('torch', 'transformers', 'datasets', 'pandas', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: []\n")


def test_version(predilect: Run) -> None:
    assert predilect("--version").output == f"predilect {__version__}\n"


def test_a_package_adds_a_command(predilect: Run, plugin: Callable[[object], None]) -> None:
    def extra(name: str) -> None:
        """Say a name."""
        typer.echo(f"extra {name}")

    plugin(extra)
    assert "Say a name." in predilect("--help").output
    assert predilect("extra", "Ada").output == "extra Ada\n"


def test_a_package_adds_a_group(predilect: Run, plugin: Callable[[object], None]) -> None:
    group = typer.Typer()
    group.command("one")(lambda: typer.echo("first"))
    group.command("two")(lambda: typer.echo("second"))
    plugin(group)
    assert predilect("extra", "two").output == "second\n"


def test_a_broken_package_takes_no_other_command_away(predilect: Run, plugin: Callable[[object], None]) -> None:
    plugin(ImportError("no module named 'zzz'"))
    result = predilect("--help")
    assert result.exit_code == 0
    assert "the command 'extra' of unknown package could not be loaded: ImportError: no module named 'zzz'" in (
        result.output
    )
    assert predilect("data", "inspect").exit_code == 0
    assert predilect("extra").exit_code == 2


@pytest.mark.parametrize(
    ("error", "users"), [(ValueError("bad value 7"), True), (OSError("no disk"), True), (RuntimeError("a bug"), False)]
)
def test_users_errors_are_one_message_and_bugs_keep_their_traceback(
    predilect: Run, plugin: Callable[[object], None], error: Exception, users: bool
) -> None:
    def extra() -> None:
        raise error

    plugin(extra)
    result = predilect("extra")
    if users:
        assert (result.exit_code, result.stderr) == (2, f"Error: {error}\n")
    else:
        assert result.exception is error
    assert predilect("--debug", "extra").exception is error
    assert predilect("extra", env={"PREDILECT_DEBUG": "1"}).exception is error


def test_entry_points_of_this_workspace_load() -> None:
    from importlib.metadata import entry_points

    for entry in entry_points(group=root.PLUGINS):
        assert isinstance(entry, EntryPoint)
        assert root._load(entry) is not None, entry
