from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

import predilect.registry
import predilect.runs.environment
from predilect.configuration import option
from predilect.evaluation.further import FurtherMetric
from predilect.leaderboard.config import LeaderboardConfig
from predilect.leaderboard.observer import Observer
from predilect.leaderboard.report import best_values, metric_columns, render
from predilect.leaderboard.results import Leaderboard
from predilect.leaderboard.runner import run_leaderboard
from predilect.leaderboard.table import results_table
from predilect.recommender import Recommender, RecommenderConfig


@dataclass
class NextConfig(RecommenderConfig):
    step: int = option("Which item after the last one comes next.", default=1)
    fails: bool = option("Fail in fit.", default=False)

    def quick(self) -> NextConfig:
        return NextConfig(seed=self.seed, step=self.step + 1)


class Next(Recommender[NextConfig]):
    """Recommends the item `step` places after the last one on the ring of 20 items."""

    name = "next"
    config_class = NextConfig
    fitted = 0

    def _fit(self, data: Any, folder: Path) -> None:
        type(self).fitted += 1
        if self.config.fails:
            raise RuntimeError("the ring is broken")

    def _score(self, histories: torch.Tensor) -> torch.Tensor:
        items = torch.arange(1, len(self.catalogue) + 1)
        return -((items - histories[:, -1:] - self.config.step) % 20).float()

    def _save(self, folder: Path) -> None:
        (folder / "step.json").write_text(str(self.config.step))

    def _load(self, folder: Path) -> None:
        assert (folder / "step.json").is_file()


class Flat(Next):
    """Scores all items alike."""

    name = "flat"

    def _score(self, histories: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(histories), len(self.catalogue))


class Entry:
    dist = None

    def __init__(self, kind: Any, name: str = "") -> None:
        self.name, self.load = name or kind.name, lambda: kind


def install(
    monkeypatch: pytest.MonkeyPatch, *recommenders: type[Recommender], metrics: dict[str, Any] | None = None
) -> None:
    """What packages register: these recommenders, and further metrics by name."""
    groups = {
        predilect.registry.RECOMMENDERS: [Entry(kind) for kind in recommenders],
        predilect.registry.METRICS: [Entry(make, name) for name, make in (metrics or {}).items()],
    }
    monkeypatch.setattr(predilect.registry, "entry_points", lambda group: groups.get(group, []))


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Flat, Next)
    Next.fitted = Flat.fitted = 0


@pytest.fixture
def run(tmp_path: Path, tiny_splits: Any) -> Callable[..., Leaderboard]:
    def start(observer: Observer | None = None, splits: Any = None, **options: Any) -> Leaderboard:
        config = LeaderboardConfig(**{"output_dir": tmp_path / "run", "bootstrap": 20, **options})
        return run_leaderboard(config, splits=splits or tiny_splits, observer=observer, command="test")

    return start


