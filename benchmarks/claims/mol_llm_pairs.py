"""MolTC against baselines and its own ablations, on solvation and on interactions of drugs.

    python -m benchmarks.claims.mol_llm_pairs [--quick] [--kept] [--language-model] [--chemprop] [--output F]

Parts are drawn once, so that all systems and seeds have the same rows; seeds are those of the methods. Each system has
a grid of two settings, but for the mean, which has none: one training each with the first seed, and the one with the
lower loss on the validation rows (mean absolute error; Brier score) makes the other seeds. Test rows play no part.
What is compared is the absolute error of a test row, or whether the more probable class is right; rows of one pair are
not independent. chemprop's multicomponent model is trained by its own command line in an environment of its own.
"""

from __future__ import annotations

import csv
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.claims._kept import Job, Result, digest, kept
from benchmarks.claims._recommenders import Missing
from benchmarks.claims._results import Options, options_of, row, write_result
from benchmarks.claims._statistics import Array, Estimate, estimate

from mol_llm.command import PairOptions
from mol_llm.pairs import PairData, PairRows
from predilect.method import method_class

NAME = "mol_llm_pairs"
SEEDS = 3
CHEMPROP = "chemprop==2.3.1"
FOLDER = Path(os.environ.get("PREDILECT_DATA", "data"))
COMBISOLV = {"first": "solute_smiles", "second": "solvent_smiles", "target": "delta_g_kcal_mol"}
FREESOLV = {"first": "solute_smiles", "second": "solvent_smiles", "target": "expt_kcal_mol"}
CHCHMINER = {"data": FOLDER / "ddi-chchminer", "layout": "chchminer", "task": "interaction"}
DATA: Mapping[str, Mapping[str, Any]] = {
    "FreeSolv, scaffold": {"data": FOLDER / "freesolv/freesolv.csv", **FREESOLV, "split": "scaffold"},
    "CombiSolv, solute": {"data": FOLDER / "combisolv-fifth/combisolv_fifth.csv", **COMBISOLV, "split": "first"},
    "CombiSolv, solvent": {"data": FOLDER / "combisolv-fifth/combisolv_fifth.csv", **COMBISOLV, "split": "second"},
    "ChChMiner, pair": {**CHCHMINER, "split": "pair"},
    "ChChMiner, cold drug": {**CHCHMINER, "split": "cold-one"},
}


@dataclass(frozen=True)
class System:
    """What is compared.

    Attributes:
        method: name in the registry, or "chemprop".
        grid: options of the settings to choose from.
        training: in words.
        chance: whether its seeds differ; one run of a method without chance stands for all of them.
        flag: of the command line that it needs.
        quick: options of a smoke run.
    """

    method: str
    grid: tuple[Mapping[str, Any], ...] = ({},)
    training: str = ""
    chance: bool = True
    flag: str = ""
    quick: Mapping[str, Any] = field(default_factory=dict)


def moltc(**options: Any) -> System:
    grid = tuple({**options, "learning_rate": rate} for rate in (2e-4, 5e-4))
    return System("moltc", grid, "SmolLM2-135M in LoRA, 3 epochs", flag="language_model")


BOOSTED = ({"learning_rate": 0.05}, {"learning_rate": 0.1})
STOPPED = "at most 300 trees, stopped on validation rows"
SYSTEMS = {
    "mean": System("pair-mean", training="the mean of the training rows", chance=False),
    "fingerprints": System("pair-fingerprints", BOOSTED, STOPPED, chance=False, quick={"trees": 2}),
    "minimol": System("pair-minimol", BOOSTED, STOPPED, chance=False, quick={"trees": 2}),
    "GNN": System("pair-gnn", ({"learning_rate": 5e-4}, {"learning_rate": 2e-3}), "its defaults", quick={"epochs": 1}),
    "chemprop": System(
        "chemprop", ({"max-lr": 1e-3}, {"max-lr": 3e-3}), "at most 50 epochs, patience 10", flag="chemprop"
    ),
    "MolTC": moltc(),
    "MolTC, text only": moltc(reads="smiles"),
    "MolTC, graph only": moltc(reads="graph"),
    "MolTC, no chain of thought": moltc(chain_of_thought=False),
    "MolTC, untied": moltc(sharing="untied"),
    "MolTC, soft": moltc(sharing="soft"),
}
CLAIMS = {
    "Reading the molecules helps: boosted trees on fingerprints are better than the mean.": ("fingerprints", "mean"),
    "A pre-trained graph network's fingerprint is better than Morgan's.": ("minimol", "fingerprints"),
    "A graph network trained on the pairs is better than fingerprints.": ("GNN", "fingerprints"),
    "chemprop's multicomponent model is better than fingerprints.": ("chemprop", "fingerprints"),
    "MolTC is better than fingerprints.": ("MolTC", "fingerprints"),
    "MolTC is better than chemprop's multicomponent model.": ("MolTC", "chemprop"),
    "The graph helps the text.": ("MolTC", "MolTC, text only"),
    "The text helps the graph.": ("MolTC", "MolTC, graph only"),
    "Saying the interval first helps (values only).": ("MolTC", "MolTC, no chain of thought"),
    "Networks of their own for the two roles are better than one.": ("MolTC, untied", "MolTC"),
    "A low-rank change for each role is better than one network.": ("MolTC, soft", "MolTC"),
}


