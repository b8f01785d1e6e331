from __future__ import annotations

import json
import runpy
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(p.stem for p in (ROOT / "benchmarks" / "claims").glob("pref_losses_*.py"))


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.claims import _claims

    return _claims


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.claims import _results

    return _results


@pytest.fixture
def statistics(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.claims import _statistics

    return _statistics


def assert_whole(result: dict[str, Any]) -> None:
    """A smoke run has one seed, which tells no interval."""
    differences = [d for claim in result["claims"] for d in claim["differences"]]
    assert all(d["low"] is d["high"] is d["p"] is None for d in differences)
    assert all(row["low"] is row["high"] is None for row in result["rows"])
    assert result["environments"]
    assert result["rows"]
    assert result["not_run"] == []
    assert all({"system", "training", "trainings", "chosen"} == set(b) for b in result["budget"])
    assert result["budget"]


@pytest.fixture
def quick_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[[str], str]]:
    """Run a script with `--quick` in this process, which has the libraries loaded; returns what it printed."""
    from datasets import enable_progress_bars

    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)

    def run(script: str) -> str:
        folders = ["--output", str(tmp_path), "--work", str(tmp_path / "work")]
        monkeypatch.setattr(sys, "argv", [script, "--quick", *folders])
        runpy.run_module(f"benchmarks.claims.{script}", run_name="__main__")
        return capsys.readouterr().out

    yield run
    torch.set_num_threads(threads)
    enable_progress_bars()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_quick_run_writes_a_result_and_resumes(script: str, quick_run: Callable[[str], str], tmp_path: Path) -> None:
    first = quick_run(script)
    path = tmp_path / f"{script}.json"
    result = json.loads(path.read_text())
    assert result["name"] == script
    assert_whole(result)
    assert all(claim["differences"] for claim in result["claims"])
    assert all(len(row["per_seed"]) == len(result["seeds"]) for row in result["rows"])
    again = quick_run(script)
    assert "SFT stage" in first
    assert "SFT stage" not in again
    assert "learning rate" in first
    assert "on test rows" in first
    assert "on test rows" not in again
    resumed = json.loads(path.read_text())
    assert resumed | {"date": result["date"]} == result  # a resumed script has the date of its last day


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(p.stem for p in (ROOT / "benchmarks" / "claims").glob("llm_rec_*.py")))
def test_quick_run_of_recommenders_writes_a_result_and_keeps_its_runs(
    script: str, quick_run: Callable[[str], str], tmp_path: Path
) -> None:
    first = quick_run(script)
    path = tmp_path / f"{script}.json"
    result = json.loads(path.read_text())
    assert result["name"] == script
    assert_whole(result)
    again = quick_run(script)
    assert "seed 0:" in first
    assert "seed 0:" not in again  # every run was kept
    assert json.loads(path.read_text()) | {"date": result["date"]} == result
    assert str(tmp_path) not in "".join(p.read_text() for p in (tmp_path / "runs").rglob("*.json"))
    if script != "llm_rec_interpreter_controls":
        kinds = {(group["by"], group["group"]) for group in result["groups"]}
        assert {by for by, _ in kinds} == {"target_frequency", "history_length"}


def test_a_result_says_where_its_runs_were_made(results: Any, statistics: Any, tmp_path: Path) -> None:
    made = [{"hardware": name, "versions": {"torch": "2"}} for name in ("a laptop", "a GPU", "a laptop")]
    results.write_result(
        results.Options(False, tmp_path, tmp_path),
        name="toy",
        paper="",
        data="",
        seeds=range(2),
        rows=[],
        claims={"A beats B.": {"A - B": statistics.Estimate(0.2, 0.1, 0.3, 0.01)}},
        runs=[{"environment": environment} for environment in made],
        budget=[],
    )
    result = json.loads((tmp_path / "toy.json").read_text())
    assert result["environments"] == made[:2]
    difference = {"name": "A - B", "mean": 0.2, "low": 0.1, "high": 0.3, "p": 0.01}
    assert result["claims"] == [{"claim": "A beats B.", "differences": [difference]}]


def test_seeds_alone_make_a_t_interval(statistics: Any) -> None:
    """One number a run: the textbook's interval and test."""
    from scipy import stats

    values = np.array([[0.2], [0.5], [0.4], [0.9]])
    found = statistics.estimate(values)
    low, high = stats.t.interval(0.95, 3, loc=0.5, scale=stats.sem(values[:, 0]))
    assert found[:3] == pytest.approx((0.5, low, high))
    assert found.p == pytest.approx(stats.ttest_1samp(values[:, 0], 0).pvalue, rel=1e-6)


