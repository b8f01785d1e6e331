"""`PreferenceConfig`: TRL's `DPOConfig` with the parts of the objective, and one preset per method."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from trl import DPOConfig

from predilect.configuration import new_defaults
from pref_losses.objective import Objective


def _option(help: str, default: Any) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class PreferenceConfig(DPOConfig):
    """Configuration of a `PreferenceTrainer`: everything `DPOConfig` has, and one choice for each part of the
    objective.

    `loss = reduce_i link(beta_i * (s(chosen) - s(rejected)) - margin_i)`. The defaults are plain DPO.

    Parameters that control the objective are listed with what raising them does; for formulas see
    `pref_losses.functional`.
    """

    score: str = _option(
        "'log_ratio': log pi - log ref, summed over tokens (DPO); 'mean_logp': log pi per token (SimPO).",
        "log_ratio",
    )
    gamma_beta_ratio: float = _option(
        "Target margin as a multiple of beta. Raise it and pairs must be told apart by more.", 0.0
    )
    margin_alpha: float = _option(
        "alpha-DPO: raise it and the margin follows more closely how far policy and reference separate a pair.", 0.0
    )
    margin_convention: str = _option(
        "'code' multiplies margin_alpha by beta, as the published values assume; 'paper' does not.", "code"
    )
    margin_normalise: bool = _option(
        "alpha-DPO: standardise the gap that the margin follows (False: the paper's ablation).", True
    )
    margin_stop_gradient: bool = _option(
        "alpha-DPO: let no gradient through the margin (False: the paper's ablation; training collapses).", True
    )
    beta_alpha: float = _option(
        "beta-DPO: raise it and beta grows more with the batch's mean gap; 0 keeps beta fixed.", 0.0
    )
    beta_convention: str = _option(
        "beta-DPO's gap as log-ratio ('code', as the published values assume) or as reward ('paper').", "code"
    )
    keep: float = _option(
        "beta-DPO: fraction of a batch kept by the filter, (0, 1]. The authors' mode_weight is 1 - keep.", 1.0
    )
    link: str = _option(
        "'sigmoid': pairs one by one; 'softmax': one chosen against all rejected (S-DPO); 'flip_corrected': rDPO.",
        "sigmoid",
    )
    reduction: str = _option("'mean', or 'robust': Dr. DPO's soft minimum over the batch.", "mean")
    beta_prime: float = _option("Dr. DPO: raise it and pairs are trusted more; infinity is the mean.", 1.0)
    moments_decay: float = _option("Weight of the past in the running moments of the gaps, [0, 1).", 0.9)
    batch_scope: str = _option(
        "What couples examples is computed over the 'global' optimizer batch (all processes and accumulation steps, "
        "at the price of one more forward pass where gradients are accumulated) or over each 'micro' batch, "
        "as the authors' code does (their moments too are those of all processes).",
        "global",
    )
    num_negatives: int | None = _option("Use at most this many of a row's rejected answers; None: all.", None)
    resample_negatives: bool = _option(
        "Draw the num_negatives rejected answers of a row anew every epoch instead of once.", False
    )
    prefix_sharing: str = _option(
        "Compute a prompt once for all its answers: 'auto' (where the model allows it), 'true' or 'false'.", "auto"
    )
    ref_log_probs_file: str | None = _option(
        "Read precomputed reference log-probs from this file if it exists, write them there if not.", None
    )

    def __post_init__(self) -> None:
        self.prefix_sharing = str(self.prefix_sharing).lower()  # YAML and Python say true and True
        if self.prefix_sharing not in ("auto", "true", "false"):
            raise ValueError(f"prefix_sharing is 'auto', 'true' or 'false' (got {self.prefix_sharing!r})")
        if self.batch_scope not in ("global", "micro"):
            raise ValueError(f"batch_scope is 'global' or 'micro' (got {self.batch_scope!r})")
        if self.num_negatives is not None and self.num_negatives < 1:
            raise ValueError(f"num_negatives must be at least 1 (got {self.num_negatives})")
        if self.resample_negatives and self.num_negatives is None:
            raise ValueError(
                "resample_negatives draws num_negatives of a row's rejected answers: set num_negatives too"
            )
        if not 0 <= self.moments_decay < 1:
            raise ValueError(f"moments_decay lies in [0, 1) (got {self.moments_decay})")
        if self.ref_log_probs_file is not None:
            self.precompute_ref_log_probs = True
        super().__post_init__()
        self._refuse_what_trl_alone_offers()
        if not self.objective().needs_reference and self.sync_ref_model:
            raise ValueError(
                "sync_ref_model needs a reference, which score='mean_logp' without margin_alpha has not: leave it out"
            )

    def objective(self) -> Objective:
        """The parts as an `Objective`; raises `ValueError` where they do not go together."""
        return Objective(**{f.name: getattr(self, f.name) for f in fields(Objective)})

    def _refuse_what_trl_alone_offers(self) -> None:
        for name, default in (
            ("loss_type", ["sigmoid"]),
            ("loss_weights", None),
            ("f_divergence_type", "reverse_kl"),
            ("ld_alpha", None),
            ("use_weighting", False),
            ("padding_free", False),
        ):
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} belongs to TRL's own losses, and this trainer composes its loss "
                    f"from parts: leave {name} at {default!r}, or use trl.DPOTrainer"
                )


@dataclass
@new_defaults(score="mean_logp", beta=10.0, gamma_beta_ratio=0.4, margin_alpha=0.05)
class AlphaDPOConfig(PreferenceConfig):
    """alpha-DPO (arXiv 2410.10148): SimPO with an adaptive margin. Defaults: the paper's suggestion, beta 10 (it names
    2 to 10), alpha 0.05.
    """


@dataclass
@new_defaults(beta=0.1, beta_alpha=0.6, keep=0.8)
class BetaDPOConfig(PreferenceConfig):
    """beta-DPO (arXiv 2407.08639): a beta that follows the batch's gap, on the examples near the usual gap."""


@dataclass
@new_defaults(beta=0.1, reduction="robust")
class DrDPOConfig(PreferenceConfig):
    """Dr. DPO (arXiv 2407.07880): a batch mean that is robust to flipped pairs."""


@dataclass
@new_defaults(beta=1.0, link="softmax")
class SoftmaxDPOConfig(PreferenceConfig):
    """Softmax-DPO, S-DPO (arXiv 2406.09215): one chosen answer against several rejected ones, beta 1."""
