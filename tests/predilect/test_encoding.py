from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from predilect.cli.root import Commands
from predilect.configuration import convert
from predilect.data.catalogue import Catalogue, UnknownItemError
from predilect.encoding import require_path, typed_text
from predilect.runs import OutputFolder

BYTES = os.fsdecode(b"out-\xff")  # no text in any UTF-8 locale


def test_a_path_without_a_text_is_refused_before_it_is_used(tmp_path: Path) -> None:
    require_path(tmp_path / "ü")
    for use in (require_path, lambda p: OutputFolder(p, "train"), lambda p: convert(Path, p, "output_dir")):
        with pytest.raises(ValueError, match=r"out-\\udcff' cannot be written in this locale.*PYTHONUTF8=1"):
            use(tmp_path / BYTES)


def test_typed_titles_are_utf8_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = "Amélie".encode().decode("ascii", "surrogateescape")
    assert typed_text("Amélie") == "Amélie"
    assert typed_text(BYTES) == BYTES
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("ascii", "surrogateescape"))
    assert typed_text(typed) == "Amélie"
    assert Catalogue(("1",), ("Amélie",), ((),)).resolve([typed]) == [1]
    with pytest.raises(UnknownItemError):
        Catalogue(("1",), ("Amélie",), ((),)).resolve(["Amelia"])


def test_the_end_of_a_file_is_no_abort() -> None:
    app = typer.Typer(cls=Commands)

    @app.callback()
    def root(debug: bool = False) -> None: ...

    @app.command()
    def read() -> None:
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")

    result = CliRunner().invoke(app, ["read"])
    assert result.exit_code == 2
    assert "Error: a file ends before its content does: Compressed file ended" in result.output
    assert "Aborted" not in result.output
    debugged = CliRunner().invoke(app, ["--debug", "read"])
    assert isinstance(debugged.exception, OSError)
