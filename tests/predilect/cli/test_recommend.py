from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]


def test_titles_and_ids_typed_by_a_person(predilect: Run, finished: Path) -> None:
    by_title = predilect("recommend", "ring of the fifth hour", "--model", finished, "-k", 3)
    by_id = predilect("recommend", "5", "--model", finished, "-k", 3)
    assert by_title.exit_code == 0, by_title.output
    assert by_title.output == by_id.output
    assert "after Ring of the Fifth Hour" in by_title.output
    assert by_title.output.count("Ring of the") == 4


def test_the_best_model_of_a_leaderboard_answers_or_the_one_that_is_named(predilect: Run, finished: Path) -> None:
    best = json.loads((finished / "results.json").read_text())["models"][0]["name"]
    told = json.loads(predilect("recommend", "1", "--model", finished, "--json").output)
    assert told["recommender"] == best
    named = json.loads(predilect("recommend", "1", "--model", finished / "models" / "random", "--json").output)
    assert named["recommender"] == "random"


def test_json_is_complete_and_the_history_is_left_out(predilect: Run, finished: Path) -> None:
    told = json.loads(predilect("recommend", "1", "2", "--model", finished, "-k", 50, "--json").output)
    assert [h["item_id"] for h in told["history"]] == [1, 2]
    assert sorted(r["item_id"] for r in told["recommendations"]) == list(range(3, 21))
    scores = [r["score"] for r in told["recommendations"]]
    assert scores == sorted(scores, reverse=True)
    again = json.loads(
        predilect("recommend", "1", "--model", finished, "-k", 50, "--no-exclude-history", "--json").output
    )
    assert len(again["recommendations"]) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Ring of the Fith Hour"], "did you mean 'Ring of the Fifth Hour'"),
        (["99"], "'99'"),
        (["1", "-k", "0"], "-k"),
        ([], "Missing argument"),
    ],
)
def test_mistakes(predilect: Run, finished: Path, arguments: list[str], message: str) -> None:
    result = predilect("recommend", *arguments, "--model", finished)
    assert result.exit_code == 2
    assert message in result.stderr


def test_without_a_model_the_way_to_get_one(predilect: Run, tmp_path: Path) -> None:
    result = predilect("recommend", "Heat", "--model", tmp_path)
    assert result.exit_code == 2
    assert "run `predilect leaderboard` first" in result.stderr
    (tmp_path / "run.json").write_text("{}")
    assert "an unfinished run" in predilect("recommend", "Heat", "--model", tmp_path).stderr
