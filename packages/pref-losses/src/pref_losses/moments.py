"""Running mean and deviation of the gaps: the state that alpha-DPO and beta-DPO carry from step to step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from pref_losses.functional import Moments, batch_moments


class RunningMoments(TrainerCallback, ExportableState):
    """Exponential moving average of the batches' mean and unbiased deviation, saved and restored with the trainer's
    state.

    The first batch sets the moments. The authors' code starts at mean 0 and deviation 0, which inflates the first z
    tenfold and divides 0 by 0 while policy and reference are equal. A single gap has no deviation and leaves it as it
    is: where every batch is a single pair, z stays 0. Gaps that are not finite, as a half-precision step that is about
    to be skipped may bring, leave both as they are.

    Args:
        decay: weight of the past, in [0, 1); 0.9 in both papers' code.
        mean: of the gaps so far; None before the first batch.
        std: their deviation so far.
    """

    def __init__(self, decay: float = 0.9, mean: float | None = None, std: float | None = None) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay lies in [0, 1) (got {decay})")
        self.decay, self.mean, self.std = decay, mean, std

    def update(self, gaps: Tensor) -> Moments:
        """Take in the gaps of one optimizer step, from all processes, and return the moments with them."""
        batch = batch_moments(gaps)
        if torch.isfinite(batch.mean + batch.std):
            self.mean = self._moved(self.mean, float(batch.mean))
            if gaps.numel() > 1:
                self.std = self._moved(self.std, float(batch.std))
        return self.current(gaps)

    def _moved(self, past: float | None, new: float) -> float:
        return new if past is None else self.decay * past + (1 - self.decay) * new

    def current(self, like: Tensor) -> Moments:
        """The moments, of the dtype and on the device of `like`; both 0 before the first update, which makes z 0."""
        return Moments(like.new_tensor(self.mean or 0.0), like.new_tensor(self.std or 0.0))

    def state(self) -> dict[str, Any]:
        """What the trainer's state keeps."""
        return {"args": {"decay": self.decay, "mean": self.mean, "std": self.std}, "attributes": {}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the moments of the checkpoint that training resumes from; the decay stays as configured."""
        saved = (state.stateful_callbacks or {}).get(type(self).__name__)
        if saved is not None:
            self.mean, self.std = saved["args"]["mean"], saved["args"]["std"]
