from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.slow
def test_quick_run_writes_every_case(quick_speed: Callable[[str], dict[str, Any]]) -> None:
    result = quick_speed("mol_llm")
    goals = [(row["case"].split(",")[0], row["goal"]) for row in result["rows"]]
    assert goals == [
        ("graphs of 40 pairs of 8 molecules", 20),
        ("vectors of the molecules of 64 pairs", 1.5),
        ("a step of MolTC", 0.8),
        ("a step of MolTC", 0.8),
        ("probabilities of two answers", 1.7),
    ]
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in result["rows"])
