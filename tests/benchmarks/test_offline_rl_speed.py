from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.slow
def test_quick_run_writes_every_case(quick_speed: Callable[[str], dict[str, Any]]) -> None:
    result = quick_speed("offline_rl")
    goals = [(row["case"].split(",")[0], row["goal"]) for row in result["rows"]]
    assert goals == [
        ("a step of MCRL on sasrec", 0.5),
        ("a step of MCRL on gru4rec", 0.5),
        ("memory of the conservative loss by its states", 20),
        ("8 environments of logit users", 20),
        ("8 environments of logit users", 1),
        ("8 environments of transition users", 20),
        ("8 environments of transition users", 1),
    ]
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in result["rows"])
