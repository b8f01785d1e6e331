"""Preferences that people have and that cannot be trained on: `predilect align` says in one line which and why."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from predilect.cli.root import app
from pref_losses.align.data import load_rows
from pref_losses.align.options import DataOptions
from pref_losses.align.parsing import parse_align
from pref_losses.align.run import align

Align = Callable[..., Result]
Row = dict[str, Any]


def pairs(count: int = 40, **changed: Any) -> list[Row]:
    return [{"prompt": f"{i} say a:", "chosen": f" a{i}", "rejected": f" b{i}"} | changed for i in range(count)]


def with_row(line: int, **changed: Any) -> list[Row]:
    """Pairs of which the one in this line is another."""
    rows = pairs()
    rows[line - 1] |= changed
    return rows


def lines(rows: list[Row]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


CHAT = {"prompt": said("user", "q"), "chosen": said("assistant", "a"), "rejected": said("assistant", "b")}
LONG = [row | {"prompt": "x" * (50 + i) + row["prompt"]} for i, row in enumerate(pairs())]


@pytest.fixture
def run(small: list[str], tmp_path: Path) -> Align:
    """`run(content, option, ...)`: the command on a file of this content."""

    def invoke(content: bytes, *options: str, name: str = "own.jsonl") -> Result:
        (tmp_path / name).write_bytes(content)
        arguments = [*small, "--dataset", str(tmp_path / name), "--test-size", "0.1", "--method", "dpo"]
        return CliRunner().invoke(
            app, ["align", *arguments, "--output-dir", str(tmp_path / "out"), "--max-steps", "1", *options]
        )

    return invoke


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (lines([*pairs(20), CHAT]), [], "own.jsonl line 1 has text as prompt and own.jsonl line 21 has messages"),
        (lines(with_row(7, chosen=said("assistant", "a"))), [], "own.jsonl line 7 has messages as chosen: the rows"),
        (lines(with_row(5, chosen=3)), [], "own.jsonl line 5: chosen is text or a list of messages (got int)"),
        (
            lines(with_row(21, chosen=None)),
            [],
            "chosen is null, or an answer in it is, in 1 of 40 rows (own.jsonl line 21)",
        ),
        (
            lines(with_row(21, rejected=None)),
            [],
            "rejected is null, or an answer in it is, in 1 of 40 rows (own.jsonl line 21)",
        ),
        (b"\n" + lines(with_row(20, chosen=None)) + b"\n\n", [], "(own.jsonl line 21)"),
        (
            lines(with_row(9, rejected=[" b", None])),
            [],
            "rejected is null, or an answer in it is, in 1 of 40 rows (own.jsonl line 9)",
        ),
        (
            lines(LONG),
            ["--max-length", "32", "--test-size", "0"],
            "40 of 40 rows of the given data do not fit max_length",
        ),
        (lines(LONG), ["--max-length", "32"], "with 58 to 98 tokens; raise max_length"),
        (
            lines(pairs(prompt="p" * 80)),
            ["--max-length", "32"],
            "40 of 40 rows of the given data do not fit max_length",
        ),
        (lines(pairs(prompt="")), ["--test-size", "0"], "own.jsonl line 1: the prompt is empty; own.jsonl line 2"),
        (lines(pairs(prompt="p:")), [], "leaves none to train on: they have 1 different prompts"),
        (
            lines(with_row(3, chosen="\ud83d")),
            [],
            "own.jsonl line 3: the column chosen holds the lone surrogate \\ud83d",
        ),
        (lines(with_row(3, note=1)[:2] + with_row(3, note="one")[2:3]), [], None),
        (
            lines(with_row(3, note="one") + pairs(note=1)),
            [],
            "own.jsonl has a column whose values are of several kinds",
        ),
        (lines(pairs()) + b'\n{"prompt": "caf\xe9"}', [], "own.jsonl line 41 is not UTF-8: byte 16 is 0xe9"),
        (lines(pairs()) + b"\n3", [], "own.jsonl line 41 is not an object with keys (got int)"),
    ],
    ids=range(17),
)
def test_one_line_says_which_and_why(
    run: Align, content: bytes, options: list[str], words: str | None, tmp_path: Path
) -> None:
    result = run(content, *options)
    if words is None:  # a column that some rows lack is no fault
        assert result.exit_code == 0, result.output
        return
    assert result.exit_code == 2, result.output
    (message,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert words in message
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_cut_short_says_how_far_it_goes(run: Align) -> None:
    whole = gzip.compress(lines(pairs(400)), mtime=0)
    result = run(whole[: len(whole) // 2], name="own.jsonl.gz")
    assert result.exit_code == 2
    assert "own.jsonl.gz is damaged behind line" in result.stderr
    assert "Aborted" not in result.output


def test_the_first_line_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_bytes(b"\xef\xbb\xbf" + lines(pairs()))
    assert len(load_rows(DataOptions(dataset_name=str(tmp_path / "own.jsonl"), test_size=0))[0]) == 40


def test_rows_keep_their_place_through_shuffling_and_splitting(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_bytes(lines(pairs()))
    train, test = load_rows(DataOptions(dataset_name=str(tmp_path / "own.jsonl")))
    assert test is not None
    for row in [*train, *test]:
        assert row["_place"] == f"own.jsonl line {int(row['chosen'][2:]) + 1}"
    assert train["_place"][:5] != [f"own.jsonl line {number}" for number in range(1, 6)]


@pytest.mark.parametrize("chat", [False, True])
def test_empty_chosen_answers_are_counted_and_reported(
    chat: bool, small: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = pairs()
    for line in (4, 31):
        rows[line - 1]["chosen"] = ""
    if chat:
        rows = [
            {name: said("user" if name == "prompt" else "assistant", text) for name, text in row.items()}
            for row in rows
        ]
    (tmp_path / "own.jsonl").write_bytes(lines(rows))
    options = [*small, "--dataset", str(tmp_path / "own.jsonl"), "--test-size", "0", "--method", "dpo"]
    with caplog.at_level(logging.WARNING):
        metrics = align(*parse_align([*options, "--max-steps", "1", "--output-dir", str(tmp_path / "out")]))
    assert metrics["train_rows"] == 40
    (message,) = [record.getMessage() for record in caplog.records if "empty chosen" in record.getMessage()]
    assert "2 of 40 rows of the train data have an empty chosen answer" in message
    assert {"own.jsonl line 4", "own.jsonl line 31"} == set(message.partition("(")[2].rstrip(")").split(", "))


def test_empty_and_long_prompts_are_told_apart(
    small: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = with_row(4, prompt="")
    rows[8]["prompt"] = "x" * 300
    (tmp_path / "own.jsonl").write_bytes(lines(rows))
    options = [*small, "--dataset", str(tmp_path / "own.jsonl"), "--test-size", "0", "--max-length", "100"]
    with caplog.at_level(logging.WARNING):
        align(*parse_align([*options, "--method", "dpo", "--max-steps", "1", "--output-dir", str(tmp_path / "out")]))
    text = next(m for m in (record.getMessage() for record in caplog.records) if "left out" in m)
    assert "own.jsonl line 4: the prompt is empty" in text
    assert "own.jsonl line 9: the prompt fills max_length alone: 300 tokens of 100" in text
