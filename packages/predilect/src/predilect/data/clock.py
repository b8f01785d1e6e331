"""The times of a raw log: their unit, and the order of rows that share user and time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predilect.data.schema import Problem

UNITS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
_LATEST = 1e11  # in seconds the year 5138
_MANY_TIES = 0.1


def in_seconds(log: pa.Table) -> tuple[pa.Table, list[Problem]]:
    """The log with its times in seconds, and what was done: all of them lie, in some unit, between 1973 and 5138.

    Times of 0 and below tell nothing about the unit. A column in which some times have another size is left as it is.
    """
    if "timestamp" not in log.column_names:
        return log, []
    time = log["timestamp"].cast(pa.float64(), safe=False)  # nanoseconds have more digits than float64
    told = pc.min_max(time.filter(pc.fill_null(pc.greater(time, 0), False))).as_py()
    if told["max"] is None or told["max"] <= _LATEST:
        return log, []
    for unit, factor in UNITS.items():
        if told["min"] > _LATEST / 1e3 * factor and told["max"] <= _LATEST * factor:
            said = f"all times have the size of {unit} since 1970, and are read as such"
            place = log.column_names.index("timestamp")
            log = log.set_column(place, "timestamp", pc.divide(time, factor))
            return log, [Problem("time unit", "warning", len(log), (said,))]
    return log.set_column(log.column_names.index("timestamp"), "timestamp", time), []


def order_ties(log: pa.Table, how: str, seed: int) -> tuple[pa.Table, str, list[Problem]]:
    """Order the rows that share user and time, among the places that they have.

    Args:
        log: `user_id` and `item_id` as dense ids, and where there is one `timestamp`.
        how: "file" or "random".
        seed: of a random order.

    Returns:
        The log; the words that name the order, "" where there are no ties; a warning where over a tenth of the rows
        share user and time with another, so that their order is anybody's.
    """
    if "timestamp" not in log.column_names:
        return log, "", []
    user, item, time = (np.asarray(log[c].to_numpy()) for c in ("user_id", "item_id", "timestamp"))
    rows = np.arange(len(log))
    order = np.lexsort((rows, time, user))
    same = (np.diff(user[order]) == 0) & (np.diff(time[order]) == 0)
    count = int((np.append(same, False) | np.append(False, same)).sum())
    problems = []
    if count > _MANY_TIES * len(log):
        rising = float((np.diff(item[order]) > 0)[same].mean())
        said = (
            f"{count / len(log):.0%} of the rows share user and time with another; the order of the file, in which "
            f'{rising:.0%} of their item ids ascend, stands unless --ties random (ties="random") draws one'
        )
        problems = [Problem("equal times", "warning", count, (said,))]
    if not count or how == "file":
        return log, how if count else "", problems
    places = np.empty_like(rows)
    places[order] = np.lexsort((np.random.default_rng(seed).permutation(rows), time, user))
    return log.take(pa.array(places)), f"{how}, seed {seed}", problems
