"""Fingerprints of data and models: what saved reference log-probabilities belong to."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import torch
from datasets import Dataset


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
    """Changes with any weight of the reference: the whole model, or, under an adapter, the base and an adapter named
    "ref".
    """
    digest = hashlib.sha256()
    names = getattr(model, "peft_config", {})
    for name, weight in sorted(model.state_dict().items()):
        parts = name.split(".")
        if names and "base_layer" not in parts and any(adapter in parts for adapter in names if adapter != "ref"):
            continue
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
