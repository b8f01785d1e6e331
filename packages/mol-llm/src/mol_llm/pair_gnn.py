"""`PairGNN`: MolTC's graph encoder without a language model, a baseline of both molecules' graphs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch_geometric.nn import global_max_pool, global_mean_pool

from mol_llm.encoder import GINEncoder
from mol_llm.graph_reading import ReadsGraphs
from mol_llm.molecule_options import GRAPHS, GraphOptions
from mol_llm.molecule_tokens import ROLES, pair_inputs
from mol_llm.pair_method import NumbersOnly
from mol_llm.pairs import PairData, PairRows, PairTask
from predilect.configuration import at_least, option
from predilect.method import MethodConfig
from predilect.runs import read_json, write_json
from predilect.training.devices import default_device
from predilect.training.options import TRAINING

_WEIGHTS, _SCALE = "network.safetensors", "scale.json"
_PAIRS_AT_ONCE = 256


@dataclass
class PairGNNConfig(GraphOptions, MethodConfig):
    """Graphs, network and training."""

    sharing: Literal["tied", "untied"] = option(
        "Encoders of the two roles: one for both, or one each (solute and solvent).", panel=GRAPHS, default="tied"
    )
    symmetric: bool = option(
        "Read (a, b) and (b, a) alike, as for two drugs that interact; false: the order counts.",
        panel=GRAPHS,
        default=False,
    )
    head_width: int = option("Width of the layer between the molecules' vectors and the answer.", default=256)
    epochs: int = option("Most passes over the training pairs.", panel=TRAINING, default=60)
    patience: int = option(
        "Stop after so many epochs without a better loss on the validation rows, where there are any.",
        panel=TRAINING,
        default=10,
    )
    batch_size: int = option("Pairs of a step.", panel=TRAINING, default=64)
    learning_rate: float = option("Peak; it falls to zero along a half cosine.", panel=TRAINING, default=1e-3)
    weight_decay: float = option("AdamW's.", panel=TRAINING, default=1e-4)

    def __post_init__(self) -> None:
        self.check_graphs()
        at_least(self, head_width=1, epochs=1, patience=1, batch_size=1, weight_decay=0)
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be a positive number (got {self.learning_rate})")
        if self.symmetric and self.sharing != "tied":
            raise ValueError("symmetric=True needs one encoder for both molecules: leave sharing='untied' out")

    def quick(self) -> Self:
        return dataclasses.replace(self, epochs=1)


class PairNetwork(nn.Module):
    """Encoders, readout and head: `y = MLP([r(a), r(b)])`, `r = [mean, max]` of the atoms' vectors.

    `symmetric` reads `[r(a) + r(b), |r(a) - r(b)|]` instead, the same for both orders.

    Args:
        encoder: options of `GINEncoder`.
        outputs: numbers of an answer.
        head: width of the layer between.
        sharing: "tied" or "untied" encoders; untied ones start equal.
        symmetric: see above.
        dropout: of the head.
    """

    def __init__(
        self, encoder: Mapping[str, Any], outputs: int, *, head: int, sharing: str, symmetric: bool, dropout: float
    ) -> None:
        super().__init__()
        one = GINEncoder(**encoder)
        self.encoders = nn.ModuleList([one] if sharing == "tied" else [one, copy.deepcopy(one)])
        self.symmetric = symmetric
        self.head = nn.Sequential(
            nn.Linear(4 * one.hidden, head), nn.ReLU(), nn.Dropout(dropout), nn.Linear(head, outputs)
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Answers (B, outputs) of B pairs as `pair_inputs` gives them: each molecule is computed once per encoder."""
        molecule = inputs["molecule"]
        vectors = []
        for encoder in self.encoders:
            atoms = encoder(inputs)
            vectors.append(torch.cat([global_mean_pool(atoms, molecule), global_max_pool(atoms, molecule)], dim=1))
        first, second = (vectors[role % len(vectors)][inputs["which"][role::ROLES]] for role in range(ROLES))
        both = [first + second, (first - second).abs()] if self.symmetric else [first, second]
        answers: Tensor = self.head(torch.cat(both, dim=1))
        return answers


