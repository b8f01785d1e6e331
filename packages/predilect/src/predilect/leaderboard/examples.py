"""A few people as the models see them: what they took, what they took next, and what every model would have shown."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from predilect.leaderboard.config import ProtocolConfig
from predilect.leaderboard.results import ModelResult

if TYPE_CHECKING:
    from predilect.data import SequenceSplits

COUNT = 8
LENGTH = 5


def pick_examples(
    models: list[ModelResult], folder: Path, splits: SequenceSplits, config: ProtocolConfig
) -> list[dict[str, Any]]:
    """Up to `COUNT` test rows of different users, with every model's first `LENGTH` items.

    In half of them at least one model has the next item among its first five, where there are so many; the others are
    drawn from all rows. So hits are more frequent here than in the metrics, and the report says so.

    Returns:
        Per row: `user_id`, `history` and `target` (`id` and `title`), and `lists`: model -> `rank` (None: the
        target was hidden) and `top`.
    """
    from predilect.evaluation.ranking import MISS

    ranked = [m.name for m in models if m.status == "ok"]
    if not ranked:
        return []
    tables = _common_rows({name: pq.read_table(folder / name / "rows.parquet") for name in ranked})
    numbers = tables[ranked[0]]["row"].to_numpy()
    ranks = {name: table["rank"].to_numpy() for name, table in tables.items()}
    places = _choose(
        tables[ranked[0]]["user_id"].to_numpy(), np.min(list(ranks.values()), axis=0) <= LENGTH, config.seed
    )
    rows = [int(numbers[place]) for place in places]
    test = splits.test.select(rows).to_dataset().to_list()
    tops = {name: table.take(pa.array(places))["top"].to_pylist() for name, table in tables.items()}

    def item(item_id: int) -> dict[str, Any]:
        return {"id": item_id, "title": splits.catalogue.title(item_id)}

    return [
        {
            "user_id": row["user_id"],
            "history": [item(i) for i in row["history"]],
            "target": item(row["target"]),
            "lists": {
                name: {
                    "rank": None if (rank := int(ranks[name][places[n]])) == MISS else rank,
                    "top": [item(i) for i in tops[name][n][:LENGTH]],
                }
                for name in ranked
            },
        }
        for n, row in enumerate(test)
    ]


def _common_rows(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """The test rows that every model ranked, in their order."""
    common = functools.reduce(np.intersect1d, [table["row"].to_numpy() for table in tables.values()])
    return {
        name: table.take(pa.array(np.searchsorted(table["row"].to_numpy(), common))) for name, table in tables.items()
    }


def _choose(users: np.ndarray, hit: np.ndarray, seed: int) -> list[int]:
    """Places of rows of different users: first some with a hit, then any."""
    order = np.random.default_rng(seed).permutation(len(users))
    chosen: dict[int, int] = {}
    for wanted, rows in ((COUNT // 2, order[hit[order]]), (COUNT, order)):
        for row in rows:
            if len(chosen) >= wanted:
                break
            chosen.setdefault(int(users[row]), int(row))
    return sorted(chosen.values())
