"""Evaluate any recommender under a named protocol, and keep the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Dataset

from predilect.data.splits import RowTensors, SequenceSplits, row_tensors
from predilect.evaluation.bootstrap import bootstrap_intervals
from predilect.evaluation.ranking import RankingMetrics, top_items

if TYPE_CHECKING:
    from predilect.recommender import Recommender

PROTOCOLS = ("full", "candidates")
TOP = 10  # length of the lists that are kept, and the k of coverage@k
_JSON, _ROWS = "evaluation.json", "rows.parquet"


@dataclass(frozen=True)
class Evaluation:
    """One recommender's result.

    Attributes:
        recommender: its name.
        setting: everything that must be equal for two results to be comparable: `protocol`, `part`, `seen`,
            `negatives`, `candidates`, `candidate_seed`, `rows_drawn` (number and seed, None for all rows), and the
            protocol of the splits (`data`, `strategy`, ...).
        results: `rows`, `users`, `repeat_targets`, the metrics, and `<metric>_low`, `<metric>_high`.
        rows: `row` (its number in the part), `user_id`, `position` (of the target in the user's sequence), `target`,
            `rank`, and under protocol `full` `top`: the list that the user would be shown, the ten best items that are
            not masked, best first, as `Recommender.recommend` orders them. It is made without knowing the target, so
            it differs from `rank` in two ways: a masked target (`repeat_targets`) is never in it, and of equal scores
            the lower id comes first while `rank` counts against the target.
    """

    recommender: str
    setting: dict[str, Any]
    results: dict[str, float]
    rows: Dataset

    @property
    def metrics(self) -> dict[str, Any]:
        """The setting and the results as one flat dict."""
        return {**self.setting, **self.results}

    def save(self, folder: str | Path) -> None:
        """Write `evaluation.json` and `rows.parquet` into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        summary = {"recommender": self.recommender, "setting": self.setting, "results": self.results}
        (folder / _JSON).write_text(json.dumps(summary, indent=2) + "\n")
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
        summary = json.loads((folder / _JSON).read_text())
        return cls(
            summary["recommender"], summary["setting"], summary["results"], Dataset(pq.read_table(folder / _ROWS))
        )


def evaluate(
    recommender: Recommender,
    splits: SequenceSplits,
    part: str = "test",
    *,
    protocol: str = "full",
    mask_seen: bool = True,
    ks: Sequence[int] = (1, 5, 10, 20),
    batch_size: int = 1024,
    bootstrap: int = 1000,
    seed: int = 0,
    max_rows: int | None = None,
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
            A target that was taken before stays rankable; `repeat_targets` counts such rows.
        ks: cut-offs of `hr@k` and `ndcg@k`.
        batch_size: histories scored at once.
        bootstrap: resamples of the 95 % intervals over users (`bootstrap_interval`); 0: no intervals.
        seed: of the bootstrap, and of the rows drawn.
        max_rows: rank this many rows only, drawn at random: the same ones for every recommender; None: all.

    Returns:
        An `Evaluation` whose `metrics` hold `hr@k`, `ndcg@k`, `mrr` (definitions: `RankingMetrics`), their intervals,
        and under protocol `full`, where all rows are ranked, `coverage@10`: share of the items that are in at least
        one of the ten-item lists.

    Raises:
        ValueError: unknown protocol or part, no rows, no candidates in the splits, scores of the wrong shape or NaN
            scores (naming the recommender), fewer than two users to resample.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)} (got {protocol!r})")
    if batch_size < 1 or bootstrap < 0:
        raise ValueError(f"batch_size must be at least 1 and bootstrap at least 0 (got {batch_size}, {bootstrap})")
    if not len(splits.part(part)):
        raise ValueError(f"the part {part!r} has no rows to evaluate")
    if max_rows is not None and max_rows < 2:
        raise ValueError(f"max_rows must be at least 2, or None for all rows (got {max_rows})")
    numbers = _drawn_rows(len(splits.part(part)), max_rows, seed)
    drawn = len(numbers) < len(splits.part(part))
    tensors = row_tensors(splits.part(part).select(numbers), splits.protocol["max_history"])
    if protocol == "candidates" and tensors.candidates is None:
        raise ValueError(f"the part {part!r} has no candidates: pass splits.with_candidates(size=20) of these splits")
    full = protocol == "full"
    metrics, tops, repeats = RankingMetrics(ks), [], 0
    with torch.inference_mode():
        for batch, past in _batches(tensors, splits, batch_size):
            scores = _scores(recommender, batch, splits.num_items, full)
            repeats += len(np.unique(past[0][past[1] == batch.target.numpy()[past[0]]]))
            seen = past if mask_seen else None
            try:
                metrics.update(scores, batch.target, candidates=None if full else batch.candidates, exclude=seen)
            except ValueError as error:
                raise ValueError(f"{recommender.name}: {error}") from error
            if full:
                tops.append(top_items(scores, TOP, exclude=seen).cpu())
    rows = _rows(numbers, tensors, metrics, torch.cat(tops) if full else None)
    setting = {**_setting(splits, part, full, mask_seen), "rows_drawn": [max_rows, seed] if drawn else None}
    tops = [] if drawn else tops
    results = {"rows": len(tensors), "users": len(torch.unique(tensors.user_id)), "repeat_targets": repeats}
    return Evaluation(
        recommender.name, setting, results | _results(metrics, tensors, tops, splits.num_items, bootstrap, seed), rows
    )