class Bench:
    """Trains and measures on one data set under one split, each once."""

    def __init__(self, name: str, given: Options) -> None:
        self.name, self.given = name, given
        self.runs = given.output / "runs" / NAME / "".join(c if c.isalnum() else "_" for c in name)

    @cached_property
    def data(self) -> PairData:
        data = PairOptions(policy="skip", **DATA[self.name]).read()
        if not self.given.quick:
            return data
        parts = (_first(data.train, 60), _first(data.part("validation"), 20), _first(data.part("test"), 20))
        return PairData(data.task, *parts)

    @cached_property
    def pairs(self) -> Array:
        """(R,) number of the unordered pair of each test row."""
        names = [" ".join(sorted(pair)) for pair in self.data.part("test").pairs]
        return np.unique(names, return_inverse=True)[1]

    @cached_property
    def content(self) -> str:
        return self.data.fingerprint()

    def seeds(self, system: str) -> range:
        return range(1 if self.given.quick or not SYSTEMS[system].chance else SEEDS)

    def fits(self, system: str) -> bool:
        """Classes have no interval to say first."""
        return system != "MolTC, no chain of thought" or "ChChMiner" not in self.name

    def job(self, system: str, setting: Mapping[str, Any], seed: int) -> Job:
        told = SYSTEMS[system]
        options = {**setting, **(told.quick if self.given.quick else {})}
        content = {"method": told.method, "options": options, "seed": seed, "data": self.content}

        def make() -> Result:
            found = _chemprop(self.data, options, seed) if told.method == "chemprop" else _ours(content, self.data)
            print(f"{self.name}, {system}, {options}, seed {seed}: done", flush=True)
            said = {part: np.asarray(values).round(5).tolist() for part, values in found.items()}
            return {"system": system, **content, **said}

        return self.runs / f"{digest(content)}.json", make

    def result(self, system: str, setting: Mapping[str, Any], seed: int) -> Result:
        if self.given.kept and not self.runs.is_dir():  # nothing to read the data for
            raise Missing
        path, make = self.job(system, setting, seed)
        flag = SYSTEMS[system].flag
        if not path.is_file() and (self.given.kept or (flag and flag not in self.given.flags)):
            raise Missing
        return kept(path, make)

    def chosen(self, system: str) -> Mapping[str, Any]:
        """The setting with the lowest loss on the validation rows, first seed."""
        grid = SYSTEMS[system].grid
        return min(grid, key=lambda setting: self.loss(self.result(system, setting, 0))) if len(grid) > 1 else grid[0]

    def loss(self, run: Result) -> float:
        error = np.asarray(run["validation"]) - np.asarray(self.data.part("validation").targets, float)
        return float((np.abs(error) if self.data.task.kind == "value" else np.square(error)).mean())

    def values(self, run: Result) -> Array:
        """(R,) of the test rows: absolute error, or 1 where the class is right."""
        said, truth = np.asarray(run["test"]), np.asarray(self.data.part("test").targets, float)
        found: Array = (
            np.abs(said - truth) if self.data.task.kind == "value" else ((said >= 0.5) == truth).astype(float)
        )
        return found


def _first(rows: PairRows, most: int) -> PairRows:
    return PairRows(rows.first[:most], rows.second[:most], rows.targets[:most])


def _ours(content: Mapping[str, Any], data: PairData) -> dict[str, Array]:
    method = method_class(content["method"])(seed=content["seed"], **content["options"]).fit(data)
    found = {}
    for part in ("validation", "test"):
        rows = data.part(part)
        said = np.asarray(method.predict(list(rows.first), list(rows.second)))  # type: ignore[attr-defined]
        found[part] = said if data.task.kind == "value" else said[:, 1]
    return found


def _chemprop(data: PairData, options: Mapping[str, Any], seed: int) -> dict[str, Array]:
    """By its command line, in an environment that is made once per machine, beside other temporary files."""
    home = Path(tempfile.gettempdir()) / f"predilect-{CHEMPROP.replace('==', '-')}"
    if not (home / "complete").is_file():
        subprocess.run(["uv", "venv", "--quiet", "--clear", "--python", "3.11", str(home)], check=True)
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(home / "bin/python"), CHEMPROP], check=True)
        (home / "complete").touch()
    program, found = str(home / "bin" / "chemprop"), {}
    kind = "regression" if data.task.kind == "value" else "classification"
    columns = ["--smiles-columns", "first", "second"]
    with tempfile.TemporaryDirectory() as folder:
        table, model = Path(folder) / "pairs.csv", Path(folder) / "model"
        parts = {"train": data.train, "val": data.part("validation"), "test": data.part("test")}
        _written(table, parts)
        ways = ["--target-columns", "target", "--task-type", kind, "--splits-column", "split", "--epochs", "50"]
        ways += ["--patience", "10", "--pytorch-seed", str(seed), "--num-workers", "0", "--accelerator", "cpu"]
        ways += [text for name, value in options.items() for text in (f"--{name}", str(value))]
        command = [program, "train", "-i", str(table), *columns, *ways, "-o", str(model)]
        subprocess.run(command, check=True, capture_output=True)
        for part, name in (("validation", "val"), ("test", "test")):
            asked, said = Path(folder) / f"{name}.csv", Path(folder) / f"{name}-said.csv"
            _written(asked, {name: parts[name]})
            command = [program, "predict", "-i", str(asked), *columns, "--model-paths", str(model), "-o", str(said)]
            command += ["--num-workers", "0", "--accelerator", "cpu"]
            subprocess.run(command, check=True, capture_output=True)
            with said.open(newline="") as file:
                found[part] = np.array([float(line["target"]) for line in csv.DictReader(file)])
    return found


