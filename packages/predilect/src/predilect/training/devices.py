"""Where models compute, and in which numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def default_device() -> torch.device:
    """The accelerator in use, or the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def compute_dtype(wanted: str) -> torch.dtype:
    """The dtype of "auto", "float32" or "bfloat16".

    auto is bfloat16 on an accelerator and on processors with bfloat16 instructions: others emulate products of
    bfloat16 matrices, tens of times slower than those of float32.
    """
    if wanted != "auto":
        chosen: torch.dtype = getattr(torch, wanted)
        return chosen
    fast = default_device().type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


@contextmanager
def arithmetic(wanted: str) -> Iterator[None]:
    """Autocast to the compute dtype: adapters and projectors stay float32, products run in bfloat16."""
    dtype = compute_dtype(wanted)
    with torch.autocast(default_device().type, dtype, enabled=dtype != torch.float32):
        yield
