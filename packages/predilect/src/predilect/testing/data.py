"""A small log whose next item follows from the last."""

from __future__ import annotations

from datasets import Dataset

from predilect.data import RecDataset, SequenceSplits


def planted_splits(people: int = 40, items: int = 20, *, max_history: int = 5) -> SequenceSplits:
    """Temporal splits of a log in which everybody walks along a ring of items, two events a person in test time.

    A model that reads the last item can be perfect on it; counting cannot, since all items are equally popular. Items
    have titles ("Film number 3 (2003)"), categories and raw ids ("r3").
    """
    length = 10
    rows = [(user, (user + step) % items + 1, 1000 * step + user) for user in range(people) for step in range(length)]
    user, item, time = (list(column) for column in zip(*sorted(rows, key=lambda row: row[2]), strict=True))
    rating = [3.0 + i % 3 for i in item]  # they differ, so that methods that learn from rewards can be tested
    log = Dataset.from_dict({"user_id": user, "item_id": item, "timestamp": time, "rating": rating})
    table = Dataset.from_dict(
        {
            "item_id": list(range(1, items + 1)),
            "raw_id": [f"r{i}" for i in range(1, items + 1)],
            "title": [f"Film number {i} (20{i:02d})" for i in range(1, items + 1)],
            "categories": [["Drama"] if i % 2 else ["Comedy", "Crime"] for i in range(1, items + 1)],
        }
    )
    return RecDataset(log, table, name="planted").split("temporal", max_history=max_history)
