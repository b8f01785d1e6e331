from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.slow
def test_quick_run_writes_every_case(quick_speed: Callable[[str], dict[str, Any]]) -> None:
    result = quick_speed("preference")  # it stops where both sides' losses differ
    assert set(result) == {"name", "command", "date", "hardware", "versions", "data", "rows"}
    cases = [row["case"] for row in result["rows"]]
    assert [case.split(",")[0] for case in cases[:5]] == ["K = 1", "K = 1", "K = 3", "K = 7", "K = 15"]
    assert sum(case.startswith("memory of one example") for case in cases) == 6  # 4 numbers of negatives, 2 growths
    memory = [row["ours"] for row in result["rows"][5:9]]
    repeated = [row["baseline"] for row in result["rows"][5:9]]
    assert memory[3] < 2 * memory[0]  # grows with P + (K + 1) C ...
    assert repeated[3] > 6 * repeated[0]  # ... and not with (K + 1) (P + C)
