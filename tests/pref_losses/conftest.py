"""A tiny causal LM with a byte-level tokenizer, saved to a folder as TRL loads models from, and small preference
data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>", "<user>", "<assistant>"]
    trainer = trainers.BpeTrainer(
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        vocab_size=270,
        show_progress=False,
    )
    core.train_from_iterator([], trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", padding_side="left")
    wrapped.chat_template = TEMPLATE
    return wrapped


@pytest.fixture(scope="session")
def model_folder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def model(model_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_folder)


def preferences(rows: int = 16, negatives: int | None = None, *, ragged: bool = False) -> Dataset:
    """Questions whose right answer repeats a letter of the prompt; `negatives` rejected answers a row, or one as plain
    text.
    """
    data: list[dict[str, Any]] = []
    for i in range(rows):
        letter, others = "abcdefgh"[i % 8], "hgfedcba"
        wrong = [f" {others[(i + j) % 8]}{j}" for j in range((negatives or 1) - (i % 2 if ragged else 0))]
        chosen = f" {letter}" + "!" * (i % 3)
        data.append(
            {"prompt": f"say {letter}{'?' * (i % 4)}:", "chosen": chosen, "rejected": wrong if negatives else wrong[0]}
        )
    return Dataset.from_list(data)
