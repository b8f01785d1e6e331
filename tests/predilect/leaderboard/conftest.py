"""A finished leaderboard with made-up numbers, and fake recommenders that fit in no time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from predilect.leaderboard.results import Leaderboard, ModelComparison, ModelResult


def _metrics(ndcg: float, coverage: float) -> dict[str, Any]:
    values = {"hr@1": ndcg * 0.45, "hr@5": ndcg * 1.35, "hr@10": ndcg * 1.9, "hr@20": ndcg * 2.7}
    values |= {"ndcg@10": ndcg, "mrr": ndcg * 0.88, "coverage@10": coverage}
    values |= {"ndcg@10_low": ndcg * 0.95, "ndcg@10_high": ndcg * 1.05}
    return {**values, "rows": 6801, "users": 1003, "candidates": 2414, "protocol": "full", "seen": "masked"}


@pytest.fixture
def make_board() -> Callable[..., Leaderboard]:
    """`make_board(titles=...)`: eight models, one of them failed, four with learning curves."""

    def make(titles: list[str] | None = None, quick: bool = False) -> Leaderboard:
        titles = titles or [f"The Film with Number {i} (20{i:02d})" for i in range(40)]
        numbers = {
            "sasrec": (0.0661, 0.41, 310_272, 38.0),
            "gru4rec": (0.0642, 0.38, 194_368, 21.5),
            "nextitnet": (0.0611, 0.36, 402_112, 74.0),
            "item-knn": (0.0532, 0.71, 0, 0.31),
            "recent-popularity": (0.0521, 0.02, 0, 0.02),
            "popularity": (0.0468, 0.01, 0, 0.004),
            "random": (0.0018, 0.98, 0, 0.001),
        }
        models = [
            ModelResult(
                name,
                "ok",
                _metrics(ndcg, coverage),
                parameters,
                seconds,
                0.4,
                curve=[
                    {"epoch": e, "ndcg@10": ndcg * (1.02 - math.exp(-e / (1.5 + len(name) / 3)))} for e in range(1, 15)
                ]
                if parameters
                else [],
            )
            for name, (ndcg, coverage, parameters, seconds) in numbers.items()
        ]
        models.append(ModelResult("caser", "failed", error="RuntimeError: <b>out of memory</b>"))
        names = list(numbers)
        comparisons = [
            ModelComparison(n, "item-knn", m.headline - 0.0532, 0.001, 0.02, 0.001)
            for n, m in zip(names[:3], models, strict=False)
        ]
        comparisons += [ModelComparison(n, "item-knn", -0.005, -0.009, -0.001, 0.004) for n in names[4:]]
        comparisons.append(ModelComparison("sasrec", "gru4rec", 0.0019, -0.0004, 0.004, 0.11))
        comparisons += [ModelComparison("sasrec", n, 0.01, 0.004, 0.02, 0.001) for n in names[2:] if n != "item-knn"]
        items = [{"id": i + 1, "title": t} for i, t in enumerate(titles)]
        examples = [
            {
                "user_id": 17 * u + 3,
                "history": items[u : u + 10],
                "target": items[u + 10],
                "lists": {
                    n: {"rank": 1 + (7 * u + 3 * k) ** 2 % 900, "top": items[u + 9 - k : u + 14 - k]}
                    for k, n in enumerate(names)
                },
            }
            for u in range(8)
        ]
        counts = [
            ("read", 100_000, 16_554, 10_506),
            ("5-core", 68_055, 4_333, 2_414),
            ("temporal: train", 50_112, 3_310, 2_409),
        ]
        counts += [("temporal: validation", 6_810, 1_214, 1_903), ("temporal: test", 6_801, 1_003, 1_845)]
        return Leaderboard(
            config={"seed": 0, "bootstrap": 1000, "quick": quick},
            protocol={
                "data": "movietweetings-100k",
                "strategy": "temporal",
                "max_history": 10,
                "ranking": "full",
                "seen": "masked",
            },
            counts=[dict(zip(("step", "interactions", "users", "items"), c, strict=True)) for c in counts],
            models=models,
            comparisons=comparisons,
            examples=examples,
            versions={"python": "3.11.7", "predilect": "0.1.0", "torch": "2.15.0", "transformers": "5.23.0"},
            hardware={
                "system": "Linux x86_64",
                "processor": "A processor",
                "cores": 2,
                "threads": 2,
                "accelerator": None,
            },
            command="predilect leaderboard --seed 0",
            date="2026-11-24T13:30:00+00:00",
        )

    return make
