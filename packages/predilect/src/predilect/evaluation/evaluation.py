"""Evaluate any recommender under a named protocol, and keep the rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Dataset

from predilect.data.rows import SequenceRows
from predilect.data.splits import SequenceSplits
from predilect.evaluation.bootstrap import bootstrap_intervals
from predilect.evaluation.kinds import Kinds, kinds_of_rows
from predilect.evaluation.ranking import RankingMetrics, top_items

if TYPE_CHECKING:
    from predilect.recommender import Recommender

PROTOCOLS = ("full", "candidates")
REPEATS = ("miss", "left out")
_JSON, _ROWS = "evaluation.json", "rows.parquet"


@dataclass(frozen=True)
class Evaluation:
    """One recommender's result.

    Attributes:
        recommender: its name.
        setting: everything that must be equal for two results to be comparable: `protocol`, `part`, `seen`,
            `negatives`, `candidates`, `candidate_seed`, the protocol of the splits (`data`, `strategy`, ...),
            `rows_drawn` (number and seed, None for all rows) and `repeats` (what became of targets taken before, where
            seen items are masked).
        results: `rows`, `users`, `repeat_targets`, the metrics, and `<metric>_low`, `<metric>_high`.
        rows: `row` (its number in the part), `user_id`, `position` (of the target in the user's sequence), `target`,
            `repeat` (whether it was taken before), `target_frequency` and `history_length` (`kinds_of_rows`), `rank`,
            and `top`: the list that the user would be shown, the best
            items that are not masked, best first, as `Recommender.recommend` orders them. It is made without knowing
            the target: a masked target is never in it and has the rank `MISS`; and of equal scores the lower id comes
            first, while `rank` counts against the target.
        groups: column -> value -> results of the rows that have it. Always there are "repeat", with what was taken
            before ("repeat") and what is new to the user ("new"), and the kinds of rows of `kinds_of_rows`:
            "target_frequency" and "history_length"; the others are those of `group_by`.
    """

    recommender: str
    setting: dict[str, Any]
    results: dict[str, float]
    rows: Dataset
    groups: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, Any]:
        """The setting and the results as one flat dict."""
        return {**self.setting, **self.results}

    def save(self, folder: str | Path) -> None:
        """Write `evaluation.json` and `rows.parquet` into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = ("recommender", "setting", "results", "groups")
        (folder / _JSON).write_text(
            json.dumps({name: getattr(self, name) for name in names}, indent=2) + "\n", encoding="utf-8"
        )
        pq.write_table(self.rows.with_format("arrow")[:], folder / _ROWS)

    @classmethod
    def load(cls, folder: str | Path) -> Evaluation:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: `folder` misses one of the two files; names it.
        """
        folder = Path(folder)
        for name in (_JSON, _ROWS):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} is not a saved evaluation: it has no {name}")
        return cls(
            **json.loads((folder / _JSON).read_text(encoding="utf-8")), rows=Dataset(pq.read_table(folder / _ROWS))
        )


def evaluate(
    recommender: Recommender,
    splits: SequenceSplits,
    part: str = "test",
    *,
    protocol: str = "full",
    mask_seen: bool = True,
    repeats: str = "miss",
    ks: Sequence[int] = (1, 5, 10, 20),
    batch_size: int = 1024,
    bootstrap: int = 1000,
    seed: int = 0,
    max_rows: int | None = None,
    top: int = 10,
    group_by: Sequence[str] = (),
) -> Evaluation:
    """Rank every row's target and summarise the ranks.

    Scores exist for one batch at a time, so memory does not grow with users x items; results do not depend on the
    batch size. Equal scores count against the target.

    Args:
        recommender: fitted.
        splits: the data; `splits.part(part)` are the rows.
        part: "test" or "validation".
        protocol: "full" ranks all items; "candidates" ranks the fixed candidate set of each row
            (`splits.with_candidates`). The two are not comparable, and the result names its protocol.
        mask_seen: do not rank what the user took before the row (the whole past, not only the history the model sees).
            Right where people take an item once. Where they come back to items, choose False: nothing is hidden.
        repeats: what becomes of a row whose target was taken before, where seen items are masked: "miss" counts it as
            not found, since what is hidden cannot be recommended; "left out" ranks the other rows only.
        ks: cut-offs of `hr@k` and `ndcg@k`.
        batch_size: histories scored at once.
        bootstrap: resamples of the 95 % intervals over users (`bootstrap_interval`); 0: no intervals.
        seed: of the bootstrap, and of the rows drawn.
        max_rows: rank this many rows only, drawn at random: the same ones for every recommender; None: all.
        top: length of the lists that are kept in `rows`, and the k of `coverage@k`; 0: none.
        group_by: columns of the rows (`SequenceRows.columns`: `event`, `rating`, your own of `with_column`, ...) by
            whose values the results are given apart in `groups`. A group of one user has no intervals.

    Returns:
        An `Evaluation` whose `metrics` hold `hr@k`, `ndcg@k`, `mrr` (definitions: `RankingMetrics`), their intervals,
        and under protocol `full`, where all rows of the part are ranked, `coverage@<top>`: share of the items that are
        in at least one of the lists.

    Raises:
        ValueError: unknown protocol, part or column, no rows, no candidates in the splits, scores of the wrong shape
            or NaN scores (naming the recommender), fewer than two users to resample.

    Examples:
        >>> from dataclasses import replace
        >>> from predilect.data import load
        >>> from predilect.recommenders import Popularity
        >>> splits = load().k_core(20).split()
        >>> first = np.array([c[0] if c else "none" for c in splits.catalogue.categories])
        >>> rows = splits.test.with_column("genre", first[splits.test.target - 1])
        >>> found = evaluate(Popularity().fit(splits), replace(splits, test=rows), bootstrap=0, group_by=["genre"])
        >>> sum(group["rows"] for group in found.groups["genre"].values()) == found.metrics["rows"]
        True
    """
    _require_options(protocol, repeats, batch_size, bootstrap, max_rows, top)
    full = protocol == "full"
    whole = splits.part(part)
    if not len(whole):
        raise ValueError(f"the part {part!r} has no rows to evaluate")
    if not full and whole.candidates is None:
        raise ValueError(f"the part {part!r} has no candidates: pass splits.with_candidates(size=20) of these splits")
    numbers = _drawn_rows(len(whole), max_rows, seed)
    drawn = len(numbers) < len(whole)
    if mask_seen and repeats == "left out":
        numbers = numbers[~whole.select(numbers).repeat]
        if not len(numbers):
            raise ValueError(f"every target of the part {part!r} was taken before: pass mask_seen=False")
    rows = whole.select(numbers)
    repeat = rows.repeat
    kinds = kinds_of_rows(rows, splits)
    labels = {
        "repeat": _as_kinds(np.where(repeat, "repeat", "new")),
        **kinds,
        **{name: _as_kinds(rows.column(name)) for name in group_by if name != "repeat"},
    }
    metrics, lists = _ranked(recommender, rows, splits.num_items, ks, batch_size, full, mask_seen, top)
    setting = {
        **_setting(splits, part, full, mask_seen),
        "rows_drawn": [max_rows, seed] if drawn else None,
        "repeats": repeats if mask_seen else None,
    }
    values = {name: column for name, column in metrics.per_row().items() if name in metrics.names}
    results = _summary(values, rows.user, bootstrap, seed)
    results["repeat_targets"] = int(repeat.sum())
    if full and top and not drawn:
        results[f"coverage@{top}"] = int((torch.unique(lists) > 0).sum()) / splits.num_items
    groups = {name: _by_value(column, values, rows.user, bootstrap, seed) for name, column in labels.items()}
    return Evaluation(
        recommender.name, setting, results, _rows(numbers, rows, kinds, metrics, lists if top else None), groups
    )


def _require_options(
    protocol: str, repeats: str, batch_size: int, bootstrap: int, max_rows: int | None, top: int
) -> None:
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)} (got {protocol!r})")
    if repeats not in REPEATS:
        raise ValueError(f"repeats must be one of {', '.join(REPEATS)} (got {repeats!r})")
    if batch_size < 1 or bootstrap < 0 or top < 0:
        raise ValueError(
            f"batch_size must be at least 1, bootstrap and top at least 0 (got {batch_size}, {bootstrap}, {top})"
        )
    if max_rows is not None and max_rows < 2:
        raise ValueError(f"max_rows must be at least 2, or None for all rows (got {max_rows})")


def _ranked(
    recommender: Recommender,
    rows: SequenceRows,
    num_items: int,
    ks: Sequence[int],
    batch_size: int,
    full: bool,
    mask_seen: bool,
    top: int,
) -> tuple[RankingMetrics, torch.Tensor]:
    """The ranks of the targets, and the `top` best items of every row, (R, top)."""
    metrics, tops = RankingMetrics(ks), [torch.zeros(0, min(top, num_items), dtype=torch.int64)]
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            batch = rows.select(slice(start, start + batch_size))
            candidates = None if full else batch.candidate_sets()
            seen = batch.seen() if mask_seen else None
            scores = recommender.score(batch.histories(), candidates)
            try:
                metrics.update(scores, batch.targets(), candidates=candidates, exclude=seen, hide_targets=True)
            except ValueError as error:
                raise ValueError(f"{recommender.name}: {error}") from error
            if top:
                tops.append(top_items(scores, top, candidates=candidates, exclude=seen).cpu())
    return metrics, torch.cat(tops[1:] or tops)


def _drawn_rows(total: int, count: int | None, seed: int) -> np.ndarray:
    """Numbers of the rows to rank, ascending; a smaller draw is part of a larger one."""
    if count is None or count >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).permutation(total)[:count])


def _rows(
    numbers: np.ndarray,
    rows: SequenceRows,
    kinds: dict[str, Kinds],
    metrics: RankingMetrics,
    lists: torch.Tensor | None,
) -> Dataset:
    columns: dict[str, Any] = {
        "row": numbers,
        "user_id": rows.user,
        "position": rows.position,
        "target": rows.target,
        "repeat": rows.repeat,
        **{name: values for name, (_, values) in kinds.items()},
        "rank": metrics.per_row()["rank"],
    }
    if lists is not None:  # 0 fills a list of a user who has fewer items left
        columns["top"] = [[item for item in items if item] for items in lists.tolist()]
    return Dataset.from_dict(columns)


def _setting(splits: SequenceSplits, part: str, full: bool, mask_seen: bool) -> dict[str, Any]:
    of_candidates = ("candidates", "candidate_seed", "negatives")
    return {
        "protocol": "full" if full else "candidates",
        "part": part,
        "seen": "masked" if mask_seen else "kept",
        "negatives": "all items" if full else splits.protocol["negatives"],
        "candidates": splits.num_items if full else splits.protocol["candidates"],
        "candidate_seed": None if full else splits.protocol["candidate_seed"],
        **{name: value for name, value in splits.protocol.items() if name not in of_candidates},
    }


def _summary(values: dict[str, np.ndarray], user: np.ndarray, bootstrap: int, seed: int) -> dict[str, float]:
    """Number of rows and users, the mean of each metric, and its interval."""
    results: dict[str, float] = {"rows": len(user), "users": len(np.unique(user))}
    results |= {name: float(column.mean()) for name, column in values.items()}
    if bootstrap:
        for name, interval in bootstrap_intervals(values, groups=user, resamples=bootstrap, seed=seed).items():
            results[f"{name}_low"], results[f"{name}_high"] = interval.low, interval.high
    return results


def _as_kinds(values: np.ndarray) -> Kinds:
    """The distinct values, in their order."""
    return Kinds(tuple(np.unique(values)), values)


def _by_value(
    labels: Kinds, values: dict[str, np.ndarray], user: np.ndarray, bootstrap: int, seed: int
) -> dict[str, dict[str, float]]:
    """Results of the rows with each label; without intervals where all rows are one user's."""
    groups: dict[str, dict[str, float]] = {}
    for label in labels.names:
        mine = labels.values == label
        if not mine.any():
            continue
        resamples = bootstrap if len(np.unique(user[mine])) > 1 else 0
        groups[str(label)] = _summary({n: v[mine] for n, v in values.items()}, user[mine], resamples, seed)
    return groups