def test_rows_alone_make_a_t_interval_and_people_are_one_row_each(statistics: Any) -> None:
    """Seeds that agree add nothing; the rows of a person are one observation."""
    from scipy import stats

    rng = np.random.default_rng(0)
    people = rng.normal(size=25)
    found = statistics.estimate(np.tile(people, (3, 1)))
    assert found[1:3] == pytest.approx(stats.t.interval(0.95, 24, loc=people.mean(), scale=stats.sem(people)))
    assert found.p == pytest.approx(stats.ttest_1samp(people, 0).pvalue, rel=1e-6)
    repeated = statistics.estimate(np.tile(np.repeat(people, 4), (3, 1)), np.repeat(np.arange(25), 4))
    assert repeated == pytest.approx(found)
    independent = statistics.estimate(np.tile(np.repeat(people, 4), (3, 1)))
    assert independent.high - independent.low < 0.55 * (found.high - found.low)


def test_both_sources_are_added_in_quadrature(statistics: Any) -> None:
    seeds, people = np.array([[-0.3], [0.1], [0.2]]), np.array([[-0.5, 0.1, 0.4, 0.6]])
    alone = [statistics.estimate(v) for v in (seeds, np.tile(people, (3, 1)))]
    both = statistics.estimate(seeds + people)
    widths = [e.high - e.low for e in (*alone, both)]
    assert widths[2] ** 2 == pytest.approx(widths[0] ** 2 + widths[1] ** 2)


def test_the_p_value_is_where_the_interval_begins_to_hold_0(statistics: Any) -> None:
    values = np.random.default_rng(1).normal(0.3, 1, size=(5, 40))
    found = statistics.estimate(values)
    edge = statistics.estimate(values, level=1 - found.p)
    assert edge.low == pytest.approx(0, abs=1e-6)


def test_what_tells_no_spread_has_no_interval(statistics: Any) -> None:
    assert statistics.estimate(np.ones((1, 5)))[1:] == (None, None, None)  # one seed
    assert statistics.estimate(np.ones((3, 5)), np.zeros(5))[1:] == (None, None, None)  # one person
    assert statistics.estimate(np.ones((3, 5))) == (1.0, 1.0, 1.0, 0.0)  # no spread at all
    assert statistics.estimate(np.zeros((3, 5))).p == 1.0
    with pytest.raises(ValueError, match="finite values"):
        statistics.estimate(np.array([[np.nan]]))


def test_the_interval_holds_the_truth_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.claims import interval_coverage

    for seeds, ratio in ((3, 0.0), (3, 16.0), (6, 1.0)):
        found = interval_coverage.coverage("normal", seeds, ratio, 200)
        assert found["coverage"] >= 0.91  # the lower end of 95 % of 200 draws
    assert interval_coverage.coverage("normal", 3, 16.0, 200)["bootstrap"] < 0.9


def test_the_committed_coverage_is_that_of_the_level() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "interval_coverage.json").read_text())
    assert min(row["coverage"] for row in result["rows"]) > 0.93


def test_copies_of_a_script_share_its_runs_and_a_killed_one_leaves_its_run_to_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two processes, three runs: the first dies in its run, the second makes all three; nobody makes one twice."""
    script = f"""
import os, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from benchmarks.claims._kept import share
folder = Path({str(tmp_path)!r})
def make(i):
    (folder / f"begun-{{i}}-{{os.getpid()}}").touch()
    while sys.argv[1] == "dies" and not (folder / "done").exists():
        time.sleep(0.05)
    if sys.argv[1] == "dies":
        os._exit(9)
    return {{"run": i}}
if sys.argv[1] == "lives":
    while not list(folder.glob("begun-0-*")):
        time.sleep(0.05)
