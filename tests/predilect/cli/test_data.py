from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from predilect.data import READERS, load

Run = Callable[..., Result]


def test_lists_every_reader_with_its_files(predilect: Run) -> None:
    for arguments in (["inspect"], ["inspect", "--list"]):
        result = predilect("data", *arguments)
        assert result.exit_code == 0
        assert all(name in result.output for name in READERS)
        assert "movietweetings-100k" in result.output


def test_inspects_the_packaged_data(predilect: Run) -> None:
    result = predilect("data", "inspect", "movietweetings-100k")
    assert result.exit_code == 0, result.output
    for fact in ("100,000", "16,554", "10,506", "sparsity", "titles      10,506 of 10,506 items", "0 errors"):
        assert fact in result.output, fact


def test_inspects_a_persons_own_columns(predilect: Run, tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text("customer,sku,at\na,x,1\na,y,2\nb,x,3\n")
    flags = ["--column", "user_id=customer", "--column", "item_id=sku", "--column", "timestamp=at"]
    result = predilect("data", "inspect", path, *flags)
    assert result.exit_code == 0, result.output
    assert "titles      0 of 2 items" in result.output
    assert "repeats     0.0% of the interactions: people take an item once" in result.output


def test_inspect_says_which_protocol_suits_a_log_with_repeats(predilect: Run, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\n1,5,10\n1,5,11\n2,5,12\n2,6,13\n")
    result = predilect("data", "inspect", path)
    assert result.exit_code == 0, result.output
    assert "repeats     25.0% of the interactions: people come back to items" in result.output
    assert "--no-mask-seen" in result.output


def test_a_broken_line_is_named_and_skipped_on_request(predilect: Run, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\n1,5,10\n1,6\n2,5,12\n2,7,nan\n")
    strict = predilect("data", "inspect", path)
    assert strict.exit_code == 2
    assert "line 3" in strict.stderr
    skipped = predilect("data", "inspect", path, "--on-error", "skip")
    assert skipped.exit_code == 0, skipped.output
    assert "2 errors" in skipped.output


def test_a_misspelt_name(predilect: Run) -> None:
    result = predilect("data", "inspect", "movietwetings")
    assert result.exit_code == 2
    assert "did you mean movietweetings, movietweetings-100k" in result.stderr


@pytest.mark.parametrize("form", ["parquet", "recbole"])
def test_converted_data_reads_as_before(predilect: Run, log_file: Path, tmp_path: Path, form: str) -> None:
    destination = tmp_path / "converted"
    result = predilect("data", "convert", log_file, destination, "--to", form)
    assert result.exit_code == 0, result.output
    before, after = load(log_file), load(destination)
    assert after.catalogue.titles == before.catalogue.titles
    assert after.catalogue.raw_ids == before.catalogue.raw_ids
    columns = ["user_id", "item_id", "timestamp"]
    assert after.interactions.select_columns(columns)[:] == before.interactions.select_columns(columns)[:]


def test_a_folder_in_use_is_not_written_over(predilect: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("dear")
    result = predilect("data", "convert", "movietweetings-100k", tmp_path)
    assert result.exit_code == 2
    assert "is not an empty folder" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
