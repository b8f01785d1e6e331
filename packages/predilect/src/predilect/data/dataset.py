"""`RecDataset`: a log and its items with dense ids, ready to be filtered and split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from predilect.data.arrow import as_dataset, as_table, numpy_column, positions, sorted_ids
from predilect.data.catalogue import Catalogue
from predilect.data.clock import in_seconds, order_ties
from predilect.data.schema import DataError, Problem, SchemaReport, check, require
from predilect.data.splits import SequenceSplits, StepCount, cut

if TYPE_CHECKING:
    from datasets import Dataset

SAVED = "predilect.json"
_INTERACTIONS = {
    "user_id": pa.int32(),
    "item_id": pa.int32(),
    "timestamp": pa.int64(),
    "rating": pa.float32(),
    "event": pa.string(),
    "split": pa.string(),
}


class RecDataset:
    """Two tables with dense ids: who took what when, and what the items are.

    `load` and `RecDataset.from_raw` make one from a log with any ids; the constructor takes ids that are dense
    already.

    Args:
        interactions: `user_id` (0..U-1), `item_id` (1..N; 0 is padding, everywhere), `timestamp` (Unix seconds, or any
            increasing number where the source has no clock), `rating`, and where the source has them `event` ("click",
            "buy", ...) and `split` ("train", "validation", "test"). Rows may be in any order; equal times keep it.
        items: `item_id` (1..N, in order), `raw_id` (the source's own id), `title` ("" without one), `categories`,
            more.
        name: the data set's name, copied into every result.
        report: what the schema check found.
        counts: rows, users and items after each step so far.
        k: the k of the k-core applied, 0 for none; copied into the protocol of every split.
        ties: how rows of one user and time were ordered ("file", "random, seed 0"), "" where there are none; copied
            into the protocol too.

    Raises:
        DataError: a column is missing, or ids are not dense.
    """

    def __init__(
        self,
        interactions: Dataset,
        items: Dataset,
        *,
        name: str,
        report: SchemaReport | None = None,
        counts: Sequence[StepCount] = (),
        k: int = 0,
        ties: str = "",
    ) -> None:
        self.interactions, self.items, self.name, self.k, self.ties = interactions, items, name, k, ties
        self.report = report or SchemaReport()
        for table, needed in ((interactions, ("user_id", "item_id", "timestamp", "rating")), (items, ("item_id",))):
            missing = [c for c in needed if c not in table.column_names]
            if missing:
                raise DataError(f"{name} lacks the column {', '.join(missing)} (got {', '.join(table.column_names)})")
        self._require_dense()
        self.counts = tuple(counts) or (self._count("read"),)

    @classmethod
    def from_raw(
        cls,
        interactions: pa.Table | Dataset,
        items: pa.Table | Dataset | None = None,
        *,
        name: str = "data",
        on_error: str = "raise",
        found: Sequence[Problem] = (),
        ties: str = "file",
        ties_seed: int = 0,
    ) -> RecDataset:
        """Check a log with any ids, and number its users and items densely.

        Ids are given in the order of the raw ids (by number if all are numbers), so they say nothing about popularity
        or time. Items that nobody took are left out of the catalogue.

        Args:
            interactions: `user_id`, `item_id` and where there are any `timestamp` (a number, Unix seconds, or
                milliseconds, microseconds or nanoseconds, which a column is known by if all of its times have that
                size; without it the order of the rows is the order of events), `rating`, `event`, `split`.
            items: `item_id` and where there are any `title`, `categories` (lists), more columns.
            name: the data set's name.
            on_error: "raise", or "skip": drop rows with errors; `.report` and `.counts` say how many.
            found: problems that were met while reading.
            ties: the order of rows of one user and time: "file" keeps theirs, "random" draws one. The report says
                where more than a tenth of the rows are such.
            ties_seed: of that draw.

        Raises:
            DataError: the data has errors; holds the whole report.
        """
        if ties not in ("file", "random"):
            raise ValueError(f'ties must be "file" or "random" (got {ties!r})')
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error must be "raise" or "skip" (got {on_error!r})')
        log, table = as_table(interactions), None if items is None else as_table(items)
        log, unit = in_seconds(log)
        report = check(log, table, found=[*found, *unit])
        if on_error == "raise":
            require(report, name, len(log))
        counts = [_raw_count("read", log)]
        if report.errors:
            log = _without(log, report.faulty_rows("interactions"))
            table = table if table is None else _without(table, report.faulty_rows("items"))
            counts.append(_raw_count("without errors", log))
        if not len(log):
            raise DataError(f"{name} has no interactions without an error:\n{report}", report)
        users, ids = sorted_ids(log["user_id"]), sorted_ids(log["item_id"])
        log = _put(log, "user_id", positions(log["user_id"], users))
        log = _put(log, "item_id", positions(log["item_id"], ids) + 1)
        log, tied, told = order_ties(log, ties, ties_seed)
        log = _with_clock(log)
        columns = {c: log[c] for c in ("user_id", "item_id", "timestamp")}
        columns["rating"] = log["rating"] if "rating" in log.column_names else np.ones(len(log))
        columns |= {c: log[c] for c in ("event", "split") if c in log.column_names}
        dense = pa.table({c: columns[c] for c in _INTERACTIONS if c in columns})
        return cls(
            as_dataset(dense.cast(pa.schema([(c, _INTERACTIONS[c]) for c in dense.column_names]))),
            as_dataset(_item_table(ids, table)),
            name=name,
            report=SchemaReport((*report.problems, *told)),
            counts=counts,
            ties=tied,
        )

    @cached_property
    def catalogue(self) -> Catalogue:
        """The items, with how often each was taken."""
        table = as_table(self.items)
        size = len(table)

        def texts(column: str) -> tuple[str, ...]:
            return tuple(t or "" for t in table[column].to_pylist()) if column in table.column_names else ("",) * size

        has_raw = "raw_id" in table.column_names
        categories = table["categories"].to_pylist() if "categories" in table.column_names else [[]] * size
        counts = np.bincount(numpy_column(self.interactions, "item_id"), minlength=size + 1)[1:]
        return Catalogue(
            texts("raw_id") if has_raw else tuple(str(i) for i in table["item_id"].to_pylist()),
            texts("title"),
            tuple(tuple(c or ()) for c in categories),
            tuple(counts.tolist()),
        )

    def k_core(self, k: int) -> RecDataset:
        """Drop users and items with fewer than `k` interactions until none is left, and renumber both densely.

        Raises:
            ValueError: k below 1, or nothing remains.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1 (got {k})")
        user, item = numpy_column(self.interactions, "user_id"), numpy_column(self.interactions, "item_id")
        keep = np.arange(len(user))
        while True:
            enough = (np.bincount(user[keep])[user[keep]] >= k) & (np.bincount(item[keep])[item[keep]] >= k)
            if enough.all():
                break
            keep = keep[enough]
        if not len(keep):
            raise ValueError(f"the {k}-core of {self.name} is empty: choose a smaller k (got {k})")
        core = self._select(keep)
        counts = (*self.counts, core._count(f"{k}-core"))
        return RecDataset(
            core.interactions,
            core.items,
            name=self.name,
            report=self.report,
            counts=counts,
            k=max(k, self.k),
            ties=self.ties,
        )

    def split(
        self,
        strategy: str = "temporal",
        *,
        ratios: Sequence[float] = (0.8, 0.1, 0.1),
        max_history: int = 10,
        min_history: int = 1,
        seed: int = 0,
    ) -> SequenceSplits:
        """Training, validation and test rows of next-item prediction; see `predilect.data.splits.cut`."""
        return cut(
            self.interactions,
            self.catalogue,
            strategy,
            name=self.name,
            k=self.k,
            ties=self.ties,
            counts=self.counts,
            ratios=tuple(ratios),
            max_history=max_history,
            min_history=min_history,
            seed=seed,
        )

    def save(self, folder: str | Path) -> None:
        """Write a folder (two Parquet files and a description) that `load` restores identically."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(as_table(self.interactions), folder / "interactions.parquet", compression="zstd")
        pq.write_table(as_table(self.items), folder / "items.parquet", compression="zstd")
        described = {
            "name": self.name,
            "k": self.k,
            "ties": self.ties,
            "counts": [asdict(c) for c in self.counts],
            "problems": [p.summary() for p in self.report.problems],
        }
        (folder / SAVED).write_text(json.dumps(described, indent=2), encoding="utf-8")

    @classmethod
    def restore(cls, folder: Path) -> RecDataset:
        """Read what `save` wrote."""
        try:
            described = json.loads((folder / SAVED).read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{folder / SAVED} is not JSON: {error}") from error
        return cls(
            as_dataset(pq.read_table(folder / "interactions.parquet")),
            as_dataset(pq.read_table(folder / "items.parquet")),
            name=described["name"],
            report=SchemaReport(tuple(Problem.from_summary(p) for p in described["problems"])),
            counts=[StepCount(**c) for c in described["counts"]],
            k=described["k"],
            ties=described.get("ties", ""),
        )

    def __repr__(self) -> str:
        c = self.counts[-1]
        return f"RecDataset({self.name!r}: {c.interactions:,} interactions, {c.users:,} users, {c.items:,} items)"

    def _count(self, step: str) -> StepCount:
        users = len(np.unique(numpy_column(self.interactions, "user_id")))
        return StepCount(step, len(self.interactions), users, len(self.items))

    def _require_dense(self) -> None:
        way_out = "RecDataset.from_raw renumbers a log with any ids"
        if not len(self.interactions):
            raise DataError(f"{self.name} has no interactions")
        ids = numpy_column(self.items, "item_id")
        if not np.array_equal(ids, np.arange(1, len(ids) + 1)):
            raise DataError(f"the item ids of {self.name} must be 1..{len(ids)} in order: {way_out}")
        item, user = numpy_column(self.interactions, "item_id"), numpy_column(self.interactions, "user_id")
        if item.min() < 1 or item.max() > len(ids):
            raise DataError(f"the log of {self.name} has items outside 1..{len(ids)}: {way_out}")
        if user.min() < 0 or not np.bincount(user).all():
            raise DataError(f"the user ids of {self.name} must be 0..U-1 without a gap: {way_out}")

    def _select(self, rows: np.ndarray) -> RecDataset:
        """The given interactions with the users and items that remain, renumbered in their order."""
        table = as_table(self.interactions).take(pa.array(rows))
        user = np.unique(table["user_id"].to_numpy(), return_inverse=True)[1]
        kept, item = np.unique(table["item_id"].to_numpy(), return_inverse=True)
        items = as_table(self.items).take(pa.array(kept - 1))
        table = _put(_put(table, "user_id", user), "item_id", item + 1)
        items = _put(items, "item_id", np.arange(1, len(kept) + 1))
        return RecDataset(as_dataset(table), as_dataset(items), name=self.name)


def _raw_count(step: str, log: pa.Table) -> StepCount:
    return StepCount(step, len(log), *(pc.count_distinct(log[c]).as_py() for c in ("user_id", "item_id")))


def _without(table: pa.Table, rows: np.ndarray) -> pa.Table:
    keep = np.ones(len(table), dtype=bool)
    keep[rows] = False
    return table.filter(pa.array(keep))


def _with_clock(log: pa.Table) -> pa.Table:
    """Whole seconds; events within one second keep the order of the finer clock, or else that of the rows."""
    if "timestamp" not in log.column_names:
        return log.append_column("timestamp", pa.array(np.arange(len(log))))
    time = log["timestamp"].to_numpy()
    if (time != np.floor(time)).any():
        order = np.argsort(time, kind="stable")
        log, time = log.take(pa.array(order)), time[order]
    return log.set_column(log.column_names.index("timestamp"), "timestamp", pa.array(np.floor(time).astype(np.int64)))


def _item_table(ids: pa.Array, items: pa.Table | None) -> pa.Table:
    """One row per id, in that order."""
    raw = ids.cast(pa.string())
    rows = pa.table({"item_id": pa.array(np.arange(1, len(ids) + 1, dtype=np.int32)), "raw_id": raw})
    given = pa.table({"item_id": raw}) if items is None else items
    place = positions(raw, given["item_id"].cast(pa.string()).combine_chunks())
    given = given.take(pa.array(place))
    for name, empty in (("title", pa.scalar("")), ("categories", pa.scalar([], pa.list_(pa.string())))):
        column = given[name] if name in given.column_names else pa.nulls(len(ids), empty.type)
        rows = rows.append_column(name, pc.coalesce(column.cast(empty.type), empty))
    for name in given.column_names:
        if name not in rows.column_names:
            rows = rows.append_column(name, given[name])
    return rows


def _put(table: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values.astype(np.int32)))
