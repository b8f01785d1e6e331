"""`load`: a data set by its name, or the files of a person's own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from predilect.data.dataset import SAVED, RecDataset
from predilect.data.readers import READERS
from predilect.data.readers.base import Reader
from predilect.data.schema import DataError
from predilect.encoding import require_path

_PACKAGED = {"movietweetings-100k": "movietweetings"}


def available_data() -> list[str]:
    """Names of the data sets that come with the package."""
    return sorted(_PACKAGED)


def load(
    name_or_path: str | Path = "movietweetings-100k",
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_error: str = "raise",
    ties: str = "file",
    ties_seed: int = 0,
    **options: Any,
) -> RecDataset:
    """Read, check and number a data set.

    Args:
        name_or_path: the name of a packaged data set, or a folder or file; a folder that `RecDataset.save` wrote comes
            back as it was.
        format: a key of `READERS`; None: the first format that recognises the path.
        columns: your own table's columns, {"user_id": "customer", "item_id": "sku", ...}; see the reader "table".
        on_error: "raise", or "skip": drop rows with errors; `.report` and `.counts` say what and how many.
        ties: "file", or "random": the order of rows of one user and time; not for a folder that was saved, whose order
            stands.
        ties_seed: of the random order.
        **options: the reader's options.

    Raises:
        DataError: an unknown name or format, files that do not fit, or (strict) data with errors: the report tells
            which, with line or row numbers.

    Examples:
        >>> load()
        RecDataset('movietweetings-100k': 100,000 interactions, 16,554 users, 10,506 items)
    """
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and name_or_path in _PACKAGED:
        if format is not None or columns is not None or options:
            raise DataError(f"{name_or_path} is a packaged data set: format, columns and reader options do not apply")
        return _packaged(name_or_path, on_error=on_error, ties=ties, ties_seed=ties_seed)
    require_path(path)
    if not path.exists():
        raise DataError(_not_found(str(name_or_path)))
    if format is None and columns is None and (path / SAVED).is_file():
        if ties != "file" or options:
            given = ", ".join(sorted([*options, *(["ties"] if ties != "file" else [])]))
            raise DataError(f"{path} is a saved data set, which is read as it was saved: {given} does not apply")
        return RecDataset.restore(path)
    if columns is not None:
        options["columns"] = columns
    reader = _reader(path, "table" if columns is not None and format is None else format)
    raw = reader.read(path, **options)
    name = path.resolve().name.split(".")[0] if path.is_file() else path.resolve().name
    return RecDataset.from_raw(
        raw.interactions,
        raw.items,
        name=name,
        on_error=on_error,
        found=raw.problems,
        ties=ties,
        ties_seed=ties_seed,
    )


def _packaged(name: str, **options: Any) -> RecDataset:
    with as_file(files("predilect.data") / _PACKAGED[name]) as folder:
        log, items = pq.read_table(folder / "ratings.parquet"), pq.read_table(folder / "movies.parquet")
    return RecDataset.from_raw(log, items, name=name, **options)


def _reader(path: Path, name: str | None) -> Reader:
    if name is not None:
        if name not in READERS:
            raise DataError(f"format must be one of {', '.join(READERS)} (got {name!r})")
        return READERS[name]
    for reader in READERS.values():
        if reader.recognises(path):
            return reader
    known = "\n".join(f"  {r.name}: {', '.join(r.files)}" for r in READERS.values())
    raise DataError(f"{path} holds no format known here; these are, with the files they need:\n{known}")


def _not_found(name: str) -> str:
    close = difflib.get_close_matches(name, [*_PACKAGED, *READERS], n=3, cutoff=0.5)
    if name in READERS:
        packaged = next((f" (packaged is {c})" for c in close if c in _PACKAGED), "")
        return f"no file or folder {name!r}{packaged}: pass the folder that holds it, from {READERS[name].where}"
    hint = f" (did you mean {', '.join(close)}?)" if close else ""
    names = f"packaged are {', '.join(available_data())}; files are read as {', '.join(READERS)}"
    return f"no data set and no file or folder {name!r}{hint}: {names}"
