"""The wheels of the workspace's members, built once."""

from __future__ import annotations

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
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lock's versions as constraints, so that the fresh environments take what the cache holds."""
    file = tmp_path_factory.mktemp("lock") / "constraints.txt"
    # fmt: off
    run("uv", "export", "--quiet", "--frozen", "--all-groups", "--all-extras", "--no-hashes", "--no-emit-workspace",
        "--format", "requirements-txt", "--output-file", file, cwd=REPOSITORY)
    # fmt: on
    return file