class Notes(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.reused: dict[str, bool] = {}

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finished(self, result: Any, *, reused: bool) -> None:
        self.reused[result.name] = reused


def numbers(board: Leaderboard) -> dict[str, Any]:
    return {
        "metrics": {m.name: m.metrics for m in board.models},
        "comparisons": board.comparisons,
        "x": board.examples,
    }


def test_results(run: Callable[..., Leaderboard], tmp_path: Path, tiny_splits: Any) -> None:
    board = run()
    assert [m.name for m in board.models] == ["next", "flat"]
    assert board.best is not None
    assert board.best.metrics["hr@1"] == 1.0  # the planted pattern
    flat = board.models[1].metrics
    assert flat["hr@5"] == 0.0  # ties count against the target
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert written["schema"] == 1
    assert {"python", "torch", "predilect"} <= set(written["versions"])
    assert written["hardware"]["cores"] >= 1
    assert [c["step"] for c in written["counts"]] == [c.step for c in tiny_splits.counts]
    assert written["config"]["seed"] == 0
    assert {"ndcg@10", "ndcg@10_low", "ndcg@10_high", "coverage@10"} <= set(written["models"][0]["metrics"])
    against = {(c["model"], c["other"]): c["difference"] for c in written["comparisons"]}
    assert against["next", "flat"] == -against["flat", "next"] > 0
    loaded = Leaderboard.load(tmp_path / "run")
    assert loaded.to_dict() == board.to_dict() == json.loads(json.dumps(board.to_dict()))
    rows = pq.read_table(tmp_path / "run" / "models" / "next" / "rows.parquet")
    assert len(rows) == len(tiny_splits.test)
    assert not list((tmp_path / "run").rglob("*.partial"))


class Slow(Next):
    """Belongs to runs that are not quick, and ranks some rows only."""

    name = "slow"
    runs_in = "default"
    max_test_rows = 40


class Named(Next):
    name = "named"
    runs_in = "chosen"


def test_who_takes_part_without_being_named(
    run: Callable[..., Leaderboard], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, Flat, Next, Slow, Named)
    found: dict[str, set[str]] = {}
    sizes: dict[str, dict[str, Any]] = {
        "quick": {"quick": True},
        "default": {},
        "chosen": {"models": ("named", "flat")},
    }
    for size, options in sizes.items():
        found[size] = {m.name for m in run(output_dir=tmp_path / size, **options).models}
    assert found == {"quick": {"flat", "next"}, "default": {"flat", "next", "slow"}, "chosen": {"named", "flat"}}


class Unsuited(Next):
    name = "unsuited"

    def unsuited(self, splits: Any) -> str | None:
        return "it needs a ring" if splits.num_items == 20 else None


def test_an_unsuited_model_is_left_out_unless_it_is_named(
    run: Callable[..., Leaderboard], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, Flat, Unsuited)
    notes = Notes()
    assert [m.name for m in run(notes).models] == ["flat"]
    assert notes.notes == ["unsuited is left out: it needs a ring"]
    named = run(output_dir=tmp_path / "named", models=("flat", "unsuited"))
    assert {m.name for m in named.models} == {"flat", "unsuited"}


def test_a_model_that_ranks_some_rows_is_compared_on_them(
    run: Callable[..., Leaderboard], monkeypatch: pytest.MonkeyPatch, tiny_splits: Any, tmp_path: Path
) -> None:
    install(monkeypatch, Flat, Next, Slow)
    board = run()
    by_name = {m.name: m for m in board.models}
    assert by_name["slow"].metrics["rows"] == 40 < by_name["next"].metrics["rows"] == board.num_rows
    assert [m.name for m in board.sampled] == ["slow"]
    compared = board.compared("slow", "next")
    assert compared is not None
    assert compared.difference == 0  # as good on the rows of both, and no sampling error between them
    tops = [example["lists"] for example in board.examples]
    assert all(lists["slow"] == lists["next"] for lists in tops)
    rows = {row["row"]: row for row in pq.read_table(tmp_path / "run/models/slow/rows.parquet").to_pylist()}
    test = tiny_splits.test.to_dataset().to_list()
    assert all(test[number]["target"] == row["target"] for number, row in rows.items())
    told = f"slow ranked 40 of the {board.num_rows} test rows"
    assert told in render(board)
    console = Console(width=200, record=True)
    console.print(results_table(board))
    assert told in " ".join(console.export_text().split())


def _first_ids(splits: Any) -> Callable[[Any], list[FurtherMetric]]:
    """A package's metrics of lists: mean id of the first item, and how many rows there are."""

    def measure(rows: Any) -> list[FurtherMetric]:
        first = sum(top[0] for top in rows["top"]) / len(rows)
        return [
            FurtherMetric("first id", first / splits.num_items, "Where lists begin.", lower_is_better=True),
            FurtherMetric("rows seen", float(len(rows)), "How many."),
        ]

    return measure


def test_metrics_of_other_packages_are_columns_everywhere(
    run: Callable[..., Leaderboard], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = run()
    assert before.further == {}
    install(monkeypatch, Flat, Next, metrics={"first": _first_ids})
    board = run(resume=True)  # a package that was installed later
    assert Next.fitted == 1
    rows = pq.read_table(tmp_path / "run/models/flat/rows.parquet").to_pylist()
    flat = next(m for m in board.models if m.name == "flat")
    assert flat.metrics["first id"] == pytest.approx(sum(row["top"][0] for row in rows) / len(rows) / 20)
    assert flat.metrics["rows seen"] == len(rows)
    assert metric_columns(board)[-2:] == ["first id", "rows seen"]
    values = [m.metrics["first id"] for m in board.models]
    assert values[0] != values[1]
    assert best_values(board)["first id"] == min(values)
    loaded = Leaderboard.load(tmp_path / "run")
    assert loaded == board
    page = render(loaded)
    assert '<button type="button" class="wrap" data-low>first id</button>' in page
    assert "Where lists begin." in page
    console = Console(width=300, record=True)
    console.print(results_table(loaded))
    shown = console.export_text()
    assert f"{min(values):.4f}" in shown
    assert "lower is better: first id" in shown


def test_metrics_that_fail_are_left_out_and_lose_nothing_else(
    run: Callable[..., Leaderboard], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(splits: Any) -> Any:
        raise ValueError(f"{splits.num_items} items are too few")

    def breaks(splits: Any) -> Any:
        return lambda rows: [rows["colour"]]

    install(monkeypatch, Flat, Next, metrics={"refuses": refuses, "breaks": breaks, "first": _first_ids})
    notes = Notes()
    board = run(notes)
    assert notes.notes[0] == "the metrics refuses are left out: 20 items are too few"
    assert notes.notes[1].startswith("flat: the metrics breaks are left out: ")
    assert notes.notes[2].startswith("next: the metrics breaks are left out: ")
    assert len(notes.notes) == 3  # what refuses the data is told once
    assert list(board.further) == ["first id", "rows seen"]


def test_lists_of_candidates_are_not_measured(
    run: Callable[..., Leaderboard], monkeypatch: pytest.MonkeyPatch, tiny_splits: Any
) -> None:
    install(monkeypatch, Next, metrics={"first": _first_ids})
    board = run(splits=tiny_splits.with_candidates(4, seed=0), protocol="candidates", num_candidates=4)
    assert board.further == {}
    assert "first id" not in board.models[0].metrics


def test_examples_are_users_as_the_models_see_them(run: Callable[..., Leaderboard]) -> None:
    for example in run().examples:
        last = example["history"][-1]["id"]
        assert example["target"]["id"] == last % 20 + 1
        assert example["lists"]["next"]["top"][0] == example["target"]
        assert example["lists"]["next"]["rank"] == 1
        assert len(example["lists"]["flat"]["top"]) == 5


def test_candidate_protocol(run: Callable[..., Leaderboard], tiny_splits: Any) -> None:
    splits = tiny_splits.with_candidates(4, seed=0)
    board = run(splits=splits, protocol="candidates", num_candidates=4)
    assert board.protocol["ranking"] == "candidates"
    assert "coverage@10" not in board.models[0].metrics
    assert all(e["lists"]["next"]["top"][0] == e["target"] for e in board.examples)
    assert all(len(e["lists"]["next"]["top"]) == 4 for e in board.examples)


def test_occupied_folder_needs_a_decision(run: Callable[..., Leaderboard], tmp_path: Path) -> None:
    run()
    with pytest.raises(ValueError, match=r"--resume.*--output-dir.*--overwrite"):
        run()
    run(overwrite=True)
    assert Next.fitted == 2
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.tex").write_text("dear")
    with pytest.raises(ValueError, match="not written by a run of leaderboard"):
        run(overwrite=True, output_dir=other)
    assert (other / "thesis.tex").read_text() == "dear"


def test_resume_reuses_finished_models_and_adds_new_ones(run: Callable[..., Leaderboard]) -> None:
    first = run(models=("next",))
    notes = Notes()
    second = run(notes, models=("next", "flat"), resume=True)
    assert (Next.fitted, Flat.fitted) == (1, 1)
    assert notes.reused == {"next": True, "flat": False}
    assert second.models[0] == first.models[0]


def test_changed_model_is_fitted_again_and_says_why(run: Callable[..., Leaderboard]) -> None:
    run()
    notes = Notes()
    board = run(notes, resume=True, recommenders={"next": {"step": 3}})
    assert Next.fitted == 2
    assert Flat.fitted == 1
    assert "step: 1 before, 3 now" in notes.notes[0]
    assert {m.name: m for m in board.models}["next"].metrics["hr@1"] < 1


def test_other_version_is_fitted_again(run: Callable[..., Leaderboard], monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    monkeypatch.setattr(predilect.runs.environment, "version", lambda name: "99.0")
    notes = Notes()
    run(notes, resume=True)
    assert notes.reused == {"next": False, "flat": False}
    assert "99.0 now" in notes.notes[0]


def test_other_protocol_or_data_is_refused(run: Callable[..., Leaderboard], tiny_splits: Any) -> None:
    run()
    with pytest.raises(ValueError, match=r"another run \(mask_seen: True before, False now\)"):
        run(resume=True, mask_seen=False)
    with pytest.raises(ValueError, match="quick: False before, True now"):
        run(resume=True, quick=True)
    with pytest.raises(ValueError, match=r"another run \(data: "):
        run(resume=True, splits=tiny_splits.with_candidates(4))
    items = tiny_splits.train.sequences.items.copy()
    items[0] = items[0] % tiny_splits.num_items + 1  # the same users, items and rows; one took another item
    sequences = dataclasses.replace(tiny_splits.train.sequences, items=items)
    edited = dataclasses.replace(tiny_splits.train, sequences=sequences)
    with pytest.raises(ValueError, match=r"another run \(data: "):
        run(resume=True, splits=dataclasses.replace(tiny_splits, train=edited))


def test_quick_shortens_the_config(run: Callable[..., Leaderboard]) -> None:
    board = run(quick=True)
    assert {m.name: m.config["step"] for m in board.models} == {"next": 2, "flat": 2}
    assert board.to_dict()["config"]["quick"] is True


def test_failing_model_loses_nothing_else(run: Callable[..., Leaderboard], tmp_path: Path) -> None:
    board = run(recommenders={"next": {"fails": True}})
    assert [(m.name, m.status) for m in board.models] == [("flat", "ok"), ("next", "failed")]
    assert board.failed[0].error == "RuntimeError: the ring is broken"
    assert "in fit" in (tmp_path / "run" / "models" / "next" / "error.txt").read_text()
    notes = Notes()
    run(notes, resume=True, recommenders={"next": {"fails": True}})
    assert "is tried again" in notes.notes[0]
    assert notes.reused == {"flat": True, "next": False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ("nxt",)}, "no recommender 'nxt'"),
        ({"recommenders": {"next": {"stp": 2}}}, r"recommenders\.next has no option 'stp'; did you mean step"),
        (
            {"recommenders": {"next": {"step": "two"}}},
            r"recommenders\.next: step must be a whole number \(got 'two'\)",
        ),
        ({"recommenders": {"flt": {}}}, "options for flt"),
        ({"models": ("next", "next")}, "distinct"),
        ({"resume": True, "overwrite": True}, "choose one"),
        ({"max_history": 0}, r"max_history must be at least 1 \(got 0\)"),
    ],
)
def test_mistakes_are_found_before_anything_is_done(
    run: Callable[..., Leaderboard], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        run(**options)
    assert not (tmp_path / "run").exists()


class Killed(BaseException):
    """Stands for a process that is gone: nothing in the run may catch it."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """`kill_at(n)`: the n-th file or folder that the run puts in place is not put there, and the run is gone."""
    real, left = os.replace, {"n": -1}

    def replace(source: Any, target: Any) -> None:
        left["n"] -= 1
        if left["n"] == -1:
            raise Killed
        real(source, target)

    def arm(n: int | None) -> None:
        left["n"] = -1 if n is None else n

    monkeypatch.setattr(os, "replace", replace)
    return arm


def test_killed_at_any_write_then_resumed_gives_the_same_numbers(
    run: Callable[..., Leaderboard], kill_at: Callable[[int | None], None], tmp_path: Path
) -> None:
    unbroken = numbers(run(output_dir=tmp_path / "unbroken"))
    for n in range(50):
        folder = tmp_path / f"killed-{n}"
        kill_at(n)
        try:
            run(output_dir=folder)
            break
        except Killed:
            kill_at(None)
        assert numbers(run(output_dir=folder, resume=True)) == unbroken
        assert not list(folder.rglob("*.partial"))
    assert n >= 10  # the run writes that many files, and was killed at each of them
