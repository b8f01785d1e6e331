"""Recommenders on the sequential backbones: GRU4Rec, Caser, NextItNet, SASRec."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor
from typing_extensions import TypeVar

from predilect.configuration import new_defaults, option
from predilect.data.splits import SequenceSplits
from predilect.modeling.caser import Caser
from predilect.modeling.gru4rec import GRU4Rec
from predilect.modeling.nextitnet import NextItNet
from predilect.modeling.sasrec import SASRec
from predilect.modeling.sequential import SequentialModel, check_loss_options
from predilect.processes import processes
from predilect.recommender import Recommender, RecommenderConfig
from predilect.training import quiet
from predilect.training.next_item import NextItemRows, NextItemTrainer, NextItemWindows, next_item_arguments

_MODEL = "model"
_LONG = 1 << 20  # a history that no option is too long for


@dataclass
class NextItemRecommenderConfig(RecommenderConfig):
    """Options of every recommender that a `NextItemTrainer` trains."""

    hidden_size: int = option("Width of item embeddings and states.", default=64)
    dropout: float = option("Dropout probability, in [0, 1).", default=0.2)
    max_epochs: int = option("Training ends after this many passes over the rows at the latest.", default=10)
    patience: int = option("Training ends after this many epochs without a better validation ndcg@10.", default=3)
    batch_size: int = option("Rows per optimizer step.", default=512)
    learning_rate: float = option("Step size of AdamW, the same throughout training.", default=2e-3)
    weight_decay: float = option("AdamW's weight decay, which pulls weights to 0; 0: none.", default=0.0)

    def __post_init__(self) -> None:
        for name in ("hidden_size", "max_epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1) (got {self.dropout})")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be a positive number (got {self.learning_rate})")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be at least 0 (got {self.weight_decay})")

    def quick(self) -> Self:
        """The same with one epoch: enough to see that all works."""
        return dataclasses.replace(self, max_epochs=1)


@dataclass
class SequentialRecommenderConfig(NextItemRecommenderConfig):
    """Options that all backbones have; defaults chosen on the validation rows of MovieTweetings-100K."""

    examples: Literal["windows", "rows"] = option(
        "windows: one pass learns all rows of a stretch of a user's sequence; rows: each row by a pass of its own, "
        "which costs Caser no more.",
        default="windows",
    )
    stride: int | None = option(
        "Rows that each further window of a user adds; the fewer, the longer their histories. none: half of "
        "max_history.",
        default=None,
    )
    loss: Literal["softmax", "sampled", "gbce"] = option(
        "softmax: over all items; sampled: over sampled items, with log-Q correction; gbce: generalised binary "
        "cross-entropy with sampled items.",
        default="softmax",
    )
    num_negatives: int = option("Items sampled per step, for the losses sampled and gbce.", default=256)
    negative_power: float = option(
        "Items of the loss sampled are drawn in proportion to their frequency to this power, in [0, 1].", default=0.5
    )
    calibration: float = option("t of gbce: 0 is binary cross-entropy, 1 gives calibrated scores.", default=0.75)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"stride must be at least 1 (got {self.stride})")
        check_loss_options(self)


NextItemT = TypeVar("NextItemT", bound=NextItemRecommenderConfig, default=Any)
SequentialT = TypeVar("SequentialT", bound=SequentialRecommenderConfig, default=Any)


class NextItemRecommender(Recommender[NextItemT]):
    """A model trained by a `NextItemTrainer`: fit, resume, save, load. How it scores is the subclass's.

    A subclass sets `model_class`; options of its config that the model's config has too go there by name.

    Raises:
        ValueError: an option that the model refuses, whatever the data.
    """

    config_class: ClassVar[type[RecommenderConfig]] = NextItemRecommenderConfig
    model_class: ClassVar[Any]
    trainer_class: ClassVar[type[NextItemTrainer]] = NextItemTrainer

    def __init__(self, config: NextItemT | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        with torch.device("meta"):  # without weights: the model says now which options it refuses
            self.model_class(self._config_of_model(num_items=1, max_history=_LONG))
        self._model: Any = None

    @property
    def model(self) -> Any:
        """The trained model, in evaluation mode."""
        return self._fitted(self._model)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def _fit(self, data: SequenceSplits, folder: Path) -> None:
        """Learn from `data.train`; stop early on `ndcg@10` of `data.validation`."""
        model = self._new_model(data)
        train = self._train_dataset(data)
        arguments = next_item_arguments(
            folder,
            max_epochs=self.config.max_epochs,
            batch_size=self._examples_per_step(train),
            learning_rate=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            seed=self.config.seed,
            data_seed=self.config.seed,
        )
        trainer = self.trainer_class(
            model,
            arguments,
            train,
            NextItemRows(data.validation),
            patience=self.config.patience,
            callbacks=self.callbacks,
        )
        trainer.train(resume_from_checkpoint=True)
        self._model = model.eval()

    def _train_dataset(self, splits: SequenceSplits) -> NextItemRows | NextItemWindows:
        return NextItemRows(splits.train)

    def _examples_per_step(self, train: NextItemRows | NextItemWindows) -> int:
        """Of a training step: as many as hold `batch_size` rows on average, a multiple of the processes."""
        size = self.config.batch_size
        if isinstance(train, NextItemRows):
            return size
        count: int = processes().num_processes
        return count * max(1, round(size * len(train) / train.num_targets / count))

    def _new_model(self, splits: SequenceSplits) -> Any:
        return self.model_class(self._config_of_model(splits.num_items, splits.protocol["max_history"]))

    def _config_of_model(self, num_items: int, max_history: int) -> Any:
        kind: Any = self.model_class.config_class
        known = {f.name for f in dataclasses.fields(kind)}
        shared = {name: value for name, value in dataclasses.asdict(self.config).items() if name in known}
        return kind(num_items=num_items, max_history=max_history, **shared)

    def _save(self, folder: Path) -> None:
        with quiet():
            self.model.save_pretrained(folder / _MODEL)

    def _load(self, folder: Path) -> None:
        if not (folder / _MODEL).is_dir():
            raise FileNotFoundError(f"no folder {_MODEL!r} in {folder}: it is incomplete, save the recommender again")
        with quiet():
            self._model = self.model_class.from_pretrained(folder / _MODEL).eval()


class SequentialRecommender(NextItemRecommender[SequentialT]):
    """A backbone of the core, which scores all items by its state's products with their embeddings."""

    config_class: ClassVar[type[RecommenderConfig]] = SequentialRecommenderConfig
    model_class: ClassVar[type[SequentialModel]]

    @property
    def model(self) -> SequentialModel:
        """The trained backbone, in evaluation mode."""
        backbone: SequentialModel = super().model
        return backbone

    def _train_dataset(self, splits: SequenceSplits) -> NextItemRows | NextItemWindows:
        if self.config.examples == "rows":
            return super()._train_dataset(splits)
        rows = splits.train
        return NextItemWindows(
            rows.sequences,
            rows.user,
            rows.position,
            max_history=splits.protocol["max_history"],
            stride=self.config.stride,
            weight=rows.weight,
        )

    def _new_model(self, splits: SequenceSplits) -> SequentialModel:
        model: SequentialModel = super()._new_model(splits)
        model.set_item_frequency(splits.catalogue.popularity)
        return model

    def _score(self, histories: Tensor) -> Tensor:
        return self.model.scores(histories)


