"""GRU4Rec: a recurrent network over the items of a session."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import initialization as init

from predilect.modeling.sequential import SequentialConfig, SequentialModel


class GRU4RecConfig(SequentialConfig):
    """Options of `GRU4Rec`.

    Args:
        num_layers: stacked GRU layers.
    """

    model_type = "predilect_gru4rec"

    num_layers: int = 1

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        self.at_least_one("num_layers")


class GRU4Rec(SequentialModel):
    """The state is the hidden state of a GRU after the last item.

    Source: Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016 (arXiv
    1511.06939), section 3. Differences: full softmax in place of the sampled BPR and TOP1 losses (see
    `SequentialModel`); batches of histories in place of session-parallel mini-batches; item embeddings shared by input
    and output.

    Examples:
        >>> model = GRU4Rec(GRU4RecConfig(num_items=5, hidden_size=8))
        >>> model.scores(torch.tensor([[0, 3, 1]])).shape
        torch.Size([1, 5])
    """

    config_class = GRU4RecConfig

    def __init__(self, config: GRU4RecConfig) -> None:
        super().__init__(config)
        d = config.hidden_size
        between = config.dropout if config.num_layers > 1 else 0.0
        self.gru = nn.GRU(d, d, config.num_layers, batch_first=True, dropout=between)
        self.output = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(d, d))
        self.post_init()

    def _states(self, inputs: Tensor, mask: Tensor) -> Tensor:
        hidden, shift = self._run(inputs, mask)
        back = (torch.arange(mask.shape[1], device=mask.device) - shift) % mask.shape[1]
        states: Tensor = self.output(hidden.gather(1, back.unsqueeze(-1).expand_as(hidden)))
        return states

    def _last_state(self, inputs: Tensor, mask: Tensor) -> Tensor:
        hidden, _ = self._run(inputs, mask)
        last = (mask.sum(1) - 1).clamp(min=0)
        state: Tensor = self.output(hidden[torch.arange(len(hidden), device=mask.device), last])
        return state

    def _run(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run over rows whose padding was moved to the right, where it cannot touch the hidden state."""
        length = mask.shape[1]
        shift = length - mask.sum(1, keepdim=True)
        order = (torch.arange(length, device=mask.device) + shift) % length
        hidden, _ = self.gru(inputs.gather(1, order.unsqueeze(-1).expand_as(inputs)))
        return hidden, shift

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.GRU):
            for name, parameter in module.named_parameters():
                if name.startswith("bias"):
                    init.zeros_(parameter)
                elif name.startswith("weight_hh"):
                    init.orthogonal_(parameter)
                else:
                    init.xavier_uniform_(parameter)
