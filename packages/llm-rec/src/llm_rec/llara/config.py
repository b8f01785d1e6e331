"""Options of LLaRA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_rec.config import CandidateConfig
from predilect.configuration import option
from predilect.training.options import MODEL, TRAINING


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
