"""The members of the workspace, and commands run outside it."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Member:
    """A package of the workspace, as its `pyproject.toml` describes it."""

    folder: Path
    name: str
    import_name: str
    version: str
    requirements: tuple[Requirement, ...]

    @property
    def siblings(self) -> set[str]:
        """Names of the workspace's packages that this one needs, directly or not."""
        by_name = {m.name: m for m in members()}
        direct = {by_name[r.name] for r in self.requirements if r.name in by_name}
        return {m.name for m in direct}.union(*(m.siblings for m in direct))


@cache
def members() -> tuple[Member, ...]:
    found = []
    for file in sorted(REPOSITORY.glob("packages/*/pyproject.toml")):
        project = tomllib.loads(file.read_text())["project"]
        requirements = tuple(Requirement(r) for r in project["dependencies"])
        name = project["name"]
        found.append(Member(file.parent, name, name.replace("-", "_"), project["version"], requirements))
    return tuple(found)


def run(*command: object, cwd: Path, **env: str) -> str:
    """Run a command outside any environment; its output, or a failure that shows it."""
    clean = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT"}}
    clean |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", **env}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=clean, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def code_blocks(markdown: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", markdown.read_text(), flags=re.MULTILINE | re.DOTALL)
