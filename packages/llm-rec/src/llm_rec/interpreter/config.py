"""Options of `RecInterpreter`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, Self

from llm_rec.config import MODEL, PROMPT, TRAINING, at_least
from llm_rec.interpreter.tasks import TASKS
from predilect.configuration import option
from predilect.recommender import RecommenderConfig

BACKBONE = "Sequential model"


@dataclass
class RecInterpreterConfig(RecommenderConfig):
    """Frozen language model, frozen sequential model, and the adapter between them, which alone is trained.

    Defaults are for SmolLM2-135M on a laptop's CPU. The paper has a linear adapter on Llama-7B, a batch of 16, and 100
    epochs with AdamW at 1e-3.
    """

    model: str = option("Language model: a folder, a hub id, or smollm2-135m.", panel=MODEL, default="smollm2-135m")
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "Number format of the language model and of arithmetic; auto: bfloat16 where the processor has it, or "
        "float32.",
        panel=MODEL,
        default="auto",
    )
    load_in_4bit: bool = option(
        "Quantise the language model (nf4; needs a GPU and bitsandbytes).", panel=MODEL, default=False
    )
    projector: Literal["linear", "mlp"] = option(
        "Network from a vector to the language model's embeddings: linear, as in the paper, or with one hidden layer.",
        panel=MODEL,
        default="linear",
    )
    num_tokens: int = option(
        "Soft tokens that stand for one vector, each with an adapter of its own; the paper has 1.",
        panel=MODEL,
        default=1,
    )

    backbone: str = option(
        "Sequential recommender that is fitted first: sasrec, gru4rec, caser or nextitnet.",
        panel=BACKBONE,
        default="sasrec",
    )
    backbone_folder: str | None = option(
        "Folder of a saved backbone, taken instead of fitting one.", panel=BACKBONE, default=None
    )

    tasks: tuple[str, ...] = option(
        "What is trained, each row drawing one: recovery (all titles of a history from its state), residual (the item "
        "by which two states differ), item (the title of an item's embedding).",
        panel=PROMPT,
        default=("recovery", "residual"),
    )
    domain: Literal["movie", "music", "game", "book"] = option(
        "What the prompts call the items.", panel=PROMPT, default="movie"
    )
    template: int | None = option(
        "Number of the template in its task's set; none: any of them in training, the first in reading.",
        panel=PROMPT,
        default=0,
    )
    chat: bool = option("Put prompts through the model's chat template.", panel=PROMPT, default=False)
    max_length: int = option(
        "Longest prompt with its answer, in tokens; a longer training row is dropped whole, and counted.",
        panel=PROMPT,
        default=512,
    )

    steps: int = option("Optimizer steps.", panel=TRAINING, default=400)
    batch_size: int = option("Rows per optimizer step.", panel=TRAINING, default=16)
    gradient_accumulation: int = option(
        "Parts in which a batch is computed, one after the other: more need less memory.", panel=TRAINING, default=1
    )
    learning_rate: float = option(
        "Peak of AdamW's step size; it grows over the first twentieth of the steps and falls along a cosine.",
        panel=TRAINING,
        default=1e-3,
    )
    weight_decay: float = option(
        "AdamW's weight decay, which pulls weights to 0; 0: none.", panel=TRAINING, default=1e-6
    )
    gradient_checkpointing: bool = option(
        "Compute activations again in the backward pass: less memory, more time.",
        panel=TRAINING,
        default=False,
    )
    save_steps: int = option("Steps between checkpoints, from which a killed fit goes on.", panel=TRAINING, default=50)

    max_tokens: int = option(
        "Token positions of prompts computed at once in reading: lower needs less memory.", panel=MODEL, default=2048
    )

    def __post_init__(self) -> None:
        self.tasks = tuple(self.tasks)  # JSON gives lists
        if not self.tasks or set(self.tasks) - set(TASKS) or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be some of {', '.join(TASKS)}, each once (got {self.tasks})")
        if self.template is not None:
            fewest = min(len(TASKS[task].templates) for task in self.tasks)
            if not 0 <= self.template < fewest:
                raise ValueError(f"template must be in 0..{fewest - 1} for these tasks (got {self.template})")
        at_least(
            self,
            num_tokens=1,
            max_length=16,
            steps=0,
            batch_size=1,
            gradient_accumulation=1,
            save_steps=1,
            max_tokens=1,
        )
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be a positive number (got {self.learning_rate})")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be at least 0 (got {self.weight_decay})")
        if self.batch_size % self.gradient_accumulation:
            raise ValueError(
                f"batch_size must be a multiple of gradient_accumulation (got {self.batch_size} and "
                f"{self.gradient_accumulation})"
            )

    def quick(self) -> Self:
        """The same with a few steps: enough to see that all works."""
        return dataclasses.replace(self, steps=min(2, self.steps))
