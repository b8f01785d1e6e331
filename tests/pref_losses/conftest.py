"""A tiny causal LM with a byte-level tokenizer, saved to a folder as TRL loads models from, and small preference
data.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pref_losses import PreferenceConfig, PreferenceTrainer

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


@pytest.fixture(scope="session")
def make_preferences() -> Callable[..., Dataset]:
    return preferences


@pytest.fixture
def make_trainer(
    model_folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Callable[..., PreferenceTrainer]:
    """`make_trainer(config class or dict of options, ...)`: a trainer in float32 on the CPU that logs every step."""

    def make(
        config: type[PreferenceConfig] = PreferenceConfig,
        *,
        model: Any = None,
        trainer: type = PreferenceTrainer,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        peft_config: Any = None,
        ref_model: Any = None,
        **options: Any,
    ) -> PreferenceTrainer:
        defaults = {
            "output_dir": str(tmp_path / "out"),
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "per_device_train_batch_size": 4,
            "max_steps": 6,
            "learning_rate": 3e-3,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "logging_first_step": True,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
        }
        return trainer(
            str(model_folder) if model is None else model,
            ref_model,
            config(**(defaults | options)),
            train_dataset=preferences() if train_dataset is None else train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            peft_config=peft_config,
        )

    return make


@pytest.fixture(scope="session")
def logged() -> Callable[..., list[float]]:
    """`logged(trainer, key)`: what a trainer has logged under a key, step by step."""

    def values(trainer: Any, key: str = "loss") -> list[float]:
        return [entry[key] for entry in trainer.state.log_history if key in entry]

    return values
