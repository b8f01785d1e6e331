"""Loading the model to align, also from the folder of an adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predilect.modeling import load_causal_lm

if TYPE_CHECKING:
    from pref_losses.align_options import LanguageModelConfig


def load_model(name: str, *, dtype: Any = None, attn_implementation: str | None = None) -> tuple[Any, Any]:
    """A causal LM to be measured and its tokenizer; from the folder of an adapter, its base with that adapter on.

    Args:
        name: folder, hub id, or "smollm2-135m".
        dtype: of the weights; None: as saved.
        attn_implementation: as for transformers.
    """
    base, adapter = _parts(name)
    model, tokenizer = load_causal_lm(base, dtype=dtype, attn_implementation=attn_implementation)
    return (_adapted(model, adapter, trainable=False) if adapter else model).eval(), tokenizer


def load_for_training(name: str, options: LanguageModelConfig) -> tuple[Any, Any]:
    """A causal LM to be trained, with the options of the command line; an adapter's folder goes on with that adapter."""
    base, adapter = _parts(name)
    model, tokenizer = _load_base(base, options)
    return (_adapted(model, adapter, trainable=True) if adapter else model), tokenizer


def _parts(name: str) -> tuple[str, str | None]:
    """A model's base and the folder of its adapter."""
    file = Path(name) / "adapter_config.json"
    if not file.is_file():
        return name, None
    return str(json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]), name


def _adapted(model: Any, folder: str, *, trainable: bool) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder, is_trainable=trainable)


def _load_base(name: str, options: LanguageModelConfig) -> tuple[Any, Any]:
    how = {"dtype": options.dtype, "attn_implementation": options.attn_implementation}
    if not (options.load_in_4bit or options.load_in_8bit or options.model_revision != "main"):
        return load_causal_lm(name, **how)
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import get_quantization_config

    how |= {"revision": options.model_revision, "quantization_config": get_quantization_config(options)}
    model = AutoModelForCausalLM.from_pretrained(name, **how)
    tokenizer = AutoTokenizer.from_pretrained(name, revision=options.model_revision, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return model, tokenizer
