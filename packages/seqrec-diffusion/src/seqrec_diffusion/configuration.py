"""Options of the model and of sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from transformers import PreTrainedConfig

from predilect.configuration import option
from seqrec_diffusion.schedules import SAMPLERS, SCHEDULES

NETWORK, DIFFUSION, LOSS, SAMPLING = "Network", "Diffusion", "Loss", "Sampling"
ENCODERS = ("transformer", "sasrec", "gru4rec", "caser", "nextitnet")
DENOISERS = ("mlp1", "mlp2", "residual")
OBJECTIVES = ("diffusion", "softmax")
ERRORS = ("squared", "cosine")
SIMILARITIES = ("dot", "cosine")


def _require(name: str, value: object, choices: Any) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)} (got {value!r})")


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number (got {value})")


def _at_least(name: str, value: float, lowest: float) -> None:
    if not lowest <= value < math.inf:
        raise ValueError(f"{name} must be a number of at least {lowest} (got {value})")


@dataclass(frozen=True)
class Sampling:
    """How oracle items are generated and compared; none of it needs another training.

    Attributes:
        sampler: "ddpm" (the paper's, stochastic), "ddim" or "dpm-solver++" (deterministic after the first noise).
        steps: of the sampler, at most the T of the model; None: T.
        guidance: w >= 0 in (1 + w) f(x, h, t) - w f(x, null, t); 0 is conditional sampling. The `guidance_scale` of
            diffusers is 1 + w.
        draws: oracle items that are averaged per history.
        similarity: of oracle and item: "dot" (the paper's), which favours items of large norm, or "cosine".
        seed: of the noise. A history's noise depends on the seed and the history only.

    Raises:
        ValueError: a value that is out of range.
    """

    sampler: str = "ddim"
    steps: int | None = 20
    guidance: float = 2.0
    draws: int = 1
    similarity: str = "dot"
    seed: int = 0

    def __post_init__(self) -> None:
        _require("sampler", self.sampler, SAMPLERS)
        _require("similarity", self.similarity, SIMILARITIES)
        if self.steps is not None:
            _at_least("steps", self.steps, 1)
        _at_least("guidance", self.guidance, 0)
        _at_least("draws", self.draws, 1)


@dataclass
class DreamRecOptions:
    """Options of the network and its loss: those that the model's config and the recommender's share.

    The defaults are the stable objective, which ranks far better on validation rows than the paper's: items short
    beside the noise, the cosine error, a cross-entropy over all items, the core's SASRec as encoder. The presets
    `zhihu`, `yoochoose` and `kuairec` are the paper's: its encoder, the squared error alone, items as long as the
    noise.

    Raises:
        ValueError: a value is out of range, or a term of the loss asks for what is switched off.
    """

    hidden_size: int = option(
        "Width of item embeddings, states and noise; even, at least 4.", panel=NETWORK, default=64
    )
    dropout: float = option("Dropout probability of the encoder, in [0, 1).", panel=NETWORK, default=0.3)
    initializer_range: float = option(
        "Standard deviation of the item embeddings at the start. That of the noise is 1: a smaller table drowns in it "
        "and only the history is left to tell the item.",
        panel=NETWORK,
        default=0.02,
    )
    encoder: Literal["transformer", "sasrec", "gru4rec", "caser", "nextitnet"] = option(
        "Network that turns a history into the state which guides the diffusion: a backbone of the core, or "
        "transformer, the paper's.",
        panel=NETWORK,
        default="sasrec",
    )
    encoder_options: dict[str, Any] = option(
        'More options of the encoder\'s config, such as {"num_layers": 1}.', panel=NETWORK, default={}
    )
    denoiser: Literal["mlp1", "mlp2", "residual"] = option(
        "Network that predicts the item from the noisy one, the state and the time: mlp1 is one linear layer, mlp2 "
        "has a hidden layer of twice the width, residual a hidden layer to which its inputs are added.",
        panel=NETWORK,
        default="mlp1",
    )
    timesteps: int = option("T, the number of diffusion steps.", panel=DIFFUSION, default=500)
    schedule: Literal["linear", "cosine", "exp", "sqrt"] = option(
        "How the noise grows over the steps. Sampling starts from pure noise, which linear reaches with some hundreds "
        "of steps only: with 50, its last step keeps 60 % of the signal's variance.",
        panel=DIFFUSION,
        default="linear",
    )
    null_probability: float = option(
        "Share of training rows whose state is replaced by the learned null state, in [0, 1); at 0 there is nothing "
        "to guide against.",
        panel=DIFFUSION,
        default=0.1,
    )
    objective: Literal["diffusion", "softmax"] = option(
        "What is trained; softmax: the same encoder as a classifier, without diffusion, the control.",
        panel=LOSS,
        default="diffusion",
    )
    error: Literal["squared", "cosine"] = option(
        "Error of the denoised item: its squared distance to the target (the paper's), or (1 - cosine)^2, which "
        "ignores the length.",
        panel=LOSS,
        default="cosine",
    )
    error_weight: float = option("Weight of the denoised item's error in the loss.", panel=LOSS, default=1.0)
    detach_target: bool = option(
        "The error does not train the target's embedding; the encoder and the cross-entropy, if any, do.",
        panel=LOSS,
        default=False,
    )
    item_norm: float | None = option(
        "Length of the items as targets and in scores; none: their own. Noise has the length sqrt(hidden_size): where "
        "items are as long, the noisy item alone tells which one it was at most steps, and the history is hardly "
        "asked; at a tenth or less the history decides.",
        panel=LOSS,
        default=0.3,
    )
    cross_entropy_weight: float = option(
        "Weight in the loss of the cross-entropy of the target, from the softmax over all items' products with the "
        "denoised item.",
        panel=LOSS,
        default=1.0,
    )
    temperature: float = option(
        "The products in the cross-entropy are divided by this: lower makes the softmax sharper.",
        panel=LOSS,
        default=0.1,
    )
    preference_weight: float = option(
        "Weight in the loss of preferring the target over the mean of the batch's other targets (PreferDiff).",
        panel=LOSS,
        default=0.0,
    )
    preference_scale: float = option(
        "In that preference, the difference of the two errors is multiplied by this: higher asks for a wider gap.",
        panel=LOSS,
        default=1.0,
    )

    def check_options(self) -> None:
        """Raise ValueError where one of these options is out of range."""
        for name, choices in (
            ("encoder", ENCODERS),
            ("denoiser", DENOISERS),
            ("schedule", SCHEDULES),
            ("objective", OBJECTIVES),
            ("error", ERRORS),
        ):
            _require(name, getattr(self, name), choices)
        if self.hidden_size < 4 or self.hidden_size % 2:
            raise ValueError(f"hidden_size must be even and at least 4 (got {self.hidden_size})")
        for name in ("dropout", "null_probability"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1) (got {getattr(self, name)})")
        _at_least("timesteps", self.timesteps, 1)
        for name in ("error_weight", "cross_entropy_weight", "preference_weight"):
            _at_least(name, getattr(self, name), 0)
        if self.item_norm is not None:
            _positive("item_norm", self.item_norm)
        for name in ("initializer_range", "temperature", "preference_scale"):
            _positive(name, getattr(self, name))
        if not self.error_weight + self.cross_entropy_weight + self.preference_weight:
            raise ValueError(
                "error_weight, cross_entropy_weight and preference_weight are all 0: nothing is left to learn"
            )


class DreamRecConfig(DreamRecOptions, PreTrainedConfig):
    """Config of `DreamRecModel`: the options of `DreamRecOptions`, and

    Args:
        num_items: N, the number of items; ids are 1..N.
        max_history: a state looks at the last `max_history` items.

    Raises:
        ValueError: a value is out of range, or a term of the loss asks for what is switched off.
    """

    model_type = "dreamrec"

    num_items: int = 1
    max_history: int = 10

    if TYPE_CHECKING:  # transformers makes the real one, which type checkers do not see

        def __init__(self, **options: Any) -> None: ...

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        self.check_options()
        _at_least("num_items", self.num_items, 1)
        _at_least("max_history", self.max_history, 1)
