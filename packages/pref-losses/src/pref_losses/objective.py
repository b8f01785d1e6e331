"""An objective as a choice of parts, split into what needs the whole batch and what needs one example.

Everything that couples examples (running moments, the filter, the dynamic beta, the robust mean's weights) carries no
gradient. So the gradient of every objective here is a weighted sum over examples,

    grad = sum_i  w_i * grad link( beta * gap_i - margin_i ),      w, beta, moments without gradient,

and `Objective.plan` computes w, beta and the moments from the log-probs of a whole batch, however it is spread over
micro-batches and processes, while `Objective.losses` computes the differentiable part of any share of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pref_losses.functional import (
    Convention,
    Moments,
    adaptive_margin,
    dynamic_beta,
    flip_corrected_link,
    keep_near_mean,
    preference_gaps,
    robust_mean,
    robust_weights,
    sigmoid_link,
    softmax_link,
)

Score = Literal["log_ratio", "mean_logp"]
Link = Literal["sigmoid", "flip_corrected", "softmax"]
Reduction = Literal["mean", "robust"]
_LEAST_WEIGHT = 1e-30


@dataclass(frozen=True)
class AnswerLogps:
    """Log-probabilities of the answers to B prompts: summed over tokens, or per token where the objective's score says
    so.

    Attributes:
        chosen: (B,) under the policy.
        rejected: (B, K) under the policy.
        ref_chosen: (B,) under the reference; None where the objective needs none.
        ref_rejected: (B, K).
        mask: (B, K) bool, False where an example has fewer than K rejected answers.
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor | None
    ref_rejected: Tensor | None
    mask: Tensor

    def detach(self) -> AnswerLogps:
        return AnswerLogps(self.chosen.detach(), self.rejected.detach(), self.ref_chosen, self.ref_rejected, self.mask)

    def __getitem__(self, rows: Tensor | slice) -> AnswerLogps:
        """Some of the examples, in the order asked for."""
        return AnswerLogps(
            self.chosen[rows],
            self.rejected[rows],
            None if self.ref_chosen is None else self.ref_chosen[rows],
            None if self.ref_rejected is None else self.ref_rejected[rows],
            self.mask[rows],
        )

    @staticmethod
    def concatenate(parts: Sequence[AnswerLogps]) -> AnswerLogps:
        """Several batches, whose K may differ, as one."""
        width = max(part.mask.shape[1] for part in parts)

        def joined(pieces: Sequence[Tensor]) -> Tensor:
            return torch.cat([F.pad(p, (0, width - p.shape[1])) if p.dim() == 2 else p for p in pieces])

        def joined_or_none(pieces: Sequence[Tensor | None]) -> Tensor | None:
            present = [p for p in pieces if p is not None]
            return joined(present) if present else None

        return AnswerLogps(
            joined([part.chosen for part in parts]),
            joined([part.rejected for part in parts]),
            joined_or_none([part.ref_chosen for part in parts]),
            joined_or_none([part.ref_rejected for part in parts]),
            joined([part.mask for part in parts]),
        )

    def log_ratio_gaps(self) -> Tensor:
        """How much more than the reference the policy prefers the chosen answer, (B, K); 0 where there is no
        answer.
        """
        assert self.ref_chosen is not None
        assert self.ref_rejected is not None
        gaps = preference_gaps(self.chosen - self.ref_chosen, self.rejected - self.ref_rejected)
        return torch.where(self.mask, gaps, 0.0)

    def example_gaps(self) -> Tensor:
        """The mean gap of every example over its rejected answers, (B,)."""
        return self.log_ratio_gaps().sum(1) / self.mask.sum(1)


@dataclass(frozen=True)
class Plan:
    """What couples the examples of one batch; no part of it carries a gradient.

    Attributes:
        beta: scalar in force.
        moments: of the gaps, for the margin.
        weights: (N,) of the examples, summing to 1; 0 for those that the filter left out and no others.
        loss: the value of the objective on the batch.
    """

    beta: Tensor
    moments: Moments | None
    weights: Tensor
    loss: Tensor


