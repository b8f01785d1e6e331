"""One hold on an output folder: new, resumed, overwritten, refused; races, kills, and several processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from predilect.runs import output
from predilect.runs.output import OutputFolder

OTHERS = {"steps": 2, "data": "abc"}


def leave_a_run(folder: Path, run: dict[str, Any] | None = None, kind: str = "train") -> None:
    with OutputFolder(folder, kind) as hold:
        hold.claim(run or OTHERS)
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text("w")


def test_a_new_folder_is_made_claimed_and_left_without_a_lock(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    leave_a_run(folder)
    assert json.loads((folder / "run.json").read_text()) == {"kind": "train", "run": OTHERS}
    assert sorted(p.name for p in folder.iterdir()) == ["model", "run.json"]


def test_a_folder_in_use_is_refused_in_one_line_before_any_work(tmp_path: Path) -> None:
    leave_a_run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"^.* is not empty: continue that run with --resume, .*--overwrite$"):
        OutputFolder(tmp_path / "run", "train").__enter__()
    with pytest.raises(ValueError, match=r"resume=True, choose another output_dir, .* overwrite=True$"):
        OutputFolder(tmp_path / "run", "train", ways="call").__enter__()


def test_the_same_run_is_resumed_and_another_refused(tmp_path: Path) -> None:
    leave_a_run(tmp_path)
    with OutputFolder(tmp_path, "train", resume=True) as hold:
        with pytest.raises(ValueError, match=r"holds another run \(steps: 2 before, 3 now; data: abc before, d now\)"):
            hold.claim({"steps": 3, "data": "d"})
        assert json.loads((tmp_path / "run.json").read_text())["run"] == OTHERS
        hold.claim(dict(OTHERS), about={"command": "again"})
    assert (tmp_path / "model" / "weights").read_text() == "w"
    assert json.loads((tmp_path / "run.json").read_text())["about"] == {"command": "again"}


def test_overwrite_removes_the_run_and_only_once_the_new_one_is_known(tmp_path: Path) -> None:
    leave_a_run(tmp_path)
    with OutputFolder(tmp_path, "train", overwrite=True):
        assert (tmp_path / "model").is_dir()  # the data may still be unreadable
    with OutputFolder(tmp_path, "train", overwrite=True) as hold:
        hold.claim({"steps": 9})
        assert not (tmp_path / "model").exists()
    assert json.loads((tmp_path / "run.json").read_text())["run"] == {"steps": 9}


def test_killed_while_overwriting_mixes_no_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_a_run(tmp_path)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "_remove", killed)
    hold = OutputFolder(tmp_path, "train", overwrite=True)
    with pytest.raises(KeyboardInterrupt), hold:
        hold.claim({"steps": 9})
    monkeypatch.undo()
    for run in (OTHERS, {"steps": 9}):
        with OutputFolder(tmp_path, "train", resume=True) as again, pytest.raises(ValueError, match="another run"):
            again.claim(run)


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize("whose", ["thesis", "other kind", "older"])
def test_what_is_not_the_runs_own_is_never_touched(tmp_path: Path, how: dict[str, bool], whose: str) -> None:
    if whose == "thesis":
        (tmp_path / "thesis.tex").write_text("years")
    elif whose == "older":
        (tmp_path / "train.json").write_text("{}")
    else:
        leave_a_run(tmp_path, kind="leaderboard")
    before = sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="was not written by a run of train"):
        OutputFolder(tmp_path, "train", **how).__enter__()
    assert sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


def test_a_file_and_contrary_wishes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file: choose another --output-dir"):
        OutputFolder(tmp_path / "file", "train").__enter__()
    with pytest.raises(ValueError, match="choose one"):
        OutputFolder(tmp_path, "train", resume=True, overwrite=True)


def test_a_run_that_failed_at_once_does_not_block_its_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), OutputFolder(tmp_path / "run", "train"):
        raise RuntimeError("no such data")
    assert not (tmp_path / "run").exists()
    for steps in (1, 2):
        with OutputFolder(tmp_path / "run", "train") as hold:
            hold.claim({"steps": steps})


def test_links_are_removed_and_what_they_point_at_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    leave_a_run(tmp_path / "run")
    (tmp_path / "run" / "link").symlink_to(tmp_path / "mine")
    with OutputFolder(tmp_path / "run", "train", overwrite=True) as hold:
        hold.claim({})
    assert not (tmp_path / "run" / "link").exists()
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years"


def test_partial_files_of_a_killed_run_go_when_it_is_resumed(tmp_path: Path) -> None:
    leave_a_run(tmp_path)
    (tmp_path / "model" / ".result.json.123.partial").touch()
    (tmp_path / ".model.123.partial").mkdir()
    with OutputFolder(tmp_path, "train", resume=True) as hold:
        hold.claim(OTHERS)
    assert not list(tmp_path.rglob("*.partial"))


# --- several processes -----------------------------------------------------------------------------------------------

RACE = """
import json, sys
from pathlib import Path
from predilect.processes import processes
from predilect.runs import OutputFolder

