"""`predilect align` as the core's command finds it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from predilect.cli import app

runner = CliRunner()


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    from pref_losses.align import compare, evaluate, run

    calls: list[tuple[str, list[str]]] = []
    for name, module in (("train", run), ("compare", compare), ("evaluate", evaluate)):
        monkeypatch.setattr(module, "main", lambda given, n=name: calls.append((n, list(given))))
    return calls


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["--method", "alpha-dpo", "--beta", "2.5"], ("train", ["--method", "alpha-dpo", "--beta", "2.5"])),
        (["train", "--method", "dpo"], ("train", ["--method", "dpo"])),
        (["compare", "--methods", "dpo", "dr-dpo"], ("compare", ["--methods", "dpo", "dr-dpo"])),
        (["evaluate", "--model", "x", "--judge=y"], ("evaluate", ["--model", "x", "--judge=y"])),
    ],
)
def test_arguments_arrive_as_typed(typed: list[str], expected: Any, called: list[Any]) -> None:
    result = runner.invoke(app, ["align", *typed])
    assert result.exit_code == 0, result.output
    assert called == [expected]


def test_mistakes_are_one_line_and_exit_code_2() -> None:
    result = runner.invoke(app, ["align", "--method", "alpha-dop", "--model", "m", "--dataset", "d"])
    assert result.exit_code == 2
    assert result.output.strip() == "Error: there is no method 'alpha-dop'; did you mean alpha-dpo?"


def test_help_lists_the_commands_and_every_option() -> None:
    short = runner.invoke(app, ["align", "--help"])
    assert short.exit_code == 0
    assert all(word in short.output for word in ("--method", "compare", "evaluate", "presets"))
    whole = runner.invoke(app, ["align", "train", "--help"])
    assert whole.exit_code == 0
    assert all(flag in whole.output for flag in ("--margin-alpha", "--lora-r", "--flip-rate", "--learning-rate"))


def test_presets_are_listed() -> None:
    assert "alpha-dpo-gemma2-9b-it" in runner.invoke(app, ["align", "presets"]).output


def test_the_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from predilect.cli import app\n"
        "assert CliRunner().invoke(app, ['align', '--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'transformers', 'trl', 'datasets', 'rich.markdown') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