@dataclass(frozen=True)
class Objective:
    """One choice for each part; see `pref_losses.functional` for their formulas and `PreferenceConfig` for their
    meaning.

    Raises:
        ValueError: parts that do not go together; the message says why and what does.
    """

    score: Score = "log_ratio"
    beta: float = 0.1
    gamma_beta_ratio: float = 0.0
    margin_alpha: float = 0.0
    margin_convention: Convention = "code"
    margin_normalise: bool = True
    margin_stop_gradient: bool = True
    beta_alpha: float = 0.0
    beta_convention: Convention = "code"
    keep: float = 1.0
    link: Link = "sigmoid"
    label_smoothing: float = 0.0
    reduction: Reduction = "mean"
    beta_prime: float = 1.0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("score", ("log_ratio", "mean_logp")),
            ("link", ("sigmoid", "flip_corrected", "softmax")),
            ("reduction", ("mean", "robust")),
            ("margin_convention", ("code", "paper")),
            ("beta_convention", ("code", "paper")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)} (got {getattr(self, name)!r})")
        if not self.beta > 0:
            raise ValueError(f"beta must be positive (got {self.beta})")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep is the fraction kept and lies in (0, 1] (got {self.keep})")
        if not self.beta_prime > 0:
            raise ValueError(f"beta_prime must be positive (got {self.beta_prime})")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing lies in [0, 0.5) (got {self.label_smoothing})")
        if self.link == "softmax" and self.label_smoothing:
            raise ValueError(
                "label_smoothing smooths the two outcomes of a pair, the softmax link has K + 1: use link='sigmoid' "
                "or label_smoothing=0"
            )
        if self.link == "flip_corrected" and self.reduction == "robust":
            raise ValueError(
                "link='flip_corrected' makes losses that may be negative without bound, to which reduction='robust' "
                "would give all the weight: choose one of the two against flipped pairs"
            )
        if (self.beta_alpha or self.keep < 1) and self.score == "mean_logp" and not self.margin_alpha:
            raise ValueError(
                "a dynamic beta and its filter follow the gap of policy against reference, which score='mean_logp' "
                "without margin_alpha does not compute: use score='log_ratio'"
            )

    @property
    def needs_reference(self) -> bool:
        """False for SimPO: no reference model is loaded or run."""
        return self.score == "log_ratio" or self.margin_alpha != 0 or self.uses_gap_moments

    @property
    def uses_gap_moments(self) -> bool:
        """True where running moments of the gaps are kept."""
        return bool(self._standardises_pairs or self.beta_alpha or self.keep < 1)

    @property
    def couples_examples(self) -> bool:
        """True where an example's gradient depends on the other examples of its batch."""
        return self.uses_gap_moments or self.reduction == "robust"

    def gaps(self, logps: AnswerLogps) -> Tensor:
        """What the running moments are of, (N,): all pairs for a margin, one gap per example for beta and its
        filter.
        """
        gaps = logps.log_ratio_gaps()[logps.mask] if self._standardises_pairs else logps.example_gaps()
        return gaps.detach()

    @property
    def _standardises_pairs(self) -> bool:
        return bool(self.margin_alpha and self.margin_normalise)

    def plan(self, logps: AnswerLogps, moments: Moments | None, generator: torch.Generator | None = None) -> Plan:
        """Everything that couples the examples of `logps`, the whole batch.

        Args:
            logps: detached.
            moments: running moments, this batch included; None where the objective uses none.
            generator: of the filter's draw; equal on all processes.
        """
        kept = torch.ones_like(logps.chosen, dtype=torch.bool)
        beta = logps.chosen.new_tensor(self.beta)
        if self.beta_alpha or self.keep < 1:
            assert moments is not None
            gaps = logps.example_gaps()
            kept = keep_near_mean(gaps, moments, self.keep, generator) if self.keep < 1 else kept
            beta = dynamic_beta(
                gaps[kept], moments, beta=self.beta, alpha=self.beta_alpha, convention=self.beta_convention
            )
        losses = self.losses(logps, beta, moments)
        weights = kept.to(losses.dtype) / kept.sum()
        loss = losses[kept].mean()
        if self.reduction == "robust":
            loss = robust_mean(losses[kept], self.beta_prime)
            # An example that the filter kept never weighs exactly 0, however badly it is fitted.
            own = robust_weights(losses[kept], self.beta_prime).clamp_min(_LEAST_WEIGHT) / kept.sum()
            weights = torch.zeros_like(weights).masked_scatter(kept, own)
        return Plan(beta, moments, weights, loss)

    def plain(self, logps: AnswerLogps, moments: Moments | None) -> Plan:
        """The plan of an evaluation: beta as configured, every example kept, plain mean, so that it depends on no
        other example.
        """
        beta = logps.chosen.new_tensor(self.beta)
        losses = self.losses(logps, beta, moments)
        return Plan(beta, moments, torch.full_like(losses, 1 / len(losses)), losses.mean())

    def losses(self, logps: AnswerLogps, beta: Tensor, moments: Moments | None) -> Tensor:
        """The loss of every example, (B,), differentiable in the policy's log-probs."""
        if self.score == "log_ratio":
            logits = beta * logps.log_ratio_gaps()
        else:
            logits = beta * preference_gaps(logps.chosen, logps.rejected)
        logits = logits - self.margins(logps, moments)
        if self.link == "softmax":
            return softmax_link(logits, logps.mask)
        link = sigmoid_link if self.link == "sigmoid" else flip_corrected_link
        return link(logits, logps.mask, label_smoothing=self.label_smoothing)

    def margins(self, logps: AnswerLogps, moments: Moments | None) -> Tensor:
        """The target margin of every pair, (B, K) or a scalar."""
        if not self.margin_alpha:
            return logps.chosen.new_tensor(self.beta * self.gamma_beta_ratio)
        gaps = logps.log_ratio_gaps()
        margin, _ = adaptive_margin(
            gaps.detach() if self.margin_stop_gradient else gaps,
            moments if self.margin_normalise else None,
            beta=self.beta,
            gamma_beta_ratio=self.gamma_beta_ratio,
            alpha=self.margin_alpha,
            convention=self.margin_convention,
        )
        return margin
