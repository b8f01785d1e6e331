"""Files that people have and options that they type: what the command line says, and that it leaves nothing behind.

To extend it, add a row to the table of its area: what lies in the folder, the command that is run in it, the exit
status, and words of the message. Every row is checked for one message, no traceback, and no file but those that it
names.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from predilect.cli import app

LOG = "user_id,item_id,timestamp\n" + "".join(
    f"u{u},i{(u + s) % 7},{1000 * s + u + 1}\n" for u in range(9) for s in range(5)
)
BAD_OPTION = "--k-core 0 --output-dir out"


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        name: what is special about the input.
        files: path -> content; `.gz` is packed, unless it is bytes already.
        command: words after `predilect`, run in the folder of the files.
        status: exit status; 0: it is read, 2: refused with one message.
        says: words of the output, in any order.
        leaves: files that are there afterwards besides those of `files`; one that ends in / may hold anything.
        env: of the process; with any the command runs in one of its own.
    """

    name: str
    files: Mapping[str, str | bytes]
    command: str
    status: int
    says: tuple[str, ...]
    leaves: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def json_lines() -> str:
    """JSON lines of the log `LOG`."""
    header, *lines = LOG.splitlines()
    return "".join(json.dumps(dict(zip(header.split(","), line.split(","), strict=True))) + "\n" for line in lines)


READERS = [
    Case("a log as it should be", {"log.csv": LOG}, "data inspect log.csv", 0, ("45", "0 errors")),
    Case("tabs in .tsv", {"log.tsv": LOG.replace(",", "\t")}, "data inspect log.tsv", 0, ("45", "0 errors")),
    Case("packed", {"log.csv.gz": LOG}, "data inspect log.csv.gz", 0, ("45", "0 errors")),
    Case("JSON lines", {"log.jsonl": json_lines()}, "data inspect log.jsonl", 0, ("45", "0 errors")),
    Case("nothing in the file", {"log.csv": ""}, "data inspect log.csv", 2, ("log.csv is empty",)),
    Case("no such file", {}, "data inspect log.csv", 2, ("no file or folder 'log.csv'",)),
    Case("an unknown ending", {"log.doc": "x"}, "data inspect log.doc", 2, ("no format known here", "table")),
    Case("a folder without a log", {"a/notes.txt": "x"}, "data inspect a", 2, ("no format known here",)),
    Case("two logs in a folder", {"a/log.csv": LOG, "a/ratings.csv": LOG}, "data inspect a", 2,
         ("ratings.csv and log.csv",)),
    Case("no such column", {"log.csv": LOG}, "data inspect log.csv --column user_id=who", 2,
         ("no column 'who' for user_id", "got user_id, item_id, timestamp")),
    Case("an unknown name of ours", {"log.csv": LOG}, "data inspect log.csv --column who=user_id", 2, ("got who",)),
    Case("an unknown format", {"log.csv": LOG}, "data inspect log.csv --format csv", 2, ("got 'csv'", "table")),
    Case("a time that is none", {"log.csv": LOG + "u1,i1,soon\n"}, "data inspect log.csv", 2, ("row 46", "'soon'")),
    Case("a line too short", {"log.csv": LOG + "u1,i1\n"}, "data inspect log.csv", 2,
         ("line 47", "2 fields instead of 3")),
    Case("a line too short, skipped", {"log.csv": LOG + "u1,i1\n"}, "data inspect log.csv --on-error skip", 0,
         ("broken line", "45")),
]  # fmt: skip

COMMANDS = [
    Case("convert onto a full folder", {"log.csv": LOG, "out/a.txt": "x"}, "data convert log.csv out", 2,
         ("not an empty folder",)),
    Case("recommend without a model", {}, "recommend i1", 2, ("no saved recommender", "--model FOLDER")),
    Case("evaluate without a model", {"log.csv": LOG}, "evaluate --data log.csv", 2, ("no saved recommender",)),
    Case("an unknown recommender", {"log.csv": LOG}, f"leaderboard --data log.csv --models popularty {BAD_OPTION}", 2,
         ("popularty", "popularity")),
    Case("an option that is none", {"log.csv": LOG}, "leaderboard --data log.csv --ratios 1,2", 2, ("ratios",)),
]  # fmt: skip

TABLE = [*READERS, *COMMANDS]


def test_rows_have_names_of_their_own() -> None:
    assert len({case.name for case in TABLE}) == len(TABLE)


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_input(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in case.files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        packed = isinstance(content, str) and name.endswith(".gz")
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if packed else data)
    status, output = _run(case, tmp_path, monkeypatch)
    assert status == case.status, output
    assert "Traceback" not in output, output
    assert output.count("Error: ") + output.count("Error ─") == (status != 0), output
    flat = " ".join(output.split())
    assert not [words for words in case.says if words not in flat], output
    there = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    left = {p for p in there - set(case.files) if not any(p.startswith(f) for f in case.leaves if f.endswith("/"))}
    assert left == {f for f in case.leaves if not f.endswith("/")}


def _run(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit status and all that was printed."""
    words, wide = case.command.split(), {"COLUMNS": "400", "HF_HUB_OFFLINE": "1"}
    if case.env:
        env = {**os.environ, **wide, "OMP_NUM_THREADS": "1", **case.env}
        done = subprocess.run([sys.executable, "-m", "predilect", *words], cwd=folder, env=env, capture_output=True)
        return done.returncode, (done.stdout + done.stderr).decode("ascii" if "LC_ALL" in case.env else "utf-8")
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, words, env=wide)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.output
