"""`AlignmentModel`: graph encoder and Q-Former that also read text, with the three losses of BLIP-2's first stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Blip2QFormerConfig
from transformers.models.blip_2.modeling_blip_2 import Blip2TextEmbeddings

from mol_llm.encoder import GINEncoder
from mol_llm.qformer import QFormer

WEIGHTS = "model.safetensors"
PAD, START, WRITE, END = range(4)  # padding; first of a text that is read; first of one that is written; its last
IGNORE = -100
_START_TEMPERATURE, _LARGEST_SCALE = 0.07, 100.0


class AlignmentModel(nn.Module):
    r"""Graph and text in one space, by contrast, matching and captioning (Li et al., BLIP-2, 2023; MolCA, 2023).

    With the queries' states :math:`z_{iq}` of graph i and the first token's state :math:`t_j` of text j, both mapped
    to length 1, the similarity is :math:`s_{ij} = \max_q z_{iq} \cdot t_j`, and

    - contrast: the mean of :math:`-\log softmax_j(s_{ij} / \tau)_i` and :math:`-\log softmax_i(s_{ij} / \tau)_j`, over
      the batch, with a learned :math:`\tau`; other rows of the same molecule or text are no negatives;
    - matching: whether queries and text that see one another belong together, as the cross-entropy of the mean of the
      queries' logits. Negatives, one text per graph and one graph per text, are drawn by
      :math:`softmax(s / \tau)`, the hard ones most;
    - captioning: the mean negative log-likelihood of the text's tokens, which see the queries and what is before them.

    The loss is their sum, each times its weight.

    Args:
        encoder: options of `GINEncoder`.
        qformer: options of `QFormer`.
        vocabulary: number of tokens.
        text_tokens: longest text.
        width: of the common space.
        weights: of contrast, matching and captioning.
    """

    def __init__(
        self,
        *,
        encoder: Mapping[str, Any],
        qformer: Mapping[str, Any],
        vocabulary: int,
        text_tokens: int,
        width: int,
        weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.encoder = GINEncoder(**encoder)
        self.qformer = QFormer(self.encoder.hidden, **qformer, text=True)
        inner = self.qformer.queries.shape[1]
        # one place more for the token that ends a text
        self.words = Blip2TextEmbeddings(
            Blip2QFormerConfig(
                vocab_size=vocabulary, hidden_size=inner, max_position_embeddings=text_tokens + 1, pad_token_id=PAD
            )
        )
        for table in (self.words.word_embeddings, self.words.position_embeddings):
            nn.init.normal_(table.weight, std=0.02)
        self.graph_map, self.text_map = nn.Linear(inner, width), nn.Linear(inner, width)
        self.match = nn.Linear(inner, 2)
        self.write = nn.Sequential(nn.Linear(inner, inner), nn.GELU(), nn.LayerNorm(inner))
        self.write_bias = nn.Parameter(torch.zeros(vocabulary))
        self.log_scale = nn.Parameter(torch.tensor(-math.log(_START_TEMPERATURE)))
        self.weights = weights

    def forward(
        self, graphs: Mapping[str, Tensor], ids: Tensor, mask: Tensor, labels: Tensor, same: Tensor
    ) -> dict[str, Tensor]:
        """The loss of B rows, and its parts.

        Args:
            graphs: `side_by_side` graphs of B molecules.
            ids: (B, T) texts, START first.
            mask: (B, T), 0 for padding.
            labels: (B, T) the token after each, END last, `IGNORE` for padding.
            same: (B, B) whether graph i and text j belong together, True on the diagonal.
        """
        states, there = self.atoms(graphs, len(ids))
        z = self.graph_vectors(states, there)
        sharp = self.log_scale.exp().clamp(max=_LARGEST_SCALE) * similarity(z, self.text_vectors(ids, mask))
        parts = {
            "contrast": _contrast(sharp, same),
            "matching": self._matching(sharp.detach(), same, states, there, ids, mask),
            "captioning": self.caption_losses(states, there, ids, mask, labels).sum() / (labels != IGNORE).sum(),
        }
        return {"loss": sum(w * part for w, part in zip(self.weights, parts.values(), strict=True)), **parts}  # type: ignore[dict-item]

    def atoms(self, graphs: Mapping[str, Tensor], molecules: int) -> tuple[Tensor, Tensor]:
        """What the queries read of each molecule; see `QFormer.dense`."""
        return self.qformer.dense(self.encoder(graphs), graphs["molecule"], molecules)

    def graph_vectors(self, states: Tensor, there: Tensor) -> Tensor:
        """(B, queries, width), of length 1 each."""
        return F.normalize(self.graph_map(self.qformer.read_atoms(states, there)).float(), dim=-1)

    def text_vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, width), of length 1 each."""
        read = self.qformer.read_text(self.words(ids), mask)
        return F.normalize(self.text_map(read[:, 0]).float(), dim=-1)

    def match_logits(self, states: Tensor, there: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, 2): that graph and text do not, and do, belong together."""
        read = self.qformer.read_both(states, there, self.words(ids), mask, causal=False)
        logits: Tensor = self.match(read[:, : len(self.qformer.queries)]).mean(dim=1).float()
        return logits

    def caption_losses(self, states: Tensor, there: Tensor, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """(B, T) negative log-likelihood of each token in nats, 0 where there is none."""
        written = ids.clone()
        written[:, 0] = WRITE
        read = self.qformer.read_both(states, there, self.words(written), mask, causal=True)
        states = self.write(read[:, len(self.qformer.queries) :])
        logits = F.linear(states, self.words.word_embeddings.weight, self.write_bias).float()
        return F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE, reduction="none")

    def _matching(
        self, sharp: Tensor, same: Tensor, states: Tensor, there: Tensor, ids: Tensor, mask: Tensor
    ) -> Tensor:
        rows = torch.arange(len(ids), device=ids.device)
        has = ~same.all(dim=1)  # a row all of whose neighbours are its equals has no negative
        texts = _drawn(sharp, same)
        back = ~same.all(dim=0)
        graphs = _drawn(sharp.T, same.T)
        graph = torch.cat([rows, rows[has], graphs])
        text = torch.cat([rows, texts, rows[back]])
        answer = (torch.arange(len(graph), device=ids.device) < len(rows)).long()
        return F.cross_entropy(self.match_logits(states[graph], there[graph], ids[text], mask[text]), answer)

    def save_pretrained(self, folder: str | Path, state_dict: dict[str, Tensor] | None = None, **_: Any) -> None:
        """Write the weights, which `load_pretrained` restores exactly."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_dict() if state_dict is None else state_dict
        save_file({k: v.contiguous() for k, v in state.items()}, folder / WEIGHTS, metadata={"format": "pt"})

    def load_pretrained(self, folder: str | Path) -> None:
        """Take the weights of a folder.

        Raises:
            FileNotFoundError: it has none.
            ValueError: a damaged file, or weights of another shape; names the first.
        """
        there, own = read_weights(Path(folder) / WEIGHTS), self.state_dict()
        if wrong := different(own, there):
            raise ValueError(f"{Path(folder) / WEIGHTS} does not fit the options it was saved with: {wrong} differs")
        self.load_state_dict(there)


