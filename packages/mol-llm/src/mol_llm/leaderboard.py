"""`predilect mol leaderboard`: every pair method on the same pairs, by the runner, table and page of `predilect`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset

from mol_llm.command import PairLeaderboardConfig
from mol_llm.evaluation import compare_pairs
from mol_llm.pairs import PairData, PairRows
from predilect.configuration import plain
from predilect.leaderboard.contest import Contest, Measured
from predilect.leaderboard.results import Display, ModelComparison, ModelResult
from predilect.method import Method
from predilect.registry import METHODS, load_registered, registered

_EXAMPLES, _POINTS, _BINS = 8, 400, 10
_DECIDES = ("task", "split", "ratios", "bootstrap", "seed", "test_rows")
_SPLITS = {
    "random": "rows are drawn",
    "pair": "no unordered pair is in two parts",
    "first": "no first molecule (solute) is in two parts",
    "second": "no second molecule (solvent) is in two parts",
    "cold-one": "one molecule of every test pair is not in training",
    "cold-both": "neither molecule of a test pair is in training",
    "scaffold": "no scaffold of a first molecule is in two parts",
}
_VALUES = Display(
    metric="mae",
    lower=("mae", "rmse"),
    columns=("mae", "rmse", "r2", "coverage"),
    shares=("coverage",),
    title="Who is closest to the measured value",
    verb="predicts best",
    sentence="On the {rows:,} test rows it is off by {mae:.2f} on average",
    units="pairs of molecules",
    measuring="prediction",
    facts=(),
    meanings=(
        ("mae", "Mean distance from the measured value, in its unit (kcal/mol for solvation)."),
        ("rmse", "Root of the mean squared distance: large errors count more."),
        ("r2", "1 - squared error / spread of the test values: 1 is perfect, 0 is their mean, below 0 is worse."),
        ("coverage", "Share of the test rows with a prediction."),
    ),
)
_CLASSES = Display(
    metric="auc_roc",
    lower=("brier",),
    columns=("auc_roc", "average_precision", "accuracy", "f1", "brier"),
    shares=(),
    title="Who tells best which pairs interact",
    verb="tells best which pairs interact",
    sentence="Of the {rows:,} test pairs it is right about {accuracy:.1%}",
    units="pairs of molecules",
    measuring="prediction",
    facts=(),
    meanings=(
        ("auc_roc", "Probability that a pair that interacts gets more than one that does not; 0.5 is chance."),
        ("average_precision", "Mean precision over the pairs that interact, from the highest probability down."),
        ("accuracy", "Share of pairs on the right side of probability 0.5."),
        ("f1", "Harmonic mean of precision and recall at probability 0.5."),
        ("brier", "Mean of (probability - truth) squared: lower is better, 0.25 for saying 0.5 always."),
    ),
)
_MANY = replace(
    _CLASSES,
    metric="accuracy",
    columns=("accuracy", "f1_macro", "kappa", "brier"),
    title="Who gives the right answer most often",
    verb="gives the right answer most often",
    meanings=(
        ("accuracy", "Share of pairs whose most probable answer is the right one."),
        ("f1_macro", "Mean over the answers of the harmonic mean of precision and recall."),
        ("kappa", "Cohen's: agreement beyond that of chance; 0 is chance, 1 is perfect."),
        ("brier", "Mean squared distance of the probabilities from the truth, over all answers: lower is better."),
    ),
)


class Pairs(Contest):
    """Who answers a question about two molecules best: every registered `PairMethod` on the same parts."""

    section: ClassVar[str] = "set"
    saved_as: ClassVar[str] = "method"

    def available(self) -> list[str]:
        return sorted(name for name in registered(METHODS) if _is_pair_method(name))

    def method_class(self, name: str) -> type[Method]:
        if not _is_pair_method(name):
            raise ValueError(f"no method {name!r} of pairs is installed; there are {', '.join(self.available())}")
        kind: type[Method] = load_registered(name, METHODS, kind="method")
        return kind

    def prepare(self, config: PairLeaderboardConfig) -> PairData:
        data = config.read()
        test = data.part("test")
        if _is_yes_or_no(data) and len(set(test.targets)) < 2:
            raise ValueError(
                f"all {len(test)} test pairs have the class {test.targets[0]}: nothing can be compared on them, "
                "choose another --seed, --split or --ratios"
            )
        return data

    def fingerprint(self, config: PairLeaderboardConfig, data: PairData) -> dict[str, Any]:
        values = plain(config)
        return {**{name: values[name] for name in _DECIDES}, "data": data.fingerprint()}

    def display(self, config: PairLeaderboardConfig, data: PairData) -> Display:
        from mol_llm.pair_splits import leak_report

        known = leak_report(data.train, data.part("test"))
        protocol = (
            f"{_name(config)}, {data.task.name}; parts by {config.split}: {_SPLITS[config.split]}. Of the test rows "
            f"{known['pair']:.0%} have a pair that training has, {known['first']:.0%} a first and "
            f"{known['second']:.0%} a second molecule in the same place, {known['both']:.0%} both molecules in any."
        )
        shown = _VALUES if data.task.kind == "value" else _CLASSES if _is_yes_or_no(data) else _MANY
        return replace(shown, protocol=protocol)

    def measure(self, method: Any, data: PairData, config: PairLeaderboardConfig) -> Measured:
        found = method.measure(data, "test", config)[""]
        return Measured({name: value for name, value in found.results.items() if value == value}, found.rows)

    def conclude(
        self, models: list[ModelResult], folder: Path, data: PairData, config: PairLeaderboardConfig
    ) -> dict[str, Any]:
        names = [model.name for model in models if model.status == "ok"]
        rows = {name: Dataset(pq.read_table(folder / name / "rows.parquet")) for name in names}
        figures = _values_drawn(rows, data, config.seed) if data.task.kind == "value" else []
        figures = _classes_drawn(rows) if _is_yes_or_no(data) else figures
        parts = {"training": data.train, "validation": data.validation, "test": data.test}
        return {
            "protocol": {"data": _name(config), "strategy": config.split, "task": data.task.name},
            "counts": [_counted(name, part) for name, part in parts.items() if part is not None],
            "comparisons": _compared(models, rows, data, config),
            "examples": _examples(rows, data, config.seed),
            "figures": figures,
        }


def _is_pair_method(name: str) -> bool:
    from mol_llm.pair_method import PairMethod

    entry = registered(METHODS).get(name)
    try:
        kind = entry.load() if entry else None
    except ImportError:  # of another package that lacks something: no method of pairs that could be run
        return False
    return isinstance(kind, type) and issubclass(kind, PairMethod)


def _is_yes_or_no(data: PairData) -> bool:
    return data.task.kind == "class" and len(data.task.answers) == 2


def _name(config: PairLeaderboardConfig) -> str:
    return config.data.name if config.data else "pairs"


def _counted(step: str, rows: PairRows) -> dict[str, Any]:
    return {
        "step": step,
        "rows": len(rows),
        "first molecules": len(set(rows.first)),
        "second molecules": len(set(rows.second)),
    }


def _compared(
    models: list[ModelResult], rows: dict[str, Dataset], data: PairData, config: PairLeaderboardConfig
) -> list[ModelComparison]:
    """Every model against the best one without training, and the best against every other."""
    names, metric = list(rows), models[0].metric
    baseline = next((m.name for m in models if m.is_baseline), None)
    pairs = [(name, baseline) for name in names if baseline and name != baseline]
    pairs += [(names[0], name) for name in names[1:]]
    ways = {"resamples": config.bootstrap, "seed": config.seed}
    return [
        ModelComparison(model, other, *compare_pairs(data.task, rows[model], rows[other], metric, **ways))
        for model, other in dict.fromkeys(pairs)
    ]


def _examples(rows: dict[str, Dataset], data: PairData, seed: int) -> list[dict[str, str]]:
    """Some test rows as text, a column per model."""
    if not rows:
        return []
    first = next(iter(rows.values()))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(first))[:_EXAMPLES])
    classes = _is_yes_or_no(data)
    asked = (
        "first molecule",
        "second molecule",
        "interact" if classes else "measured" if data.task.kind == "value" else "answer",
    )
    if data.task.name == "solvation":
        asked = ("solute", "solvent", "measured")
    examples = []
    for number in drawn.tolist():
        row = first[number]
        truth = ("no", "yes")[int(row["target"])] if classes else f"{row['target']:.2f}"
        said = {name: f"{table[number]['prediction']:.2f}" for name, table in rows.items()}
        examples.append({**dict(zip(asked, (row["first"], row["second"], truth), strict=True)), **said})
    return examples


def _values_drawn(rows: dict[str, Dataset], data: PairData, seed: int) -> list[dict[str, Any]]:
    """Predicted against measured, of the best model."""
    if not rows:
        return []
    name, table = next(iter(rows.items()))
    drawn = np.random.default_rng(seed).permutation(len(table))[:_POINTS]
    points = np.stack([np.asarray(table[column]) for column in ("target", "prediction")], axis=1)[drawn]
    points = points[~np.isnan(points).any(axis=1)]
    unit = ", kcal/mol" if data.task.name == "solvation" else ""
    some = f" {len(drawn)} of the {len(table):,} test rows." if len(drawn) < len(table) else ""
    return [
        {
            "title": "Predicted against measured",
            "note": f"Every point is a test row of {name}, the best model; on the line it is right.{some}",
            "x": f"measured{unit}",
            "y": f"predicted{unit}",
            "diagonal": True,
            "series": [{"name": name, "points": points.round(4).tolist(), "line": False}],
        }
    ]


def _classes_drawn(rows: dict[str, Dataset]) -> list[dict[str, Any]]:
    """ROC and calibration of all models."""
    if not rows:
        return []
    roc, calibration = [], []
    for name, table in rows.items():
        said, truth = (np.asarray(table[column], dtype=np.float64) for column in ("prediction", "target"))
        order = np.argsort(-said, kind="stable")
        last = np.append(np.flatnonzero(np.diff(said[order])), len(order) - 1)
        last = last[np.unique(np.linspace(0, len(last) - 1, 100).round().astype(int))]
        hits, false = (np.cumsum(is_so[order])[last] / is_so.sum() for is_so in (truth, 1 - truth))
        points = np.stack([np.append(0.0, false), np.append(0.0, hits)], axis=1)
        roc.append({"name": name, "points": points.round(4).tolist(), "line": True})
        if len(np.unique(said)) == 1:  # one probability for all: nothing to put in order
            continue
        parts = [part for part in np.array_split(np.argsort(said, kind="stable"), _BINS) if len(part)]
        binned = np.array([[said[part].mean(), truth[part].mean()] for part in parts])
        calibration.append({"name": name, "points": binned.round(4).tolist(), "line": True})
    drawn = [
        {
            "title": "Which interactions are found, and at what price",
            "note": "ROC: the further above the broken line, which is chance, the better.",
            "x": "share of the pairs without an interaction that are called one",
            "y": "share of the interactions that are found",
            "diagonal": True,
            "series": roc,
        },
        {
            "title": "Whether probabilities mean what they say",
            "note": f"Test pairs of each model in {_BINS} equal parts by probability; the broken line is right.",
            "x": "mean predicted probability",
            "y": "share that interact",
            "diagonal": True,
            "series": calibration,
        },
    ]
    return [figure for figure in drawn if figure["series"]]
