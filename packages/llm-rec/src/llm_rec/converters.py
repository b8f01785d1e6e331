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
from predilect.data.arrow import as_dataset
from predilect.data.catalogue import Catalogue
from predilect.data.rows import PARTS, SequenceRows, UserSequences
from predilect.data.splits import StepCount

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


def sdpo_splits(config: Any) -> SequenceSplits:
    """`--format sdpo`: `read_sdpo` by a `ProtocolConfig`."""
    return read_sdpo(config.data, ratios=config.ratios, seed=config.seed)


def llara_splits(config: Any) -> SequenceSplits:
    """`--format llara`: `read_llara` by a `ProtocolConfig`, with candidates."""
    return read_llara(config.data).with_candidates(config.num_candidates, seed=config.seed)


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

    Rows that continue each other's windows, each with all that its forerunner had up to `WINDOW` items, become one
    user; positions count from the first item of a user's first window. Items are numbered by their names in
    alphabetical order.

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
    people = {part: _people(list(windows[part]), whole=True) for part in PARTS}
    drawn = {len(w.candidates) for rows in windows.values() for w in rows}
    if len(drawn) > 1:
        raise DataError(f"{name} has rows of {' and of '.join(map(str, sorted(drawn)))} candidates: all need as many")
    lists = [
        [number[n] for n in (*own[0].history, *(w.target for w in own))] for part in PARTS for own in people[part]
    ]
    flat = np.array([i for some in lists for i in some], dtype=np.int32)
    sequences = UserSequences(
        flat, np.concatenate([[0], np.cumsum([len(some) for some in lists])]), timestamp=np.arange(len(flat))
    )
    parts, steps, first_user = [], [], 0
    for part in PARTS:
        rows = _rows(people[part], number, sequences, first_user)
        first_user += len(people[part])
        parts.append(rows)
        steps.append(StepCount(f"{strategy}: {part}", len(rows), len(people[part]), len(np.unique(rows.target))))
    training = _interactions(lists[: len(people["train"])])
    counts = np.bincount(training["item_id"].to_numpy(), minlength=len(titles) + 1)[1:]
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
    train, validation, test = parts
    return SequenceSplits(
        train=train,
        validation=validation,
        test=test,
        train_interactions=as_dataset(training),
        catalogue=Catalogue(titles, titles, ((),) * len(titles), tuple(counts.tolist())),
        protocol=protocol,
        counts=tuple(steps),
    )


def _rows(
    people: Sequence[Sequence[Window]], number: Mapping[str, int], sequences: UserSequences, first_user: int
) -> SequenceRows:
    places = [(first_user + u, len(own[0].history) + k) for u, own in enumerate(people) for k in range(len(own))]
    user, position = np.array(places).T
    sets = [[number[n] for n in w.candidates] for own in people for w in own]
    return SequenceRows.at(
        sequences, user, position, WINDOW, candidates=np.array(sets, dtype=np.int32) if sets[0] else None
    )


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


def _people(rows: Sequence[Window], *, whole: bool = False) -> list[list[Window]]:
    """Rows in chains: each continues the window of the one before; `whole`: with all of it that a window holds."""
    people: list[list[Window]] = []
    for row in rows:
        before = people[-1][-1] if people else None
        longer = (*before.history, before.target) if before else ()
        least = min(len(longer), WINDOW) if whole else len(before.history) if before else 0
        if before and len(row.history) >= least and row.history == longer[-len(row.history) :]:
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
