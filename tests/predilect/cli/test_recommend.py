from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
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
        ([], "give titles or ids of one person"),
        (["1", "--histories", "a.csv", "--output", "b.csv"], "give titles or ids of one person"),
        (["--histories", "a.csv"], "belong together"),
        (["--histories", "a.txt", "--output", "b.txt"], ".csv, .jsonl, .parquet"),
        (["--histories", "a.csv", "--output", "b.jsonl"], "in the format of the histories"),
        (["--histories", "nowhere.csv", "--output", "b.csv"], "no file nowhere.csv"),
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


PEOPLE = [
    {"user_id": "ada", "history": ["1", "Ring of the Second Hour"]},
    {"user_id": "bob", "history": ["no such title"]},
    {"user_id": "cy", "history": []},
]


def write_people(path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(PEOPLE), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in PEOPLE))
    else:
        lines = [f"{row['user_id']},{'|'.join(row['history'])}" for row in PEOPLE]
        path.write_text("\n".join(["user_id,history", *lines]) + "\n")


def read_people(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return found
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{**row, "item_id": [int(i) for i in row["item_id"].split("|") if i]} for row in rows]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_file_of_people_gets_a_list_each_in_their_order(
    predilect: Run, finished: Path, tmp_path: Path, ending: str
) -> None:
    source, target = tmp_path / f"people{ending}", tmp_path / f"lists{ending}"
    write_people(source)
    result = predilect("recommend", "--histories", source, "--output", target, "--model", finished, "-k", 4)
    assert result.exit_code == 0, result.output
    assert "lists for 2 of 3 people" in result.output
    rows = read_people(target)
    assert [row["user_id"] for row in rows] == ["ada", "bob", "cy"]
    assert rows[1]["item_id"] == []
    assert "'no such title'" in rows[1]["error"]
    one = json.loads(predilect("recommend", "1", "2", "--model", finished, "-k", 4, "--json").output)
    assert rows[0]["item_id"] == [r["item_id"] for r in one["recommendations"]]
    assert len(rows[2]["item_id"]) == 4
    assert not rows[0]["error"]


def test_a_broken_file_of_people_leaves_nothing_behind(predilect: Run, finished: Path, tmp_path: Path) -> None:
    source = tmp_path / "people.jsonl"
    source.write_text('{"history": ["1"]}\nnot json\n')
    flags = ["--histories", source, "--output", tmp_path / "lists.jsonl", "--model", finished]
    result = predilect("recommend", *flags)
    assert result.exit_code == 2
    assert "line 2: no JSON" in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["people.jsonl"]
    source = tmp_path / "people.csv"
    source.write_text("user_id,items\n1,2\n")
    result = predilect("recommend", "--histories", source, "--output", tmp_path / "l.csv", "--model", finished)
    assert "has no column history (got user_id, items)" in result.output


def test_parquet_keeps_its_types_where_the_first_rows_are_empty(
    predilect: Run, finished: Path, tmp_path: Path
) -> None:
    rows = [{"note": None, "history": []}] * 1100 + [{"note": "late", "history": [str(i) for i in range(1, 21)]}]
    schema = pa.schema({"note": pa.string(), "history": pa.list_(pa.string())})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "people.parquet")
    flags = ["--histories", tmp_path / "people.parquet", "--output", tmp_path / "lists.parquet", "-k", 2]
    result = predilect("recommend", *flags, "--model", finished)
    assert result.exit_code == 0, result.output
    last = pq.read_table(tmp_path / "lists.parquet").to_pylist()[-1]
    assert (last["note"], last["item_id"], last["error"]) == ("late", [], "every item was taken already")
