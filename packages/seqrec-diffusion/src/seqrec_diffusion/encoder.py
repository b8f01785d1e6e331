"""The encoder of DreamRec's paper, and the backbones of the core by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from predilect.modeling.sequential import SequentialConfig, SequentialModel


class TransformerEncoderConfig(SequentialConfig):
    """Options of `TransformerEncoder`; embeddings of items and positions start standard normal."""

    model_type = "dreamrec_transformer"

    dropout: float = 0.1
    initializer_range: float = 1.0


class TransformerEncoder(SequentialModel):
    r"""One block of causal self-attention with one head.

    With the embedded history :math:`x` (item plus position, dropout), :math:`q = LN_1(x)`, attention
    :math:`a = q + softmax(Q(q) K(x)^T / \sqrt d) V(x)`, and :math:`y = LN_2(a)`, the states are

    .. math:: LN_4(LN_3(y + dropout(W_2 \, relu(W_1 y)))).

    Positions count from the oldest item of the window, as there.

    Source: Yang et al., DreamRec, NeurIPS 2023 (arXiv 2310.20453), after the official code. Differences: padding is on
    the left and changes nothing; an empty history is not read as a padded position (see `DreamRecModel`).

    Examples:
        >>> model = TransformerEncoder(TransformerEncoderConfig(num_items=5, hidden_size=8)).eval()
        >>> model.last_state(torch.tensor([[0, 3, 1]])).shape
        torch.Size([1, 8])
    """

    config_class = TransformerEncoderConfig
    _supports_sdpa = True

    def __init__(self, config: TransformerEncoderConfig) -> None:
        super().__init__(config)
        d = config.hidden_size
        self.positions = nn.Embedding(config.max_history, d)
        self.input_norm, self.attention_norm, self.inner_norm, self.output_norm = (nn.LayerNorm(d) for _ in range(4))
        self.query, self.key, self.value = (nn.Linear(d, d) for _ in range(3))
        self.inner, self.outer = nn.Linear(d, d), nn.Linear(d, d)
        self.post_init()

    def _inputs(self, history: Tensor) -> Tensor:
        mask = history != 0
        from_oldest = (mask.cumsum(1) - 1).clamp(min=0)
        embedded: Tensor = self.dropout(self.items(history) + self.positions(from_oldest)) * mask.unsqueeze(-1)
        return embedded

    def _states(self, inputs: Tensor, mask: Tensor) -> Tensor:
        length = mask.shape[1]
        itself = torch.eye(length, dtype=torch.bool, device=mask.device)  # a softmax over nothing would be NaN
        causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
        return self._block(inputs, inputs, causal & mask[:, None] | itself)

    def _last_state(self, inputs: Tensor, mask: Tensor) -> Tensor:
        last = F.one_hot(torch.tensor([mask.shape[1] - 1], device=mask.device), mask.shape[1]).bool()
        return self._block(inputs[:, -1:], inputs, (mask | last)[:, None])[:, 0]

    def _block(self, asking: Tensor, inputs: Tensor, allowed: Tensor) -> Tensor:
        asking = self.input_norm(asking)
        rate = self.dropout.p if self.training else 0.0
        q, k, v = self.query(asking), self.key(inputs), self.value(inputs)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=rate)
        normed = self.attention_norm(asking + attended)
        fed = self.dropout(self.outer(F.relu(self.inner(normed))))
        states: Tensor = self.output_norm(self.inner_norm(normed + fed))
        return states

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init_linear(module)
        else:
            super()._init_weights(module)


@torch.no_grad()
def init_linear(layer: nn.Linear) -> None:
    """The start of a linear layer in PyTorch, which the official code keeps: uniform within 1 / sqrt(inputs)."""
    bound = layer.in_features**-0.5
    init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        init.uniform_(layer.bias, -bound, bound)


def make_encoder(name: str, **options: Any) -> SequentialModel:
    """A fresh encoder.

    Args:
        name: "transformer", "sasrec", "gru4rec", "caser" or "nextitnet".
        **options: of its config.

    Raises:
        ValueError: an unknown name, or an option that the encoder does not have.
    """
    from predilect.modeling import Caser, GRU4Rec, NextItNet, SASRec

    kinds = {"transformer": TransformerEncoder, "sasrec": SASRec, "gru4rec": GRU4Rec, "caser": Caser}
    kinds |= {"nextitnet": NextItNet}
    if name not in kinds:
        raise ValueError(f"encoder must be one of {', '.join(kinds)} (got {name!r})")
    kind: Any = kinds[name]
    known = kind.config_class.__dataclass_fields__
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"the encoder {name!r} has no option {', '.join(unknown)}")
    encoder: SequentialModel = kind(kind.config_class(**options))
    return encoder
