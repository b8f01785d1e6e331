"""`DreamRec` as a `Recommender`: fit on splits, recommend for anyone, change the sampling without another training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from predilect.configuration import new_defaults, option
from predilect.data.splits import SequenceSplits
from predilect.recommender import RecommenderConfig
from predilect.recommenders.sequential import NextItemRecommender, NextItemRecommenderConfig
from predilect.training.next_item import NextItemTrainer
from seqrec_diffusion.collapse import item_table_metrics
from seqrec_diffusion.configuration import SAMPLING, DreamRecOptions, Sampling
from seqrec_diffusion.modeling import DreamRecModel

_MODEL = "model"


@dataclass
@new_defaults(max_epochs=40, patience=5, batch_size=256, learning_rate=1e-3)
class DreamRecRecommenderConfig(DreamRecOptions, NextItemRecommenderConfig):
    """Options of `DreamRec`. Those of the panel Sampling may be changed after training: `DreamRec.set_sampling`."""

    sampler: Literal["ddpm", "ddim", "dpm-solver++"] = option(
        "How an item is generated from noise: ddpm, the paper's, adds noise at every step; ddim and dpm-solver++ are "
        "deterministic after the first and need fewer steps.",
        panel=SAMPLING,
        default="ddim",
    )
    steps: int | None = option(
        "Steps from noise to an item, at most timesteps; none: timesteps.", panel=SAMPLING, default=20
    )
    guidance: float = option(
        "How much further than without guidance the history pushes the generated item, w in (1 + w) f(history) - "
        "w f(null), at least 0; 0: none.",
        panel=SAMPLING,
        default=0.0,
    )
    draws: int = option("Generated items a history, which are averaged.", panel=SAMPLING, default=1)
    similarity: Literal["dot", "cosine"] = option(
        "How real items are compared with the generated one; dot favours long items.", panel=SAMPLING, default="dot"
    )
    sampling_seed: int = option("Seed of the noise that items are generated from.", panel=SAMPLING, default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_options()
        if (self.steps or 0) > self.timesteps:
            raise ValueError(f"steps must be at most timesteps, {self.timesteps} (got {self.steps})")
        if self.objective == "diffusion" and self.guidance and not self.null_probability:
            raise ValueError(f"guidance needs null_probability above 0 (got 0): set guidance=0, not {self.guidance}")
        _ = self.sampling  # checks the rest

    @property
    def sampling(self) -> Sampling:
        """The options of sampling."""
        return Sampling(self.sampler, self.steps, self.guidance, self.draws, self.similarity, seed=self.sampling_seed)


class DreamRecTrainer(NextItemTrainer):
    """`NextItemTrainer` that watches the item table: `eval_items_variance`, `..._effective_rank`, `..._margin`."""

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """`ndcg@10` on the validation rows, and `item_table_metrics`."""
        table = item_table_metrics(self.model.item_vectors)
        watched = {f"{metric_key_prefix}_items_{name}": value for name, value in table.items()}
        self.log(dict(watched))
        return {**super().evaluate(eval_dataset, ignore_keys, metric_key_prefix), **watched}


class DreamRec(NextItemRecommender[DreamRecRecommenderConfig]):
    """`DreamRecModel`, trained by the core's `NextItemTrainer`.

    Each epoch is validated by the sampling that the recommender ranks with, that of the panel Sampling: another one
    may prefer another epoch. `set_sampling` changes it after training, and then no epoch was selected for it.
    """

    name = "dreamrec"
    presets: ClassVar[str | None] = "seqrec_diffusion.presets"
    runs_in: ClassVar[Literal["quick", "default", "chosen"]] = "default"
    config_class: ClassVar[type[RecommenderConfig]] = DreamRecRecommenderConfig
    model_class = DreamRecModel
    trainer_class = DreamRecTrainer

    def set_sampling(self, **options: Any) -> Self:
        """Sample differently from now on; nothing is trained again.

        Args:
            **options: `sampler`, `steps`, `guidance`, `draws`, `similarity`, `sampling_seed`.

        Raises:
            TypeError: another option.
            ValueError: a value that is out of range.
        """
        known = ("sampler", "steps", "guidance", "draws", "similarity", "sampling_seed")
        if unknown := sorted(set(options) - set(known)):
            raise TypeError(f"{', '.join(unknown)} cannot be changed without training; {', '.join(known)} can")
        self.config = dataclasses.replace(self.config, **options)
        return self

    def _score(self, histories: Tensor) -> Tensor:
        scores: Tensor = self.model.scores(histories, self.config.sampling)
        return scores

    def _score_candidates(self, histories: Tensor, candidates: Tensor) -> Tensor:
        scores: Tensor = self.model.scores(histories, self.config.sampling, candidates=candidates)
        return scores

    def oracle_embeddings(self, histories: Tensor) -> Tensor:
        """The generated items (B, d), in the space of `model.item_vectors`.

        Args:
            histories: (B, L) item ids, oldest first, padded with 0 on the left.

        Raises:
            ValueError: the objective is softmax, which generates none.
        """
        oracle: Tensor = self.model.oracle(histories.to(self.model.device), self.config.sampling)
        return oracle.float().to(histories.device)

    def _new_model(self, splits: SequenceSplits) -> Any:
        model = super()._new_model(splits)
        model.sampling = self.config.sampling
        return model


@dataclass
@new_defaults(
    hidden_size=256,
    dropout=0.1,
    max_epochs=200,
    patience=20,
    learning_rate=1e-4,
    initializer_range=1.0,
    encoder_options={"num_layers": 1, "num_heads": 2},
    timesteps=2000,
    item_norm=None,
    error_weight=0.4,  # lambda
    cross_entropy_weight=0.0,
    preference_weight=0.6,  # 1 - lambda
    preference_scale=5.0,  # gamma
    guidance=2.0,
    steps=100,
)
class PreferDiffRecommenderConfig(DreamRecRecommenderConfig):
    """Options of `PreferDiff`: those of `DreamRec` with the paper's loss, schedule and sampler.

    The paper's width is 3,072 (its table of best hyper-parameters), for a GPU; that of here trains on a processor.
    """


class PreferDiff(DreamRec):
    r"""`DreamRec` trained to prefer the target over the centre of the batch's other targets.

    .. math:: loss = \lambda \, error^+ - (1 - \lambda) \log\sigma(\gamma (error^- - error^+)), \qquad
        error = (1 - \cos(\hat x_0, x_0))^2.

    Source: Liu et al., "Preference Diffusion for Recommendation", ICLR 2025 (arXiv 2410.13117), and the authors' code,
    which has gamma 5 and 100 DDIM steps. Not as there: each row has its own preference (`preference_loss`), padding is
    not ranked, and the epoch is chosen on validation rows.
    """

    name = "preferdiff"
    runs_in: ClassVar[Literal["quick", "default", "chosen"]] = "chosen"  # up to 200 epochs of a wider network
    config_class: ClassVar[type[RecommenderConfig]] = PreferDiffRecommenderConfig
