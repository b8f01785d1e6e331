"""Fingerprints of data and models: what saved reference log-probabilities belong to."""

from __future__ import annotations

import torch
from datasets import Dataset

from predilect.runs import table_fingerprint, weights_fingerprint


def tokens_fingerprint(dataset: Dataset) -> str:
    """Changes with any token of any prompt or answer, and with their order; not with anything else."""
    return table_fingerprint(dataset, columns=("prompt_ids", "chosen_ids", "rejected_ids"))


def reference_fingerprint(model: torch.nn.Module) -> str:
    """Changes with any weight of the reference: the whole model, or, under an adapter, the base and an adapter named
    "ref".
    """
    others = set(getattr(model, "peft_config", {})) - {"ref"}
    return weights_fingerprint(
        {
            name: weight
            for name, weight in model.state_dict().items()
            if "base_layer" in (parts := name.split(".")) or not others.intersection(parts)
        }
    )
