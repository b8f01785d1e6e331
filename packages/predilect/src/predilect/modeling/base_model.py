"""What tells one language model from another: its shape, a sample of its weights, its tokenizer's vocabulary.

Every folder that keeps a language model, or an adapter or projectors to be put on one, has them in `base.json`, and is
refused on another model or with another tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from predilect.runs import read_json, write_json

BASE_FILE = "base.json"


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


def describe_base(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Name, shape, weights and tokenizer of a language model, with or without adapter."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {
        "name": base.config._name_or_path,
        "shape": model_shape(base),
        "weights": weight_sample(base),
        "tokenizer": tokenizer_fingerprint(tokenizer),
    }


def write_base(folder: Path, about: Mapping[str, Any]) -> None:
    """Keep what `describe_base` gave."""
    write_json(folder / BASE_FILE, dict(about))


def read_base(folder: Path) -> dict[str, Any]:
    """What `write_base` wrote.

    Raises:
        FileNotFoundError: there is no such file in the folder.
    """
    about: dict[str, Any] | None = read_json(folder / BASE_FILE)
    if about is None:
        raise FileNotFoundError(
            f"{folder} is incomplete: it has no {BASE_FILE}, which names the language model and samples its weights"
        )
    return about


def require_same_tokenizer(tokenizer: Any, about: Mapping[str, Any], folder: Path) -> None:
    """Raise ValueError where the tokenizer is not the one of `read_base`."""
    if tokenizer_fingerprint(tokenizer) != about["tokenizer"]:
        raise ValueError(f"the tokenizer in {folder} is not the one this model was saved with: its vocabulary differs")


def require_same_base(base: Any, about: Mapping[str, Any], folder: Path) -> None:
    """Raise ValueError where a language model, without adapter, is not the one of `read_base`.

    A model that is quantised is known by its shape alone.
    """
    if (shape := model_shape(base)) != about["shape"]:
        raise ValueError(f"the base model has another shape: saved with {about['shape']}, now {shape}")
    if not getattr(base, "is_quantized", False) and not same_weights(weight_sample(base), about["weights"]):
        raise ValueError(f"the base model has not the weights of {about['name']!r}, saved in {folder}")
