"""Versions and hardware behind a result."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from predilect.registry import registered

_PACKAGES = ("predilect", "torch", "transformers", "accelerate", "datasets", "numpy")
_DECISIVE = ("predilect", "torch", "transformers", "numpy")


def versions() -> dict[str, str]:
    """Python, the libraries that numbers depend on, and every package that provides a method."""
    providers = {e.dist.name for e in registered().values() if e.dist}
    return {"python": platform.python_version(), **_versions([*_PACKAGES, *sorted(providers)])}


def method_versions(name: str) -> dict[str, str]:
    """The versions that decide the result of one method: its own package and the libraries below it."""
    providers = [e.dist.name for key, e in registered().items() if key == name and e.dist]
    return _versions([*_DECISIVE, *providers])


def hardware() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, and accelerator."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cuda = torch.cuda.is_available()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if cuda else None,
    }


def _versions(names: list[str]) -> dict[str, str]:
    found = {}
    for name in dict.fromkeys(names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a source tree on the path, without metadata
            found[name] = "unknown"
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
