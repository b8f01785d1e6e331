from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm_rec.converters import read_llara, read_sdpo
from predilect.data import DataError
from predilect.evaluation import evaluate
from predilect.recommenders import Popularity


def record(history: str, target: str) -> dict[str, Any]:
    others = [n for n in "abcdefghij" if n not in history and n != target][:3]
    return {"historyList": "::".join(history), "itemList": [*others, target], "trueSelection": target}


# Two people: one takes a..g in order, one takes j, i, h, a, b.
ROWS = [record("abc", "d"), record("abcd", "e"), record("abcde", "f"), record("jih", "a"), record("jiha", "b")]


def write(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


def test_one_file_is_split_by_person(tmp_path: Path) -> None:
    people = [record("abc", t) for t in "defg"] + [record("jih", t) for t in "abcd"] + [record("bcd", t) for t in "ae"]
    splits = read_sdpo(write(tmp_path / "sample.json", people), ratios=(0.6, 0.2, 0.2))
    assert splits.protocol["data"] == "sample (S-DPO)"
    assert [len(splits.part(p)) for p in ("train", "validation", "test")] == [6, 2, 2]
    users = [set(splits.part(p).user.tolist()) for p in ("train", "validation", "test")]
    assert not users[0] & users[1]
    assert not users[1] & users[2]
    assert splits.catalogue.titles == tuple("abcdefghij")


def test_windows_that_continue_each_other_are_one_person(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write(tmp_path / f"x-{part}.json", ROWS)
    splits = read_sdpo(tmp_path)
    assert splits.protocol["strategy"] == "official"
    assert splits.train.user.tolist() == [0, 0, 0, 1, 1]
    assert splits.train.position.tolist() == [3, 4, 5, 3, 4]
    offsets = splits.sequences.offsets
    assert splits.sequences.items[: offsets[1]].tolist() == [1, 2, 3, 4, 5, 6]
    assert splits.sequences.items[offsets[1] : offsets[2]].tolist() == [10, 9, 8, 1, 2]
    assert splits.catalogue.popularity[:3] == (2, 2, 1)  # a and b by both, c by one: training rows only
    rows = splits.test
    assert rows.candidates is not None
    assert rows.histories()[0].tolist() == [0] * 7 + [1, 2, 3]
    assert all(int(t) in c for t, c in zip(rows.target, rows.candidates.tolist(), strict=True))
    metrics = evaluate(Popularity().fit(splits), splits, protocol="candidates", bootstrap=0).metrics
    assert metrics["candidates"] == 4


def test_faulty_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s.json row 2 lacks historyList"):
        read_sdpo(write(tmp_path / "s.json", [ROWS[0], {"historyList": "a"}]))
    with pytest.raises(DataError, match=r"row 1: the answer 'a' is not among the candidates"):
        read_sdpo(write(tmp_path / "s.json", [{**ROWS[0], "trueSelection": "a"}]))
    uneven = {**ROWS[1], "itemList": ["e", "f"]}
    with pytest.raises(DataError, match=r"rows of 2 and of 4 candidates"):
        read_sdpo(write(tmp_path / "s.json", [ROWS[0], uneven, ROWS[3], *ROWS[:1]]), ratios=(0.34, 0.33, 0.33))
    (tmp_path / "s.json").write_text("[{")
    with pytest.raises(DataError, match=r"s.json is not JSON"):
        read_sdpo(tmp_path / "s.json")
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        read_sdpo(tmp_path / "absent")
    (tmp_path / "t-train.json").write_text("[]")
    with pytest.raises(FileNotFoundError, match=r"one each whose name holds train, val, test"):
        read_sdpo(tmp_path)


def test_the_published_sample(data_dir: Callable[[str], Path]) -> None:
    splits = read_sdpo(data_dir("sdpo-lastfm"))
    assert sum(len(splits.part(p)) for p in ("train", "validation", "test")) == 2767
    assert splits.num_items == 4606
    assert sum(c.users for c in splits.counts) == 122
    raw = json.loads(gzip.decompress((data_dir("sdpo-lastfm") / "lastfm-val.json.gz").read_bytes()))
    wanted = sorted((r["historyList"], r["trueSelection"], tuple(r["itemList"])) for r in raw)
    title = splits.catalogue.title
    found = sorted(
        ("::".join(map(title, row["history"])), title(row["target"]), tuple(map(title, row["candidates"])))
        for p in ("train", "validation", "test")
        for row in splits.part(p).to_dataset()
    )
    assert found == wanted


def llara(folder: Path, *, pairs: bool = False) -> Path:
    folder.mkdir(exist_ok=True)

    def seq(items: list[int]) -> Any:
        padded = items + [9] * (5 - len(items))
        return [(i, 3) for i in padded] if pairs else padded

    for name in ("train_data", "Val_data", "Test_data"):
        rows = [([0, 1, 2], 3), ([0, 1, 2, 3], 4), ([5, 6], 7)]
        following = [(n, 4) if pairs else n for _, n in rows]
        kind = pa.list_(pa.int64()) if pairs else pa.int64()
        table = {
            "seq": pa.array([[list(e) if pairs else e for e in seq(items)] for items, _ in rows]),
            "len_seq": [len(items) for items, _ in rows],
            "next": pa.array([list(f) if pairs else f for f in following], kind),
        }
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    return folder


def test_llara_rows_with_names(tmp_path: Path) -> None:
    folder = llara(tmp_path / "lastfm")
    (folder / "id2name.txt").write_text("".join(f"{i}::artist {i}\n" for i in range(9)))
    splits = read_llara(folder)
    assert len(splits.train) == 2  # a history of two items is left out, as in the repository
    assert [splits.catalogue.title(i) for i in splits.train.to_dataset()["history"][1]] == [
        f"artist {i}" for i in range(4)
    ]
    assert splits.catalogue.title(splits.train.target[1]) == "artist 4"
    assert splits.num_items == 9  # also those without any row
    assert splits.with_candidates(3).test.candidate_sets() is not None


def test_llara_movielens_rows_hold_ratings_and_inverted_titles(tmp_path: Path) -> None:
    folder = llara(tmp_path / "movielens", pairs=True)
    names = ["American in Paris, An (1951)", "Godfather, The (1972)", *[f"Film {i} (1990)" for i in range(2, 9)]]
    (folder / "u.item").write_bytes("".join(f"{i}|{n}|x\n" for i, n in enumerate(names, start=1)).encode("latin-1"))
    splits = read_llara(folder)
    title = splits.catalogue.title
    assert [title(i) for i in splits.train.to_dataset()["history"][0]] == [
        "An American in Paris",
        "The Godfather",
        "Film 2",
    ]


def test_llara_faults_are_named(tmp_path: Path) -> None:
    folder = llara(tmp_path / "lastfm")
    with pytest.raises(FileNotFoundError, match=r"neither id2name.txt nor u.item"):
        read_llara(folder)
    (folder / "id2name.txt").write_text("0::a\n1::b\n2::c\n3::d\n")
    with pytest.raises(DataError, match=r"train_data.parquet row 2: 4 items were announced and 4 have a name.*next 4"):
        read_llara(folder)
    (folder / "Test_data.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="one each whose name holds train, val, test"):
        read_llara(folder)
