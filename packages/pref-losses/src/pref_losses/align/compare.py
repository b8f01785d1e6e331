"""`predilect align compare`: several methods on the same data, split, start and seeds; one table and plots."""

from __future__ import annotations

import copy
import csv
import io
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from rich.console import Console
from rich.table import Table

from predilect.evaluation.bootstrap import paired_bootstrap
from predilect.runs import OutputFolder, hardware, read_json, versions, write_json, write_text
from pref_losses import __version__
from pref_losses.align.console import silence_libraries
from pref_losses.align.data import load_rows, preferences_fingerprint
from pref_losses.align.measures import RowScores, row_accuracy, with_interval
from pref_losses.align.options import CompareOptions, LanguageModelConfig
from pref_losses.align.parsing import parse_compare
from pref_losses.align.plots import write_plots
from pref_losses.align.run import Task, prepare_task, train_method, usable_rows
from pref_losses.align.storage import (
    METRICS_FILE,
    RUN,
    evaluation_options,
    fingerprint,
)
from pref_losses.align.weights import read_weights
from pref_losses.config import PreferenceConfig

RESULTS_FILE = "results.json"


@dataclass(frozen=True)
class Run:
    """One method trained with one seed.

    Attributes:
        name: of the row in the table.
        method: a name of `METHODS`.
        training: options; `output_dir` is the run's own folder.
    """

    name: str
    method: str
    training: PreferenceConfig

    @property
    def folder(self) -> Path:
        return Path(self.training.output_dir)

    @property
    def finished(self) -> bool:
        return (self.folder / METRICS_FILE).is_file()


def main(arguments: Sequence[str]) -> None:
    """`predilect align compare`."""
    silence_libraries()
    options, methods, model = parse_compare(arguments)
    folder = Path(next(iter(methods.values()))[1].output_dir)
    command = shlex.join(["predilect", "align", "compare", *arguments])
    results = compare(options, methods, model, command=command)
    Console().print(_table(results))
    print(f"results, table and plots: {folder}")


def compare(
    options: CompareOptions,
    methods: Mapping[str, tuple[str, PreferenceConfig]],
    model: LanguageModelConfig,
    *,
    command: str = "",
) -> dict[str, Any]:
    """Train every method with every seed, and write `results.json`, `results.csv`, `results.md` and plots.

    Each finished run is kept in `runs/NAME-seedN`; with `options.resume` finished ones are taken as they are and the
    interrupted one goes on from its checkpoint. Methods and seeds may be added on resume.

    Args:
        options: data, stages, seeds.
        methods: name -> method and training options; all with the same `output_dir`.
        model: what all start from.
        command: how the comparison was started, for the results.

    Raises:
        ValueError: too few test rows, methods that cut them differently, several processes, an output folder in use or
            of another comparison.
    """
    if PartialState().num_processes > 1:
        raise ValueError("compare trains in one process: launch predilect align once per method instead")
    first = next(iter(methods.values()))[1]
    if len({(training.max_length, training.truncation_mode) for _, training in methods.values()}) > 1:
        raise ValueError("methods are compared on the same rows: max_length and truncation_mode hold for all of them")
    folder = Path(first.output_dir)
    with OutputFolder(folder, f"{RUN} compare", resume=options.resume, overwrite=options.overwrite) as output:
        train, test = load_rows(options, usable_rows(first, model))
        if test is None or len(test) < 2:
            raise ValueError("methods are compared on at least two held-out rows: set --test-size or --test-dataset")
        shared = replace(options, methods=[], seeds=[])
        data = preferences_fingerprint(train, test)
        sft = {"batch": first.train_batch_size, "seed": first.seed, "max_length": first.max_length}
        output.claim({**_stages(shared), "model": model.model_name_or_path, "data": data, **sft})
        seeds = options.seeds
        runs = [_run(name, method, training, seed) for seed in seeds for name, (method, training) in methods.items()]
        task = prepare_task(train, test, shared, first, model, folder)
        _train(runs, task, shared, model, data)
        results = _summarise(runs, options, model, task, command)
        write_json(folder / RESULTS_FILE, results)
        write_text(folder / "results.md", _markdown(results))
        write_text(folder / "results.csv", _csv(results))
        _write_plots(folder, runs, task)
    return results


def _run(name: str, method: str, training: PreferenceConfig, seed: int) -> Run:
    own = copy.copy(training)
    own.seed = seed
    own.output_dir = str(Path(training.output_dir) / "runs" / f"{name}-seed{seed}")
    return Run(name, method, own)


def _stages(options: CompareOptions) -> dict[str, Any]:
    free = ("resume", "overwrite", "methods", "seeds")
    return {key: value for key, value in asdict(options).items() if key not in free}


def _train(runs: Sequence[Run], task: Task, options: CompareOptions, model: LanguageModelConfig, data: str) -> None:
    before: RowScores | None = None
    for number, run in enumerate(runs, start=1):
        with OutputFolder(run.folder, RUN, resume=True) as output:
            output.claim(
                fingerprint(options, run.training, model, method=run.method, data=data),
                about=evaluation_options(options, run.training, task.start),
            )
            state = "finished before" if run.finished else "training"
            print(f"[{number}/{len(runs)}] {run.name}, seed {run.training.seed}: {state}", file=sys.stderr)
            if not run.finished:
                train_method(run.method, task, options, run.training, model, before=before)
        before = before or _scores(run, "reference_logps")


# --- results ---------------------------------------------------------------------------------------------------------


