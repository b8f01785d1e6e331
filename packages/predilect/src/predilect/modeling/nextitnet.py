"""NextItNet: dilated causal convolutions over the items."""

from __future__ import annotations

from functools import cache

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


Places = tuple[int, ...]
"""Positions counted from the end of the history: 0 is the most recent item."""


class _CausalConvolution(nn.Module):
    """Convolution over a place and `kernel_size - 1` earlier ones, `dilation` apart; then norm and ReLU."""

    def __init__(self, size: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.kernel_size, self.dilation = kernel_size, dilation
        self.convolution = nn.Linear(kernel_size * size, size)
        self.norm = nn.LayerNorm(size)

    def forward(self, states: Tensor, given: Places, wanted: Places) -> Tensor:
        """States at the places `given`, zero at padding, to states at the places `wanted`."""
        columns = _columns(given, wanted, self.kernel_size, self.dilation).to(states.device)
        windows = F.pad(states, (0, 0, 0, 1)).index_select(1, columns)  # the last column is what lies before the start
        return F.relu(self.norm(self.convolution(windows.view(len(states), len(wanted), -1))))

    def needs(self, wanted: Places, length: int) -> Places:
        """The places whose states the places `wanted` depend on."""
        reached = {place + step * self.dilation for place in wanted for step in range(self.kernel_size)}
        return tuple(sorted(place for place in reached if place < length))


@cache
def _columns(given: Places, wanted: Places, kernel_size: int, dilation: int) -> Tensor:
    at = {place: column for column, place in enumerate(given)}
    steps = range(kernel_size)
    return torch.tensor([at.get(place + step * dilation, len(given)) for place in wanted for step in steps])


class _ResidualBlock(nn.Module):
    def __init__(self, size: int, kernel_size: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.first = _CausalConvolution(size, kernel_size, dilation)
        self.second = _CausalConvolution(size, kernel_size, 2 * dilation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, real: Tensor, given: Places, wanted: Places) -> Tensor:
        between = self.second.needs(wanted, real.shape[1])
        hidden = self.first(states, given, between) * _at(real, between)
        own = _columns(given, wanted, 1, 1).to(states.device)
        return (states.index_select(1, own) + self.dropout(self.second(hidden, between, wanted))) * _at(real, wanted)

    def needs(self, wanted: Places, length: int) -> Places:
        return self.first.needs(self.second.needs(wanted, length), length)


def _at(real: Tensor, places: Places) -> Tensor:
    """The mask at these places, (B, places, 1)."""
    columns = torch.tensor(places, device=real.device)
    return real.index_select(1, real.shape[1] - 1 - columns).unsqueeze(-1)


class NextItNet(SequentialModel):
    """A stack of residual blocks of two dilated causal convolutions each: x + f_2l(f_l(x)), f_l =
    relu(norm(conv_l(x))).

    The last state needs few places of the lower layers (dilated convolutions skip the rest), and only those are
    computed. Padding is set to zero before every convolution, which is what lies left of the sequence anyway: hence
    the state does not depend on its amount.

    Source: Yuan et al., "A Simple Convolutional Generative Network for Next Item Recommendation", WSDM 2019 (arXiv
    1808.05163), section 3, residual block of figure 3(a). Differences: trained on the item after each history (a row
    of the split) rather than on all positions of a sequence at once; dropout; item embeddings shared by input and
    output.

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
        places = tuple(range(mask.shape[1] - 1, -1, -1))
        return self._output(self._blocks(inputs, mask, places))

    def _last_state(self, inputs: Tensor, mask: Tensor) -> Tensor:
        return self._output(self._blocks(inputs, mask, (0,))[:, 0])

    def _blocks(self, inputs: Tensor, mask: Tensor, wanted: Places) -> Tensor:
        """States at the places `wanted`; below them, only what they depend on is computed."""
        length = mask.shape[1]
        layers = [wanted]
        for block in reversed(self.blocks):
            layers.insert(0, block.needs(layers[0], length))
        given = layers[0]
        states = inputs.index_select(1, length - 1 - torch.tensor(given, device=inputs.device)) * _at(mask, given)
        for block, given, wanted in zip(self.blocks, layers, layers[1:], strict=False):
            states = block(states, mask, given, wanted)
        return states

    def _output(self, states: Tensor) -> Tensor:
        mapped: Tensor = self.output(self.dropout(states))
        return mapped
