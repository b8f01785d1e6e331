"""Options of the model and of sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from seqrec_diffusion.schedules import SAMPLERS, SCHEDULES

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


class DreamRecConfig(PreTrainedConfig):
    """Options of `DreamRecModel`; the defaults are the paper's.

    Args:
        num_items: N, the number of items; ids are 1..N.
        hidden_size: d, width of item embeddings, states and noise; even, at least 4.
        max_history: a state looks at the last `max_history` items.
        dropout: of the encoder, in [0, 1).
        initializer_range: standard deviation of the item embeddings at the start. That of the noise is 1: a smaller
            table drowns in it, and only the state is left to tell the item (see `item_norm`).
        encoder: "transformer" (the paper's), or a backbone of the core: "sasrec", "gru4rec", "caser", "nextitnet".
        encoder_options: more options of the backbone's config, such as `{"num_layers": 1}`.
        denoiser: "mlp1", "mlp2" or "residual".
        timesteps: T, number of diffusion steps.
        schedule: of the noise, "linear", "cosine", "exp" or "sqrt". Sampling starts from pure noise, which "linear"
            reaches with a T of some hundreds only: with T = 50 its last step keeps 60 % of the signal's variance.
        null_probability: p, the share of training rows whose state is replaced by the learned null state, in [0, 1).
            Without (0) there is nothing to guide against.
        objective: "diffusion", or "softmax": the encoder alone with the core's softmax head, the control.
        error: of the predicted x_0: "squared" (the paper's), or "cosine", (1 - cos)^2, which ignores the norm.
        error_weight: of that error in the loss.
        detach_target: no gradient reaches the table through the target x_0; the encoder and the cross-entropy, if any,
            train it.
        item_norm: items have this length as targets and in scores, and cannot shrink. None: their own. Noise has the
            length sqrt(d): at that of the items the noisy item alone tells which one it was at most timesteps, and the
            state is hardly asked; at a tenth or less the history decides.
        cross_entropy_weight: of the softmax over all items of the predicted x_0's inner products.
        temperature: those inner products are divided by it.
        preference_weight: of the preference of the target over the mean of the batch's other targets.
        preference_scale: of the difference of errors in that preference.

    Raises:
        ValueError: a value is out of range, or a term of the loss asks for what is switched off.
    """

    model_type = "dreamrec"

    num_items: int = 1
    hidden_size: int = 64
    max_history: int = 10
    dropout: float = 0.1
    initializer_range: float = 1.0
    encoder: str = "transformer"
    encoder_options: dict[str, Any] | None = None
    denoiser: str = "mlp1"
    timesteps: int = 500
    schedule: str = "linear"
    null_probability: float = 0.1
    objective: str = "diffusion"
    error: str = "squared"
    error_weight: float = 1.0
    detach_target: bool = False
    item_norm: float | None = None
    cross_entropy_weight: float = 0.0
    temperature: float = 1.0
    preference_weight: float = 0.0
    preference_scale: float = 1.0

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        check_model_options(self)
        _at_least("num_items", self.num_items, 1)
        _at_least("max_history", self.max_history, 1)


def check_model_options(options: Any) -> None:
    """Raise ValueError where an option that the model's and the recommender's config share is out of range."""
    for name, choices in (
        ("encoder", ENCODERS),
        ("denoiser", DENOISERS),
        ("schedule", SCHEDULES),
        ("objective", OBJECTIVES),
        ("error", ERRORS),
    ):
        _require(name, getattr(options, name), choices)
    if options.hidden_size < 4 or options.hidden_size % 2:
        raise ValueError(f"hidden_size must be even and at least 4 (got {options.hidden_size})")
    for name in ("dropout", "null_probability"):
        if not 0 <= getattr(options, name) < 1:
            raise ValueError(f"{name} must be in [0, 1) (got {getattr(options, name)})")
    _at_least("timesteps", options.timesteps, 1)
    for name in ("error_weight", "cross_entropy_weight", "preference_weight"):
        _at_least(name, getattr(options, name), 0)
    if options.item_norm is not None:
        _positive("item_norm", options.item_norm)
    for name in ("initializer_range", "temperature", "preference_scale"):
        _positive(name, getattr(options, name))
    if not options.error_weight + options.cross_entropy_weight + options.preference_weight:
        raise ValueError(
            "error_weight, cross_entropy_weight and preference_weight are all 0: nothing is left to learn"
        )
