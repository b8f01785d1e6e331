from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from predilect.evaluation.kinds import kinds_of_rows


@pytest.mark.parametrize(
    ("times", "name"), [(0, "never"), (1, "1 to 5"), (5, "1 to 5"), (6, "6 to 50"), (50, "6 to 50"), (51, "more")]
)
def test_targets_by_how_often_they_were_taken(tiny_splits: Any, times: int, name: str) -> None:
    items = [7] * times + [8] * 99
    log = {"user_id": [0] * len(items), "item_id": items, "timestamp": items, "rating": [1.0] * len(items)}
    splits = replace(tiny_splits, train_interactions=Dataset.from_dict(log))
    found = kinds_of_rows(splits.test, splits)["target_frequency"]
    assert found.names == ("never", "1 to 5", "6 to 50", "more")
    assert set(found.values[splits.test.target == 7]) == {name}
    assert set(found.values[splits.test.target == 8]) == {"more"}
    assert set(found.values[splits.test.target < 7]) <= {"never"}


def test_histories_by_all_that_was_taken_before(tiny_splits: Any) -> None:
    """Models see five items here; the history is longer."""
    found = kinds_of_rows(tiny_splits.test, tiny_splits)["history_length"]
    position = tiny_splits.test.position
    assert position.max() > 5
    assert np.array_equal(found.values == "6 to 20", position > 5)
    assert np.array_equal(found.values == "0 to 5", position <= 5)
