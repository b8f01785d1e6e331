"""Reading the data of S-DPO's and LLaRA's repositories: rows of a window of items and the one that followed."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from predilect.data import DataError, SequenceSplits
from predilect.data.arrow import as_dataset, list_column
from predilect.data.catalogue import Catalogue
from predilect.data.splits import PARTS, StepCount, UserSequences

WINDOW = 10  # items of the longest history in both repositories' files
_JOINED = "::"
_INVERTED = re.compile(r"^(?P<rest>.+), (?P<article>The|A|An|La|Le|Les|L'|Il|Das|Der|Die|El|Los|Las)$")
_NAMES = {"train": "train", "validation": "val", "test": "test"}


class Window(NamedTuple):
    """A row of the files, in names of items.

    Attributes:
        history: oldest first, not padded.
        target: what followed.
        candidates: what it is to be chosen from; empty where the files have none.
    """

    history: tuple[str, ...]
    target: str
    candidates: tuple[str, ...] = ()


def read_sdpo(
    source: str | Path, *, ratios: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0
) -> SequenceSplits:
    """Read S-DPO's rows: JSON lists of `historyList`, `itemList`, `trueSelection`.

    Where the folder has files for training, validation and test (`*train*.json`, `*val*.json`, `*test*.json`, also
    .gz), they are these parts. One file alone (the repository ships only a sample) is split by listener: rows that
    continue each other's windows are one person's, and all of them go to one part, so that no history of the test part
    was trained on. Candidate sets are those of the files, in all parts.

    Args:
        source: the folder, or one file.
        ratios: shares of listeners, for one file.
        seed: of that split.

    Raises:
        FileNotFoundError: no such file, or a folder without any.
        DataError: a row that cannot be read; names file and row.
    """
    files = _files(Path(source), ("json", "json.gz"))
    windows = {part: list(_sdpo_rows(file)) for part, file in files.items()}
    name = f"{Path(source).name.removesuffix('.gz').removesuffix('.json')} (S-DPO)"
    if len(windows) == len(PARTS):
        return splits_of_windows(windows, name=name, strategy="official")
    [rows] = windows.values()
    people = _people(rows)
    order = np.random.default_rng(seed).permutation(len(people))
    bounds = np.rint(np.cumsum(ratios[:2]) * len(people)).astype(int)
    cut = {
        part: [row for i in some for row in people[i]]
        for part, some in zip(PARTS, np.split(order, bounds), strict=True)
    }
    return splits_of_windows(cut, name=name, strategy="by_user", ratios=ratios, seed=seed)


def read_llara(folder: str | Path) -> SequenceSplits:
    """Read LLaRA's rows from Parquet: `seq` (padded), `len_seq`, `next`; names from `id2name.txt` or `u.item`.

    The repository's `*.df` files are pickles, which run any code that is in them: this reads none. Turn files that you
    trust into Parquet once, with pandas (the page "Coming from LLaRA" has the three lines).

    Rows with fewer than three items are left out, as in the repository. There are no candidate sets (its code draws
    new ones at every access): use `splits.with_candidates(20)`.

    Raises:
        FileNotFoundError: a file is missing; names it.
        DataError: an item without a name; names file and row.
    """
    folder = Path(folder)
    titles = _llara_titles(folder)
    windows = {part: list(_llara_rows(file, titles)) for part, file in _files(folder, ("parquet",)).items()}
    if len(windows) < len(PARTS):
        raise FileNotFoundError(
            f"{folder} needs Parquet files for train, val and test (found {', '.join(windows)}): convert the .df files"
        )
    return splits_of_windows(windows, name=f"{folder.name} (LLaRA)", strategy="official", names=list(titles.values()))


def splits_of_windows(
    windows: Mapping[str, Sequence[Window]],
    *,
    name: str,
    strategy: str,
    ratios: Sequence[float] | None = None,
    seed: int | None = None,
    names: Sequence[str] = (),
) -> SequenceSplits:
    """Splits from rows that were cut from sequences before.

    Rows that continue each other's windows become one user; positions count from the first item of a user's first
    window. Items are numbered by their names in alphabetical order.

    Args:
        windows: "train", "validation", "test" -> rows.
        name: of the data.
        strategy: what the protocol says of the split.
        ratios: shares, if it was ours.
        seed: of the split, if it was ours.
        names: further items of the catalogue.
    """
    if empty := [part for part in PARTS if not windows.get(part)]:
        raise DataError(f"{name} has no rows for {', '.join(empty)}")
    mentioned = {n for rows in windows.values() for w in rows for n in (*w.history, w.target, *w.candidates)}
    titles = tuple(sorted(mentioned.union(names)))
    number = {title: i for i, title in enumerate(titles, start=1)}
    people = {part: _people(list(windows[part])) for part in PARTS}
    sequences: list[list[int]] = []
    tables, sizes = {}, {}
    for part in PARTS:
        first_user = len(sequences)
        tables[part] = _rows(people[part], number, first_user)
        sequences += [[number[n] for n in (*rows[0].history, *(w.target for w in rows))] for rows in people[part]]
        sizes[part] = len(tables[part])
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])])
    flat = np.array([i for s in sequences for i in s], dtype=np.int32)
    training = _interactions(sequences[: len(people["train"])])
    counts = np.bincount(training["item_id"].to_numpy(), minlength=len(titles) + 1)[1:]
    drawn = {len(w.candidates) for rows in windows.values() for w in rows}
    if len(drawn) > 1:
        raise DataError(f"{name} has rows of {' and of '.join(map(str, sorted(drawn)))} candidates: all need as many")
    protocol = {
        "data": name,
        "strategy": strategy,
        "ratios": None if ratios is None else list(ratios),
        "split_seed": seed,
        "k_core": None,
        "max_history": WINDOW,
        "min_history": 1,
        "candidates": max(drawn) or None,
        "candidate_seed": None,
        "negatives": "uniform" if max(drawn) else None,
    }
    step_counts = [
        StepCount(f"{strategy}: {part}", sizes[part], len(people[part]), len(set(tables[part]["target"].to_pylist())))
        for part in PARTS
    ]
    return SequenceSplits(
        train=as_dataset(tables["train"]),
        validation=as_dataset(tables["validation"]),
        test=as_dataset(tables["test"]),
        train_interactions=as_dataset(training),
        catalogue=Catalogue(titles, titles, ((),) * len(titles), tuple(counts.tolist())),
        sequences=UserSequences(flat, offsets.astype(np.int64)),
        protocol=protocol,
        counts=tuple(step_counts),
    )


def _rows(people: Sequence[Sequence[Window]], number: Mapping[str, int], first_user: int) -> pa.Table:
    rows = [(first_user + u, len(own[0].history) + k, w) for u, own in enumerate(people) for k, w in enumerate(own)]
    windows = [w for _, _, w in rows]
    columns: dict[str, Any] = {
        "user_id": pa.array([u for u, _, _ in rows], pa.int32()),
        "history": _lists([w.history for w in windows], number),
        "target": pa.array([number[w.target] for w in windows], pa.int32()),
        "timestamp": pa.array(range(len(rows)), pa.int64()),
        "position": pa.array([p for _, p, _ in rows], pa.int32()),
    }
    if windows and windows[0].candidates:
        columns["candidates"] = _lists([w.candidates for w in windows], number)
    return pa.table(columns)


def _lists(names: Sequence[Sequence[str]], number: Mapping[str, int]) -> pa.Array:
    values = np.array([number[n] for some in names for n in some], dtype=np.int32)
    return list_column(values, np.array([len(some) for some in names]))


def _interactions(sequences: Sequence[Sequence[int]]) -> pa.Table:
    lengths = [len(s) for s in sequences]
    return pa.table(
        {
            "user_id": np.repeat(np.arange(len(sequences), dtype=np.int32), lengths),
            "item_id": np.array([i for s in sequences for i in s], dtype=np.int32),
            "timestamp": np.arange(sum(lengths)),
            "rating": np.ones(sum(lengths)),
        }
    )


def _people(rows: Sequence[Window]) -> list[list[Window]]:
    """Rows in chains: each continues the window of the one before."""
    people: list[list[Window]] = []
    for row in rows:
        before = people[-1][-1] if people else None
        longer = (*before.history, before.target) if before else ()
        if before and len(row.history) >= len(before.history) and row.history == longer[-len(row.history) :]:
            people[-1].append(row)
        else:
            people.append([row])
    return people


def _files(source: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    """Part -> file."""
    if source.is_file():
        return {"train": source}
    if not source.is_dir():
        raise FileNotFoundError(f"there is no file or folder {source}")
    files = sorted(p for p in source.iterdir() if p.name.endswith(endings))
    by_part = {part: p for p in files for part, word in _NAMES.items() if word in p.name.lower()}
    if len(by_part) < len(PARTS) and len(files) != 1:
        raise FileNotFoundError(
            f"{source} needs one file that ends in {' or '.join(endings)}, or one each whose name holds "
            f"{', '.join(_NAMES.values())} (got {', '.join(p.name for p in files) or 'none'})"
        )
    return {part: by_part[part] for part in PARTS} if len(by_part) == len(PARTS) else {"train": files[0]}


def _sdpo_rows(file: Path) -> Iterator[Window]:
    content = file.read_bytes()
    try:
        records = json.loads(gzip.decompress(content) if file.suffix == ".gz" else content)
    except (gzip.BadGzipFile, EOFError, ValueError) as error:
        raise DataError(f"{file.name} is not JSON: {error}") from error
    for place, record in enumerate(records, start=1):
        try:
            history, candidates, target = (record[k] for k in ("historyList", "itemList", "trueSelection"))
        except (KeyError, TypeError):
            raise DataError(
                f"{file.name} row {place} lacks historyList, itemList or trueSelection (got {str(record)[:80]!r})"
            ) from None
        window = Window(_names(history), str(target).strip(), _names(candidates))
        if window.target not in window.candidates:
            raise DataError(f"{file.name} row {place}: the answer {window.target!r} is not among the candidates")
        yield window


def _names(value: Any) -> tuple[str, ...]:
    parts = value.split(_JOINED) if isinstance(value, str) else value
    return tuple(name.strip() for name in parts)


def _llara_titles(folder: Path) -> dict[int, str]:
    """LLaRA's item number -> name."""
    if (file := folder / "id2name.txt").is_file():
        lines = file.read_text(encoding="utf-8").splitlines()
        pairs = [line.split(_JOINED, 1) for line in lines if line.strip()]
        return {int(i): title.strip() for i, title in pairs}
    if (file := folder / "u.item").is_file():  # MovieLens: numbers from 1 there, from 0 in the rows
        lines = file.read_text(encoding="latin-1").splitlines()
        fields = [line.split("|") for line in lines if line.strip()]
        return {int(f[0]) - 1: _article_first(re.sub(r"\s*\(\d{4}\)\s*$", "", f[1])) for f in fields}
    raise FileNotFoundError(f"{folder} has neither id2name.txt nor u.item, which name the items")


def _article_first(title: str) -> str:
    inverted = _INVERTED.match(title)
    return f"{inverted['article']} {inverted['rest']}" if inverted else title


def _llara_rows(file: Path, titles: Mapping[int, str]) -> Iterator[Window]:
    table = pq.read_table(file, columns=["seq", "len_seq", "next"])
    for place, (seq, length, following) in enumerate(
        zip(*(table[name].to_pylist() for name in ("seq", "len_seq", "next")), strict=True), start=1
    ):
        if length < 3:
            continue
        items = [_item(entry) for entry in seq]
        history = [i for i in items if i in titles]
        if len(history) != length or _item(following) not in titles:
            raise DataError(
                f"{file.name} row {place}: {length} items were announced and {len(history)} have a name "
                f"(seq {items}, next {_item(following)})"
            )
        yield Window(tuple(titles[i] for i in history), titles[_item(following)])


def _item(entry: Any) -> int:
    """An item's number; MovieLens rows hold pairs of item and rating."""
    return int(entry[0]) if isinstance(entry, list | tuple) else int(entry)