found = share((folder / f"{{i}}.json", lambda i=i: make(i)) for i in range(3))
assert [r["run"] for r in found] == [0, 1, 2]
assert all(r["environment"]["versions"]["torch"] for r in found)
"""
    first, second = (forked.Process(["-c", script, kind]) for kind in ("dies", "lives"))
    deadline = time.monotonic() + 120
    while not (tmp_path / "2.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not (tmp_path / "0.json").exists()  # the first process is at it, the second took the others
    (tmp_path / "done").touch()
    assert first.wait(120) == 9
    assert second.wait(120) == 0
    begun = [path.name.split("-")[1] for path in tmp_path.glob("begun-*")]
    assert sorted(begun) == ["0", "0", "1", "2"]


ROW = {
    "prompt_ids": [1, 2],
    "chosen_ids": [3],
    "rejected_ids": [[4], [5]],
    "ref_chosen_logps": -1.0,
    "ref_rejected_logps": [-2.0, -3.0],
}


def test_a_flip_exchanges_answers_and_reference_and_takes_more_at_a_larger_share(claims: Any) -> None:
    flipped = claims.flips(0.2)(ROW, 0.1)
    assert (flipped["chosen_ids"], flipped["rejected_ids"]) == ([4], [[3]])
    assert (flipped["ref_chosen_logps"], flipped["ref_rejected_logps"]) == (-2.0, [-1.0])
    assert flipped["flipped"]
    kept = claims.flips(0.2)(ROW, 0.3)
    assert (kept["chosen_ids"], kept["rejected_ids"], kept["ref_rejected_logps"]) == ([3], [[4]], [-2.0])
    assert not kept["flipped"]
    assert claims.flips(0.4)(ROW, 0.3)["flipped"]
    assert ROW["chosen_ids"] == [3]


@pytest.mark.slow
@pytest.mark.parametrize(("script", "claims"), [("seqrec_diffusion_dreamrec", 7), ("seqrec_diffusion_published", 2)])
def test_quick_run_of_diffusion_writes_its_results_and_keeps_its_runs(
    script: str, claims: int, quick_run: Callable[[str], str], tmp_path: Path
) -> None:
    first = quick_run(script)
    results = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    [result] = results.values()
    assert_whole(result)
    assert len(result["claims"]) == claims
    again = quick_run(script)
    assert "seed 0: test" in first
    assert "seed 0: test" not in again  # every run was kept
    assert json.loads((tmp_path / f"{script}.json").read_text()) | {"date": result["date"]} == result


def test_batches_hold_every_row_once_and_similar_lengths(claims: Any) -> None:
    rows = [{"id": i, "prompt_ids": [0] * (i * 7 % 40), "chosen_ids": [], "rejected_ids": []} for i in range(40)]
    ordered = claims._in_batches(rows, seed=0)
    assert sorted(row["id"] for row in ordered) == list(range(40))
    assert [r["id"] for r in ordered] != [r["id"] for r in claims._in_batches(rows, seed=1)]
    lengths = np.array([len(row["prompt_ids"]) for row in ordered]).reshape(-1, claims.BATCH)
    assert (np.ptp(lengths, axis=1) == claims.BATCH - 1).all()


def made_up_study(claims: Any) -> Any:
    data = claims.Data("toy", toy_rows, claims.Sizes(1, 1, 1, 1), "toy", 9, lambda rows, rng: rows)
    return claims.Study(
        name="toy",
        paper="",
        data=data,
        systems={"A": {}, "B": lambda setting: {"beta": 1.0}},
        settings={"as is": lambda row, draw: row},
        claims={"A beats B.": [("A", "B", ["as is"])]},
        seeds=3,
    )


def toy_rows(quick: bool) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]})


@pytest.fixture
def fake_run(claims: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Runs in place of training: A is right everywhere, B nowhere; 3e-4 is the best rate of B, all are equal for A."""
    seen: list[Any] = []

    def run(study: Any, one: Any, given: Any, *, part: str) -> dict[str, Any]:
        seen.append((one, part))
        best = part == "validation" and one.rate == 3e-4
        return {"run": one._asdict(), "correct": [int(one.system == "A" or best)] * 4, "seconds": 1.0}

    monkeypatch.setattr(claims, "run", run)
    return seen


def test_each_system_has_its_own_rate_from_validation_rows_and_finished_runs_are_kept(
    claims: Any, fake_run: list[Any], tmp_path: Path
) -> None:
    study, given = made_up_study(claims), claims.Options(False, tmp_path, tmp_path)
    assert claims.tune(study, "B", "as is", given) == 3e-4
    assert claims.tune(study, "A", "as is", given) == claims.LEARNING_RATES[0]  # ties go to the smaller
    assert {part for _, part in fake_run} == {"validation"}
    number = 2 * claims.TUNE_SEEDS * len(claims.LEARNING_RATES)
    assert len(fake_run) == number
    other = replace(study, name="another study on the same data")
    assert claims.tune(other, "B", "as is", given) == 3e-4
    assert len(fake_run) == number  # it finds them all


def test_another_recipe_is_another_run(claims: Any, tmp_path: Path) -> None:
    study, given = made_up_study(claims), claims.Options(False, tmp_path, tmp_path)
    one = claims.Run("B", "as is", 0, 1e-4)

    def path(study: Any) -> Path:
        return claims.job(study, one, given, part="test")[0]

    changed = [
        replace(study, epochs=2),
        replace(study, systems={"B": {"beta": 2.0}}),
        replace(study, systems={"B": {"beta": 1.0, "negatives": 1}}),
        replace(study, data=replace(study.data, rows=lambda quick: toy_rows(quick).select([]))),
        replace(study, data=replace(study.data, sft_epochs=2)),
    ]
    assert len({path(study), *map(path, changed)}) == 6
    assert path(replace(study, systems={"B": {"beta": 1.0}})) == path(study)


