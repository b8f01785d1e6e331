"""The root of the command line: built-in commands, plug-ins, and errors as one clear message."""

from __future__ import annotations

import io
import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from predilect import __version__
from predilect.cli import data, evaluate, leaderboard, recommend, train

PLUGINS = "predilect.commands"


class Commands(TyperGroup):
    """Built-in commands and those of installed packages, which are imported when they are named or listed."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        names = super().list_commands(ctx)
        return [*names, *sorted(e.name for e in entry_points(group=PLUGINS) if e.name not in names)]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        if (built_in := super().get_command(ctx, cmd_name)) is not None:
            return built_in
        commands = [e for e in entry_points(group=PLUGINS) if e.name == cmd_name]
        return _load(commands[0]) if commands else None

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        super(TyperGroup, self).format_help(ctx, formatter)  # plain: the import of rich's help alone takes 0.25 s

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(error, EOFError):  # click takes it for an abort by the user
                error = OSError(f"a file ends before its content does: {error}")
            if ctx.params.get("debug") or os.environ.get("PREDILECT_DEBUG") == "1" or not _is_users(error):
                raise error
            fail(str(error))


def _load(entry: EntryPoint) -> Any:
    """The click command of a plug-in, or None after a message that names the one that is broken."""
    try:
        plugin = entry.load()
        if not isinstance(plugin, typer.Typer):
            single = typer.Typer(add_completion=False)
            single.command(entry.name)(plugin)
            plugin = single
        command = typer.main.get_command(plugin)
    except Exception as error:  # whatever a foreign package raises must not take the other commands away
        dist = entry.dist.name if entry.dist else "unknown package"
        message(f"the command {entry.name!r} of {dist} could not be loaded: {type(error).__name__}: {error}", "yellow")
        return None
    command.name = entry.name
    return command


def _is_users(error: Exception) -> bool:
    """Whether the message says it all: a wrong value, a missing file, an unknown item."""
    if isinstance(error, ValueError | OSError):
        return True
    from predilect.data.catalogue import UnknownItemError

    return isinstance(error, UnknownItemError)


def message(text: str, colour: str) -> None:
    """One message on standard error."""
    typer.secho(text, fg=colour, err=True)


def fail(text: str) -> None:
    """End the command with exit code 2."""
    message(f"Error: {text}", "red")
    raise typer.Exit(2)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"predilect {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="predilect",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, compare and use recommenders: one command line for data, models and evaluation.",
)


@app.callback()
def _root(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of errors (or set PREDILECT_DEBUG=1).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every command; `Commands.invoke` reads `debug`."""


app.command("leaderboard")(leaderboard.leaderboard)
app.add_typer(train.app, name="train")
app.command("options")(train.options)
app.command("evaluate")(evaluate.evaluate)
app.command("recommend")(recommend.recommend)
app.add_typer(data.app, name="data")


def main() -> None:
    """Entry point of the console script.

    What the terminal's encoding lacks is printed as a question mark: no run ends for its printing.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app(prog_name="predilect")
