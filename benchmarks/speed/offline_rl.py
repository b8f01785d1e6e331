"""Cost of a step of MCRL beside the backbone's own, and memory of the sampled conservative loss at a million items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from benchmarks.speed import _results
from torch.nn import functional as F

from offline_rl_rec import AgentConfig, AgentModel
from offline_rl_rec.objective import conservative_loss
from predilect.modeling import GRU4Rec, GRU4RecConfig, SASRec, SASRecConfig

LENGTH, WIDTH = 10, 64
MCRL = {"value_weight": 1.0, "conservative_weight": 1.0, "cross_entropy_weight": 0.0, "head": "q"}
MCRL |= {"reward_weight": 0.1, "transition_weight": 0.1}
BACKBONES: dict[str, tuple[Any, Any]] = {"sasrec": (SASRec, SASRecConfig), "gru4rec": (GRU4Rec, GRU4RecConfig)}


def stepper(model: Any, batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    """A step of training: forward, backward, optimizer and, where there is one, the target copy."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        if isinstance(model, AgentModel):
            model.after_step()

    return step


def steps(num_items: int, rows: int, repeats: int) -> list[dict[str, Any]]:
    windows = rows // LENGTH
    walk = torch.randint(1, num_items + 1, (windows, LENGTH + 1))
    plain = {"history": walk[:, :-1], "target": walk[:, 1:]}
    shape = plain["target"].shape
    more = {"reward": torch.rand(shape), "done": torch.zeros(shape, dtype=torch.bool), "remaining": torch.ones(shape)}
    found = []
    for name, (kind, config) in BACKBONES.items():
        sizes = {"num_items": num_items, "hidden_size": WIDTH}
        agent = AgentModel(AgentConfig(**sizes, max_history=LENGTH, backbone=name, **MCRL))
        alone = kind(config(**sizes, max_history=LENGTH))
        taken = _results.time_in_turns(
            {"mcrl": stepper(agent, {**plain, **more}), "plain": stepper(alone, plain)}, repeats=repeats
        )
        found.append(
            _results.row(
                f"a step of MCRL on {name}, {num_items:,} items, {windows} windows of {LENGTH} rows",
                ours=1000 * taken["mcrl"],
                baseline=1000 * taken["plain"],
                unit="ms",
                goal=0.5,
                baseline_is=f"a step of plain {name} on the same windows",
            )
        )
    return found


def memory(num_items: int, rows: int) -> dict[str, Any]:
    table, bias = torch.randn(num_items + 1, 16), torch.zeros(num_items)
    states, action = torch.randn(rows, 16, requires_grad=True), torch.randint(1, num_items + 1, (rows,))
    negatives = torch.randint(1, num_items + 1, (256,))

    def sampled() -> None:
        torch.autograd.backward(conservative_loss(states, table, bias, action, negatives=negatives))

    def full() -> None:
        torch.autograd.backward(F.cross_entropy(states @ table[1:].T + bias, action - 1))

    return _results.row(
        f"memory of the conservative loss by its states, {rows} rows, {num_items:,} items, 256 sampled",
        ours=_results.peak_extra_bytes(sampled) / 2**20,
        baseline=_results.peak_extra_bytes(full) / 2**20,
        unit="MiB",
        goal=20,
        baseline_is="all logits at once",
    )


def main() -> None:
    given = _results.options(__doc__ or "")
    torch.manual_seed(0)
    quick = given.quick
    rows = steps(200 if quick else 5_000, 100 if quick else 512, 1 if quick else 21)
    rows.append(memory(2_000 if quick else 1_000_000, 8 if quick else 128))
    _results.write("offline_rl", rows, data="random walks over random items", given=given, packages=["offline-rl-rec"])


if __name__ == "__main__":
    main()
