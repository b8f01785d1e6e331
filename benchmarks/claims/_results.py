"""The result file of a study: rows and differences with intervals, what each side was given, and what was not run.

A claim has a difference for every data set, and each difference its own verdict. Verdicts are not in the file: they
depend on all claims of the ledger (`benchmarks/render.py` corrects for their number), the p-values are.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from benchmarks.claims._kept import Result, write
from benchmarks.claims._statistics import Array, Estimate, estimate

RESULTS = Path(__file__).parents[1] / "results" / "claims"
WORK = Path("runs") / "claims"
Differences = Mapping[str, Estimate]


class Options(NamedTuple):
    """What a script was told: see `options_of`."""

    quick: bool
    output: Path
    work: Path
    kept: bool = False
    flags: frozenset[str] = frozenset()


def options_of(description: str, flags: Mapping[str, str] | None = None) -> Options:
    """Read `--quick`, `--output`, `--work`, `--kept`; a smoke run never writes over the committed results.

    Args:
        description: of the script.
        flags: further ones that it has, name -> help; those that are given are in `Options.flags`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="A smoke run on a tiny model; its numbers mean nothing.")
    parser.add_argument("--output", type=Path, help="Folder of the result file; --quick: a temporary one by default.")
    parser.add_argument("--work", type=Path, help=f"Folder of kept models, default {WORK}; --quick: a temporary one.")
    parser.add_argument(
        "--kept", action="store_true", help="Run nothing: the result of the runs that are kept, the others not run."
    )
    for name, told in (flags or {}).items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=told)
    given = parser.parse_args()
    if given.quick:
        torch.set_num_threads(1)
    spare = Path(tempfile.mkdtemp()) if given.quick else None
    asked = frozenset(name for name in flags or {} if getattr(given, name))
    return Options(given.quick, given.output or spare or RESULTS, given.work or spare or WORK, given.kept, asked)


def row(system: str, metric: str, values: Array, groups: Array | None = None) -> dict[str, Any]:
    """Mean and interval of a system, and its mean for each seed."""
    found = estimate(values, groups)
    per_seed = [round(float(v), 4) for v in values.mean(1)]
    return {"system": system, "metric": metric, **_ends(found), "per_seed": per_seed}


def _ends(found: Estimate) -> dict[str, float | None]:
    return {name: getattr(found, name) for name in ("mean", "low", "high")}


def write_result(
    given: Options,
    *,
    name: str,
    paper: str,
    data: str,
    seeds: Sequence[int],
    rows: list[dict[str, Any]],
    claims: Mapping[str, Differences],
    runs: Iterable[Result],
    budget: Sequence[Mapping[str, Any]],
    groups: Sequence[Mapping[str, Any]] = (),
    not_run: Sequence[str] = (),
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
        claims: in words -> its differences, one for each data set; none where it was not run.
        runs: the kept runs, for where they were made.
        budget: what each system was given: `system`, `training` (steps and rows, in words), `trainings` (how many with
            the first seed), `chosen` (by what one of them was chosen).
        groups: rows of a table by kind of row: `data`, `by`, `group`, `rows`, and what `row` gives.
        not_run: what is missing.
        script: its name.
    """
    told = [
        {
            "claim": claim,
            "differences": [{"name": difference, **found._asdict()} for difference, found in differences.items()],
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
        "budget": list(budget),
        "rows": rows,
        "groups": list(groups),
        "not_run": list(not_run),
    }
    path = given.output / f"{name}.json"
    write(path, result, indent=2)
    for claim in told:
        print(f"{claim['claim']} {claim['differences']}")
    for missing in not_run:
        print(f"not run: {missing}")
    print(f"written to {path}")
