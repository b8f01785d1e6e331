"""Reference log-probabilities computed once, kept in a file that knows what it belongs to."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset, concatenate_datasets
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

_KEY = b"pref_losses"


def data_fingerprint(dataset: Dataset) -> str:
    """Changes with any token of any prompt or answer, and with their order; not with anything else."""
    table = (
        dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"]).with_format("arrow")[:].combine_chunks()
    )
    digest = hashlib.sha256()
    for column in table.columns:
        for values in column.chunks:
            while not pa.types.is_integer(values.type):
                digest.update(values.value_lengths().to_numpy(zero_copy_only=False).tobytes())
                values = values.flatten()
            digest.update(values.to_numpy(zero_copy_only=False).astype("int64").tobytes())
    return digest.hexdigest()


def model_fingerprint(model: torch.nn.Module) -> str:
    """Changes with any weight of the reference: the whole model, or, under an adapter, the base and an adapter named "ref"."""
    digest = hashlib.sha256()
    names = getattr(model, "peft_config", {})
    for name, weight in sorted(model.state_dict().items()):
        parts = name.split(".")
        if names and "base_layer" not in parts and any(adapter in parts for adapter in names if adapter != "ref"):
            continue
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def reference_logps(trainer: Any, dataset: Dataset, name: str, batch_size: int) -> Dataset:
    """`dataset` with the columns `ref_chosen_logps` and `ref_rejected_logps` (a list), sums over tokens.

    Read from `args.ref_log_probs_file` (for other data sets than "train", with their name before the ending), or from a file in the output
    folder, if it is there; else computed and written there.

    Raises:
        ValueError: the named file belongs to other data or to another reference model.
    """
    model = trainer.ref_model if trainer.ref_model is not None else trainer.model
    belongs = {
        "data": data_fingerprint(dataset),
        "model": model_fingerprint(trainer.accelerator.unwrap_model(model)),
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
    told = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
    for what, value in belongs.items():
        if told.get(what) != value:
            raise ValueError(
                f"{path} holds reference log-probs of another {what} ({told.get(what)!r}, here {value!r}): name another file, or delete it "
                "to compute them anew"
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
    model = trainer.accelerator.prepare_model(model, evaluation_mode=True)
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