@dataclass
@new_defaults(dropout=0.3, learning_rate=4e-3)
class GRU4RecRecommenderConfig(SequentialRecommenderConfig):
    """Options of `GRU4RecRecommender`."""

    num_layers: int = option("Stacked GRU layers.", default=1)


class GRU4RecRecommender(SequentialRecommender[GRU4RecRecommenderConfig]):
    """`predilect.modeling.GRU4Rec`: a recurrent network."""

    name = "gru4rec"
    config_class = GRU4RecRecommenderConfig
    model_class = GRU4Rec


@dataclass
@new_defaults(dropout=0.5, max_epochs=15, learning_rate=4e-3, examples="rows")
class CaserRecommenderConfig(SequentialRecommenderConfig):
    """Options of `CaserRecommender`."""

    filter_heights: tuple[int, ...] = option("Heights of the horizontal filters, in items.", default=(2, 3, 4))
    num_horizontal: int = option("Horizontal filters per height.", default=16)
    num_vertical: int = option("Filters along the history, each a weighted sum of its items' embeddings.", default=4)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.filter_heights = tuple(self.filter_heights)  # JSON gives lists
        if not self.filter_heights or min(self.filter_heights) < 1:
            raise ValueError(f"filter_heights must be numbers of at least 1 (got {self.filter_heights})")


class CaserRecommender(SequentialRecommender[CaserRecommenderConfig]):
    """`predilect.modeling.Caser`: convolutions along time and along the embedding."""

    name = "caser"
    config_class = CaserRecommenderConfig
    model_class = Caser


@dataclass
@new_defaults(dropout=0.4, learning_rate=4e-3)
class NextItNetRecommenderConfig(SequentialRecommenderConfig):
    """Options of `NextItNetRecommender`."""

    kernel_size: int = option("Neighbouring items that one filter of a convolution sees.", default=3)
    dilations: tuple[int, ...] = option(
        "One residual block per entry l, whose two convolutions look at every l-th and every 2l-th item.",
        default=(1, 2),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dilations = tuple(self.dilations)  # JSON gives lists


class NextItNetRecommender(SequentialRecommender[NextItNetRecommenderConfig]):
    """`predilect.modeling.NextItNet`: dilated causal convolutions."""

    name = "nextitnet"
    config_class = NextItNetRecommenderConfig
    model_class = NextItNet


@dataclass
class SASRecRecommenderConfig(SequentialRecommenderConfig):
    """Options of `SASRecRecommender`."""

    num_layers: int = option("Self-attention blocks.", default=2)
    num_heads: int = option("Attention heads; divides hidden_size.", default=2)


class SASRecRecommender(SequentialRecommender[SASRecRecommenderConfig]):
    """`predilect.modeling.SASRec`: causal self-attention."""

    name = "sasrec"
    config_class = SASRecRecommenderConfig
    model_class = SASRec
