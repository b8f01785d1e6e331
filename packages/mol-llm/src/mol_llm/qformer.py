"""`QFormer`: a fixed number of vectors per molecule, by learned queries that attend to its atoms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import global_mean_pool
from torch_geometric.utils import to_dense_batch
from transformers import Blip2QFormerConfig, Blip2QFormerModel


class QFormer(nn.Module):
    """`transformers.Blip2QFormerModel` over atoms: Q learned queries read [mean of the atoms, atom 1, ..., atom n].

    Cross-attention is in every second layer, as in BLIP-2 (Li et al., 2023) and MolTC, whose Q-Former starts from
    SciBERT's weights with a width of 768; this one is of any size and starts from a draw.

    Args:
        atom_width: of the atoms' vectors, which a LayerNorm brings to one scale.
        queries: vectors per molecule.
        width: of the queries.
        layers: of the Q-Former.
        heads: of its attention.
        dropout: on its states and attention.
        text: whether it reads text too, by feed-forward layers of its own (`read_text`, `read_both`), as BLIP-2's does
            in its first stage. Self-attention is shared, which is how queries learn from text.
    """

    def __init__(
        self,
        atom_width: int,
        *,
        queries: int = 8,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        dropout: float = 0.1,
        text: bool = False,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(atom_width)
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.model = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * width,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
                encoder_hidden_size=atom_width,
                use_qformer_text_input=text,
            )
        )

    def forward(self, atoms: Tensor, molecule: Tensor, molecules: int) -> Tensor:
        """Vectors (M, queries, width) of M molecules, from vectors (N, atom_width) of their atoms."""
        return self.read_atoms(*self.dense(atoms, molecule, molecules))

    def read_atoms(self, states: Tensor, there: Tensor) -> Tensor:
        """`forward` on what `dense` gives."""
        read: Tensor = self.model(
            query_embeds=self.queries.expand(len(states), -1, -1),
            encoder_hidden_states=states,
            encoder_attention_mask=there.long(),
        ).last_hidden_state
        return read

    def read_text(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """States (B, T, width) of texts alone; every token sees every other.

        Args:
            embedded: (B, T, width).
            mask: (B, T), 0 for padding.
        """
        # the length 0 of the queries sends every place through the layers of text, which have no cross-attention
        read: Tensor = self.model(query_embeds=embedded, query_length=0, attention_mask=mask).last_hidden_state
        return read

    def read_both(self, states: Tensor, there: Tensor, embedded: Tensor, mask: Tensor, *, causal: bool) -> Tensor:
        """States (B, queries + T, width) of queries and text that see one another; queries read the atoms too.

        Args:
            states: (B, 1 + n, atom_width) and
            there: (B, 1 + n), from `dense`.
            embedded: (B, T, width).
            mask: (B, T), 0 for padding.
            causal: queries see queries only, and a token sees them and the tokens up to itself: what writes the text.
        """
        batch, length = mask.shape
        queries = len(self.queries)
        seen = torch.cat([mask.new_ones(batch, queries), mask], dim=1).bool()[:, None, None, :]
        if causal:
            order = torch.arange(queries + length, device=mask.device)
            order = torch.where(order < queries, 0, order - queries + 1)
            seen = seen & (order[None, :] <= order[:, None])
        read: Tensor = self.model(
            query_embeds=torch.cat([self.queries.expand(batch, -1, -1).to(embedded.dtype), embedded], dim=1),
            query_length=queries,
            attention_mask=_additive(seen, embedded.dtype),
            encoder_hidden_states=states,
            # transformers would make this mask for queries and text, and only the queries attend to the atoms
            encoder_attention_mask=_additive(there.bool()[:, None, None, :], embedded.dtype),
        ).last_hidden_state
        return read

    @torch.no_grad()
    def attention(self, atoms: Tensor, molecule: Tensor, molecules: int) -> Tensor:
        """Cross-attention (M, queries, 1 + atoms) of the queries, the mean over layers and heads.

        The first column is the mean of the atoms; columns behind a molecule's last atom are 0; rows sum to 1. Call it
        in eval mode.
        """
        states, mask = self.dense(atoms, molecule, molecules)
        before = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")  # the others do not give their weights
        try:
            output = self.model(
                query_embeds=self.queries.expand(molecules, -1, -1),
                encoder_hidden_states=states,
                encoder_attention_mask=mask.long(),
                output_attentions=True,
            )
        finally:
            self.model.set_attn_implementation(before)
        weights = torch.stack([w for w in output.cross_attentions if w is not None])  # (layers, M, heads, Q, 1 + n)
        return weights.mean(dim=(0, 2))

    def dense(self, atoms: Tensor, molecule: Tensor, molecules: int) -> tuple[Tensor, Tensor]:
        """States (M, 1 + n, atom_width) of each molecule, the mean of its atoms first, and which are there."""
        atoms = self.norm(atoms)
        mean = global_mean_pool(atoms, molecule, size=molecules)
        states, there = to_dense_batch(atoms, molecule, batch_size=molecules)
        return torch.cat([mean[:, None], states], dim=1), torch.cat([there.new_ones(molecules, 1), there], dim=1)


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask that is added to scores, which every implementation of attention takes."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
