"""Files that are either whole or absent, whenever the process is killed; and fingerprints of what they came from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

if TYPE_CHECKING:
    from predilect.data.splits import SequenceSplits


def write_text(path: Path, text: str) -> None:
    """Write a file through a temporary neighbour, so that readers see the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of JSON; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes `path` only when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)


def write_rows(path: Path, rows: Any) -> None:
    """Write a `datasets.Dataset` as one Parquet file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    pq.write_table(rows.with_format("arrow")[:], temporary)
    os.replace(temporary, path)


def splits_fingerprint(splits: SequenceSplits) -> str:
    """A digest of everything that fitting and evaluation read from the splits."""
    digest = hashlib.sha256()
    for part in ("train", "validation", "test"):
        rows = splits.tensors(part)
        for tensor in (rows.history, rows.target, rows.user_id, rows.position, rows.candidates):
            if tensor is not None:
                digest.update(tensor.contiguous().numpy().tobytes())
    digest.update(splits.sequences.items.tobytes())
    digest.update(splits.sequences.offsets.tobytes())
    table = splits.train_interactions.with_format("arrow")[:]
    for name in ("user_id", "item_id", "timestamp", "rating"):
        digest.update(table[name].to_numpy().tobytes())
    catalogue = splits.catalogue
    digest.update(json.dumps([catalogue.raw_ids, catalogue.titles, catalogue.categories]).encode())
    return digest.hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What distinguishes two fingerprints, in words: "k_core: 5 before, 3 now"."""
    told = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            told += differences(old, new)
        elif old != new:
            told.append(f"{key}: {_short(old)} before, {_short(new)} now")
    return told


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "..."
