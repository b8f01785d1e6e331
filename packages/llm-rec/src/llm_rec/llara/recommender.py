"""LLaRA: titles together with what a sequential recommender knows of the items."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from llm_rec.candidates import CandidateRecommender
from llm_rec.llara.config import LLaRAConfig
from llm_rec.llara.curriculum import ITEM, CurriculumTrainer
from predilect.modeling import SoftTokenCausalLM
from predilect.recommender import RecommenderConfig, recommender_class
from predilect.recommenders import SequentialRecommender
from predilect.runs import weights_fingerprint
from predilect.tokenization import SoftTokens
from predilect.training import AnswerCollator, AnswerRows, AnswerTrainer, answer_arguments, compute_dtype, quiet
from predilect.training.language_model import base_model, with_lora

_NO_EMBEDDINGS = "LLaRA needs item embeddings, which {} has not: use sasrec, gru4rec, caser or nextitnet"
TEXT_ONLY = "<|no_item|>"  # stands where a hybrid prompt has the item's vector


class LLaRA(CandidateRecommender[LLaRAConfig]):
    """A language model that reads items as titles with projected embeddings of a sequential recommender.

    An item of a prompt, in the history and among the candidates, is its title followed by a soft token whose embedding
    is `W(e)`, where `e` is the backbone's item embedding (standardised per dimension, so that the projector starts on
    inputs of scale 1 for every backbone) and `W` an MLP with one hidden layer and GELU. In a text-only prompt the soft
    token is replaced by a placeholder with a trained embedding.

    Training minimises the negative log-likelihood of the title that followed; the share of hybrid prompts follows
    `hybrid_share`. Text-only prompts train LoRA and the placeholder, hybrid ones LoRA and projector. Ranking is
    hybrid, except in mode "text".

    The backbone is trained in the same call, or loaded from `retriever_folder`, and stays frozen, as in the authors'
    code (the paper's equation 8 lists its parameters too).

    Source: Liao et al. 2024, LLaRA (arXiv 2312.02445). Not as in the authors' code: see `CurriculumTrainer`; the
    projector, the placeholder and the adapter are always saved together; candidates are fixed.
    """

    name = "llara"
    config_class: ClassVar[type[RecommenderConfig]] = LLaRAConfig

    def require_ready(self) -> None:
        super().require_ready()
        kind = recommender_class(self.config.retriever)
        if self.config.retriever_folder is None and not issubclass(kind, SequentialRecommender):
            raise ValueError(_NO_EMBEDDINGS.format(kind.name))

    @property
    def backbone(self) -> SequentialRecommender:
        """The sequential recommender."""
        retriever = self.retriever
        if not isinstance(retriever, SequentialRecommender):
            raise ValueError(_NO_EMBEDDINGS.format(retriever.name))
        return retriever

    @property
    def _mark(self) -> str:
        return TEXT_ONLY if self.config.mode == "text" else SoftTokens({ITEM: 1}).text(ITEM)

    def _tables(self) -> Mapping[str, Tensor] | None:
        if self.config.mode == "text":
            return None
        return {ITEM: self._item_vectors}

    def _fit_retriever(self, splits: Any, folder: Path) -> Any:
        self._retriever = super()._fit_retriever(splits, folder)
        self._item_vectors = item_vectors(self.backbone, bias=self.config.item_bias)
        return self._retriever

    def _new_model(self) -> tuple[Any, Any]:
        lm, tokenizer = base_model(self.config)
        model = SoftTokenCausalLM(
            with_lora(lm, self.config),
            tokenizer,
            SoftTokens({ITEM: 1}),
            input_sizes={ITEM: self._item_vectors.shape[1]},
            projector=self.config.projector,
            added_tokens=[TEXT_ONLY],
            tuning="full" if self.config.tuning == "full" else None,
            seed=self.config.seed,
        )
        return model, tokenizer

    def _answer_trainer(self, rows: list[dict[str, Any]], options: dict[str, Any]) -> AnswerTrainer:
        if self.config.mode == "text":
            return super()._answer_trainer(rows, options)
        tokenizer = self.prompter.tokenizer
        return CurriculumTrainer(
            self._model,
            answer_arguments(**options),
            data_collator=AnswerCollator(tokenizer.pad_token_id, self._tables()),
            train_dataset=AnswerRows(rows),
            mode=self.config.mode,
            schedule=self.config.schedule,
            draw=self.config.draw,
            item_id=self._model.soft_tokens.ids[ITEM],
            text_id=tokenizer.convert_tokens_to_ids(TEXT_ONLY),
        )

    def _save_model(self, folder: Path) -> None:
        self.model.save_pretrained(folder)

    def _load_model(self, folder: Path) -> tuple[Any, Any]:
        self._item_vectors = item_vectors(self.backbone, bias=self.config.item_bias)
        full = self.config.tuning == "full"
        base = None if full else base_model(self.config)[0]
        with quiet():
            model = SoftTokenCausalLM.from_pretrained(
                folder, base=base, dtype=torch.float32 if full else compute_dtype(self.config.dtype)
            )
        return model, model.tokenizer

    def _parts(self, folder: Path) -> dict[str, Any]:
        return {**super()._parts(folder), "backbone": weights_fingerprint(self.backbone.model.state_dict())}

    def _take_parts(self, parts: Mapping[str, Any], folder: Path) -> None:
        super()._take_parts(parts, folder)
        if parts["backbone"] != weights_fingerprint(self.backbone.model.state_dict()):
            raise ValueError(
                f"the backbone in {folder / 'retriever'} is not the one whose embeddings this projector was trained on"
            )


def item_vectors(backbone: SequentialRecommender, *, bias: bool) -> Tensor:
    """Per item id the standardised embedding (N + 1, d), with the standardised bias as last dimension if asked for.

    The row of padding is zero.
    """
    model = backbone.model
    parts = [model.item_embeddings.detach()[1:].float()]
    if bias:
        parts.append(model.item_bias.detach().float()[:, None])
    table = torch.cat(parts, dim=1).cpu()
    table = (table - table.mean(dim=0)) / table.std(dim=0).clamp_min(1e-6)
    return torch.cat([torch.zeros(1, table.shape[1]), table])
