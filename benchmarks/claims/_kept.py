"""Results kept as files: a killed script goes on from them, and copies of a script that run at once share the work."""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.speed._results import hardware
from filelock import FileLock, Timeout

Result = dict[str, Any]
PACKAGES = ("predilect", "torch", "transformers", "trl", "peft", "diffusers")
Job = tuple[Path, Callable[[], Result]]  # where its result is kept, and what makes it


def kept(path: Path, make: Callable[[], Result], *, wait: bool = True) -> Result:
    """The result in the file, made now if it is not there; with the `environment` in which it was made.

    Raises:
        filelock.Timeout: another process is making it, and `wait` is False.
    """
    if not path.is_file():
        with only_one(path, wait=wait):
            if not path.is_file():
                write(path, {**make(), "environment": environment()})
    content: Result = json.loads(path.read_text())
    return content


def share(jobs: Iterable[Job]) -> list[Result]:
    """The results of all jobs, in their order; those at which another process is are waited for at the end."""
    jobs = list(jobs)
    for path, make in jobs:
        with suppress(Timeout):
            kept(path, make, wait=False)
    return [kept(path, make) for path, make in jobs]


def only_one(path: Path, *, wait: bool = True) -> FileLock:
    """A context that one process at a time may be in for this path; a killed process leaves it."""
    digest = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"predilect-claims-{digest}.lock", timeout=-1 if wait else 0)


def digest(content: Any) -> str:
    """A name for what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def environment() -> Result:
    """Hardware, and versions of what the numbers may depend on."""
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {"hardware": hardware(), "versions": {"python": platform.python_version(), **versions}}


def write(path: Path, content: Result, *, indent: int | None = None) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(content, indent=indent) + "\n")
    partial.replace(path)
