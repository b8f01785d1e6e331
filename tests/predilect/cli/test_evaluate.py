from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]
SAME = ["--bootstrap", "20", "--k-core", "0"]


@pytest.mark.parametrize("model", ["popularity", "item-knn"])
def test_gives_the_numbers_of_the_leaderboard(predilect: Run, finished: Path, log_file: Path, model: str) -> None:
    result = predilect("evaluate", "--model", finished / "models" / model, "--data", log_file, *SAME, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    board = json.loads((finished / "results.json").read_text())
    expected = next(m["metrics"] for m in board["models"] if m["name"] == model)
    assert {name: told[name] for name in expected} == expected


def test_table_parts_and_files(predilect: Run, finished: Path, log_file: Path, tmp_path: Path) -> None:
    result = predilect(
        "evaluate", "--model", finished, "--data", log_file, *SAME, "--part", "validation", "--output-dir", tmp_path
    )
    assert result.exit_code == 0, result.output
    assert "part validation" in result.output
    assert (tmp_path / "evaluation.json").is_file()
    assert (tmp_path / "rows.parquet").is_file()


def test_data_with_other_items_is_refused(predilect: Run, finished: Path) -> None:
    result = predilect("evaluate", "--model", finished)
    assert result.exit_code == 2
    assert "was fitted on 20 items and the prepared data has 2,414" in result.stderr
    assert "such as 'Ring of the First Hour'" in result.stderr
