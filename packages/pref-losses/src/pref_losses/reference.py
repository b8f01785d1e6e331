"""Reference log-probabilities computed once, kept in a file that knows what it belongs to."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from datasets import Dataset, concatenate_datasets
from torch.utils.data import DataLoader
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from pref_losses import _trl
from pref_losses.fingerprints import tokens_fingerprint

_KEY = b"pref_losses"


def reference_logps(trainer: Any, dataset: Dataset, name: str, batch_size: int) -> Dataset:
    """`dataset` with the columns `ref_chosen_logps` and `ref_rejected_logps` (a list), sums over tokens.

    Read from `args.ref_log_probs_file` (for other data sets than "train", with their name before the ending), or from
    a file in the output folder, if it is there; else computed and written there.

    Raises:
        ValueError: the named file belongs to other data or to another reference model.
    """
    model = _trl.reference_engine(trainer)
    belongs = {
        "data": tokens_fingerprint(dataset),
        "model": _trl.reference_fingerprint(trainer, model),
        "max_length": trainer.args.max_length,
    }
    path = _path(trainer.args, name, belongs)
    if path.is_file():
        columns = _read(path, belongs)
    else:
        columns = _compute(trainer, model, dataset, name, batch_size)
        if trainer.accelerator.is_main_process:
            _write(path, columns, belongs)
        trainer.accelerator.wait_for_everyone()
    return concatenate_datasets([dataset, columns], axis=1)


def _path(args: Any, name: str, belongs: dict[str, Any]) -> Path:
    if args.ref_log_probs_file is None:
        key = hashlib.sha256(json.dumps(belongs, sort_keys=True).encode()).hexdigest()[:16]
        return Path(args.output_dir) / f"ref_log_probs-{key}.parquet"
    path = Path(args.ref_log_probs_file)
    return path if name == "train" else path.with_name(f"{path.stem}-{name}{path.suffix}")


def _read(path: Path, belongs: dict[str, Any]) -> Dataset:
    table = pq.read_table(path)
    kept_for = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
    for what, value in belongs.items():
        if kept_for.get(what) != value:
            raise ValueError(
                f"{path} holds reference log-probs of another {what} ({kept_for.get(what)!r}, here {value!r}): name "
                "another file, or delete it to compute them anew"
            )
    return Dataset(table.replace_schema_metadata(None))


def _write(path: Path, columns: Dataset, belongs: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = columns.with_format("arrow")[:].replace_schema_metadata({_KEY: json.dumps(belongs).encode()})
    half = path.with_name(f"{path.name}.{os.getpid()}.part")
    pq.write_table(table, half)
    half.replace(path)


@torch.no_grad()
def _compute(trainer: Any, model: Any, dataset: Dataset, name: str, batch_size: int) -> Dataset:
    """Batches of similar length, so that little is padded; put back into the order of the data."""
    lengths = [
        len(p) + len(c) + sum(map(len, r))
        for p, c, r in zip(*(dataset[n] for n in ("prompt_ids", "chosen_ids", "rejected_ids")), strict=True)
    ]
    order = sorted(range(len(dataset)), key=lengths.__getitem__, reverse=True)
    rows = dataset.select(order).remove_columns("row").add_column("row", order)
    loader = trainer.accelerator.prepare(DataLoader(rows, batch_size, collate_fn=trainer._collator))
    chosen = [0.0] * len(dataset)
    rejected: list[list[float]] = [[] for _ in range(len(dataset))]
    for batch in tqdm(loader, desc=f"Reference log-probs of the {name} data", disable=trainer.args.disable_tqdm):
        first, others = trainer.compute_ref_log_probs(model, batch)
        others = trainer.accelerator.pad_across_processes(others, dim=1)
        counts = batch["answer_mask"].sum(1) - 1
        gathered = trainer.accelerator.gather_for_metrics((batch["row"], first, others, counts))
        for row, one, many, count in zip(*(part.tolist() for part in gathered), strict=True):
            chosen[row], rejected[row] = one, many[:count]
    return Dataset.from_dict({"ref_chosen_logps": chosen, "ref_rejected_logps": rejected})
