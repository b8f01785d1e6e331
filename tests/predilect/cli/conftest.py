"""The command line as a person meets it: arguments in, text and exit code out."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from predilect.cli import app

ORDINALS = (
    "First Second Third Fourth Fifth Sixth Seventh Eighth Ninth Tenth Eleventh Twelfth Thirteenth Fourteenth "
    "Fifteenth Sixteenth Seventeenth Eighteenth Nineteenth Twentieth"
)


@pytest.fixture(scope="session")
def predilect() -> Callable[..., Result]:
    """`predilect("leaderboard", "--quick")`: the command's result, in one wide line per message."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", **(env or {})})

    return run


@pytest.fixture(scope="session")
def log_file(planted_log: dict[str, list[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted log as a person's own CSV, with titles in a second file."""
    folder = tmp_path_factory.mktemp("own")
    with (folder / "interactions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "timestamp"])
        writer.writerows(zip(*planted_log.values(), strict=True))
    with (folder / "items.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "title"])
        writer.writerows([i, f"Ring of the {word} Hour"] for i, word in enumerate(ORDINALS.split(), start=1))
    return folder


@pytest.fixture(scope="session")
def finished(predilect: Callable[..., Result], log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a leaderboard of three counting methods on `log_file`."""
    folder = tmp_path_factory.mktemp("runs") / "board"
    result = predilect(
        "leaderboard", "--data", log_file, "--models", "random,popularity,item-knn", "--bootstrap", 20,
        "--k-core", 0, "--output-dir", folder,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder
