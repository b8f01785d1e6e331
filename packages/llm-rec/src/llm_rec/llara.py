"""LLaRA: titles together with what a sequential recommender knows of the items."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from llm_rec.candidates import CandidateRecommender
from llm_rec.config import CandidateConfig
from predilect.configuration import option
from predilect.modeling import SoftTokenCausalLM
from predilect.recommender import RecommenderConfig
from predilect.recommenders import SequentialRecommender
from predilect.runs import weights_fingerprint
from predilect.tokenization import SoftTokens
from predilect.training import AnswerCollator, AnswerRows, AnswerTrainer, answer_arguments, compute_dtype, quiet
from predilect.training.language_model import base_model, with_lora
from predilect.training.options import MODEL, TRAINING

ITEM = "item"
TEXT_ONLY = "<|no_item|>"  # stands where a hybrid prompt has the item's vector
COMPETENCE_START = 0.1


@dataclass
class LLaRAConfig(CandidateConfig):
    """LLaRA. The backbone is the `retriever`, one of the sequential recommenders."""

    retriever: str = option(
        "The sequential recommender whose item embeddings the prompts hold: sasrec, gru4rec, caser or nextitnet.",
        default="sasrec",
    )
    mode: Literal["curriculum", "hybrid", "text"] = option(
        "Prompts in training: text first, then hybrid, as in the paper; hybrid throughout; or text (also in ranking).",
        panel=TRAINING,
        default="hybrid",
    )
    schedule: Literal["linear", "competence"] = option(
        "How the share of hybrid prompts grows in a curriculum.", panel=TRAINING, default="linear"
    )
    draw: Literal["batch", "sample"] = option(
        "Whether a prompt is hybrid is drawn per batch, as in the paper, or per row.", panel=TRAINING, default="batch"
    )
    item_bias: bool = option(
        "Give the item's bias, which carries popularity, beside its embedding (not in the paper).",
        panel=MODEL,
        default=True,
    )
    projector: Literal["mlp", "linear"] = option(
        "Network from item vectors to the language model's embeddings: linear, or with one hidden layer.",
        panel=MODEL,
        default="mlp",
    )


def hybrid_share(progress: float, mode: str = "curriculum", schedule: str = "linear") -> float:
    r"""Probability that a prompt is hybrid at `progress` (optimizer steps done / all steps, in [0, 1]).

    linear (LLaRA): :math:`p = \tau / T`. competence (Platanios et al. 2019, arXiv 1903.09848,
    c0 = 0.1): :math:`p = \min(1, \sqrt{\tau / T (1 - c_0^2) + c_0^2})`, which reaches hybrid prompts sooner.

    Examples:
        >>> hybrid_share(0.25), round(hybrid_share(0.25, schedule="competence"), 3), hybrid_share(0.25, mode="text")
        (0.25, 0.507, 0.0)
    """
    if mode != "curriculum":
        return float(mode == "hybrid")
    if schedule == "linear":
        return progress
    return min(1.0, math.sqrt(progress * (1 - COMPETENCE_START**2) + COMPETENCE_START**2))


class CurriculumTrainer(AnswerTrainer):
    """Draws for every batch, or every row, whether its prompt is hybrid.

    The two kinds of prompt differ in one token per item, so the batch is made once, by whichever data-loader worker,
    and the draw happens here, where the global step is known: it is a function of seed, step and row alone, the same
    for any number of workers and after a resume. (In the code of LLaRA, arXiv 2312.02445, the counter lives in the
    collator: workers get a copy of it that begins anew every epoch, so that the share never passes 1 / epochs.)

    Attributes:
        drawn: (optimizer step, share of hybrid rows) of every micro-batch so far in this process.
    """

    def __init__(self, *args: Any, mode: str, schedule: str, draw: str, item_id: int, text_id: int, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.mode, self.schedule, self.draw = mode, schedule, draw
        self.item_id, self.text_id = item_id, text_id
        self.drawn: list[tuple[int, float]] = []

    def model_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        hybrid = self._hybrid(inputs["row"])
        self.drawn.append((self.state.global_step, float(hybrid.float().mean())))
        ids = inputs["input_ids"]
        places = ids == self.item_id
        kept = hybrid[:, None].expand_as(places)[places]  # of each vector, in reading order
        return {
            "input_ids": ids.masked_fill(places & ~hybrid[:, None], self.text_id),
            "attention_mask": inputs["attention_mask"],
            "vectors": {ITEM: inputs["vectors"][ITEM][kept]},
        }

    def _hybrid(self, rows: Tensor) -> Tensor:
        step = self.state.global_step
        share = hybrid_share(step / max(1, self.state.max_steps), self.mode, self.schedule)
        keys = rows.tolist() if self.draw == "sample" else rows[:1].tolist()
        draws = [float(np.random.default_rng((self.args.seed, step, key)).random()) for key in keys]
        return (torch.tensor(draws, device=rows.device) < share).expand(len(rows))


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

    @property
    def backbone(self) -> SequentialRecommender:
        """The sequential recommender."""
        retriever = self.retriever
        if not isinstance(retriever, SequentialRecommender):
            raise ValueError(
                f"LLaRA needs item embeddings, which {retriever.name} has not: use sasrec, gru4rec or caser"
            )
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
