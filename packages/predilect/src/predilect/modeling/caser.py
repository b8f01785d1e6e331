"""Caser: the recent items as an image, convolved along time and along the embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from predilect.modeling.sequential import SequentialConfig, SequentialModel


class CaserConfig(SequentialConfig):
    """Options of `Caser`; its window is `max_history`.

    Args:
        filter_heights: heights (in items) of the horizontal filters.
        num_horizontal: horizontal filters per height.
        num_vertical: vertical filters.
    """

    model_type = "predilect_caser"

    filter_heights: tuple[int, ...] | list[int] = (2, 3, 4)
    num_horizontal: int = 16
    num_vertical: int = 4

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        self.at_least_one("num_horizontal", "num_vertical")
        self.filter_heights = list(self.filter_heights)  # what JSON gives back
        if not self.filter_heights or min(self.filter_heights) < 1 or max(self.filter_heights) > self.max_history:
            raise ValueError(
                f"filter_heights must lie in 1..max_history = {self.max_history} (got {self.filter_heights})"
            )


class Caser(SequentialModel):
    r"""Union-level patterns by horizontal filters, point-level patterns by vertical filters.

    The last `max_history` embeddings are a matrix :math:`E` (window, d), zero where there is no item. Horizontal
    filters of height :math:`h` slide over time, :math:`\max_t relu(F \cdot E_{t:t+h})`; vertical filters are weighted
    sums over time, :math:`v^T E`. A linear layer maps both to the state.

    Source: Tang and Wang, "Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding", WSDM
    2018 (arXiv 1809.07426), section 3. Differences: no user embedding, because the users to recommend for are not
    those of the training data; full softmax in place of binary cross-entropy with sampled negatives (see
    `SequentialModel`); one next item as target; no ReLU on the state, which would keep half of the directions of the
    shared embeddings out of reach.

    Examples:
        >>> model = Caser(CaserConfig(num_items=5, hidden_size=8))
        >>> model.last_state(torch.tensor([[3, 1]])).shape
        torch.Size([1, 8])
    """

    config_class = CaserConfig

    def __init__(self, config: CaserConfig) -> None:
        super().__init__(config)
        d = config.hidden_size
        self.horizontal = nn.ModuleList(nn.Conv1d(d, config.num_horizontal, h) for h in config.filter_heights)
        self.vertical = nn.Linear(config.max_history, config.num_vertical)
        features = len(config.filter_heights) * config.num_horizontal + config.num_vertical * d
        self.output = nn.Linear(features, d)
        self.post_init()

    def _states(self, inputs: Tensor, mask: Tensor) -> Tensor:
        window = self.config.max_history
        windows = F.pad(inputs, (0, 0, window - 1, 0)).unfold(1, window, 1)  # (B, L, d, window)
        return self._convolve(windows.flatten(0, 1)).view(*windows.shape[:2], -1)

    def _last_state(self, inputs: Tensor, mask: Tensor) -> Tensor:
        window = F.pad(inputs, (0, 0, self.config.max_history - inputs.shape[1], 0))
        return self._convolve(window.transpose(1, 2))

    def _convolve(self, windows: Tensor) -> Tensor:
        """(B, d, window) to (B, d)."""
        horizontal = [F.relu(conv(windows)).amax(dim=2) for conv in self.horizontal]
        vertical = self.vertical(windows).flatten(1)
        state: Tensor = self.output(self.dropout(torch.cat([vertical, *horizontal], dim=1)))
        return state
