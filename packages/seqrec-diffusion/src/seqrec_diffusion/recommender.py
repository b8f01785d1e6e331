"""`DreamRec` as a `Recommender`: fit on splits, recommend for anyone, change the sampling without another training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from predilect.configuration import option
from predilect.data.splits import SequenceSplits
from predilect.modeling.next_item import NextItemTrainer
from predilect.recommender import RecommenderConfig
from predilect.recommenders.sequential import NextItemRecommender, SequentialRecommenderConfig
from seqrec_diffusion.collapse import item_table_metrics
from seqrec_diffusion.configuration import Sampling, check_model_options
from seqrec_diffusion.modeling import DreamRecModel

_MODEL = "model"
NETWORK, DIFFUSION, LOSS, SAMPLING = "Network", "Diffusion", "Loss", "Sampling"


@dataclass
class DreamRecRecommenderConfig(SequentialRecommenderConfig):
    """Options of `DreamRec`. Those of the panel Sampling may be changed after training: `DreamRec.set_sampling`.

    The defaults are the stable objective, which ranks far better on validation rows: items short beside the noise, the
    cosine error, a cross-entropy over all items, the core's SASRec as encoder, no guidance. The presets `zhihu`,
    `yoochoose` and `kuairec` are the paper's: its encoder, the squared error alone, items as long as the noise.
    """

    dropout: float = option("Dropout probability of the encoder, in [0, 1).", default=0.3)
    max_epochs: int = option("Training ends after this many passes over the rows at the latest.", default=40)
    patience: int = option("Training ends after this many epochs without a better validation ndcg@10.", default=5)
    batch_size: int = option("Rows per optimizer step.", default=256)
    learning_rate: float = option("Of AdamW, constant.", default=1e-3)
    initializer_range: float = option(
        "Standard deviation of the item embeddings at the start; that of the noise is 1.", panel=NETWORK, default=0.02
    )
    encoder: Literal["transformer", "sasrec", "gru4rec", "caser", "nextitnet"] = option(
        "A backbone of the core; or transformer, the paper's.", panel=NETWORK, default="sasrec"
    )
    encoder_options: dict[str, Any] = option("More options of the encoder's config.", panel=NETWORK, default={})
    denoiser: Literal["mlp1", "mlp2", "residual"] = option("Network of the denoiser.", panel=NETWORK, default="mlp1")
    timesteps: int = option("T, the number of diffusion steps.", panel=DIFFUSION, default=500)
    schedule: Literal["linear", "cosine", "exp", "sqrt"] = option(
        "Of the noise; linear needs some hundreds of steps.", panel=DIFFUSION, default="linear"
    )
    null_probability: float = option(
        "Share of training rows whose state is replaced by the null state, in [0, 1).", panel=DIFFUSION, default=0.1
    )
    objective: Literal["diffusion", "softmax"] = option(
        "softmax: the same encoder as a classifier, without diffusion; the control.", panel=LOSS, default="diffusion"
    )
    error: Literal["squared", "cosine"] = option("Error of the denoised item.", panel=LOSS, default="cosine")
    error_weight: float = option("Of that error.", panel=LOSS, default=1.0)
    detach_target: bool = option("The error does not train the target's embedding.", panel=LOSS, default=False)
    item_norm: float | None = option(
        "Length of the items as targets and in scores, where noise has sqrt(d); none: their own.",
        panel=LOSS,
        default=0.3,
    )
    cross_entropy_weight: float = option(
        "Of the softmax over all items of the denoised item's products.", panel=LOSS, default=1.0
    )
    temperature: float = option("Of that softmax.", panel=LOSS, default=0.1)
    preference_weight: float = option(
        "Of the preference of the target over the mean of the batch's other targets.", panel=LOSS, default=0.0
    )
    preference_scale: float = option("Of the difference of errors in it.", panel=LOSS, default=1.0)
    sampler: Literal["ddpm", "ddim", "dpm-solver++"] = option(
        "ddpm: the paper's, stochastic.", panel=SAMPLING, default="ddim"
    )
    steps: int | None = option("Of the sampler, at most T; none: T.", panel=SAMPLING, default=20)
    guidance: float = option("w, at least 0; 0: conditional sampling.", panel=SAMPLING, default=0.0)
    draws: int = option("Oracle items that are averaged.", panel=SAMPLING, default=1)
    similarity: Literal["dot", "cosine"] = option("Of oracle and item.", panel=SAMPLING, default="dot")
    sampling_seed: int = option("Of the noise of sampling.", panel=SAMPLING, default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_model_options(self)
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


class DreamRec(NextItemRecommender):
    """`DreamRecModel`, trained by the core's `NextItemTrainer`.

    Each epoch is validated by the sampling that the recommender ranks with, that of the panel Sampling: another one
    may prefer another epoch. `set_sampling` changes it after training, and then no epoch was selected for it.
    """

    name = "dreamrec"
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

    @torch.inference_mode()
    def score(self, histories: Tensor, candidates: Tensor | None = None) -> Tensor:
        device = self.model.device
        chosen = None if candidates is None else candidates.to(device)
        scores: Tensor = self.model.scores(histories.to(device), self.config.sampling, candidates=chosen)
        return scores.float().to(histories.device)

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
class PreferDiffRecommenderConfig(DreamRecRecommenderConfig):
    """Options of `PreferDiff`: those of `DreamRec` with the paper's loss, schedule and sampler.

    The paper's width is 3,072 (its Table of best hyper-parameters), for a GPU; that of here trains on a processor.
    """

    dropout: float = option("Dropout probability of the encoder, in [0, 1).", default=0.1)
    max_epochs: int = option("Training ends after this many passes over the rows at the latest.", default=200)
    patience: int = option("Training ends after this many epochs without a better validation ndcg@10.", default=20)
    hidden_size: int = option("Width of item embeddings and states; the paper's is 3072.", default=256)
    learning_rate: float = option("Of AdamW, constant.", default=1e-4)
    initializer_range: float = option(
        "Standard deviation of the item embeddings at the start; that of the noise is 1.", panel=NETWORK, default=1.0
    )
    encoder_options: dict[str, Any] = option(
        "More options of the encoder's config.", panel=NETWORK, default={"num_layers": 1, "num_heads": 2}
    )
    timesteps: int = option("T, the number of diffusion steps.", panel=DIFFUSION, default=2000)
    error_weight: float = option("Of that error: lambda.", panel=LOSS, default=0.4)
    item_norm: float | None = option("Length of the items; none: their own.", panel=LOSS, default=None)
    cross_entropy_weight: float = option(
        "Of the softmax over all items of the denoised item's products.", panel=LOSS, default=0.0
    )
    preference_weight: float = option("Of the preference: 1 - lambda.", panel=LOSS, default=0.6)
    preference_scale: float = option("Of the difference of errors in it: gamma.", panel=LOSS, default=5.0)
    guidance: float = option("w, at least 0; 0: conditional sampling.", panel=SAMPLING, default=2.0)
    steps: int | None = option("Of the sampler, at most T; none: T.", panel=SAMPLING, default=100)


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