def similarity(graph_vectors: Tensor, text_vectors: Tensor) -> Tensor:
    """(G, T): of each graph, the query that is nearest to the text."""
    return torch.einsum("gqd,td->gtq", graph_vectors, text_vectors).amax(dim=2)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}: it is incomplete, save the method again")
    try:
        weights: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): save the method again") from None
    return weights


def different(own: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> str:
    """The first name that only one of two has, or whose shapes differ; "" for none."""
    wrong = sorted({*there} ^ {*own}) or sorted(key for key in own if own[key].shape != there[key].shape)
    return wrong[0] if wrong else ""


def _contrast(sharp: Tensor, same: Tensor) -> Tensor:
    """Both directions; equals of a row other than itself are left out."""
    own = torch.eye(len(sharp), dtype=torch.bool, device=sharp.device)
    sharp = sharp.masked_fill(same & ~own, -torch.inf)
    rows = torch.arange(len(sharp), device=sharp.device)
    return (F.cross_entropy(sharp, rows) + F.cross_entropy(sharp.T, rows)) / 2


def _drawn(sharp: Tensor, same: Tensor) -> Tensor:
    """A hard negative of each row that has any."""
    has = ~same.all(dim=1)
    if not has.any():
        return torch.zeros(0, dtype=torch.long, device=sharp.device)
    shares = sharp[has].masked_fill(same[has], -torch.inf).softmax(dim=1)
    return torch.multinomial(shares, 1)[:, 0]
