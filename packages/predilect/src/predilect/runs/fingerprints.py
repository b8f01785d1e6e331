"""Fingerprints of what a result depends on, by content: equal contents, equal fingerprints, whatever they are called.

All are SHA-256 in hexadecimal. What is digested is named and measured before its bytes, so that no two different
contents run together to the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from predilect.data.catalogue import Catalogue
    from predilect.data.splits import SequenceSplits


def data_fingerprint(splits: SequenceSplits) -> str:
    """Changes with anything that fitting and evaluation read from the splits.

    That is the catalogue, every user's sequence with times, ratings and events, the training part of the log, the
    longest history, and of each row of each part its user, position, weight and candidates; neither how histories are
    padded nor what the data is called.
    """
    digest = hashlib.sha256()
    for name in ("items", "offsets", "timestamp", "rating", "event"):
        values = getattr(splits.sequences, name)
        if values is not None:
            _add_array(digest, name, values)
    _add(digest, "events", json.dumps(splits.sequences.events).encode())
    _add_table(digest, splits.train_interactions, ("user_id", "item_id", "timestamp", "rating"))
    for part in ("train", "validation", "test"):
        rows = splits.part(part)
        _add(digest, part, str(len(rows)).encode())
        for name in ("user", "position", "done", "weight", "candidates"):
            values = getattr(rows, name)
            if values is not None:
                _add_array(digest, name, values)
    _add(digest, "max_history", str(splits.protocol["max_history"]).encode())
    _add(digest, "catalogue", catalogue_fingerprint(splits.catalogue).encode())
    return digest.hexdigest()


def catalogue_fingerprint(catalogue: Catalogue) -> str:
    """Changes with any item's id, title or categories, and with their order."""
    content = json.dumps([catalogue.raw_ids, catalogue.titles, catalogue.categories])
    return hashlib.sha256(content.encode()).hexdigest()


def table_fingerprint(*parts: Dataset | None, columns: Iterable[str]) -> str:
    """Changes with any value of the columns in any part, and with their order; None is a part without rows.

    Columns that a part does not have are left out; the width of integers and the tables' chunks do not matter.
    """
    digest = hashlib.sha256()
    for part in parts:
        _add(digest, "part", b"" if part is None else str(len(part)).encode())
        if part is not None:
            _add_table(digest, part, columns)
    return digest.hexdigest()


def weights_fingerprint(weights: Mapping[str, torch.Tensor]) -> str:
    """Changes with any bit, shape, type or name of the tensors; not with their order or device."""
    import torch

    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        values = weight.detach().cpu().contiguous()
        _add(digest, f"{name} {tuple(values.shape)} {values.dtype}", b"")
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What distinguishes two records, in words: "k_core: 5 before, 3 now"."""
    words = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            words += differences(old, new)
        elif old != new:
            words.append(f"{key}: {_short(old)} before, {_short(new)} now")
    return words


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "..."


def _add(digest: Any, name: str, content: bytes) -> None:
    digest.update(f"{name} {len(content)}\n".encode())
    digest.update(content)


def _add_array(digest: Any, name: str, values: np.ndarray) -> None:
    """Integers of any width alike."""
    kind = {"i": np.int64, "u": np.int64, "b": np.uint8, "f": np.float64}[values.dtype.kind]
    _add(digest, f"{name} {values.shape}", b"")
    digest.update(np.ascontiguousarray(values, dtype=kind).tobytes())


def _add_table(digest: Any, rows: Dataset, columns: Iterable[str]) -> None:
    table = rows.with_format("arrow")[:]
    for name in columns:
        if name in table.column_names:
            column = table[name]
            whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
            _add_column(digest, name, whole)


def _add_column(digest: Any, name: str, values: pa.Array) -> None:
    """An Arrow array by its logical content: validity, lengths of lists and texts, then what they hold."""
    kind = values.type
    _add(digest, f"{name} {len(values)} {values.null_count}", b"")
    if values.null_count:
        _add_array(digest, "valid", np.asarray(values.is_valid().to_numpy(zero_copy_only=False)))
    if pa.types.is_null(kind):
        return
    if pa.types.is_struct(kind):
        for field, inner in zip(kind, values.flatten(), strict=True):
            _add_column(digest, field.name, inner)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        _add_array(digest, "lengths", _numbers(pc.list_value_length(values)))
        _add_column(digest, "values", values.flatten())
    elif pa.types.is_dictionary(kind):
        _add_column(digest, "decoded", values.dictionary_decode())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        texts = pc.fill_null(values, "" if not pa.types.is_binary(kind) else b"")
        _add_array(digest, "lengths", _numbers(pc.binary_length(texts)))
        for text in texts.cast(pa.large_binary()).to_pylist():
            digest.update(text)
    elif pa.types.is_temporal(kind):
        _add_array(digest, str(kind), _numbers(values.cast(pa.int64())))
    else:
        _add_array(digest, "values", _numbers(values))


def _numbers(values: pa.Array) -> np.ndarray:
    zero = False if pa.types.is_boolean(values.type) else 0
    found: np.ndarray = pc.fill_null(values, zero).to_numpy(zero_copy_only=False)
    return found
