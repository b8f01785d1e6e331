"""Cost of a step of MCRL beside the backbone's own, memory of the sampled conservative loss at a million items, and
steps a second of the vectorised environment beside a list of environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from benchmarks.speed import _results
from gymnasium.vector import SyncVectorEnv, VectorEnv
from torch.nn import functional as F

from offline_rl_rec import AgentConfig, AgentModel
from offline_rl_rec.objective import conservative_loss
from offline_rl_rec.simulation import SIMULATORS, SessionRec, VectorSessionRec, simulator_class
from predilect.data import load
from predilect.modeling import GRU4Rec, GRU4RecConfig, SASRec, SASRecConfig

LENGTH, WIDTH = 10, 64
SLATE = 10
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


def environments(family: str, num_envs: int, k_core: int, repeats: int) -> list[dict[str, Any]]:
    """A random policy, whose actions are drawn within what is timed, on users of the packaged films."""
    splits = load().k_core(k_core).split()
    simulator = simulator_class(family)().fit(splits.test, splits.num_items)
    many = VectorSessionRec(num_envs, simulator, slate_size=SLATE)
    listed: VectorEnv[Any, Any, Any] = SyncVectorEnv([lambda: SessionRec(simulator, slate_size=SLATE)] * num_envs)
    for vector in (many, listed):
        vector.reset(seed=0)

    def stepped(vector: VectorEnv[Any, Any, Any], calls: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(calls):
                vector.step(vector.action_space.sample())

        return run

    taken = _results.time_in_turns({"ours": stepped(many, 20), "listed": stepped(listed, 1)}, repeats=repeats)
    ours, theirs = 20 * num_envs / taken["ours"], num_envs / taken["listed"]
    case = f"{num_envs:,} environments of {family} users, {splits.num_items:,} items, slates of {SLATE}"
    compared = (
        ("a list of environments (SyncVectorEnv)", theirs, 20, ""),
        ("50,000 steps a second", 50_000.0, 1, ", in all"),
    )
    return [
        _results.row(
            case + more,
            ours=ours,
            baseline=baseline,
            unit="steps/s",
            goal=goal,
            baseline_is=name,
            lower_is_better=False,
        )
        for name, baseline, goal, more in compared
    ]


def main() -> None:
    given = _results.options(__doc__ or "")
    torch.manual_seed(0)
    quick = given.quick
    rows = steps(200 if quick else 5_000, 100 if quick else 512, 1 if quick else 21)
    rows.append(memory(2_000 if quick else 1_000_000, 8 if quick else 128))
    for family in SIMULATORS:
        rows += environments(family, 8 if quick else 1_024, 20 if quick else 5, 1 if quick else 11)
    _results.write(
        "offline_rl",
        rows,
        data="random walks over random items; environments: users fitted on the test part of MovieTweetings-100k",
        given=given,
        packages=["offline-rl-rec", "gymnasium"],
    )


if __name__ == "__main__":
    main()
