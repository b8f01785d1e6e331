"""SASRec: causal self-attention over the items."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from predilect.modeling.sequential import SequentialConfig, SequentialModel


class SASRecConfig(SequentialConfig):
    """Options of `SASRec`.

    Args:
        num_layers: self-attention blocks.
        num_heads: attention heads; divides `hidden_size`.
    """

    model_type = "predilect_sasrec"

    num_layers: int = 2
    num_heads: int = 2

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        self.at_least_one("num_layers", "num_heads")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"num_heads must divide hidden_size (got {self.num_heads} heads, hidden_size {self.hidden_size})"
            )


class _Block(nn.Module):
    """Attention and a point-wise feed-forward network, each as x + dropout(f(norm(x)))."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.heads = config.num_heads
        self.attention_norm = nn.LayerNorm(d, eps=1e-8)
        self.query, self.key, self.value, self.merge = (nn.Linear(d, d) for _ in range(4))
        self.feed_forward_norm = nn.LayerNorm(d, eps=1e-8)
        self.inner, self.outer = nn.Linear(d, d), nn.Linear(d, d)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, mask: Tensor, *, last_only: bool = False) -> Tensor:
        """(B, L, d) to (B, L, d), or to (B, 1, d) where only the last position is wanted."""
        normed = self.attention_norm(states)
        if last_only:
            states, mask, asking = states[:, -1:], mask[:, :, -1:], normed[:, -1:]
        else:
            asking = normed
        q, k, v = (self._split(x) for x in (self.query(asking), self.key(normed), self.value(normed)))
        rate = self.dropout.p if self.training else 0.0
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
        states = states + self.dropout(self.merge(seen.transpose(1, 2).flatten(2)))
        inner = self.dropout(F.relu(self.inner(self.feed_forward_norm(states))))
        fed: Tensor = states + self.dropout(self.outer(inner))
        return fed

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)


class SASRec(SequentialModel):
    """Blocks of causal self-attention over item plus position embeddings.

    Positions are counted from the oldest item of the history, so that neither the padding nor what comes later changes
    a state: a window trains all its positions with the states that ranking will use. The last block computes the last
    position only when only that is asked for.

    Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018 (arXiv 1808.09781), section III.
    Differences: full softmax in place of binary cross-entropy with one sampled negative, which trains the model to be
    overconfident and is what later work found to hold SASRec back (see `SequentialModel`); an output projection after
    the heads; keys and values are normalised like queries (the paper's text; the authors' code normalises queries
    only).

    Examples:
        >>> model = SASRec(SASRecConfig(num_items=5, hidden_size=8))
        >>> model.item_embeddings.shape
        torch.Size([6, 8])
    """

    config_class = SASRecConfig
    _supports_sdpa = True

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config)
        self.positions = nn.Embedding(config.max_history, config.hidden_size)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-8)
        self.post_init()

    def _inputs(self, history: Tensor) -> Tensor:
        from_oldest = ((history != 0).cumsum(1) - 1).clamp(min=0)
        scale = self.config.hidden_size**0.5  # as the authors' code: else positions outweigh items at the start
        embedded: Tensor = self.dropout(self.items(history) * scale + self.positions(from_oldest))
        return embedded

    def _states(self, inputs: Tensor, mask: Tensor) -> Tensor:
        allowed = self._allowed(mask)
        for block in self.blocks:
            inputs = block(inputs, allowed)
        normed: Tensor = self.norm(inputs)
        return normed

    def _last_state(self, inputs: Tensor, mask: Tensor) -> Tensor:
        allowed = self._allowed(mask)
        for block in self.blocks[:-1]:
            inputs = block(inputs, allowed)
        state: Tensor = self.norm(self.blocks[-1](inputs, allowed, last_only=True)[:, 0])
        return state

    @staticmethod
    def _allowed(mask: Tensor) -> Tensor:
        """(B, 1, L, L): what is earlier and no padding, and always oneself: a softmax over nothing would be NaN."""
        length = mask.shape[1]
        ones = torch.ones(length, length, dtype=torch.bool, device=mask.device)
        return (ones.tril() & mask[:, None, :] | torch.eye(length, dtype=torch.bool, device=mask.device)).unsqueeze(1)
