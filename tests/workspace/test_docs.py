"""The documentation's examples run as they stand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support import REPOSITORY, code_blocks, run

DOCS = REPOSITORY / "docs"


@pytest.mark.slow
def test_quickstart_runs_from_top_to_bottom(tmp_path: Path) -> None:
    """Its shell commands, then its Python blocks as one script, in an empty folder."""
    page = DOCS / "quickstart.md"
    commands = [line for block in code_blocks(page, "bash") for line in block.splitlines() if line.strip()]
    assert commands
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    for command in commands:
        run("bash", "-euc", command, cwd=tmp_path, PATH=path)
    assert (tmp_path / "runs/leaderboard/report.html").is_file()
    script = tmp_path / "quickstart.py"
    script.write_text("\n".join(code_blocks(page, "python")))
    assert run(sys.executable, script, cwd=tmp_path).strip()


def test_every_page_is_in_the_navigation() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text()
    pages = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")}
    assert pages
    assert not [p for p in pages if p not in navigation]


def test_readme_opens_with_the_two_commands() -> None:
    first = code_blocks(REPOSITORY / "README.md", "bash")[0]
    assert "pip install uv && uv run predilect leaderboard" in first
    assert "pip install uv && uv run pytest" in first


def test_data_page_names_every_format() -> None:
    from predilect.data import READERS

    page = (DOCS / "data.md").read_text()
    assert not [name for name in READERS if f"`{name}`" not in page]
