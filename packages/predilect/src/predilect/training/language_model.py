"""Loading, adapting and keeping a text-only language model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from predilect.modeling import load_causal_lm
from predilect.modeling.base_model import (
    describe_base,
    read_base,
    require_same_base,
    require_same_tokenizer,
    write_base,
)
from predilect.training.devices import compute_dtype, default_device
from predilect.training.options import LanguageModelOptions, TuningOptions
from predilect.training.silence import quiet


def base_model(config: LanguageModelOptions) -> tuple[Any, Any]:
    """The language model before any tuning, on the device, and its tokenizer; full tuning keeps float32 weights.

    bfloat16 weights lose the small updates of full tuning; under LoRA the base never changes.
    """
    dtype = torch.float32 if getattr(config, "tuning", None) == "full" else compute_dtype(config.dtype)
    with quiet():
        model, tokenizer = load_causal_lm(config.model, dtype=dtype, load_in_4bit=config.load_in_4bit)
    return (model if config.load_in_4bit else model.to(default_device())), tokenizer


def with_lora(model: Any, config: TuningOptions) -> Any:
    """The model with a new LoRA adapter on the linear layers of its last `lora_layers` blocks, or of all; for full
    tuning the model itself.

    Raises:
        ValueError: the model has fewer blocks.
    """
    if config.tuning == "full":
        return model.requires_grad_(True)
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear" if config.lora_layers is None else _last_linear(model, config.lora_layers),
        task_type="CAUSAL_LM",
    )
    with quiet():
        return get_peft_model(model, adapter)


def _last_linear(model: Any, count: int) -> list[str]:
    """Names of the linear layers in the last blocks."""
    total = model.config.num_hidden_layers
    if count > total:
        raise ValueError(f"lora_layers must be at most {total}, the blocks of this model (got {count})")
    number = re.compile(r"\.(\d+)\.")
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return [name for name in linear if (place := number.search(name)) and int(place[1]) >= total - count]


def save_language_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the adapter (or, after full tuning, the model), the tokenizer, and what the base model is."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.save_pretrained(folder, **({"save_embedding_layers": False} if hasattr(model, "peft_config") else {}))
    tokenizer.save_pretrained(folder)
    write_base(folder, describe_base(model, tokenizer))


def load_language_model(folder: Path, config: TuningOptions, *, trainable: bool = False) -> tuple[Any, Any]:
    """Read what `save_language_model` wrote.

    Args:
        folder: where it is.
        config: of the recommender.
        trainable: the adapter is to be trained on.

    Raises:
        FileNotFoundError: a file is missing; names it.
        ValueError: another tokenizer, or a base model of another shape or with other weights.
    """
    from transformers import AutoTokenizer

    weights = "adapter_model.safetensors" if config.tuning == "lora" else "model.safetensors"
    if not (folder / weights).is_file():
        raise FileNotFoundError(f"no {weights} in {folder}: it is incomplete, save the recommender again")
    about = read_base(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    require_same_tokenizer(tokenizer, about, folder)
    if config.tuning == "full":
        with quiet():
            model, _ = load_causal_lm(folder, dtype=torch.float32)
        return model, tokenizer
    base, _ = base_model(config)
    require_same_base(base, about, folder)
    from peft import PeftModel

    with quiet():
        return PeftModel.from_pretrained(base, str(folder), is_trainable=trainable), tokenizer