number, folder, rounds = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
processes()  # all that is slow is imported before the first start
ends = []
for turn in range(rounds):
    (folder / f"ready-{turn}-{number}").touch()
    while not (folder / f"ready-{turn}-{1 - number}").exists():
        pass
    try:
        with OutputFolder(folder / str(turn), "train") as output:
            output.claim({"run": "same"})
            (output.folder / "result").write_text(str(number))
        ends.append("")
    except Exception as error:
        ends.append(f"{type(error).__name__}: {error}")
print(json.dumps(ends))
"""

WORK = """
import signal, sys
from pathlib import Path
from predilect.runs import OutputFolder

with OutputFolder(Path(sys.argv[1]), "train") as output:
    output.claim({"steps": 2, "data": "abc"})
    (output.folder / "checkpoint").touch()
    print("claimed", flush=True)
    signal.pause()
"""

RANK = """
import json, sys
from pathlib import Path
from predilect.runs import OutputFolder

ends = {}
for name in ("new", "used"):
    try:
        with OutputFolder(Path(sys.argv[1]) / name, "train") as output:
            output.claim({})
        ends[name] = ""
    except ValueError as error:
        ends[name] = str(error)
print(json.dumps(ends))
import torch.distributed
torch.distributed.destroy_process_group()
"""


def start(script: str, *arguments: Any, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def outputs(pair: list[subprocess.Popen[str]]) -> list[Any]:
    return [json.loads(process.communicate(timeout=120)[0]) for process in pair]


def test_of_two_runs_started_in_the_same_instant_one_runs_and_one_is_refused(tmp_path: Path) -> None:
    rounds = 60
    one, two = outputs([start(RACE, number, tmp_path, rounds) for number in range(2)])
    for turn, messages in enumerate(zip(one, two, strict=True)):
        ran = [number for number, message in enumerate(messages) if not message]
        assert len(ran) == 1, messages
        assert (tmp_path / str(turn) / "result").read_text() == str(ran[0])
        refusal = messages[1 - ran[0]]
        assert refusal.startswith("ValueError: ")
        assert "\n" not in refusal
        assert "another run is at work" in refusal or "is not empty" in refusal


def test_a_running_run_is_not_resumed_and_a_killed_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_WORKERS_END", 0.1)
    process = start(WORK, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    for how in ({"resume": True}, {"overwrite": True}, {}):
        with pytest.raises(ValueError, match="another run is at work"):
            OutputFolder(tmp_path, "train", **how).__enter__()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / ".run.lock").exists()
    with OutputFolder(tmp_path, "train", resume=True) as hold:
        hold.claim(OTHERS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "run.json"]


def test_processes_of_one_run_enter_together_or_are_refused_together(tmp_path: Path) -> None:
    leave_a_run(tmp_path / "used")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    shared["ACCELERATE_USE_CPU"] = "true"
    one, two = outputs([start(RANK, tmp_path, **shared, RANK=str(n), LOCAL_RANK=str(n)) for n in range(2)])
    assert one["new"] == two["new"] == ""
    assert "is not empty" in one["used"]
    assert one["used"] == two["used"]
