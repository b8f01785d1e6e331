"""Options of `LanguageRecommender`, and their defaults for S-DPO."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Self

from llm_rec.config import RANKING, CandidateConfig
from predilect.configuration import at_least, new_defaults, option
from predilect.training.options import TRAINING, positive


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
        positive(self, "preference_epochs", "preference_learning_rate")
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


@dataclass
@new_defaults(preference_steps=75, objective={"link": "softmax", "beta": 1.0})
class SoftmaxDPORecommenderConfig(LanguageRecommenderConfig):
    """S-DPO: `LanguageRecommenderConfig` with the softmax over K negatives as its second stage."""

    def quick(self) -> SoftmaxDPORecommenderConfig:
        return dataclasses.replace(super().quick())
