"""What every speed script shares: its options, timing in turns, the memory it takes, and the result file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

RESULTS = Path(__file__).parents[1] / "results" / "speed"


class Options(NamedTuple):
    quick: bool
    output: Path


def options(description: str) -> Options:
    """Read `--quick` and `--output`; a smoke run never writes over the committed results."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="A smoke run on small sizes; its ratios mean nothing.")
    parser.add_argument("--output", type=Path, help="Folder of the result file; --quick: a temporary one by default.")
    given = parser.parse_args()
    default = Path(tempfile.mkdtemp()) if given.quick and given.output is None else RESULTS
    return Options(given.quick, given.output or default)


def time_in_turns(functions: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Median seconds of each function; they run in turns, so that the machine's other load meets all alike.

    One turn before the first is not timed (allocation, compilation, caches).
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            _synchronize()
            start = time.perf_counter()
            function()
            _synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_extra_bytes(function: Callable[[], object]) -> int:
    """Most bytes of tensors alive at once during `function`, above what was alive before.

    Read from the allocation records of PyTorch's profiler, so exact for tensors, and blind to anything else.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        function()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [(e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]"]
    alive = peak = 0
    for _, change in sorted(changes, key=lambda item: item[0]):
        alive += change
        peak = max(peak, alive)
    return peak


def row(
    case: str, *, ours: float, baseline: float, unit: str, goal: float, baseline_is: str, lower_is_better: bool = True
) -> dict[str, Any]:
    """One line of a result file; `ratio` and `goal` above 1 are better than the baseline, whatever is measured."""
    ratio = baseline / ours if lower_is_better else ours / baseline
    return {
        "case": case,
        "ours": float(f"{ours:.4g}"),
        "baseline": float(f"{baseline:.4g}"),
        "unit": unit,
        "ratio": round(ratio, 3),
        "goal": goal,
        "baseline_is": baseline_is,
    }


def write(
    name: str, rows: Sequence[dict[str, Any]], *, data: str, given: Options, packages: Sequence[str] = ()
) -> Path:
    """Print the rows and write `<output>/<name>.json`.

    Args:
        name: the script's module name.
        rows: made by `row`.
        data: what was measured on, in words.
        given: the script's options.
        packages: distributions beside predilect, torch and numpy whose versions matter.
    """
    result = {
        "name": name,
        "command": f"python -m benchmarks.speed.{name}" + (" --quick" if given.quick else ""),
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "versions": {
            "python": platform.python_version(),
            **{p: version(p) for p in ("predilect", "torch", "numpy", *packages)},
        },
        "data": data,
        "rows": list(rows),
    }
    for r in rows:
        verdict = "met" if r["ratio"] >= r["goal"] else "NOT met"
        print(
            f"{r['case']}: ours {r['ours']:g} {r['unit']}, {r['baseline_is']} {r['baseline']:g} {r['unit']}; "
            f"ratio {r['ratio']:g}, goal {r['goal']:g} {verdict}"
        )
    given.output.mkdir(parents=True, exist_ok=True)
    path = given.output / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {path}")
    return path


def hardware() -> str:
    """Processor, cores, threads, memory and accelerator in words; nothing that names the machine."""
    parts = [f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used"]
    if hasattr(os, "sysconf"):
        parts.append(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB memory")
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
