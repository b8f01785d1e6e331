"""`MoleculeTokens`: from molecules' graphs to the vectors at their soft tokens in a prompt."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from mol_llm.encoder import GINEncoder, side_by_side
from mol_llm.qformer import QFormer
from predilect.modeling.projectors import Projector

Sharing = Literal["tied", "untied", "soft"]
ROLES = 2  # the first and the second molecule of a pair


class Branch(nn.Module):
    """Graph encoder, Q-Former, and a linear map to the language model's width; one more map for a fingerprint."""

    def __init__(self, width: int, encoder: dict[str, Any], qformer: dict[str, Any], fingerprint: int) -> None:
        super().__init__()
        self.encoder = GINEncoder(**encoder)
        self.qformer = QFormer(self.encoder.hidden, **qformer)
        self.out = nn.Linear(self.qformer.queries.shape[1], width)
        # LayerNorm: the scale of a fingerprint is that of another network
        self.fingerprint = (
            nn.Sequential(nn.LayerNorm(fingerprint), nn.Linear(fingerprint, width)) if fingerprint else None
        )


class LowRank(nn.Module):
    """`B A x`, a change of low rank; B is zero at the start."""

    def __init__(self, width_in: int, width_out: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width_in, rank, bias=False)
        self.up = nn.Linear(rank, width_out, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        delta: Tensor = self.up(self.down(x))
        return delta


class MoleculeTokens(Projector):
    """A projector of `SoftTokenCausalLM` that reads graphs: GIN, Q-Former, linear map, as MolTC (Fang et al., 2024).

    Every molecule of a batch is computed once, however many pairs it is in (`unique=False` computes each occurrence).

    `sharing` is about the two roles of a pair. MolTC's first abstract announces dynamic parameter sharing that its
    code does not have; here
    - "tied": one network for both, right for pairs without an order (two drugs);
    - "untied": two networks that start equal (solute and solvent);
    - "soft": one network, and per role a low-rank change of what the Q-Former reads of the atoms and of the last map.
    All three give the same vectors before training.

    Args:
        width: of the language model.
        sharing: see above.
        delta_rank: of the low-rank changes.
        encoder: options of `GINEncoder`.
        qformer: options of `QFormer`.
        fingerprint: width of a vector that is given of each whole molecule, such as minimol's: a linear map makes it
            one more vector behind those of the queries; 0: none is given.
    """

    kind: ClassVar[str] = "molecule-tokens"

    def __init__(
        self,
        width: int,
        *,
        sharing: Sharing = "tied",
        delta_rank: int = 8,
        encoder: Mapping[str, Any],
        qformer: Mapping[str, Any],
        fingerprint: int = 0,
    ) -> None:
        encoder = {**encoder, "atom_sizes": list(encoder["atom_sizes"]), "bond_sizes": list(encoder["bond_sizes"])}
        if sharing not in get_args(Sharing):
            raise ValueError(f"sharing is 'tied', 'untied' or 'soft' (got {sharing!r})")
        options = {"encoder": encoder, "qformer": dict(qformer), "fingerprint": fingerprint}
        super().__init__(width, sharing=sharing, delta_rank=delta_rank, **options)
        branch = Branch(width, encoder, dict(qformer), fingerprint)
        atom_width, query_width = branch.encoder.hidden, branch.out.in_features
        copies = [branch, *(copy.deepcopy(branch) for _ in range(ROLES - 1))] if sharing == "untied" else [branch]
        self.branches = nn.ModuleList(copies)
        deltas = ROLES if sharing == "soft" else 0
        self.atom_deltas = nn.ModuleList(LowRank(atom_width, atom_width, delta_rank) for _ in range(deltas))
        self.out_deltas = nn.ModuleList(LowRank(query_width, width, delta_rank) for _ in range(deltas))
        prints = deltas if fingerprint else 0
        self.fingerprint_deltas = nn.ModuleList(LowRank(fingerprint, width, delta_rank) for _ in range(prints))
        self.unique = True

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Vectors (n, queries, width) of n occurrences; (n, queries + 1, width) with a fingerprint.

        Args:
            inputs: `side_by_side` graphs of M molecules; `which` (n,), the molecule at each occurrence; `role` (n,), 0
                or 1; `fingerprints` (M, F) where there is one.
        """
        which, role = inputs["which"], inputs["role"]
        if not self.unique:
            inputs = repeated(inputs, which)
            which = torch.arange(len(which), device=which.device)
        if self.options["sharing"] == "tied":
            return self._branch(0, inputs, None)[which]
        if self.options["sharing"] == "untied":
            by_role = [self._branch(number, inputs, None) for number in range(ROLES)]
        else:
            shared: Any = self.branches[0]
            atoms = shared.encoder(inputs)
            by_role = [self._branch(0, inputs, number, atoms) for number in range(ROLES)]
        return torch.stack(by_role)[role, which]

    def _branch(
        self, number: int, inputs: Mapping[str, Tensor], delta: int | None, atoms: Tensor | None = None
    ) -> Tensor:
        branch: Any = self.branches[number]
        atoms = branch.encoder(inputs) if atoms is None else atoms
        if delta is not None:
            atoms = atoms + self.atom_deltas[delta](atoms)
        states = branch.qformer(atoms, inputs["molecule"], int(inputs["molecule"].max()) + 1)
        vectors: Tensor = branch.out(states)
        if delta is not None:
            vectors = vectors + self.out_deltas[delta](states)
        if branch.fingerprint is None:
            return vectors
        given = inputs["fingerprints"]
        whole: Tensor = branch.fingerprint(given)
        if delta is not None:
            whole = whole + self.fingerprint_deltas[delta](branch.fingerprint[0](given))
        return torch.cat([vectors, whole[:, None]], dim=1)

    @torch.no_grad()
    def attention(self, graphs: Mapping[str, Tensor], role: int = 0) -> Tensor:
        """How much each query reads of each atom; see `QFormer.attention`."""
        branch: Any = self.branches[role if self.options["sharing"] == "untied" else 0]
        atoms = branch.encoder(graphs)
        if self.options["sharing"] == "soft":
            atoms = atoms + self.atom_deltas[role](atoms)
        weights: Tensor = branch.qformer.attention(atoms, graphs["molecule"], int(graphs["molecule"].max()) + 1)
        return weights


def repeated(graphs: Mapping[str, Tensor], which: Tensor) -> dict[str, Tensor]:
    """The graphs in the order `which`, each as often as it is named there."""
    molecule, bonds = graphs["molecule"], graphs["bonds"]
    of_bond = molecule[bonds[0]]
    atoms, edges, features, owner = [], [], [], []
    start = 0
    for place, number in enumerate(which.tolist()):
        own, lines = (molecule == number).nonzero()[:, 0], (of_bond == number).nonzero()[:, 0]
        atoms.append(graphs["atoms"][own])
        edges.append(bonds[:, lines] - own[0] + start)
        features.append(graphs["bond_features"][lines])
        owner.append(torch.full_like(own, place))
        start += len(own)
    found = {
        "atoms": torch.cat(atoms),
        "bonds": torch.cat(edges, dim=1),
        "bond_features": torch.cat(features),
        "molecule": torch.cat(owner),
    }
    return found | {name: graphs[name][which] for name in ("fingerprints",) if name in graphs}


def pair_inputs(
    pairs: Sequence[tuple[str, str]], graphs: Mapping[str, Any], fingerprints: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """What `MoleculeTokens` reads for B pairs, in the order a1, b1, a2, b2, ...: each molecule's graph once.

    Args:
        pairs: two SMILES each.
        graphs: SMILES -> `torch_geometric.data.Data`.
        fingerprints: SMILES -> (F,); None: no vectors of whole molecules.
    """
    number = {smiles: n for n, smiles in enumerate(dict.fromkeys(s for pair in pairs for s in pair))}
    whole = {} if fingerprints is None else {"fingerprints": torch.stack([fingerprints[s] for s in number])}
    return {
        **side_by_side([graphs[smiles] for smiles in number]),
        **whole,
        "which": torch.tensor([number[smiles] for pair in pairs for smiles in pair]),
        "role": torch.arange(ROLES).repeat(len(pairs)),
    }
