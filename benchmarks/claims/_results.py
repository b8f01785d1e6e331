"""The result file of a study: rows with intervals, and a verdict for every claim.

Intervals: 95 % bootstrap that resamples seeds and rows together, rows jointly for all systems, and the rows of one
person together. The verdict on a claim follows from the intervals of its differences: `holds` if all lie above 0,
`does not hold` if one lies below 0, else `undecided`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmarks.claims._kept import Result, write

RESULTS = Path(__file__).parents[1] / "results" / "claims"
WORK = Path("runs") / "claims"
Array = np.ndarray[Any, Any]
Interval = tuple[float, float, float]


class Options(NamedTuple):
    quick: bool
    output: Path
    work: Path


def options_of(description: str) -> Options:
    """Read `--quick`, `--output`, `--work`; a smoke run never writes over the committed results."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="A smoke run on a tiny model; its verdict means nothing.")
    parser.add_argument("--output", type=Path, help="Folder of the result file; --quick: a temporary one by default.")
    parser.add_argument("--work", type=Path, help=f"Folder of kept models, default {WORK}; --quick: a temporary one.")
    given = parser.parse_args()
    if given.quick:
        torch.set_num_threads(1)
    spare = Path(tempfile.mkdtemp()) if given.quick else None
    return Options(given.quick, given.output or spare or RESULTS, given.work or spare or WORK)


def interval(values: Array, groups: Array | None = None, *, draws: int = 2000) -> Interval:
    """Mean and interval of (seeds, rows), resampling seeds and whole groups of rows; None: each row is a group."""
    rng = np.random.default_rng(0)
    groups = np.arange(values.shape[1]) if groups is None else groups
    _, place = np.unique(groups, return_inverse=True)
    count = int(place.max()) + 1
    sums = np.stack([np.bincount(place, weights=row, minlength=count) for row in values])
    sizes = np.bincount(place, minlength=count)
    means = []
    for _ in range(draws):
        seeds, drawn = rng.integers(len(values), size=len(values)), rng.integers(count, size=count)
        means.append(sums[seeds][:, drawn].sum() / (len(values) * sizes[drawn].sum()))
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def row(system: str, metric: str, values: Array, groups: Array | None = None) -> dict[str, Any]:
    """Mean and interval of a system, and its mean for each seed."""
    mean, low, high = interval(values, groups)
    per_seed = [round(float(v), 4) for v in values.mean(1)]
    return {"system": system, "metric": metric, "mean": mean, "low": low, "high": high, "per_seed": per_seed}


def verdict(differences: Iterable[Interval]) -> str:
    found = list(differences)
    if all(low > 0 for _, low, _ in found):
        return "holds"
    return "does not hold" if any(high < 0 for _, _, high in found) else "undecided"


def write_result(
    given: Options,
    *,
    name: str,
    paper: str,
    data: str,
    seeds: Sequence[int],
    rows: list[dict[str, Any]],
    claims: Mapping[str, Mapping[str, Interval]],
    runs: Iterable[Result],
    script: str | None = None,
) -> None:
    """Write `<name>.json`.

    Args:
        given: where to, and whether this is a smoke run.
        name: of the result, and of its script where `script` is None.
        paper: authors, year, number.
        data: data and models in words.
        seeds: of the runs.
        rows: see `row`.
        claims: in words -> its differences.
        runs: the kept runs, for where they were made.
        script: its name.
    """
    told = [
        {
            "claim": claim,
            "verdict": verdict(differences.values()),
            "differences": {difference: list(found) for difference, found in differences.items()},
        }
        for claim, differences in claims.items()
    ]
    made = {str(run["environment"]): run["environment"] for run in runs}
    result = {
        "name": name,
        "paper": paper,
        "claims": told,
        "command": f"python -m benchmarks.claims.{script or name}" + (" --quick" if given.quick else ""),
        "date": date.today().isoformat(),
        "environments": list(made.values()),
        "data": data,
        "seeds": list(seeds),
        "rows": rows,
    }
    path = given.output / f"{name}.json"
    write(path, result, indent=2)
    for claim in told:
        print(f"{claim['verdict']}: {claim['claim']} {claim['differences']}")
    print(f"written to {path}")
