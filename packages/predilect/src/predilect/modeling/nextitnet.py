"""NextItNet: dilated causal convolutions over the items."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from predilect.modeling.sequential import SequentialConfig, SequentialModel


class NextItNetConfig(SequentialConfig):
    """Options of `NextItNet`.

    Args:
        kernel_size: items under a filter.
        dilations: one residual block per entry; its two convolutions have dilation l and 2l.
    """

    model_type = "predilect_nextitnet"

    kernel_size: int = 3
    dilations: tuple[int, ...] | list[int] = (1, 2)

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        self.at_least_one("kernel_size")
        self.dilations = list(self.dilations)  # what JSON gives back
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"dilations must be numbers of at least 1, one per block (got {self.dilations})")


Columns = dict[int, Tensor]
"""Position -> what is there, (B, d) or (B, 1). Positions count from the end: 0 is the most recent item."""


class _CausalConvolution(nn.Module):
    """Convolution over a position and `kernel_size - 1` earlier ones, `dilation` apart; then norm and ReLU."""

    def __init__(self, size: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.reach = range(0, kernel_size * dilation, dilation)
        self.convolution = nn.Linear(kernel_size * size, size)
        self.norm = nn.LayerNorm(size)

    def forward(self, states: Columns, real: Columns, wanted: list[int]) -> Columns:
        """States at the positions `wanted`, zero at padding; `states` may lack what lies before the start."""
        before = torch.zeros_like(states[wanted[0]])
        windows = [torch.cat([states.get(p + step, before) for step in self.reach], dim=1) for p in wanted]
        convolved = F.relu(self.norm(self.convolution(torch.cat(windows))))
        return {p: state * real[p] for p, state in zip(wanted, convolved.chunk(len(wanted)), strict=True)}

    def needs(self, wanted: list[int], length: int) -> list[int]:
        """The positions whose states the positions `wanted` depend on."""
        return sorted({p + step for p in wanted for step in self.reach if p + step < length})


class _ResidualBlock(nn.Module):
    def __init__(self, size: int, kernel_size: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.first = _CausalConvolution(size, kernel_size, dilation)
        self.second = _CausalConvolution(size, kernel_size, 2 * dilation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Columns, real: Columns, wanted: list[int]) -> Columns:
        hidden = self.first(states, real, self.second.needs(wanted, len(real)))
        added = self.second(hidden, real, wanted)
        return {p: states[p] + self.dropout(added[p]) for p in wanted}

    def needs(self, wanted: list[int], length: int) -> list[int]:
        return self.first.needs(self.second.needs(wanted, length), length)


class NextItNet(SequentialModel):
    """A stack of residual blocks of two dilated causal convolutions each: x + f_2l(f_l(x)), f_l =
    relu(norm(conv_l(x))).

    The last state needs few positions of the lower layers (dilated convolutions skip the rest), and only those are
    computed. Padding is set to zero before every convolution, which is what lies left of the sequence anyway: hence
    the state does not depend on its amount.

    Source: Yuan et al., "A Simple Convolutional Generative Network for Next Item Recommendation", WSDM 2019 (arXiv
    1808.05163), section 3, residual block of figure 3(a). Differences: trained on the item after each history (a row
    of the split) rather than on all positions of a sequence at once; dropout; item embeddings shared by input and
    output.

    Examples:
        >>> model = NextItNet(NextItNetConfig(num_items=5, hidden_size=8))
        >>> model.encode(torch.tensor([[0, 3, 1]])).shape
        torch.Size([1, 3, 8])
    """

    config_class = NextItNetConfig

    def __init__(self, config: NextItNetConfig) -> None:
        super().__init__(config)
        size, kernel = config.hidden_size, config.kernel_size
        self.blocks = nn.ModuleList(
            _ResidualBlock(size, kernel, dilation, config.dropout) for dilation in config.dilations
        )
        self.output = nn.Linear(size, size)
        self.post_init()

    def _states(self, inputs: Tensor, mask: Tensor) -> Tensor:
        positions = list(range(mask.shape[1]))
        states = self._blocks(inputs, mask, positions)
        return self._output(torch.stack([states[p] for p in reversed(positions)], dim=1))

    def _last_state(self, inputs: Tensor, mask: Tensor) -> Tensor:
        return self._output(self._blocks(inputs, mask, [0])[0])

    def _blocks(self, inputs: Tensor, mask: Tensor, wanted: list[int]) -> Columns:
        """States at the positions `wanted`; in lower layers, only what they depend on is computed."""
        blocks: list[Any] = list(self.blocks)
        length = mask.shape[1]
        outputs = [wanted]
        for block in blocks[:0:-1]:
            outputs.insert(0, block.needs(outputs[0], length))
        real = dict(enumerate(reversed(mask.unsqueeze(-1).unbind(1))))
        states = {p: column * real[p] for p, column in enumerate(reversed(inputs.unbind(1)))}
        for block, positions in zip(blocks, outputs, strict=True):
            states = block(states, real, positions)
        return states

    def _output(self, states: Tensor) -> Tensor:
        mapped: Tensor = self.output(self.dropout(states))
        return mapped
