"""Metrics of preference models: which completion they prefer, by how much, and how far they left their reference."""

from __future__ import annotations

import numpy as np
import torch

from predilect.evaluation.metric import Metric


class PreferenceMetrics(Metric):
    """Metrics of one chosen and K rejected completions per prompt, from sequence log-probabilities.

    With the implicit reward r(y) = log pi(y|x) - log ref(y|x), without the factor beta, and the margin of a pair
    m_k = r(chosen) - r(rejected_k), in nats:

    - `accuracy`: share of pairs with m_k > 0; equal rewards count as wrong. 0..1.
    - `accuracy_all`: share of rows whose chosen beats all K rejected ones; equals `accuracy` for K = 1. 0..1.
    - `margin`: mean of m_k.
    - `kl_estimate`: mean over a row's K + 1 completions of log ref(y|x) - log pi(y|x), in nats per completion. It
      estimates KL(ref || pi) without bias when the completions were sampled from the reference; on completions of any
      other source it tells how far the policy moved on them, and may be negative.
    - `length_bias` (with lengths): Pearson correlation over pairs of m_k and the difference of lengths
      len(chosen) - len(rejected_k). -1..1; near 1: the policy learned to prefer the longer one. NaN where either is
      constant.

    Every row counts once, whatever its K. For a model without reference, pass zeros as the reference's.
    """

    def update(
        self,
        policy_chosen_logps: torch.Tensor,
        policy_rejected_logps: torch.Tensor,
        ref_chosen_logps: torch.Tensor,
        ref_rejected_logps: torch.Tensor,
        *,
        chosen_lengths: torch.Tensor | None = None,
        rejected_lengths: torch.Tensor | None = None,
    ) -> None:
        """Add one batch.

        Args:
            policy_chosen_logps: (B,) summed (or averaged, consistently) log-probabilities of the completion's tokens.
            policy_rejected_logps: (B,) or (B, K).
            ref_chosen_logps: (B,) of the reference model.
            ref_rejected_logps: the shape of `policy_rejected_logps`.
            chosen_lengths: (B,) number of tokens; given in all batches or in none.
            rejected_lengths: the shape of `policy_rejected_logps`.

        Raises:
            ValueError: shapes that do not fit, values that are not finite, lengths in some batches only.
        """
        rows = len(policy_chosen_logps)
        chosen, ref_chosen = (
            _matrix(name, values, (rows, 1))
            for name, values in (
                ("policy_chosen_logps", policy_chosen_logps),
                ("ref_chosen_logps", ref_chosen_logps),
            )
        )
        shape = (rows, policy_rejected_logps.numel() // max(rows, 1))
        rejected = _matrix("policy_rejected_logps", policy_rejected_logps, shape)
        ref_rejected = _matrix("ref_rejected_logps", ref_rejected_logps, shape)
        reward_chosen, reward_rejected = chosen - ref_chosen, rejected - ref_rejected
        margins = reward_chosen - reward_rejected
        self._add_lengths(margins, chosen_lengths, rejected_lengths)
        self._add(
            accuracy=(margins > 0).mean(1),
            accuracy_all=(margins > 0).all(1).astype(np.float64),
            margin=margins.mean(1),
            kl_estimate=-np.concatenate([reward_chosen, reward_rejected], axis=1).mean(1),
        )

    def compute(self) -> dict[str, float]:
        metrics = {name: float(values.mean()) for name, values in self.per_row().items()}
        if self._pairs:
            longer, margin = np.concatenate(self._pairs, axis=1)
            constant = longer.std() == 0 or margin.std() == 0
            metrics["length_bias"] = float("nan") if constant else float(np.corrcoef(longer, margin)[0, 1])
        return metrics

    def per_row(self) -> dict[str, np.ndarray]:
        """Every metric but `length_bias` of each row."""
        return {name: self._column(name) for name in ("accuracy", "accuracy_all", "margin", "kl_estimate")}

    def __init__(self) -> None:
        super().__init__()
        self._pairs: list[np.ndarray] = []

    def _add_lengths(
        self, margins: np.ndarray, chosen_lengths: torch.Tensor | None, rejected_lengths: torch.Tensor | None
    ) -> None:
        if (chosen_lengths is None) != (rejected_lengths is None):
            raise ValueError("pass the lengths of both the chosen and the rejected completions, or of neither")
        if len(self) and bool(self._pairs) != (chosen_lengths is not None):
            raise ValueError("lengths must be given in all batches or in none (got some in this or an earlier one)")
        if chosen_lengths is None or rejected_lengths is None:
            return
        chosen = _matrix("chosen_lengths", chosen_lengths, (len(margins), 1))
        rejected = _matrix("rejected_lengths", rejected_lengths, margins.shape)
        self._pairs.append(np.stack([(chosen - rejected).ravel(), margins.ravel()]))


def _matrix(name: str, values: torch.Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """`values` as float64 of `shape`, which a vector of that many rows also fits when there is one column."""
    fits = values.shape == shape or (shape[1] == 1 and values.shape == shape[:1])
    if not fits or shape[1] == 0:
        expected = f"({shape[0]},)" if shape[1] == 1 else f"({shape[0]}, K) with K = {shape[1]}"
        raise ValueError(f"{name} must have the shape {expected} (got {tuple(values.shape)})")
    array = values.detach().cpu().to(torch.float64).numpy().reshape(shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite (got {array[~np.isfinite(array)][0]})")
    return array
