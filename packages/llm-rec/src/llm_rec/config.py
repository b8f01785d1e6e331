"""Options that all recommenders of this package share, one dataclass per method."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Self

from predilect.configuration import option
from predilect.recommender import RecommenderConfig

MODEL, PROMPT, TRAINING, RANKING = "Language model", "Prompts", "Training", "Ranking"


@dataclass
class PromptedConfig(RecommenderConfig):
    """Language model, prompts, supervised fine-tuning and ranking.

    Defaults are for SmolLM2-135M on a laptop's CPU; the papers' own settings are presets of `predilect llm-rec train`.
    """

    model: str = option("Language model: a folder, a hub id, or smollm2-135m.", panel=MODEL, default="smollm2-135m")
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "Number format of the base weights and of arithmetic; auto: bfloat16 where the processor has it, or float32.",
        panel=MODEL,
        default="auto",
    )
    load_in_4bit: bool = option(
        "Quantise the base model (nf4; needs a GPU and bitsandbytes).", panel=MODEL, default=False
    )
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

    domain: Literal["movie", "music", "game", "book"] = option(
        "What the prompts call the items.", panel=PROMPT, default="movie"
    )
    template: int | None = option(
        "Number of the template in its set; none: any of them in training, the first in ranking.",
        panel=PROMPT,
        default=0,
    )
    chat: bool = option("Put prompts through the model's chat template.", panel=PROMPT, default=False)
    max_length: int = option(
        "Longest prompt with one answer, in tokens; the oldest items go first.", panel=PROMPT, default=1024
    )
    sft_steps: int = option("Optimizer steps of supervised fine-tuning; 0: none.", panel=TRAINING, default=150)
    sft_epochs: float | None = option(
        "Passes over the training rows, in place of sft_steps.", panel=TRAINING, default=None
    )
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

    retriever: str = option(
        "Recommender that is fitted first and gives the method candidates, scores to add, or item embeddings.",
        panel=RANKING,
        default="item-knn",
    )
    retriever_folder: str | None = option(
        "Folder of a saved retriever, taken instead of fitting one.", panel=RANKING, default=None
    )
    test_rows: int | None = option(
        "In a leaderboard, rank this many test rows, drawn at random; none: all.", panel=RANKING, default=400
    )
    max_tokens: int = option(
        "Token positions computed at once in ranking: lower needs less memory.", panel=RANKING, default=8192
    )

    def __post_init__(self) -> None:
        at_least(
            self,
            lora_rank=1,
            lora_alpha=1,
            max_length=16,
            sft_steps=0,
            batch_size=1,
            gradient_accumulation=1,
            save_steps=1,
            max_tokens=1,
        )
        if self.lora_layers is not None:
            at_least(self, lora_layers=1)
        if self.test_rows is not None:
            at_least(self, test_rows=2)
        if self.sft_epochs is not None and not self.sft_epochs > 0:
            raise ValueError(f"sft_epochs must be positive, or none (got {self.sft_epochs})")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout must be in [0, 1) (got {self.lora_dropout})")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be a positive number (got {self.learning_rate})")
        if self.load_in_4bit and self.tuning == "full":
            raise ValueError("a quantised base cannot be trained in full: use tuning='lora', or load_in_4bit=False")

    def quick(self) -> Self:
        """The same with a few steps: enough to see that all works."""
        some = self.sft_steps or self.sft_epochs
        return dataclasses.replace(self, sft_steps=2 if some else 0, sft_epochs=None)


@dataclass
class CandidateConfig(PromptedConfig):
    """Prompts that name candidates, and what is added to the log-probability of a title."""

    num_candidates: int | None = option(
        "Candidates in a training prompt, the target included; none: as many as are ranked.",
        panel=PROMPT,
        default=None,
    )
    negatives: Literal["auto", "uniform", "popularity", "retriever"] = option(
        "Where the other candidates of training prompts come from; auto: as in the rows to be ranked, and from the "
        "retriever where those have none.",
        panel=PROMPT,
        default="auto",
    )

    shortlist: int = option(
        "Items of a full ranking that the language model ranks; the rest follows.", panel=RANKING, default=10
    )
    inject: Literal["none", "popularity", "retriever"] = option(
        "What ranking adds to a title's log-probability: nothing, popularity, or also the retriever's score.",
        panel=RANKING,
        default="retriever",
    )
    inject_rows: int = option("Validation rows that the weights of the sum are fitted on.", panel=RANKING, default=100)
    candidate_orders: int = option(
        "Random orders of the candidates in the prompt, over which scores are averaged.", panel=RANKING, default=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_candidates is not None:
            at_least(self, num_candidates=2)
        at_least(self, shortlist=2, inject_rows=2, candidate_orders=1)

    def quick(self) -> Self:
        return dataclasses.replace(super().quick(), inject_rows=8)


@dataclass
class LanguageRecommenderConfig(CandidateConfig):
    """Text-only: supervised fine-tuning, then any objective of `pref_losses`."""

    full_ranking: Literal["shortlist", "trie", "catalogue"] = option(
        "All items: the retriever's shortlist as candidates; titles generated along a trie; or every title scored. "
        "The last two use prompts without candidates, in training too.",
        panel=RANKING,
        default="shortlist",
    )
    num_beams: int = option(
        "Titles that are generated where full_ranking is trie: width of the search and length of the list.",
        panel=RANKING,
        default=10,
    )
    start_from: str | None = option(
        "Folder of a saved LanguageRecommender whose model is trained on; none: the base model.",
        panel=TRAINING,
        default=None,
    )
    preference_steps: int = option("Optimizer steps of the preference stage; 0: none.", panel=TRAINING, default=0)
    preference_epochs: float | None = option(
        "Passes over the training rows, in place of preference_steps.", panel=TRAINING, default=None
    )
    preference_learning_rate: float = option(
        "Peak learning rate of the preference stage.", panel=TRAINING, default=3e-4
    )
    num_negatives: int = option("Rejected titles per row, K.", panel=TRAINING, default=3)
    objective: dict[str, Any] = option(
        "Fields of pref_losses.PreferenceConfig, such as beta and link; its defaults are plain DPO.",
        panel=TRAINING,
        default={},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, num_beams=1, preference_steps=0, num_negatives=1)
        if self.preference_epochs is not None and not self.preference_epochs > 0:
            raise ValueError(f"preference_epochs must be positive, or none (got {self.preference_epochs})")
        if not 0 < self.preference_learning_rate < float("inf"):
            raise ValueError(
                f"preference_learning_rate must be a positive number (got {self.preference_learning_rate})"
            )
        if self.num_candidates is not None and self.num_negatives >= self.num_candidates:
            raise ValueError(
                f"num_negatives must be below num_candidates, from which they are drawn (got {self.num_negatives} and "
                f"{self.num_candidates})"
            )

    @property
    def open_prompts(self) -> bool:
        """Whether prompts go without candidates."""
        return self.full_ranking != "shortlist"

    def quick(self) -> Self:
        some = self.preference_steps or self.preference_epochs
        return dataclasses.replace(super().quick(), preference_steps=2 if some else 0, preference_epochs=None)


def at_least(config: Any, **lowest: int) -> None:
    """Raise ValueError where a named field of the config is below the given number."""
    for name, least in lowest.items():
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least} (got {getattr(config, name)})")
