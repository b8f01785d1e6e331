"""Frozen lower layers of a language model, computed once per batch: many runs on the same rows share them."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

Memory = dict[bytes, Tensor]


def remember_lower_half(model: Any, memory: Memory) -> None:
    """Let the lower half of a Llama model's layers, which nothing trains, look up in `memory` what they gave before.

    The result is what they compute, to the last bit. Adapters must lie on the upper half alone: no gradient passes.

    Args:
        model: a causal language model; changed in place, its layers keep their numbers.
        memory: of models with the same lower half; key: a batch's embeddings, positions and mask.
    """
    layers = model.model.layers
    half = len(layers) // 2
    lower = tuple(layers[:half])
    for number in range(half):
        layers[number] = _Lower(lower, memory) if number == 0 else _Skip()


class _Lower(nn.Module):
    def __init__(self, layers: tuple[nn.Module, ...], memory: Memory) -> None:
        super().__init__()
        self.lower = layers  # a tuple: these are not submodules, and no adapter is put on them
        self.memory = memory

    def forward(self, hidden: Tensor, **options: Any) -> Tensor:
        if options.get("cache") is not None:
            raise ValueError("keys and values of the lower half are not kept: call the model with use_cache=False")
        tensors = (hidden, options["attention_mask"], options["position_ids"])
        key = hashlib.blake2b(b"".join(_content(t) for t in tensors if t is not None)).digest()
        if key not in self.memory:
            with torch.no_grad():
                for layer in self.lower:
                    hidden = layer(hidden, **options)
            self.memory[key] = hidden
        return self.memory[key].detach()


class _Skip(nn.Module):
    def forward(self, hidden: Tensor, **options: Any) -> Tensor:
        return hidden


def _content(tensor: Tensor) -> bytes:
    return repr(tuple(tensor.shape)).encode() + tensor.detach().contiguous().view(torch.uint8).cpu().numpy().tobytes()
