"""Models and data that the speed and the claims of preference losses share; `quick` needs neither weights nor data."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig

from predilect.modeling import load_causal_lm
from predilect.testing import tiny_language_model
from predilect.tokenization import PromptSet
from pref_losses import load_preferences

DATA = Path(os.environ.get("PREDILECT_DATA") or Path(__file__).parents[2] / "shared" / "data")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Without AVX-512 a processor emulates products of bfloat16 matrices, tens of times slower than those of float32.
BF16 = DEVICE == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
DTYPE = "bfloat16" if BF16 else "float32 (this processor emulates bfloat16)"


@contextmanager
def float32() -> Iterator[None]:
    """Models and products in float32, where rounding hides no difference between two ways to the same loss."""
    global BF16
    before, BF16 = BF16, False
    try:
        yield
    finally:
        BF16 = before


def language_model(*, quick: bool) -> tuple[Any, Any]:
    """SmolLM2-135M in `DTYPE` and its tokenizer; quick: a tiny float32 model of random weights that reads bytes."""
    if not quick:
        return load_causal_lm("smollm2-135m", dtype=torch.bfloat16 if BF16 else torch.float32)
    return tiny_language_model()


def lora() -> LoraConfig:
    return LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")


def autocast(*, quick: bool) -> Any:
    return torch.autocast(DEVICE, torch.bfloat16, enabled=BF16 and not quick)


def trainer_options(folder: str | Path, *, quick: bool, **options: Any) -> dict[str, Any]:
    """What every trainer here is told: `DTYPE`, nothing kept, nothing reported, no gradient checkpointing."""
    return {
        "output_dir": str(folder),
        "bf16": BF16 and not quick,
        "use_cpu": DEVICE == "cpu",
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        **options,
    }


def hh_pairs(*, quick: bool) -> Dataset:
    """`prompt`, `chosen`, `rejected`: HH helpful-base test pairs; quick: the right answer repeats a letter."""
    if not quick:
        return load_preferences(str(DATA / "hh-helpful-base-test"))
    rows = [("abcdefgh"[i % 8], "hgfedcba"[i // 2 % 4], "?" * (i % 5)) for i in range(64)]
    return Dataset.from_list(
        [{"prompt": f"say {a}{q}:", "chosen": f" {a}!", "rejected": f" {b}{q}"} for a, b, q in rows]
    )


def artist_choices(*, quick: bool) -> Dataset:
    """`prompt` (history and 20 candidates), `chosen` (who follows), `rejected` (the 19 others), from Last.fm.

    quick: histories of letters whose last letter follows.
    """
    if quick:
        names = [f"{a}{b}" for a in "abcde" for b in "wxyz"]
        records = [([*names[:2], names[i % 20]], names, names[i % 20]) for i in range(64)]
    else:
        with gzip.open(DATA / "sdpo-lastfm" / "lastfm-val.json.gz", "rt", encoding="utf-8") as file:
            records = [(r["historyList"].split("::"), r["itemList"], r["trueSelection"]) for r in json.load(file)]
    template = PromptSet.for_domain("music")[0]
    rows = [
        {
            "prompt": template.render(history=history, candidates=candidates),
            "chosen": f" {target}",
            "rejected": [f" {name}" for name in candidates if name != target],
        }
        for history, candidates, target in records
    ]
    return Dataset.from_list(rows)
