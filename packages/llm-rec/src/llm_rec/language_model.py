"""Loading, adapting and keeping a text-only language model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from llm_rec.config import PromptedConfig
from predilect.modeling import load_causal_lm
from predilect.modeling.base_model import model_shape, same_weights, tokenizer_fingerprint, weight_sample
from predilect.training import compute_dtype, default_device, quiet

_BASE = "base.json"


def base_model(config: PromptedConfig) -> tuple[Any, Any]:
    """The language model before any tuning, and its tokenizer; full tuning keeps float32 weights.

    bfloat16 weights lose the small updates of full tuning; under LoRA the base never changes.
    """
    dtype = torch.float32 if config.tuning == "full" else compute_dtype(config.dtype)
    with quiet():
        model, tokenizer = load_causal_lm(config.model, dtype=dtype, load_in_4bit=config.load_in_4bit)
    return (model if config.load_in_4bit else model.to(default_device())), tokenizer


def with_lora(model: Any, config: PromptedConfig) -> Any:
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
    adapted = hasattr(model, "peft_config")
    base = model.get_base_model() if adapted else model
    about = {
        "name": base.config._name_or_path,
        "shape": model_shape(base),
        "weights": weight_sample(base) if adapted else {},
        "tokenizer": tokenizer_fingerprint(tokenizer),
    }
    with quiet():
        model.save_pretrained(folder, **({"save_embedding_layers": False} if adapted else {}))
    tokenizer.save_pretrained(folder)
    (folder / _BASE).write_text(json.dumps(about))


def load_language_model(folder: Path, config: PromptedConfig, *, trainable: bool = False) -> tuple[Any, Any]:
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
    for name in (_BASE, weights):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {name} in {folder}: it is incomplete, save the recommender again")
    about = json.loads((folder / _BASE).read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer_fingerprint(tokenizer) != about["tokenizer"]:
        raise ValueError(f"the tokenizer in {folder} is not the one this model was saved with: its vocabulary differs")
    if config.tuning == "full":
        with quiet():
            model, _ = load_causal_lm(folder, dtype=torch.float32)
        return model, tokenizer
    base, _ = base_model(config)
    if (shape := model_shape(base)) != about["shape"]:
        raise ValueError(f"the base model {config.model} has another shape: saved with {about['shape']}, now {shape}")
    if not config.load_in_4bit and not same_weights(weight_sample(base), about["weights"]):
        raise ValueError(f"the base model {config.model} has not the weights of {about['name']!r}, saved in {folder}")
    from peft import PeftModel

    with quiet():
        return PeftModel.from_pretrained(base, str(folder), is_trainable=trainable), tokenizer
