"""Loading the model to align, also from the folder of an adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from predilect.modeling import load_causal_lm
from predilect.modeling.base_model import BASE_FILE, read_base, require_same_base
from predilect.modeling.causal_lm import load_tokenizer
from predilect.training import default_device

if TYPE_CHECKING:
    from pref_losses.align.options import LanguageModelConfig


def load_model(name: str, *, dtype: Any = None) -> tuple[Any, Any]:
    """A causal LM to be measured, on the accelerator if there is one, and its tokenizer.

    Args:
        name: folder, hub id, or "smollm2-135m"; the folder of an adapter gives its base with that adapter on.
        dtype: of the weights; None: as saved.
    """
    base, adapter = _parts(name)
    model, tokenizer = load_causal_lm(base, dtype=dtype)
    model = _adapted(model, adapter, trainable=False) if adapter else model
    return on_device(model.eval(), default_device()), tokenizer


def load_for_training(name: str, options: LanguageModelConfig) -> tuple[Any, Any]:
    """A causal LM to be trained, with the command line's options; from an adapter's folder, that adapter goes on."""
    base, adapter = _parts(name)
    model, tokenizer = _load_base(base, options)
    return (_adapted(model, adapter, trainable=True) if adapter else model), tokenizer


def tokenizer_for_training(options: LanguageModelConfig) -> Any:
    """The tokenizer of `load_for_training` alone."""
    assert options.model_name_or_path is not None
    return load_tokenizer(_parts(options.model_name_or_path)[0], revision=options.model_revision)


def on_device(model: Any, device: torch.device) -> Any:
    """The model, moved; a quantised one is where it belongs already."""
    return model if getattr(model, "is_quantized", False) else model.to(device)


def _parts(name: str) -> tuple[str, str | None]:
    """A model's base and the folder of its adapter."""
    folder = Path(name)
    if name.startswith((".", "/", "~")) and not folder.is_dir():
        raise FileNotFoundError(f"there is no model folder {name}")
    if (folder / "adapter_config.json").is_file():
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return str(config["base_model_name_or_path"]), name
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{name} holds no model: neither config.json nor adapter_config.json is in it")
    return name, None


def _adapted(model: Any, folder: str, *, trainable: bool) -> Any:
    """The model with the adapter in `folder`, which may say what base it was trained on (`base.json`)."""
    from peft import PeftModel

    if (Path(folder) / BASE_FILE).is_file():
        require_same_base(model, read_base(Path(folder)), Path(folder))
    return PeftModel.from_pretrained(model, folder, is_trainable=trainable)


def _load_base(name: str, options: LanguageModelConfig) -> tuple[Any, Any]:
    how = {"dtype": options.dtype, "attn_implementation": options.attn_implementation}
    if not (options.load_in_4bit or options.load_in_8bit or options.model_revision != "main"):
        return load_causal_lm(name, **how)
    from transformers import AutoModelForCausalLM
    from trl import get_quantization_config

    how |= {"revision": options.model_revision, "quantization_config": get_quantization_config(options)}
    model = AutoModelForCausalLM.from_pretrained(name, **how)
    return model, load_tokenizer(name, revision=options.model_revision)
