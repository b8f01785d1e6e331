from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from predilect.cli import app
from predilect.evaluation import further
from predilect.method import available_methods
from predilect.recommender import Recommender

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def run() -> Run:
    def start(*arguments: object) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})

    return start


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """People who walk along a ring of items, twice as long as their split needs."""
    rows = [f"{user},{(user + step) % 12},{100 * step + user}" for user in range(20) for step in range(10)]
    file = tmp_path / "log.csv"
    file.write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    return file


@pytest.fixture
def data(log: Path) -> list[object]:
    return ["--data", log, "--k-core", 0, "--bootstrap", 20, "--split", "by_user"]


@pytest.mark.parametrize("name", ["sasrec", "popularity"])
def test_a_method_of_the_core_is_trained_measured_and_kept(
    run: Run, data: list[object], tmp_path: Path, name: str
) -> None:
    flags = ["--set", "max_epochs=2", "--set", "hidden_size=8"] if name == "sasrec" else []
    result = run("train", name, *data, *flags, "--output-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    lines = [line.split(":")[0] for line in result.output.splitlines() if line.startswith("epoch ")]
    assert lines == (["epoch 1", "epoch 2"] if name == "sasrec" else [])
    assert not (tmp_path / "run" / "fit").exists()
    kept = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())
    assert kept["recommender"] == name
    again = run("evaluate", "--model", tmp_path / "run", *data, "--output-dir", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "again" / "evaluation.json").read_text()) == kept
    assert Recommender.from_pretrained(tmp_path / "run").name == name


def test_metrics_of_other_packages_are_printed_and_saved(
    run: Run, data: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(splits: Any) -> Any:
        raise ValueError(f"{splits.num_items} items are too few")

    def longest_list(splits: Any) -> Any:
        return lambda rows: [further.FurtherMetric("longest list", float(max(map(len, rows["top"]))), "")]

    entries = {name: SimpleNamespace(load=lambda made=made: made) for name, made in
               (("broken", fails), ("longest", longest_list))}  # fmt: skip
    monkeypatch.setattr(further, "registered", lambda group: entries)
    result = run("train", "popularity", *data, "--output-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "the metrics broken are left out: 12 items are too few" in result.output
    told = [line for line in result.output.splitlines() if "longest list" in line]
    kept = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())["results"]
    assert kept["longest list"] == 10
    assert "10.0000" in told[0]
    few = ["--protocol", "candidates", "--num-candidates", 3, "--output-dir", tmp_path / "few"]
    result = run("train", "popularity", *data, *few)
    assert result.exit_code == 0, result.output
    assert "longest list" not in json.loads((tmp_path / "few/evaluation/evaluation.json").read_text())["results"]


def test_every_registered_method_is_a_command_with_options(run: Run) -> None:
    listed = run("train", "--help").output
    for name in available_methods():
        assert f"  {name} " in listed
        assert "seed = 0" in run("options", name).output
    assert "--k-core" in run("train", "sasrec", "--help").output


def test_an_edited_log_is_refused_on_resume(run: Run, data: list[object], log: Path, tmp_path: Path) -> None:
    command = ["train", "popularity", *data, "--output-dir", tmp_path / "run"]
    assert run(*command).exit_code == 0
    log.write_text(log.read_text().replace("\n0,0,0\n", "\n0,3,0\n"))
    refused = run(*command, "--resume")
    assert refused.exit_code == 2
    assert "data" in refused.output
    assert run(*command, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sasrek"], "there is no method 'sasrek'; did you mean sasrec"),
        (["sasrec", "--set", "hiden_size=3"], "did you mean hidden_size"),
        (["sasrec", "--set", "max_epochs=many"], "must be a whole number (got 'many')"),
        (["sasrec", "--preset", "paper"], "sasrec has none"),
        (["sasrec", "--resume", "--overwrite"], "choose one"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    run: Run, data: list[object], tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = run("train", *arguments, *data, "--output-dir", tmp_path / "run")
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "option", "words"),
    [
        ("injection", "members=[popularity,nobody]", "member 'nobody' is neither a folder nor a recommender"),
        ("language", "retriever_folder=nowhere", "retriever_folder nowhere holds no saved recommender"),
        ("llara", "retriever=popularity", "LLaRA needs item embeddings, which popularity has not"),
        ("sasrec", "seed=-1", "seed must be at least 0 (got -1)"),
    ],
)
def test_options_that_name_what_is_not_there_are_refused_before_data_are_read(
    run: Run, tmp_path: Path, name: str, option: str, words: str
) -> None:
    if name not in available_methods():
        pytest.skip("llm-rec is not installed")
    for command in (
        ["train", name, "--set", option],
        ["leaderboard", "--models", name, "--recommenders", f"{name}.{option}"],
    ):
        result = run(*command, "--data", tmp_path / "unread.csv", "--output-dir", tmp_path / "run")
        assert result.exit_code == 2, result.output
        assert words in " ".join(result.output.split())
        assert not (tmp_path / "run").exists()