class PairGNN(ReadsGraphs[PairGNNConfig], NumbersOnly[PairGNNConfig]):
    """MolTC's graph encoder, a readout and a small head: what the graphs say without a language model.

    Loss: squared error of the targets, standardised on the training rows, or cross-entropy of the classes; AdamW, a
    learning rate that falls along a half cosine. Validation rows, where there are any, say which epoch is kept and
    when to stop. Every molecule of a batch is encoded once.

    Examples:
        >>> def solvation(data):                                   # PairData of the task "solvation"
        ...     method = PairGNN(sharing="untied").fit(data)
        ...     return method.predict("CCO", "O")                  # kcal/mol
    """

    name = "pair-gnn"
    config_class = PairGNNConfig

    def __init__(self, config: PairGNNConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._network: PairNetwork | None = None
        self._scale = (0.0, 1.0)  # mean and deviation of the training targets

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self._fitted(self._network).parameters())

    def _require(self, data: PairData) -> None:
        self._keep_graphs(data.molecules())
        super()._require(data)

    def _read(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._graphs.read(pairs)

    # --- fitting ----------------------------------------------------------------------------------------------

    def _fit(self, data: PairData, folder: Path) -> None:
        if data.task.kind == "value":
            targets = np.asarray(data.train.targets, dtype=np.float64)
            self._scale = (float(targets.mean()), float(targets.std()) or 1.0)
        self._network = self._new_network(data.task).to(default_device())
        validation = data.validation if data.validation is not None and len(data.validation) else None
        best, best_loss, worse = {}, float("inf"), 0
        steps = -(-len(data.train) // self.config.batch_size) * self.config.epochs
        optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        generator = np.random.default_rng(self.config.seed)
        for _ in range(self.config.epochs):
            self._epoch(data, generator.permutation(len(data.train)), optimizer, schedule)
            if validation is None:
                continue
            loss = self._validation_loss(data.task, validation)
            worse = 0 if loss < best_loss else worse + 1
            if not worse:
                best, best_loss = copy.deepcopy(self._network.state_dict()), loss
            elif worse == self.config.patience:
                break
        if best:
            self._network.load_state_dict(best)
        self._network.eval()

    def _new_network(self, task: PairTask) -> PairNetwork:
        config = self.config
        return PairNetwork(
            config.encoder_options(),
            len(task.answers) if task.kind == "class" else 1,
            head=config.head_width,
            sharing=config.sharing,
            symmetric=config.symmetric,
            dropout=config.dropout,
        )

    def _epoch(self, data: PairData, order: NDArray[np.int64], optimizer: Any, schedule: Any) -> None:
        network = self._fitted(self._network).train()
        pairs, targets = data.train.pairs, self._wanted(data.task, data.train)
        for start in range(0, len(order), self.config.batch_size):
            rows = order[start : start + self.config.batch_size].tolist()
            loss = _loss(data.task, network(self._inputs([pairs[row] for row in rows])), targets[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def _validation_loss(self, task: PairTask, rows: PairRows) -> float:
        return float(_loss(task, self._raw(rows.pairs), self._wanted(task, rows)))

    def _wanted(self, task: PairTask, rows: PairRows) -> Tensor:
        """Numbers of classes, or standardised values."""
        if task.kind == "class":
            return torch.tensor([int(target) for target in rows.targets], device=default_device())
        mean, deviation = self._scale
        scaled = (np.asarray(rows.targets, dtype=np.float64) - mean) / deviation
        return torch.from_numpy(scaled).float().to(default_device())

    def _inputs(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
        return {name: tensor.to(default_device()) for name, tensor in pair_inputs(pairs, self._graphs).items()}

    # --- predictions ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _raw(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """What the network says in evaluation mode, (n, outputs)."""
        network: Any = self._fitted(self._network).eval()
        parts = [pairs[start : start + _PAIRS_AT_ONCE] for start in range(0, len(pairs), _PAIRS_AT_ONCE)]
        found = [network(self._inputs(part)) for part in parts]
        return torch.cat(found) if found else torch.zeros(0, network.head[-1].out_features)

    def _predict(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        raw = self._raw(pairs).double().cpu()
        if self.task.kind == "class":
            probabilities: NDArray[np.float64] = raw.softmax(dim=1).numpy()
            return probabilities
        mean, deviation = self._scale
        values: NDArray[np.float64] = raw[:, 0].numpy() * deviation + mean
        return values

    # --- folders ----------------------------------------------------------------------------------------------

    def _save(self, folder: Path) -> None:
        state = self._fitted(self._network).state_dict()
        save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, folder / _WEIGHTS)
        write_json(folder / _SCALE, list(self._scale))

    def _load(self, folder: Path) -> None:
        scale = read_json(folder / _SCALE)
        for name, there in ((_SCALE, scale is not None), (_WEIGHTS, (folder / _WEIGHTS).is_file())):
            if not there:
                raise FileNotFoundError(f"{folder} has no {name}: it is incomplete, save the method again")
        mean, deviation = scale
        self._scale = (mean, deviation)
        network = self._new_network(self.task)
        try:
            network.load_state_dict(load_file(folder / _WEIGHTS))
        except RuntimeError as error:
            raise ValueError(
                f"{folder / _WEIGHTS} is not of this network: {str(error).splitlines()[-1].strip()}"
            ) from None
        self._network = network.to(default_device()).eval()


def _loss(task: PairTask, answers: Tensor, targets: Tensor) -> Tensor:
    if task.kind == "class":
        return nn.functional.cross_entropy(answers, targets)
    return nn.functional.mse_loss(answers[:, 0], targets)
