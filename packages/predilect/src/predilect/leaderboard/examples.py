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
        Per row: `user_id`, `history` and `target` (`id` and `title`), and `lists`: model -> `rank` and `top`.
    """
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
    test = splits.test.select(rows).with_format("arrow")[:].to_pylist()
    tops = {name: _top(folder / name, tables[name].take(pa.array(places)), splits, rows) for name in ranked}

    def item(item_id: int) -> dict[str, Any]:
        return {"id": item_id, "title": splits.catalogue.title(item_id)}

    return [
        {
            "user_id": row["user_id"],
            "history": [item(i) for i in row["history"]],
            "target": item(row["target"]),
            "lists": {
                name: {"rank": int(ranks[name][places[n]]), "top": [item(i) for i in tops[name][n]]} for name in ranked
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


def _top(folder: Path, table: pa.Table, splits: SequenceSplits, rows: list[int]) -> list[list[int]]:
    """The first items of the given rows: kept by the full ranking, scored again for candidate sets."""
    if "top" in table.column_names:
        return [[i for i in top[:LENGTH] if i] for top in table["top"].to_pylist()]
    import torch

    from predilect.data.splits import row_tensors
    from predilect.recommender import Recommender

    few = row_tensors(splits.test.select(rows), splits.protocol["max_history"])
    if few.candidates is None:
        raise ValueError("these splits have no candidate sets: call with_candidates first")
    with torch.no_grad():
        scores = Recommender.from_pretrained(folder / "recommender").score(few.history, few.candidates)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :LENGTH]
    top: list[list[int]] = few.candidates.gather(1, order).tolist()
    return top
