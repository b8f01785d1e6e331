from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def test_the_synthetic_log_has_its_size_and_its_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.speed.sequential import Size, synthetic_log

    size = Size(people=300, items=400, events=12_000, rows=1, catalogue=1)
    log = synthetic_log(size, groups=10)
    user, item = log["user_id"].to_numpy(), log["item_id"].to_numpy()
    assert len(log) == 12_000
    assert (set(user), item.max()) == (set(range(300)), 399)
    assert np.bincount(user).min() >= 20
    assert len({(u, i) for u, i in zip(user, item, strict=True)}) == len(log)
    assert log.equals(synthetic_log(size, groups=10))
    assert not log.equals(synthetic_log(size, seed=1, groups=10))
    counts = np.sort(np.bincount(item))[::-1]
    assert counts[:20].sum() > 2 * counts[-20:].sum()
    order = np.lexsort((log["timestamp"].to_numpy(), user))
    same = user[order][1:] == user[order][:-1]
    pairs = (item[order][:-1] * 400 + item[order][1:])[same]
    sequels = np.sort(np.bincount(pairs))[::-1][:400].sum() / len(pairs)
    assert sequels > 0.15  # 400 of 160,000 pairs


@pytest.mark.slow
def test_quick_run_writes_every_case(quick_speed: Callable[[str], dict[str, Any]]) -> None:
    result = quick_speed("sequential")
    assert set(result) == {"name", "command", "date", "hardware", "versions", "data", "rows"}
    assert [(row["baseline_is"].split(" (")[0], row["goal"]) for row in result["rows"]] == [
        ("single rows, logits at once", 8),
        ("single rows, softmax in chunks", 8),
        ("limit", 1),
    ]
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in result["rows"])
