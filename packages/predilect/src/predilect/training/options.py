"""Options that methods with a language model share; a method's config inherits those that it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from predilect.configuration import at_least, option

MODEL, PROMPT, TRAINING = "Language model", "Prompts", "Training"


@dataclass
class LanguageModelOptions:
    """Which language model, and in which numbers."""

    model: str = option("Language model: a folder, a hub id, or smollm2-135m.", panel=MODEL, default="smollm2-135m")
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "Number format of the base weights and of arithmetic; auto: bfloat16 where the processor has it, or float32.",
        panel=MODEL,
        default="auto",
    )
    load_in_4bit: bool = option(
        "Quantise the base model (nf4; needs a GPU and bitsandbytes).", panel=MODEL, default=False
    )
    max_tokens: int = option(
        "Token positions computed at once after training: lower needs less memory.", panel=MODEL, default=8192
    )

    def check_language_model(self) -> None:
        """Raise ValueError for a value that cannot be."""
        at_least(self, max_tokens=1)


@dataclass
class TuningOptions(LanguageModelOptions):
    """How the language model is trained."""

    tuning: Literal["lora", "full"] = option(
        "Train small added matrices (lora), or all weights (full).", panel=MODEL, default="lora"
    )
    lora_rank: int = option(
        "Rank of LoRA's matrices on the linear layers: higher adapts more and costs more.", panel=MODEL, default=8
    )
    lora_alpha: int = option("LoRA's update is multiplied by lora_alpha / lora_rank.", panel=MODEL, default=32)
    lora_layers: int | None = option(
        "LoRA adapts this many of the last blocks; none: all. No gradient is computed below them.",
        panel=MODEL,
        default=None,
    )
    lora_dropout: float = option("Dropout before LoRA's first matrix, in [0, 1).", panel=MODEL, default=0.0)

    def check_language_model(self) -> None:
        super().check_language_model()
        at_least(self, lora_rank=1, lora_alpha=1, lora_layers=1)
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout must be in [0, 1) (got {self.lora_dropout})")
        if self.load_in_4bit and self.tuning == "full":
            raise ValueError("a quantised base cannot be trained in full: use tuning='lora', or load_in_4bit=False")


@dataclass
class AnswerOptions:
    """Stages of training on answers (`predilect.training.stage_options`)."""

    batch_size: int = option("Rows per optimizer step.", panel=TRAINING, default=8)
    gradient_accumulation: int = option(
        "Parts in which a batch is computed, one after the other: more need less memory.", panel=TRAINING, default=1
    )
    learning_rate: float = option(
        "Peak of AdamW's step size; it grows over the first twentieth of the steps and falls along a cosine.",
        panel=TRAINING,
        default=5e-4,
    )
    weight_decay: float = option(
        "AdamW's weight decay, which pulls weights to 0; 0: none.", panel=TRAINING, default=0.0
    )
    gradient_checkpointing: bool = option(
        "Compute activations again in the backward pass: less memory, more time.",
        panel=TRAINING,
        default=False,
    )
    save_steps: int = option("Steps between checkpoints, from which a killed fit goes on.", panel=TRAINING, default=50)

    def check_training(self) -> None:
        """Raise ValueError for a value that cannot be."""
        at_least(self, batch_size=1, gradient_accumulation=1, save_steps=1)
        positive(self, "learning_rate")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be at least 0 (got {self.weight_decay})")
        if self.batch_size % self.gradient_accumulation:
            raise ValueError(
                f"batch_size must be a multiple of gradient_accumulation (got {self.batch_size} and "
                f"{self.gradient_accumulation})"
            )


def positive(config: Any, *names: str) -> None:
    """Raise ValueError where a named field of the config is not a positive, finite number; None is none."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name} must be a positive number (got {value})")
