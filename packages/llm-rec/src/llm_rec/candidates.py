"""`CandidateRecommender`: the language model chooses among candidates that its prompt names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypeVar

from llm_rec.base import PromptedRecommender
from llm_rec.config import CandidateConfig
from llm_rec.rows import Examples, ranked_items, retriever_shortlist, with_target
from predilect.data.splits import SequenceSplits
from predilect.modeling.answer_scores import score_candidates
from predilect.recommender import Recommender, RecommenderConfig
from predilect.recommenders.injection import ScoreWeights, fit_score_weights, held_apart
from predilect.training import arithmetic

_FEATURES = {
    "none": ("language",),
    "popularity": ("language", "popularity"),
    "retriever": ("language", "popularity", "retriever"),
}


CandidateT = TypeVar("CandidateT", bound=CandidateConfig, default=Any)


class CandidateRecommender(PromptedRecommender[CandidateT]):
    """Ranks candidates by the log-probability of their titles after a prompt that names them.

    All candidates share one computation of the prompt. Popularity and the retriever's score may be added, by weights
    that are fitted on validation rows. Without candidates the language model ranks the retriever's shortlist; the
    other items follow in the retriever's order.
    """

    config_class: ClassVar[type[RecommenderConfig]] = CandidateConfig

    def __init__(self, config: CandidateT | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self.injection = ScoreWeights({"language": 1.0})

    def _training_candidates(self, splits: SequenceSplits) -> dict[str, Any]:
        size = self.config.num_candidates or splits.protocol.get("candidates") or self.config.shortlist
        return {"size": size, "negatives": self.config.negatives}

    def _fit_retriever(self, splits: SequenceSplits, folder: Path) -> Recommender:
        """Selected on other validation rows than the weights are fitted on; one from a folder is taken as it is."""
        if self.config.inject == "retriever":
            splits = held_apart(splits, self.config.seed)[0]
        return super()._fit_retriever(splits, folder)

    def _fit_ranking(self, splits: SequenceSplits) -> None:
        names = _FEATURES[self.config.inject]
        if len(names) == 1:
            return
        if "retriever" in names:
            splits = held_apart(splits, self.config.seed)[1]
        rows = self._validation(splits)
        log_probs = self._log_probs(rows.history, rows.candidates)
        features_by_name = self._features(rows.history, rows.candidates, log_probs)
        columns = (rows.candidates == rows.target[:, None]).long().argmax(dim=1)
        self.injection = fit_score_weights(
            {name: features_by_name[name] for name in names}, columns, not_negative="language"
        )

    def _validation(self, splits: SequenceSplits) -> Examples:
        """Validation rows as they will be ranked: with their candidate sets, or with the retriever's shortlist, in
        which case only rows whose target is on it tell anything.
        """
        order = np.random.default_rng(self.config.seed).permutation(len(splits.validation))
        if splits.validation.candidates is not None:
            order = order[: self.config.inject_rows]
        else:
            order = order[: 50 * self.config.inject_rows]
        rows = splits.validation.select(order)
        history, target, sets = rows.histories(), rows.targets(), rows.candidate_sets()
        if sets is not None:
            return Examples(history, target, sets, torch.from_numpy(order))
        shortlist = retriever_shortlist(self.retriever, history, self.config.shortlist)
        answerable = (shortlist == target[:, None]).any(dim=1).nonzero().squeeze(1)[: self.config.inject_rows]
        if len(answerable) < 2:  # a retriever that finds nothing: the last place of the list goes to the target
            shortlist = with_target(shortlist, target)
            answerable = torch.arange(min(len(rows), self.config.inject_rows))
        return Examples(
            history[answerable], target[answerable], shortlist[answerable], torch.from_numpy(order)[answerable]
        )

    # --- ranking ----------------------------------------------------------------------------------------------

    def _score_candidates(self, histories: Tensor, candidates: Tensor) -> Tensor:
        return self._injected(histories, candidates, self._log_probs(histories, candidates))

    def _score(self, histories: Tensor) -> Tensor:
        shortlist = retriever_shortlist(self.retriever, histories, self.config.shortlist)
        scores = self._injected(histories, shortlist, self._log_probs(histories, shortlist))
        return self._above_the_rest(histories, shortlist, scores)

    def _above_the_rest(self, histories: Tensor, items: Tensor, scores: Tensor) -> Tensor:
        """(B, N): the given items by their scores, all others below them in the retriever's order.

        Args:
            histories: (B, L).
            items: (B, C) item ids; 0 where a row has fewer.
            scores: (B, C).
        """
        order = ranked_items(self.retriever, histories) - 1
        places = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
        given = items > 0
        scores = scores.masked_fill(~given, -torch.inf)
        best = scores.amax(dim=1, keepdim=True)
        best = torch.where(best.isfinite(), best, 0)
        lowest = scores.masked_fill(~given, torch.inf).amin(dim=1, keepdim=True)
        lowest = torch.where(lowest.isfinite(), lowest - best, 0)
        full = lowest - 1 - places / order.shape[1]
        # the first column takes what has no item
        full = torch.cat([torch.zeros(len(full), 1), full], dim=1).float()
        full.scatter_(1, items, torch.where(given, scores - best, 0).float())
        return full[:, 1:]

    def _injected(self, histories: Tensor, items: Tensor, log_probs: Tensor) -> Tensor:
        """Scores (B, C) of the items (B, C) whose titles have these log-probs."""
        return self.injection(**self._features(histories, items, log_probs)).float()

    def _features(self, histories: Tensor, items: Tensor, log_probs: Tensor) -> dict[str, Tensor]:
        counts = torch.tensor([0, *(self.catalogue.popularity or [0] * len(self.catalogue))], dtype=torch.float32)
        return {
            "language": log_probs,
            "popularity": counts[items].log1p(),
            "retriever": self.retriever.score(histories, items).float(),
        }

    @torch.inference_mode()
    def _log_probs(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Log-probability (B, C) of every candidate's title, averaged over `candidate_orders` orders of the prompt."""
        total = torch.zeros(candidates.shape)
        for number in range(self.config.candidate_orders):
            order = torch.arange(candidates.shape[1])
            if number:  # the first order is the one given
                order = torch.randperm(len(order), generator=torch.Generator().manual_seed(self.config.seed + number))
            ordered = candidates[:, order]
            answers = [[self._answers[i - 1] for i in row] for row in ordered.tolist()]
            prompts = self._prompts(histories, ordered, [max(map(len, row)) for row in answers])
            with arithmetic(self.config.dtype):
                scores = score_candidates(
                    self.model,
                    [p.ids for p in prompts],
                    answers,
                    pad_token_id=self.prompter.tokenizer.pad_token_id,
                    vectors=self._vectors(prompts),
                    max_tokens=self.config.max_tokens,
                )
            total[:, order] += scores.cpu()
        mean: Tensor = total / self.config.candidate_orders
        return mean

    # --- folders ----------------------------------------------------------------------------------------------

    def _parts(self, folder: Path) -> dict[str, Any]:
        return {"injection": dict(self.injection.weights)}

    def _take_parts(self, parts: Mapping[str, Any], folder: Path) -> None:
        self.injection = ScoreWeights(parts["injection"])