def _summarise(
    runs: Sequence[Run], options: CompareOptions, model: LanguageModelConfig, task: Task, command: str
) -> dict[str, Any]:
    assert task.test is not None
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run)
    accuracies = {name: np.mean([_row_accuracy(run) for run in own], axis=0) for name, own in by_name.items()}
    first = next(iter(accuracies))
    rows = []
    for name, own in by_name.items():
        finished = [read_json(run.folder / METRICS_FILE) for run in own]
        row: dict[str, Any] = {"name": name, "method": own[0].method, "seeds": [run.training.seed for run in own]}
        row |= with_interval("accuracy", accuracies[name])
        row["accuracy_per_seed"] = [metrics["test/accuracy"] for metrics in finished]
        if name != first:
            row["against_first"] = paired_bootstrap(accuracies[name], accuracies[first])._asdict()
        for key in ("margin", "length_bias", "accuracy_chosen_shorter", "accuracy_mean_logp", "kl"):
            row[key] = _mean([metrics.get(f"test/{key}") for metrics in finished])
        row["flipped_auc"] = _mean([metrics.get("flipped_auc") for metrics in finished])
        row["train_seconds"] = _mean([metrics["train_seconds"] for metrics in finished])
        rows.append(row)
    return {
        "command": command,
        "model": model.model_name_or_path,
        "data": options.dataset_name,
        "train_rows": len(task.train),
        "test_rows": len(task.test),
        "flip_rate": options.flip_rate,
        "sft": {"steps": options.sft_steps, "epochs": options.sft_epochs},
        "steps": [read_json(run.folder / METRICS_FILE)["steps"] for run in runs],
        "versions": versions() | {"pref-losses": __version__},
        "hardware": hardware(),
        "methods": rows,
    }


def _row_accuracy(run: Run) -> np.ndarray:
    return row_accuracy(_scores(run, "logps"), _scores(run, "reference_logps"))


def _scores(run: Run, name: str) -> RowScores:
    """Scores of the test rows that a finished run kept: "logps", or "reference_logps" of what it started from."""
    scores = read_json(run.folder / "test_scores.json")
    return RowScores(scores[name], scores["tokens"])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


_COLUMNS = {
    "margin": "margin",
    "length_bias": "length bias",
    "accuracy_chosen_shorter": "accuracy, chosen shorter",
    "accuracy_mean_logp": "accuracy per token",
    "kl": "KL",
    "flipped_auc": "AUC of flips",
    "train_seconds": "seconds",
}


def _cells(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table; columns without any value are left out."""
    rows = results["methods"]
    shown = [key for key in _COLUMNS if any(row[key] is not None for row in rows)]
    heads = ["method", "accuracy [95 %]", f"against {rows[0]['name']}", *(_COLUMNS[key] for key in shown)]
    cells = []
    for row in rows:
        against = row.get("against_first")
        difference = (
            "" if against is None else f"{against['difference']:+.3f} [{against['low']:+.3f}, {against['high']:+.3f}]"
        )
        accuracy = f"{row['accuracy']:.3f} [{row['accuracy_low']:.3f}, {row['accuracy_high']:.3f}]"
        cells.append([row["name"], accuracy, difference, *(_cell(row[key], key) for key in shown)])
    return heads, cells


def _cell(value: float | None, key: str) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if key == "train_seconds" else f"{value:.3f}"


def _table(results: Mapping[str, Any]) -> Table:
    heads, cells = _cells(results)
    table = Table(title=f"{results['data']}, {results['train_rows']} training and {results['test_rows']} test rows")
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number == 0 else "right")
    for row in cells:
        table.add_row(*row)
    return table


def _markdown(results: Mapping[str, Any]) -> str:
    heads, cells = _cells(results)
    lines = [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *cells)]
    seeds = ", ".join(map(str, results["methods"][0]["seeds"]))
    about = (
        f"{results['model']} on {results['data']}: {results['train_rows']} training rows, {results['test_rows']} test "
        f"rows, flip rate {results['flip_rate']:g} (training rows only), seeds {seeds}."
    )
    meaning = (
        "Accuracy: share of test pairs whose chosen answer gained more log-probability than the rejected one since "
        "the start; the interval resamples test rows after averaging over seeds. Margin and KL in nats. Length bias: "
        "correlation of margin and difference of lengths. AUC of flips: probability that a clean pair weighed more in "
        "training than a flipped one."
    )
    return "\n".join(["# Comparison", "", about, "", *lines, "", meaning, "", f"    {results['command']}", ""])


def _csv(results: Mapping[str, Any]) -> str:
    """The numbers of the table, unrounded: one line a method."""
    rows = []
    for row in results["methods"]:
        against = {f"against_first_{key}": value for key, value in (row.get("against_first") or {}).items()}
        rows.append({key: value for key, value in row.items() if key != "against_first"} | against)
        rows[-1] |= {key: " ".join(map(str, value)) for key, value in row.items() if isinstance(value, list)}
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write_plots(folder: Path, runs: Sequence[Run], task: Task) -> None:
    """The curves of the first seed of every method."""
    firsts = {run.name: run for run in reversed(runs)}
    ordered = [firsts[name] for name in dict.fromkeys(run.name for run in runs)]
    logs = {run.name: read_json(run.folder / "trainer_state.json")["log_history"] for run in ordered}
    write_plots(logs, folder, _weights(ordered, task))


def _weights(runs: Sequence[Run], task: Task) -> dict[str, tuple[list[float], list[float]]]:
    """Weights of clean and flipped examples, of the methods that weigh."""
    if "flipped" not in task.train.column_names:
        return {}
    per_run = {}
    for run in runs:
        weights = read_weights(run.folder)
        if any(abs(weight - 1) > 1e-6 for weight in weights.values()):
            parts: tuple[list[float], list[float]] = ([], [])
            for row, weight in weights.items():
                parts[task.train["flipped"][row]].append(weight)
            per_run[run.name] = parts
    return per_run
