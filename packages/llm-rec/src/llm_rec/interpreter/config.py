"""Options of `RecInterpreter`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, Self

from llm_rec.interpreter.tasks import TASKS
from predilect.configuration import at_least, new_defaults, option
from predilect.method import MethodConfig
from predilect.training.options import MODEL, PROMPT, TRAINING, AnswerOptions, LanguageModelOptions

BACKBONE = "Sequential model"


@dataclass
@new_defaults(batch_size=16, learning_rate=1e-3, weight_decay=1e-6, max_tokens=2048)
class RecInterpreterConfig(LanguageModelOptions, AnswerOptions, MethodConfig):
    """Frozen language model, frozen sequential model, and the adapter between them, which alone is trained.

    Defaults are for SmolLM2-135M on a laptop's CPU. The paper has a linear adapter on Llama-7B, a batch of 16, and 100
    epochs with AdamW at 1e-3.
    """

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

    def __post_init__(self) -> None:
        self.tasks = tuple(self.tasks)  # JSON gives lists
        if not self.tasks or set(self.tasks) - set(TASKS) or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be some of {', '.join(TASKS)}, each once (got {self.tasks})")
        if self.template is not None:
            fewest = min(len(TASKS[task].templates) for task in self.tasks)
            if not 0 <= self.template < fewest:
                raise ValueError(f"template must be in 0..{fewest - 1} for these tasks (got {self.template})")
        self.check_language_model()
        self.check_training()
        at_least(self, num_tokens=1, max_length=16, steps=0)

    def quick(self) -> Self:
        """The same with a few steps: enough to see that all works."""
        return dataclasses.replace(self, steps=min(2, self.steps))
