"""Fixtures for all packages: real data where it is present, and small data with a planted pattern."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Callable[[str], Path]:
    """`data_dir(name)`: the folder of a real data set, or a skip that says why."""
    root = Path(os.environ.get("PREDILECT_DATA", REPOSITORY.parent / "shared" / "data"))

    def find(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"real data {name} is absent: set PREDILECT_DATA to the folder that holds it")
        return root / name

    return find


@pytest.fixture(scope="session")
def alike() -> Callable[[Any, Any], None]:
    """`alike(found, expected)`: tensors are equal to the last bit; on a GPU, whose sums have no fixed order, close."""
    exact = {"rtol": 0.0, "atol": 0.0}
    close = {"rtol": 0.01, "atol": 1e-4}
    return partial(torch.testing.assert_close, **(close if torch.accelerator.is_available() else exact))


@pytest.fixture(scope="session")
def planted_log() -> dict[str, list[int]]:
    """60 users walk around a ring of 20 items from random starts: the next item is always the present one plus one."""
    rng = np.random.default_rng(0)
    users, items, times = [], [], []
    for user in range(60):
        start = int(rng.integers(20))
        for step in range(12):
            users.append(user)
            items.append((start + step) % 20 + 1)
            times.append(1_000 * step + user)
    return {"user_id": users, "item_id": items, "timestamp": times}


@pytest.fixture(scope="session")
def tiny_splits(planted_log: dict[str, list[int]]) -> object:
    """Temporal splits of `planted_log` with titles; a sequence model can be perfect on it, popularity cannot."""
    from datasets import Dataset

    from predilect.data import RecDataset

    interactions = Dataset.from_dict({**planted_log, "rating": [1.0] * len(planted_log["user_id"])})
    items = Dataset.from_dict(
        {
            "item_id": list(range(1, 21)),
            "raw_id": [f"r{i}" for i in range(1, 21)],
            "title": [f"Film number {i} (20{i:02d})" for i in range(1, 21)],
            "categories": [["Drama"] if i % 2 else ["Comedy", "Crime"] for i in range(1, 21)],
        }
    )
    return RecDataset(interactions, items, name="planted").split("temporal", max_history=5)
