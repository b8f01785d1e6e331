from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest
from typer.testing import Result

from predilect.recommenders import SASRecRecommender

Run = Callable[..., Result]
SMALL = ["--bootstrap", "20", "--k-core", "0", "--max-history", "5"]


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def numbers(folder: Path) -> dict[str, Any]:
    return {m["name"]: m["metrics"] for m in results(folder)["models"]}


def test_writes_everything_that_it_names(finished: Path) -> None:
    written = {p.name for p in finished.iterdir()}
    assert {"results.json", "report.html", "ranking.png", "accuracy_time.png", "config.yaml", "models"} <= written
    found = results(finished)
    assert {m["name"] for m in found["models"]} == {"random", "popularity", "item-knn"}
    assert found["command"].startswith("predilect")
    for name in numbers(finished):
        assert (finished / "models" / name / "recommender" / "method.json").is_file()


def test_the_table_has_a_row_per_model_and_the_counts(predilect: Run, log_file: Path, tmp_path: Path) -> None:
    result = predilect(
        "leaderboard", "--data", log_file, "--models", "popularity,random", *SMALL, "--output-dir", tmp_path / "out"
    )
    assert result.exit_code == 0
    assert "720" in result.output  # 60 users with 12 items
    table = result.output[result.output.index("ndcg@10  ") :] if "ndcg@10  " in result.output else result.output
    assert "popularity" in table
    assert "report:" in result.output


def test_the_written_config_repeats_the_run(predilect: Run, finished: Path, tmp_path: Path) -> None:
    result = predilect("leaderboard", "--config", finished / "config.yaml", "--output-dir", tmp_path / "again")
    assert result.exit_code == 0, result.output
    assert numbers(tmp_path / "again") == numbers(finished)


def test_a_folder_in_use_is_left_alone(predilect: Run, log_file: Path, finished: Path) -> None:
    before = (finished / "results.json").read_bytes()
    result = predilect("leaderboard", "--data", log_file, "--output-dir", finished)
    assert result.exit_code == 2
    assert "--resume" in result.stderr
    assert "--overwrite" in result.stderr
    assert (finished / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "movietweetings"], "packaged is movietweetings-100k"),
        (["--models", "sasrek"], "sasrec"),
        (["--recommenders", "sasrec.hidden=3", "--models", "sasrec"], "recommenders.sasrec has no option 'hidden'"),
        (["--ratios", "0.8,0.1"], "ratios must be a list of 3 values"),
        (["--k-core", "-1"], "k_core must be at least 0 (got -1)"),
        (["--k-core", "5000"], "k"),
        (["--split", "official"], "official"),
    ],
)
def test_a_wrong_request_is_one_message_and_exit_code_2(
    predilect: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = predilect("leaderboard", "--models", "random", *arguments, "--output-dir", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_failing_model_is_named_and_the_others_are_kept(
    predilect: Run, log_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: SASRecRecommender, data: object, folder: Path) -> None:
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr(SASRecRecommender, "_fit", fails)
    out = tmp_path / "out"
    result = predilect("leaderboard", "--data", log_file, "--models", "sasrec,popularity", *SMALL, "--output-dir", out)
    assert result.exit_code == 1, result.output
    assert "sasrec failed" in result.output
    assert {m["name"]: m["status"] for m in results(out)["models"]} == {"sasrec": "failed", "popularity": "ok"}
    assert (out / "report.html").is_file()


@pytest.mark.slow
def test_killed_in_training_and_resumed_gives_the_numbers_of_an_unbroken_run(log_file: Path, tmp_path: Path) -> None:
    def command(folder: Path) -> list[str]:
        options = ["hidden_size=16", "batch_size=16", "max_epochs=12", "patience=12"]
        models = [
            flag for name in ("gru4rec", "sasrec") for o in options for flag in ("--recommenders", f"{name}.{o}")
        ]
        data = ["--data", str(log_file), "--models", "gru4rec,sasrec", *SMALL, "--output-dir", str(folder)]
        return ["-m", "predilect", "leaderboard", *data, *models]

    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    forked.run(command(tmp_path / "unbroken"), env=env, check=True)
    broken = tmp_path / "broken"
    process = forked.Process(command(broken), env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    while not any(broken.glob("models/sasrec/fit/**/checkpoint-*/trainer_state.json")):
        assert process.poll() is None, "the run ended before it could be killed: make it longer"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (broken / "results.json").exists()
    done = forked.run([*command(broken), "--resume"], env=env, check=True)
    assert "sasrec continues where it was interrupted" in done.stdout
    assert "kept from the earlier run" in done.stdout  # gru4rec
    assert numbers(broken) == numbers(tmp_path / "unbroken")
    curves = [{m["name"]: [(r["epoch"], r["ndcg@10"]) for r in m["curve"]] for m in results(f)["models"]}
              for f in (broken, tmp_path / "unbroken")]  # fmt: skip
    assert curves[0] == curves[1]
