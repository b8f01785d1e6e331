"""What tells one language model from another: its shape, a sample of its weights, its tokenizer's vocabulary.

A folder that holds an adapter or projectors only keeps these, and refuses to be put on another model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch


def model_shape(base: Any) -> dict[str, Any]:
    """Type, vocabulary, width and number of layers."""
    rows, width = base.get_input_embeddings().weight.shape
    config = base.config.get_text_config(decoder=True)
    return {
        "model_type": config.model_type,
        "vocabulary": rows,
        "hidden_size": width,
        "layers": config.num_hidden_layers,
    }


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256 of the vocabulary and the special tokens."""
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    content = json.dumps([sorted(tokenizer.get_vocab().items()), sorted(special.items())])
    return hashlib.sha256(content.encode()).hexdigest()


def weight_sample(base: Any) -> dict[str, list[float]]:
    """Three values of every floating-point weight: tells base models apart without reading all of them.

    The names are those of the model before PEFT wrapped its layers; weights of an adapter have no counterpart then.
    """
    sample = {}
    for name, weight in base.named_parameters():
        name = name.replace(".base_layer.", ".").replace(".original_module.", ".")
        if weight.is_floating_point():
            flat = weight.detach().flatten()
            sample[name] = flat[[0, len(flat) // 2, len(flat) - 1]].float().tolist()
    return sample


def same_weights(ours: Mapping[str, Iterable[float]], saved: Mapping[str, Iterable[float]]) -> bool:
    """Equal up to the rounding of half precision, in which a base may be loaded, over the weights that both have."""
    common = sorted(set(ours) & set(saved))
    a, b = (torch.tensor([list(values[name]) for name in common]) for values in (ours, saved))
    return bool(common) and torch.allclose(a, b, rtol=2**-7, atol=1e-6)
