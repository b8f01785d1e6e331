"""`SequentialModel`: the one interface of all sequential backbones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from predilect.modeling.losses import draw_negatives, gbce_loss, sampled_softmax_loss, softmax_loss

LOSSES = ("softmax", "sampled", "gbce")


def check_loss_options(config: Any) -> None:
    """Raise ValueError where `loss`, `num_negatives`, `negative_power` or `calibration` is out of range."""
    if config.loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)} (got {config.loss!r})")
    if config.num_negatives < 1:
        raise ValueError(f"num_negatives must be at least 1 (got {config.num_negatives})")
    for name in ("negative_power", "calibration"):
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name} must be in [0, 1] (got {getattr(config, name)})")


class SequentialConfig(PreTrainedConfig):
    """What every backbone has.

    Args:
        num_items: N, the number of items; ids are 1..N.
        hidden_size: d, width of item embeddings and states.
        max_history: a state looks at the last `max_history` items; what is older is cut off.
        dropout: probability in [0, 1).
        initializer_range: standard deviation of the embeddings at the start.
        loss: "softmax" over all items; "sampled", the softmax with sampled negatives and log-Q correction; "gbce", the
            generalised binary cross-entropy with sampled negatives. See `predilect.modeling.losses`.
        num_negatives: items sampled per batch, of "sampled" and "gbce".
        negative_power: negatives of "sampled" are drawn in proportion to (item frequency + 1) ** negative_power; those
            of "gbce" are uniform.
        calibration: t of "gbce", in [0, 1].

    Raises:
        ValueError: a value is out of range (also NaN).
    """

    model_type = "predilect_sequential"

    num_items: int = 1
    hidden_size: int = 64
    max_history: int = 10
    dropout: float = 0.2
    initializer_range: float = 0.02
    loss: str = "softmax"
    num_negatives: int = 256
    negative_power: float = 0.5
    calibration: float = 0.75

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        self.at_least_one("num_items", "hidden_size", "max_history")
        check_loss_options(self)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1) (got {self.dropout})")
        if not 0 < self.initializer_range < float("inf"):
            raise ValueError(f"initializer_range must be a positive number (got {self.initializer_range})")

    def at_least_one(self, *names: str) -> None:
        """Raise ValueError where the named field is below 1."""
        for name in names:
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")


@dataclass
class SequentialOutput(ModelOutput):
    """What `forward` returns.

    Attributes:
        loss: weighted mean of the targets' losses; None without targets.
        scores: (B, N), column `j` is item `j + 1`; None with targets: their losses do not need all scores at once.
    """

    loss: Tensor | None = None
    scores: Tensor | None = None


class SequentialModel(PreTrainedModel, ABC):
    r"""A sequence of items to a state, a state to a score for every item.

    With the state :math:`s` of a history and the embedding :math:`e_i` of item :math:`i`, which the input and the
    output share,

    .. math:: score_i = s \cdot e_i + b_i, \qquad loss = -\log softmax(score)_{target}.

    The softmax runs over the whole catalogue for all backbones, so that they differ in architecture only. The papers
    train with pairwise ranking losses or sampled negatives; the full softmax needs no sampler and is the stronger loss
    (Klenitskiy and Vasilev, RecSys 2023, arXiv 2309.07602). It is computed in chunks, in memory that does not grow
    with targets x items; where a catalogue is so large that it takes too long, `config.loss` names the sampled ones.
    The item bias :math:`b` carries popularity; it is all that an empty history is ranked by.

    States are causal: the one at a position is that of the history cut there, to the last item. So a window of a
    sequence trains on the item after each of its positions in one pass.

    Histories are padded with 0 on the left, to any width: padding changes nothing. The embedding of 0 is zero, is
    never trained, and 0 is never ranked. Only the last `config.max_history` items count.

    A subclass sets `config_class` and implements `_states` and, where that is cheaper, `_last_state`.
    """

    config_class = SequentialConfig
    base_model_prefix = ""
    main_input_name = "history"

    def __init__(self, config: SequentialConfig) -> None:
        super().__init__(config)
        self.items = nn.Embedding(config.num_items + 1, config.hidden_size, padding_idx=0)
        self.item_bias = nn.Parameter(torch.zeros(config.num_items))
        self.dropout = nn.Dropout(config.dropout)
        self.item_frequency: Tensor | None = None

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`; scores equal those of the saved model to the last bit.

        Weights are copied out of the file mapped into memory, where they lie unaligned: there, processors sum products
        in another order.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        return loaded

    @property
    def item_embeddings(self) -> Tensor:
        """(N + 1, d); row 0 is padding and zero."""
        return self.items.weight

    def encode(self, history: Tensor) -> Tensor:
        """States after every position, (B, L, d): position `t` has seen columns up to `t`. Zero at padding."""
        cut, mask = self._cut(history)
        states = self._states(self._inputs(cut), mask) * mask.unsqueeze(-1)
        return F.pad(states, (0, 0, history.shape[1] - cut.shape[1], 0))

    def last_state(self, history: Tensor) -> Tensor:
        """The state after the whole history, (B, d): `encode(history)[:, -1]`, at less cost. Zero if it is empty."""
        cut, mask = self._cut(history)
        return self._last_state(self._inputs(cut), mask) * mask[:, -1:]

    def scores(self, history: Tensor) -> Tensor:
        """Scores of all items, (B, N): column `j` is item `j + 1`."""
        return F.linear(self.last_state(history), self.items.weight[1:], self.item_bias)

    def forward(self, history: Tensor, target: Tensor | None = None, weight: Tensor | None = None) -> SequentialOutput:
        """Scores; or, where targets are given, the next-item loss.

        Args:
            history: (B, L) item ids, oldest first, padded with 0 on the left.
            target: (B,) item ids 1..N, each the item after a whole history; or (B, L), each the item after the history
                up to its column, 0 where there is nothing to learn.
            weight: of each target, at least 0, in the mean; shaped like `target`. None: all alike.

        Raises:
            ValueError: wrong shapes, ids outside 0..N (targets after whole histories: 1..N), padding that is not on
                the left.
        """
        if target is None:
            return SequentialOutput(scores=self.scores(history))
        if target.shape not in (history.shape[:1], history.shape):
            raise ValueError(
                f"target must have shape ({len(history)},), one per history, or {tuple(history.shape)}, one per "
                f"position (got {tuple(target.shape)})"
            )
        if weight is not None and weight.shape != target.shape:
            raise ValueError(f"weight must have the shape of target {tuple(target.shape)} (got {tuple(weight.shape)})")
        if target.dim() == 1:
            self._check_range(target, 1, "targets")
            return SequentialOutput(loss=self._loss(self.last_state(history), target, weight))
        self._check_range(target, 0, "targets")
        learnt = target != 0
        states = self.encode(history)[learnt]
        return SequentialOutput(loss=self._loss(states, target[learnt], None if weight is None else weight[learnt]))

    def set_item_frequency(self, counts: Sequence[int]) -> None:
        """How often each item 1..N occurs in training: what negatives are drawn by. Not saved with the weights."""
        if len(counts) != self.config.num_items:
            raise ValueError(
                f"counts must have one entry for each of {self.config.num_items} items (got {len(counts)})"
            )
        self.item_frequency = torch.tensor(counts, device=self.device)

    def _loss(self, states: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        config, inputs = self.config, (states, self.items.weight, self.item_bias, target)
        if config.loss == "softmax":
            return softmax_loss(*inputs, weight)
        power = config.negative_power if config.loss == "sampled" else 0.0
        if self.item_frequency is not None:
            self.item_frequency = self.item_frequency.to(states.device)
        drawn, log_expected = draw_negatives(config.num_items, config.num_negatives, self.item_frequency, power)
        drawn, log_expected = drawn.to(states.device), log_expected.to(states.device)
        if config.loss == "sampled":
            return sampled_softmax_loss(*inputs, drawn, log_expected, weight)
        return gbce_loss(*inputs, drawn, config.calibration, weight)

    @abstractmethod
    def _states(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """States (B, L, d) from embedded items (B, L, d) and the mask of what is no padding (B, L)."""

    def _last_state(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """`_states(inputs, mask)[:, -1]`."""
        return self._states(inputs, mask)[:, -1]

    def _inputs(self, history: Tensor) -> Tensor:
        embedded: Tensor = self.dropout(self.items(history))
        return embedded

    def _cut(self, history: Tensor) -> tuple[Tensor, Tensor]:
        if history.dim() != 2 or history.shape[1] == 0 or history.is_floating_point():
            raise ValueError(
                f"history must be (batch, length >= 1) of integer ids (got {tuple(history.shape)}, {history.dtype})"
            )
        self._check_range(history, 0, "histories")
        history = history[:, -self.config.max_history :]
        mask = history != 0
        if bool((mask[:, :-1] & ~mask[:, 1:]).any()):
            raise ValueError("histories must be padded with 0 on the left only (got 0 after an item)")
        return history, mask

    def _check_range(self, ids: Tensor, lowest: int, what: str) -> None:
        if not ids.numel():
            return
        low, high = (int(x) for x in ids.aminmax())
        if low < lowest or high > self.config.num_items:
            raise ValueError(f"{what} must hold ids in {lowest}..{self.config.num_items} (got {low}..{high})")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self.config.initializer_range)
            if module.padding_idx is not None:
                init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.Linear | nn.Conv1d):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, SequentialModel):
            init.zeros_(module.item_bias)
