"""BIGRec: generate a title freely, then find the items of the catalogue that lie nearest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from llm_rec.base import PromptedRecommender
from llm_rec.bigrec.grounding import Grounding, choose_gamma, inject
from llm_rec.config import RANKING, PromptedConfig
from predilect.configuration import option
from predilect.data.splits import SequenceSplits
from predilect.modeling.causal_lm import cache_folder
from predilect.recommender import RecommenderConfig
from predilect.training.language_model import base_model, load_language_model, save_language_model, with_lora
from predilect.training.options import TRAINING


@dataclass
class BIGRecConfig(PromptedConfig):
    """BIGRec. The retriever's scores are the prior that is injected; popularity by default.

    A default leaderboard holds this recommender: the defaults are what a laptop can do while one waits.
    """

    sft_steps: int = option("Optimizer steps of supervised fine-tuning; 0: none.", panel=TRAINING, default=40)
    retriever: str = option(
        "Recommender whose scores are injected, such as popularity or sasrec.", panel=RANKING, default="popularity"
    )
    gamma: float | None = option(
        "Strength of the retriever's scores beside the distance of titles, 0 to 100; none: the best of 0..99 in "
        "validation, ranked as the rows will be: their candidates, where they have any.",
        panel=RANKING,
        default=None,
    )
    gamma_rows: int = option("Validation rows that gamma is chosen on.", panel=RANKING, default=100)
    cache_titles: bool = option("Keep the titles' embeddings in the cache folder.", panel=RANKING, default=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma is not None and not 0 <= self.gamma <= 100:
            raise ValueError(f"gamma must be in 0..100, or none (got {self.gamma})")
        if self.gamma_rows < 1:
            raise ValueError(f"gamma_rows must be at least 1 (got {self.gamma_rows})")


class BIGRec(PromptedRecommender[BIGRecConfig]):
    """Fine-tuned to answer a history with the next title, and grounded in the catalogue.

    The text generated for a history is compared with all titles in the base model's space (`Grounding`); distances are
    divided by `(1 + prior) ** gamma` (`inject`), where the prior is the retriever's score. An answer that is no title
    is no failure: it lies near some.

    Source: Bao et al. 2023, BIGRec (arXiv 2308.08434). There generation uses 4 beams; here it is greedy. Prompts are
    masked in training, which the authors' code does not do.
    """

    name = "bigrec"
    runs_in: ClassVar[Literal["quick", "default", "chosen"]] = "default"  # the one that ranks a catalogue by itself
    config_class: ClassVar[type[RecommenderConfig]] = BIGRecConfig

    def __init__(self, config: BIGRecConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self.gamma = 0.0
        self._grounding: Grounding | None = None

    @property
    def _task(self) -> str:
        return "open"

    @property
    def grounding(self) -> Grounding:
        """The titles in the base model's space; embedded at first use."""
        if self._grounding is None:
            tokenizer = self.prompter.tokenizer
            base = self.model if self.config.tuning == "lora" else base_model(self.config)[0]
            titles = [self.catalogue.title(i) for i in range(1, len(self.catalogue) + 1)]
            cache = cache_folder() / "titles" if self.config.cache_titles else None
            self._grounding = Grounding(base, tokenizer, titles, cache_dir=cache)
        return self._grounding

    def _score(self, histories: Tensor) -> Tensor:
        distances = self.grounding.distances(self.generate(histories)).cpu()
        return inject(distances, self.retriever.score(histories), self.gamma)

    def _new_model(self) -> tuple[Any, Any]:
        self._grounding = None
        model, tokenizer = base_model(self.config)
        return with_lora(model, self.config), tokenizer

    def _fit_ranking(self, splits: SequenceSplits) -> None:
        if self.config.gamma is not None:
            self.gamma = self.config.gamma
            return
        order = np.random.default_rng(self.config.seed).permutation(len(splits.validation))[: self.config.gamma_rows]
        rows = splits.validation.select(order)
        histories = rows.histories()
        with torch.inference_mode():
            distances = self.grounding.distances(self.generate(histories)).cpu()
            prior = self.retriever.score(histories)
        self.gamma = choose_gamma(
            distances, prior, rows.targets(), candidates=rows.candidate_sets(), exclude=rows.seen()
        )

    def _save_model(self, folder: Path) -> None:
        save_language_model(self.model, self.prompter.tokenizer, folder)

    def _load_model(self, folder: Path) -> tuple[Any, Any]:
        self._grounding = None
        return load_language_model(folder, self.config)

    def _parts(self, folder: Path) -> dict[str, Any]:
        return {"gamma": self.gamma}

    def _take_parts(self, parts: Mapping[str, Any], folder: Path) -> None:
        self.gamma = parts["gamma"]