def test_with_kept_nothing_is_run(claims: Any, fake_run: list[Any], tmp_path: Path) -> None:
    study = made_up_study(claims)
    assert claims.all_runs(study, claims.Options(False, tmp_path, tmp_path, kept=True)) == {}
    assert fake_run == []


def test_the_summary_has_systems_and_differences(claims: Any, fake_run: list[Any], tmp_path: Path) -> None:
    study, given = made_up_study(claims), claims.Options(False, tmp_path, tmp_path)
    found = claims.all_runs(study, given)
    assert [len(results) for results in found.values()] == [3, 3]
    rows, differences = claims.summarise(study, found)
    assert differences == {"A beats B.": {"as is: A - B": (1.0, 1.0, 1.0, 0.0)}}
    assert [(r["system"], r["mean"]) for r in rows] == [("A", 1.0), ("B", 0.0)]
    assert rows[0]["per_seed"] == [1.0, 1.0, 1.0]


def test_people_are_held_out_whole(claims: Any) -> None:
    rng = np.random.default_rng(0)
    rows = [{"person": int(p)} for p in rng.integers(30, size=300)]
    held, validation, test = claims._held_out(rows, claims.Sizes(0, 0, 40, 60))
    whose = np.array([row["person"] for row in rows])
    assert (len(validation), len(test)) == (40, 60)
    assert set(test) | set(validation) <= set(held)
    assert not set(whose[validation]) & set(whose[test])
    assert not set(whose[held]) & set(np.delete(whose, held))
    alone = claims._held_out([{}] * 300, claims.Sizes(0, 0, 40, 60))
    assert len(alone[0]) == 100  # rows of nobody known are people of their own


@pytest.fixture
def recommenders(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.claims import _recommenders

    return _recommenders


def test_a_training_is_known_by_its_whole_config_what_it_starts_from_and_its_data(
    recommenders: Any, results: Any, tmp_path: Path
) -> None:
    training = recommenders.Training
    given = results.Options(False, tmp_path, tmp_path)

    def bench(size: int = 12) -> Any:
        data = recommenders.Data(lambda: recommenders.ring(size=size), "ring", {})
        return recommenders.Bench("ring", data, "toy", given, lambda: recommenders.ring(size=12))

    first = training("language", {"inject": "none"})
    started = training("language", {"inject": "none", "start_from": first, "sft_steps": 3})
    keys = {
        bench().key(t)
        for t in (
            first,
            first.with_seed(1),
            training("language", {"inject": "popularity"}),
            started,
            training("language", {**started.options, "start_from": first.with_seed(1)}),
            training("sasrec"),
            training("sasrec", selected_on="half"),
            training("injection", {"members": (first, "popularity")}),
            training("injection", {"members": (started, "popularity")}),
        )
    }
    assert len(keys) == 9
    assert bench().key(training("sasrec", {"seed": 0})) == bench().key(training("sasrec"))  # a default by name
    assert bench(13).key(first) != bench().key(first)  # other candidates
    assert started.with_seed(1).options["start_from"].options["seed"] == 1
    told = recommenders.amount(bench(), started)
    assert told == "150 steps of 8 rows + 3 steps of 8 rows"


def test_the_best_on_validation_rows_is_chosen_and_what_is_missing_is_said(
    recommenders: Any, results: Any, tmp_path: Path
) -> None:
    grid = recommenders.grid("recent-popularity", fraction=(0.001, 1.0))
    study = recommenders.Study(
        name="toy",
        paper="",
        words="",
        data={"ring": recommenders.Data(lambda: recommenders.ring(size=12), "ring", {})},
        systems={"recent": recommenders.System(grid), "popularity": recommenders.System(recommenders.grid("random"))},
        claims={},
        metrics=("ndcg@20", "hr@20"),
    )

    def desk(kept: bool) -> Any:
        given = results.Options(False, tmp_path, tmp_path, kept)
        bench = recommenders.Bench("ring", study.data["ring"], "toy", given, study.quick_splits)
        return recommenders.Desk(study, given, {"ring": bench})

    assert desk(True).missing(desk(True).found()) == ["ring, all systems"]
    one = desk(False)
    list(map(one.result, (job for _, job in one.jobs("ring", "recent"))))
    scores = [
        json.loads(one.benches["ring"].job("", t.with_seed(0), "validation", {}, study.metrics)[0].read_text())
        for t in grid
    ]
    best = int(np.argmax([s["metrics"]["ndcg@20"] for s in scores]))
    assert one.chosen("ring", "recent").options["fraction"] == grid[best].options["fraction"]
    assert desk(True).missing(desk(True).found()) == ["ring, popularity, seeds 0, 1, 2"]
    assert recommenders.budget(one, "ring", "recent")["trainings"] == 2
