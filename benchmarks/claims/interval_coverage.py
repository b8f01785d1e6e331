"""How often the intervals of `_statistics` hold the truth, on simulated data whose truth is 0.

    python -m benchmarks.claims.interval_coverage [--quick] [--output FOLDER]

Values are a seed's part, a person's part and noise, all normal; or right and wrong answers, whose chance depends on
seed and person in the same way. `ratio` is the variance that seeds give the mean over what people and noise give it.
The nominal coverage is .95; the standard error of a coverage here is .007 or less. Beside it stands the bootstrap that
draws seeds and people with replacement, which the ledger used before.
"""

from __future__ import annotations

from datetime import date
from itertools import product
from typing import Any

import numpy as np
from benchmarks.claims._kept import environment, write
from benchmarks.claims._results import options_of
from benchmarks.claims._statistics import Array, estimate

SEEDS, RATIOS, KINDS = (2, 3, 6, 10), (0.0, 0.25, 1.0, 4.0, 16.0), ("normal", "right or wrong")
PEOPLE, ROWS, DRAWS, RESAMPLES = 100, 3, 1000, 200
PERSON, NOISE = 1.0, 2.0  # standard deviations


def main() -> None:
    given = options_of(__doc__ or "")
    draws = 10 if given.quick else DRAWS
    rows = [coverage(*case, draws) for case in product(KINDS, SEEDS, RATIOS)]
    result = {
        "name": "interval_coverage",
        "command": "python -m benchmarks.claims.interval_coverage",
        "date": date.today().isoformat(),
        **environment(),
        "data": f"{PEOPLE} people with {ROWS} rows each, {draws} draws",
        "rows": rows,
    }
    for row in rows:
        print(row)
    write(given.output.parent / "interval_coverage.json", result, indent=2)


def coverage(kind: str, seeds: int, ratio: float, draws: int) -> dict[str, Any]:
    """Shares of the draws whose interval holds the truth, ours and the bootstrap's."""
    rng = np.random.default_rng((KINDS.index(kind), seeds, int(100 * ratio)))
    groups = np.repeat(np.arange(PEOPLE), ROWS)
    ours = before = 0
    truth = _truth(kind, ratio, seeds)
    for _ in range(draws):
        values = simulated(kind, seeds, ratio, groups, rng)
        found = estimate(values, groups)
        assert found.low is not None
        assert found.high is not None
        ours += found.low <= truth <= found.high
        low, high = bootstrap(values, groups, rng)
        before += low <= truth <= high
    return {"kind": kind, "seeds": seeds, "ratio": ratio, "coverage": ours / draws, "bootstrap": before / draws}


def _spread(ratio: float, seeds: int) -> float:
    """Standard deviation of the seeds' part."""
    return float(np.sqrt(ratio * seeds * (PERSON**2 / PEOPLE + NOISE**2 / (seeds * PEOPLE * ROWS))))


def simulated(kind: str, seeds: int, ratio: float, groups: Array, rng: np.random.Generator) -> Array:
    """(seeds, rows)."""
    parts = rng.normal(size=(seeds, 1)) * _spread(ratio, seeds) + rng.normal(size=PEOPLE)[groups][None] * PERSON
    noise = rng.normal(size=(seeds, len(groups))) * NOISE
    return parts + noise if kind == "normal" else (parts + noise > 0).astype(float)


def _truth(kind: str, ratio: float, seeds: int) -> float:
    return 0.0 if kind == "normal" else 0.5  # a sum of symmetric parts is above 0 as often as below


def bootstrap(values: Array, groups: Array, rng: np.random.Generator) -> tuple[float, float]:
    """Percentile interval, seeds and people drawn with replacement."""
    sums = np.stack([np.bincount(groups, weights=row) for row in values])
    weights = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES)
    people = rng.multinomial(PEOPLE, np.full(PEOPLE, 1 / PEOPLE), size=RESAMPLES)
    means = np.einsum("rs,sg,rg->r", weights, sums, people) / values.size
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    main()