def _written(path: Path, parts: Mapping[str, PairRows]) -> None:
    """As predictions are written over a column `target`, a file to predict has none."""
    asked = len(parts) == 1
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["first", "second"] if asked else ["first", "second", "target", "split"])
        for name, rows in parts.items():
            for (one, two), target in zip(rows.pairs, rows.targets, strict=True):
                lines.writerow([one, two] if asked else [one, two, float(target), name])


class Found:
    """The runs that are there, as values (seeds, rows)."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.runs: dict[str, dict[int, Result]] = {}
        for system in filter(bench.fits, SYSTEMS):
            mine = self.runs[system] = {}
            with suppress(Missing):
                setting = bench.chosen(system)
                for seed in bench.seeds(system):
                    with suppress(Missing):
                        mine[seed] = bench.result(system, setting, seed)

    def seeds(self, system: str) -> list[int]:
        runs = self.runs.get(system, {})
        if runs and not SYSTEMS[system].chance and not self.bench.given.quick:
            return list(range(SEEDS))
        return sorted(runs)

    def values(self, system: str, seeds: list[int]) -> Array:
        runs = self.runs[system]
        return np.stack([self.bench.values(runs[seed if seed in runs else 0]) for seed in seeds])

    def better(self, system: str, other: str) -> Estimate | None:
        """How much lower the error is, or higher the share that is right."""
        seeds = sorted(set(self.seeds(system)) & set(self.seeds(other)))
        if not seeds:
            return None
        difference = self.values(system, seeds) - self.values(other, seeds)
        return estimate(-difference if self.bench.data.task.kind == "value" else difference, self.bench.pairs)

    @property
    def metric(self) -> str:
        return "mae" if self.bench.data.task.kind == "value" else "accuracy"


def budget_of(found: Found) -> Iterator[dict[str, Any]]:
    for system, runs in found.runs.items():
        if runs:
            told = SYSTEMS[system]
            setting = found.bench.chosen(system)
            words = ", ".join(f"{name} {value}" for name, value in setting.items())
            yield {
                "system": f"{found.bench.name}, {system}",
                "training": told.training,
                "trainings": len(told.grid),
                "chosen": f"validation rows, first seed: {words}" if len(told.grid) > 1 else "nothing",
            }


def missing_of(found: Found) -> Iterator[str]:
    for system, runs in found.runs.items():
        absent = [str(seed) for seed in found.bench.seeds(system) if seed not in runs]
        if absent:
            yield f"{found.bench.name}, {system}, seed{'s' if len(absent) > 1 else ''} {', '.join(absent)}"


def main() -> None:
    given = options_of(
        "MolTC against baselines and ablations.",
        {
            "language_model": "Also MolTC on SmolLM2-135M, for which a GPU is needed.",
            "chemprop": "Also chemprop, in an environment of its own (uv).",
        },
    )
    found = [Found(Bench(name, given)) for name in list(DATA)[: 1 if given.quick else None]]
    begun = [one for one in found if any(one.runs.values())]
    claims: dict[str, dict[str, Estimate]] = {claim: {} for claim in CLAIMS}
    for one in begun:
        for claim, (system, other) in CLAIMS.items():
            if (estimated := one.better(system, other)) is not None:
                claims[claim][f"{one.bench.name}: {one.metric}, {system} against {other}"] = estimated
    write_result(
        given,
        name=NAME,
        paper="Fang et al. 2024, MolTC (Findings of ACL)",
        data="FreeSolv by scaffold; a fifth of CombiSolv by solute and by solvent; ChChMiner by pair and by drug",
        seeds=sorted({seed for one in begun for runs in one.runs.values() for seed in runs}),
        rows=[
            row(f"{one.bench.name}, {system}", one.metric, one.values(system, one.seeds(system)), one.bench.pairs)
            for one in begun
            for system, runs in one.runs.items()
            if runs
        ],
        claims=claims,
        runs=[run for one in begun for runs in one.runs.values() for run in runs.values()],
        budget=[b for one in begun for b in budget_of(one)],
        not_run=[text for one in found for text in missing_of(one)],
    )


if __name__ == "__main__":
    main()