def _batches(
    tensors: RowTensors, splits: SequenceSplits, size: int
) -> Iterator[tuple[RowTensors, tuple[np.ndarray, np.ndarray]]]:
    """Slices of the rows, each with the pairs (row in the slice, item) of everything its users took before."""
    for start in range(0, len(tensors), size):
        some = slice(start, start + size)
        batch = RowTensors(
            tensors.history[some],
            tensors.target[some],
            tensors.user_id[some],
            tensors.position[some],
            None if tensors.candidates is None else tensors.candidates[some],
        )
        yield batch, splits.sequences.past(batch.user_id.numpy(), batch.position.numpy())


def _scores(recommender: Recommender, batch: RowTensors, num_items: int, full: bool) -> torch.Tensor:
    candidates = None if full else batch.candidates
    scores = recommender.score(batch.history, candidates)
    expected = (len(batch), num_items) if candidates is None else tuple(candidates.shape)
    if tuple(scores.shape) != expected:
        columns = "(histories, items), without a column for padding" if full else "(histories, candidates)"
        raise ValueError(
            f"{recommender.name}.score must return the shape {expected}: {columns} (got {tuple(scores.shape)})"
        )
    return scores


def _drawn_rows(total: int, count: int | None, seed: int) -> np.ndarray:
    """Numbers of the rows to rank, ascending; a smaller draw is part of a larger one."""
    if count is None or count >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).permutation(total)[:count])


def _rows(numbers: np.ndarray, tensors: RowTensors, metrics: RankingMetrics, top: torch.Tensor | None) -> Dataset:
    columns: dict[str, Any] = {
        "row": numbers,
        "user_id": tensors.user_id.numpy(),
        "position": tensors.position.numpy(),
        "target": tensors.target.numpy(),
        "rank": metrics.per_row()["rank"],
    }
    if top is not None:  # 0 fills a list of a user who has fewer than ten items left
        columns["top"] = [[item for item in items if item] for items in top.tolist()]
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


def _results(
    metrics: RankingMetrics, tensors: RowTensors, tops: list[torch.Tensor], num_items: int, bootstrap: int, seed: int
) -> dict[str, float]:
    results = metrics.compute()
    if tops:
        shown = torch.unique(torch.cat(tops))
        results[f"coverage@{TOP}"] = int((shown > 0).sum()) / num_items
    if bootstrap:
        per_row = {name: values for name, values in metrics.per_row().items() if name in metrics.names}
        intervals = bootstrap_intervals(per_row, groups=tensors.user_id, resamples=bootstrap, seed=seed)
        for name, interval in intervals.items():
            results[f"{name}_low"], results[f"{name}_high"] = interval.low, interval.high
    return results
