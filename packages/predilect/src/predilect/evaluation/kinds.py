"""Kinds of rows by which every result is given apart: how well known the target is, and how long the history."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from predilect.data.rows import SequenceRows
from predilect.data.splits import SequenceSplits

FREQUENCY = (("never", 0), ("1 to 5", 5), ("6 to 50", 50))
HISTORY = (("0 to 5", 5), ("6 to 20", 20), ("21 to 50", 50))
MORE = "more"


class Kinds(NamedTuple):
    """Names of the kinds, in their order, and that of each row, (R,)."""

    names: tuple[str, ...]
    values: np.ndarray


def kinds_of_rows(rows: SequenceRows, splits: SequenceSplits) -> dict[str, Kinds]:
    """The kinds of rows.

    Args:
        rows: of a part of `splits`.
        splits: whose training part of the log is counted.

    Returns:
        `target_frequency`: how often the target was taken in the training part of the log: "never", "1 to 5",
        "6 to 50", "more". What was never taken no counting method can rank. `history_length`: how much the user took
        before the target, what the model does not see of it included: "0 to 5", "6 to 20", "21 to 50", "more".
    """
    items = np.asarray(splits.train_interactions.with_format("numpy")["item_id"][:])
    counts = np.bincount(items, minlength=splits.num_items + 1)
    return {
        "target_frequency": _kinds(counts[rows.target], FREQUENCY),
        "history_length": _kinds(rows.position, HISTORY),
    }


def _kinds(numbers: np.ndarray, upto: tuple[tuple[str, int], ...]) -> Kinds:
    names = (*(name for name, _ in upto), MORE)
    return Kinds(names, np.array(names)[np.searchsorted([most for _, most in upto], numbers)])
