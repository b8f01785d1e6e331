"""The wheels of the workspace's members, built once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import REPOSITORY, run


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of every member, built as for a release."""
    folder = tmp_path_factory.mktemp("wheels")
    run("uv", "build", "--all-packages", "--no-sources", "--wheel", "--out-dir", folder, cwd=REPOSITORY)
    return folder


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`environment()`: the Python of a fresh, empty environment, in the place of the one before.

    The place is always the same so that what Python compiles of the libraries (torch and transformers take it half a
    minute) serves all of them: it is kept by path, and looked at again where a file's date or size differs.
    """
    folder = tmp_path_factory.mktemp("environment")

    def fresh(*options: str) -> Path:
        run("uv", "venv", "--quiet", "--clear", *options, "--python", sys.executable, folder / "venv", cwd=folder)
        return folder / "venv" / "bin" / "python"

    return fresh


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables by which processes share what Python compiles, outside of the environments."""
    return {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled"))}


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lock's versions as constraints, so that the fresh environments take what the cache holds."""
    file = tmp_path_factory.mktemp("lock") / "constraints.txt"
    # fmt: off
    run("uv", "export", "--quiet", "--frozen", "--all-groups", "--all-extras", "--no-hashes", "--no-emit-workspace",
        "--format", "requirements-txt", "--output-file", file, cwd=REPOSITORY)
    # fmt: on
    return file
