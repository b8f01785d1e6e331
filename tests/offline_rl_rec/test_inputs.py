"""Logs with behaviours by the names of their formats, and bad ones: one line each, exit 2."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from offline_rl_rec import RewardRule, Sessions
from predilect.cli import app
from predilect.data import load

SMALL = ("--k-core", 0, "--set", "max_epochs=1", "--set", "hidden_size=8", "--max-history", 4, "--bootstrap", 10)


def run(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})


def sessions() -> list[tuple[int, int, str]]:
    """Twenty sessions of five events along a ring of items; the last is a purchase, and one item is only bought."""
    rows = [(s, (s + step) % 7, "buy" if step == 4 else "click") for s in range(20) for step in range(5)]
    return [*rows, (20, 1, "click"), (20, 99, "buy"), (20, 2, "click")]


def rc15_sample(folder: Path) -> Path:
    part = ("train", "train", "val", "test")
    place: dict[int, int] = {}
    lines = ["session_id,event_index,item_id,event,split"]
    for session, item, event in sessions():
        place[session] = place.get(session, -1) + 1
        lines.append(f"{session},{place[session]},{item},{event},{part[session % 4]}")
    (folder / "events.csv").write_text("\n".join(lines) + "\n")
    return folder


def yoochoose(folder: Path) -> Path:
    rows = [
        (s, f"2014-04-{s + 1:02}T10:00:{place % 60:02}.000Z", item, event)
        for place, (s, item, event) in enumerate(sessions())
    ]
    for name, kind in (("clicks", "click"), ("buys", "buy")):
        lines = [f"{s},{t},{item},{'0' if kind == 'click' else '5,1'}" for s, t, item, event in rows if event == kind]
        (folder / f"yoochoose-{name}.dat").write_text("\n".join(lines) + "\n")
    return folder


def retailrocket(folder: Path) -> Path:
    lines = ["timestamp,visitorid,event,itemid,transactionid"]
    for place, (s, item, event) in enumerate(sessions()):
        lines.append(f"{1433221332000 + 1000 * place},{s},{'addtocart' if event == 'buy' else 'view'},{item},")
    (folder / "events.csv").write_text("\n".join(lines) + "\n")
    return folder


FORMATS = {"rc15-sample": rc15_sample, "yoochoose": yoochoose, "retailrocket": retailrocket}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_keeps_behaviours_rewards_and_one_numbering(name: str, tmp_path: Path) -> None:
    data = load(FORMATS[name](tmp_path), format=name)
    assert data.catalogue.raw_ids == ("0", "1", "2", "3", "4", "5", "6", "99")  # clicked and bought alike
    splits = data.split("by_user", min_history=0, ratios=(0.6, 0.2, 0.2))
    found = Sessions.of(splits.train, RewardRule())
    assert found.purchase.sum() == 21
    np.testing.assert_allclose(np.unique(found.reward), [0.2, 1.0])
    first = sum(int((splits.part(part).position == 0).sum()) for part in ("train", "validation", "test"))
    assert first == 21  # every session's first event is a row
    without = data.split("by_user", min_history=1, ratios=(0.6, 0.2, 0.2))
    assert all((without.part(part).position > 0).all() for part in ("train", "validation", "test"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_by_its_name_in_the_commands(name: str, tmp_path: Path) -> None:
    folder = FORMATS[name](tmp_path)
    inspected = run("data", "inspect", folder, "--format", name)
    assert inspected.exit_code == 0, inspected.output
    split = "official" if name == "rc15-sample" else "by_user"
    options = ("--data", folder, "--format", name, "--split", split)
    trained = run("train", "mcrl", *options, *SMALL, "--output-dir", tmp_path / "run", "--min-history", 0)
    assert trained.exit_code == 0, trained.output
    kept = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())
    assert kept["recommender"] == "mcrl"


def test_a_format_by_its_name_in_the_leaderboard(tmp_path: Path) -> None:
    folder = rc15_sample(tmp_path)
    command = ("--data", folder, "--format", "rc15-sample", "--split", "official", "--k-core", 0, "--bootstrap", 10)
    done = run("leaderboard", *command, "--models", "popularity", "--output-dir", tmp_path / "board")
    assert done.exit_code == 0, done.output


def test_both_layouts_of_the_sample_are_one_log(data_dir) -> None:
    folder = data_dir("rc15-sample")
    events, original = load(folder), load(folder, original=True)
    assert (events.counts[0].interactions, events.counts[0].users, events.counts[0].items) == (7451, 1082, 890)
    assert events.interactions[:] == original.interactions[:]
    assert events.interactions["event"][:].count("buy") == 2063
    assert load(folder / "rsc.txt.gz").catalogue.raw_ids == events.catalogue.raw_ids
    assert [len(set(events.split("official").part(p).user.tolist())) for p in ("train", "test")] == [541, 271]


HEADER = "session_id,event_index,item_id,event,split\n"
ORIGINAL = "SessionId\tTime\tItemId\tis_click\traw_index\tsession_new_index\titem_new_index\ttr_val_tst\n"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("events.csv", HEADER + "1,0,5,click,later\n", "events.csv: split must be one of train, val"),
        ("events.csv", HEADER + "1,0,5,click,train\n1,0,6,buy,train\n", "session 1 has event_index 0 twice"),
        ("events.csv", HEADER + "1,x,5,click,train\n", "event_index is not a whole number"),
        ("rsc.txt", ORIGINAL + "1\t0\t5\t2\t0\t0\t0\t0\n", "rsc.txt: is_click must be one of 0, 1 (got 2)"),
        ("rsc.txt", ORIGINAL + "1\t0\t5\t0\t0\t0\t0\t7\n", "rsc.txt: tr_val_tst must be one of 0, 1, 2 (got 7)"),
        (
            "rsc.txt",
            ORIGINAL + "1\t0\t5\t0\t0\t0\t0\t0\n1\t1\t6\t0\t0\t0\t0\t0\n",
            "rsc.txt tells the event raw_index 0 of session 1 twice, and not alike",
        ),
    ],
)
def test_what_is_wrong_with_a_sample_is_said(file: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    found = run("data", "inspect", tmp_path, "--format", "rc15-sample")
    assert found.exit_code == 2, found.output
    assert message in " ".join(found.output.split())


def csv(rows: list[str], header: str = "user_id,item_id,timestamp,event") -> str:
    return "\n".join([header, *rows]) + "\n"


RING = [(s, (s + step) % 7, 10 * s + step) for s in range(20) for step in range(5)]
LOGS = {
    "no rewards": (
        csv([f"{s},{i},{t}" for s, i, t in RING], "user_id,item_id,timestamp"),
        (),
        "the log has no rewards: it needs a column event (such as click, buy) or ratings that differ",
    ),
    "one behaviour": (
        csv([f"{s},{i},{t},click" for s, i, t in RING]),
        (),
        "the log has one behaviour only, click: the behaviours click",
    ),
    "a reward of NaN": (
        csv([f"{s},{i},{t},{('click', 'buy')[t % 2]}" for s, i, t in RING]),
        ("--set", "click_reward=nan"),
        "the reward of a click must be a finite number of at least 0 (got nan)",
    ),
    "a rating of NaN": (
        csv([f"{s},{i},{t},{'nan' if t == 3 else t % 5}" for s, i, t in RING], "user_id,item_id,timestamp,rating"),
        (),
        "missing rating",
    ),
    "sessions of length one": (
        csv([f"{n},{i},{t},{('click', 'buy')[t % 2]}" for n, (_, i, t) in enumerate(RING)]),
        ("--min-history", "0"),
        "every session ends with its first row: there are no transitions to learn from",
    ),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_bad_log_ends_in_one_line(name: str, tmp_path: Path) -> None:
    text, options, message = LOGS[name]
    (tmp_path / "log.csv").write_text(text)
    command = ("--data", tmp_path / "log.csv", "--split", "by_user", *SMALL, *options)
    found = run("train", "mcrl", *command, "--output-dir", tmp_path / "run")
    assert found.exit_code == 2, found.output
    assert message in " ".join(found.output.split())
    assert "Traceback" not in found.output
    assert not (tmp_path / "run" / "method.json").exists()


def test_an_agent_of_another_catalogue_ends_in_one_line(tmp_path: Path) -> None:
    folder = rc15_sample(tmp_path)
    options = ("--split", "official", *SMALL)
    trained = run("train", "cql", "--data", folder, *options, "--output-dir", tmp_path / "run")
    assert trained.exit_code == 0, trained.output
    (tmp_path / "log.csv").write_text(csv([f"{s},{i + 50},{t},{('click', 'buy')[t % 2]}" for s, i, t in RING]))
    other = ("--data", tmp_path / "log.csv", "--split", "by_user", "--k-core", 0, "--max-history", 4)
    for command in (("rl", "simulate"), ("rl", "ope")):
        found = run(*command, *other, "--model", tmp_path / "run", "--output", tmp_path / "out.csv")
        assert found.exit_code == 2, found.output
        assert "the recommender was fitted on 8 items and the prepared data has 7" in " ".join(found.output.split())
        assert not (tmp_path / "out.csv").exists()
