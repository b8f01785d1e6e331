"""Options of the agents: one set of weights of losses, of which each agent is a choice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from predilect.configuration import option
from predilect.modeling.sequential import SequentialConfig

LOSS, MODEL = "Loss", "Model-based parts"
WEIGHTS = (
    "cross_entropy_weight",
    "value_weight",
    "negative_weight",
    "conservative_weight",
    "reward_weight",
    "transition_weight",
    "imagined_weight",
    "remaining_weight",
)
BACKBONES = ("sasrec", "gru4rec", "caser", "nextitnet")


@dataclass
class AgentOptions:
    """What every agent's loss is made of; a weight of 0 switches its part off."""

    backbone: Literal["sasrec", "gru4rec", "caser", "nextitnet"] = option(
        "Network that turns a history into a state.", default="sasrec"
    )
    backbone_options: dict[str, Any] = option("Further options of the backbone, such as num_layers.", default={})
    head: Literal["q", "ce"] = option(
        "What items are ranked by: q, the values; ce, the head that cross-entropy trains.", default="ce"
    )
    discount: float = option("What a reward one step later is worth, gamma in [0, 1].", panel=LOSS, default=0.5)
    value_loss: Literal["squared", "huber"] = option(
        "Of the difference between a value and its target: half its square, or Huber's.", panel=LOSS, default="squared"
    )
    cross_entropy_weight: float = option("Of the next-item cross-entropy.", panel=LOSS, default=1.0)
    value_weight: float = option("Of the temporal difference.", panel=LOSS, default=0.0)
    negative_weight: float = option(
        "Of the values of sampled items, which earn nothing and change nothing (SNQN).", panel=LOSS, default=0.0
    )
    conservative_weight: float = option("Of conservative value learning, CQL(H).", panel=LOSS, default=0.0)
    remaining_weight: float = option(
        "Of predicting how many events of the session remain, a task without rewards.", panel=LOSS, default=0.0
    )
    advantage_after: int | None = option(
        "Steps after which the advantage of the taken item weights the cross-entropy (SA2C); none: never.",
        panel=LOSS,
        default=None,
    )
    advantage_clip: float = option("Largest weight by advantage; the smallest is 0.", panel=LOSS, default=10.0)
    catalogue: Literal["full", "sampled"] = option(
        "What conservative learning and the best next item look at: all items, or sampled ones, whose memory does not "
        "grow with the items.",
        panel=LOSS,
        default="full",
    )
    num_negatives: int = option("Items sampled per step, wherever items are sampled.", panel=LOSS, default=32)
    target_rate: float = option(
        "Share of the trained copy that the target copy takes over at each update, in (0, 1]; 1: a hard copy.",
        panel=LOSS,
        default=0.005,
    )
    target_every: int = option("Steps between two updates of the target copy.", panel=LOSS, default=1)
    reward_weight: float = option("Of the contrastive reward model.", panel=MODEL, default=0.0)
    transition_weight: float = option("Of the contrastive transition model.", panel=MODEL, default=0.0)
    imagined_weight: float = option(
        "Of values of sampled items whose reward and next state the two models imagine.", panel=MODEL, default=0.0
    )
    temperature: float = option("tau of both contrasts.", panel=MODEL, default=0.1)

    def check_options(self) -> None:
        """Raise ValueError where an option is out of range, or does nothing (also NaN)."""
        for name in (*WEIGHTS, "advantage_clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0 (got {getattr(self, name)})")
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount must be in [0, 1] (got {self.discount})")
        if not 0 < self.target_rate <= 1:
            raise ValueError(f"target_rate must be in (0, 1] (got {self.target_rate})")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be a positive number (got {self.temperature})")
        for name in ("num_negatives", "target_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")
        if self.advantage_after is not None and self.advantage_after < 0:
            raise ValueError(f"advantage_after must be at least 0, or none (got {self.advantage_after})")
        self._check_parts()

    def _check_parts(self) -> None:
        values = ("value_weight", "negative_weight", "conservative_weight", "imagined_weight")
        if self.head == "q" and not any(getattr(self, name) for name in values):
            raise ValueError(f"head q ranks by values, and nothing trains them: set one of {', '.join(values)}")
        if self.head == "ce" and not self.cross_entropy_weight:
            raise ValueError("head ce ranks by the head of the cross-entropy: set cross_entropy_weight above 0")
        if self.advantage_after is not None and not (self.value_weight and self.cross_entropy_weight):
            raise ValueError("advantage_after weights the cross-entropy by values: set both weights above 0")
        if self.imagined_weight and not (self.reward_weight and self.transition_weight):
            raise ValueError("imagined_weight needs both models: set reward_weight and transition_weight above 0")

    @property
    def has_values(self) -> bool:
        """Whether any part of the loss trains values."""
        return bool(self.value_weight or self.negative_weight or self.conservative_weight or self.imagined_weight)

    @property
    def has_target(self) -> bool:
        """Whether any part of the loss reads the target copy."""
        return bool(self.value_weight or self.negative_weight or self.transition_weight or self.imagined_weight)


class AgentConfig(AgentOptions, SequentialConfig):
    """Options of `AgentModel`: those of `AgentOptions`, and num_items, hidden_size, max_history, dropout.

    Raises:
        ValueError: a value is out of range (also NaN).
    """

    model_type = "predilect_agent"

    if TYPE_CHECKING:  # transformers makes the real one, which type checkers do not see

        def __init__(self, **options: Any) -> None: ...

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone must be one of {', '.join(BACKBONES)} (got {self.backbone!r})")
        self.check_options()
