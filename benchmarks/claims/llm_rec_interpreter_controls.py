"""RecInterpreter on MovieTweetings: recovery and residual, beside random, shuffled, popularity and a linear probe.

    python -m benchmarks.claims.llm_rec_interpreter_controls [--quick] [--output FOLDER] [--work FOLDER]

Recovery is measured by the share of the history's titles that the text names, residual by exact titles.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
from benchmarks.claims._claims import verdict
from benchmarks.claims._kept import Job, share, write
from benchmarks.claims._llm_rec import Options, interval, options_of, tiny_model, versions
from benchmarks.claims.llm_rec_llara_hybrid import splits
from benchmarks.speed._results import hardware

from llm_rec.interpreter import SYSTEMS, RecInterpreter, evaluate
from predilect.recommenders import SASRecRecommender

NAME = "llm_rec_interpreter_controls"
CLAIM = "A language model recovers more of a history from its state than its controls do, and names the residual item."
STEPS, ROWS, SEEDS = 200, 150, 3
METRIC = {"recovery": "recovered_share", "residual": "exact"}


def main() -> None:
    given = options_of(CLAIM)
    data = splits(quick=given.quick)
    tiny = tiny_model(given.work) if given.quick else {}
    seeds = range(1 if given.quick else SEEDS)
    found = dict(enumerate(share(_job(seed, data, tiny, given) for seed in seeds)))
    groups = np.array(found[0]["users"])
    rows, differences = [], {}
    for task, metric in METRIC.items():
        values = {s: np.array([found[seed]["values"][task][s] for seed in seeds]) for s in SYSTEMS}
        for system, per_row in values.items():
            mean, low, high = interval(per_row, groups)
            per_seed = [round(float(v), 4) for v in per_row.mean(1)]
            row = {"system": f"{task}, {system}", "metric": metric, "mean": mean, "low": low, "high": high}
            rows.append({**row, "per_seed": per_seed})
        for control in ("random", "shuffled", "popularity"):
            differences[f"{task}: trained - {control}"] = interval(values["trained"] - values[control], groups)
    decided, because = verdict(differences)
    result = {
        "name": NAME,
        "paper": "Yang et al. 2023, RecInterpreter (arXiv 2310.20487)",
        "claim": CLAIM,
        "command": f"python -m benchmarks.claims.{NAME}" + (" --quick" if given.quick else ""),
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "versions": versions(),
        "data": (
            "MovieTweetings-100K, 5-core, temporal split; SASRec, SmolLM2-135M-Instruct frozen, a linear adapter, "
            f"{STEPS} steps of 16 rows; {ROWS} test rows"
        ),
        "seeds": list(seeds),
        "rows": rows,
        "verdict": decided,
        "because": because,
    }
    path = given.output / f"{NAME}.json"
    write(path, result, indent=2)
    print(f"{CLAIM}\n{decided}: {because}\nwritten to {path}")


def _job(seed: int, data: Any, tiny: dict[str, Any], given: Options) -> Job:
    """The metric of every row, system and task; kept beside the result."""
    return given.output / "runs" / NAME / f"seed{seed}.json", lambda: _run(seed, data, tiny, given)


def _run(seed: int, data: Any, tiny: dict[str, Any], given: Options) -> dict[str, Any]:
    folder = given.work / NAME / f"seed{seed}"
    if not (folder / "interpreter.json").is_file():
        backbone = SASRecRecommender(seed=seed, max_epochs=1 if given.quick else 10).fit(data)
        model = RecInterpreter(steps=2 if given.quick else STEPS, seed=seed, **tiny)
        model.fit(data, backbone=backbone, output_dir=folder.with_name(f"fit{seed}"), resume=True).save_pretrained(
            folder
        )
    interpreter = RecInterpreter.from_pretrained(folder)
    values: dict[str, dict[str, list[float]]] = {}
    users: list[int] = []
    for task, metric in METRIC.items():
        results = evaluate(
            interpreter, data, task=task, systems=SYSTEMS, max_rows=8 if given.quick else ROWS, bootstrap=0
        )
        values[task] = {system: list(result.rows[metric]) for system, result in results.items()}
        users = list(results["trained"].rows["user_id"])
        print(f"{task}, seed {seed}:", {s: round(float(np.mean(v)), 4) for s, v in values[task].items()}, flush=True)
    return {"seed": seed, "users": users, "values": values}


if __name__ == "__main__":
    main()
