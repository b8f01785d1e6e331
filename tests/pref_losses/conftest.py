"""A tiny causal LM with a byte-level tokenizer, saved to a folder as TRL loads models from, and small preference
data.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM

from predilect.testing import tiny_language_model
from pref_losses import PreferenceConfig, PreferenceTrainer

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ROLES = ("<user>", "<assistant>")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny_language_model(special_tokens=ROLES, chat_template=TEMPLATE)[1]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_language_model(folder, special_tokens=ROLES, chat_template=TEMPLATE)
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
def make_trainer(model_folder: Path, tokenizer: Any, tmp_path: Path) -> Callable[..., PreferenceTrainer]:
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
