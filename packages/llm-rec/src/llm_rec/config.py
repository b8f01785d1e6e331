"""Options that the recommenders of this package share; each method's own are in its folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, Self

from predilect.configuration import at_least, option
from predilect.recommender import RecommenderConfig
from predilect.registry import registered
from predilect.training.options import PROMPT, TRAINING, AnswerOptions, TuningOptions, positive

RANKING = "Ranking"


@dataclass
class PromptedConfig(TuningOptions, AnswerOptions, RecommenderConfig):
    """Language model, prompts, supervised fine-tuning and ranking.

    Defaults are for SmolLM2-135M on a laptop's CPU; the papers' own settings are presets of `predilect train NAME`.
    """

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

    def __post_init__(self) -> None:
        self.check_language_model()
        self.check_training()
        at_least(self, max_length=16, sft_steps=0, test_rows=2)
        positive(self, "sft_epochs")
        if self.retriever not in (there := registered()):
            raise ValueError(f"retriever must be one of {', '.join(sorted(there))} (got {self.retriever!r})")

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
        at_least(self, num_candidates=2, shortlist=2, inject_rows=2, candidate_orders=1)

    def quick(self) -> Self:
        return dataclasses.replace(super().quick(), inject_rows=8)
