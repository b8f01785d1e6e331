"""How well graphs find their texts and texts their graphs, against chance, with intervals and every row behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from mol_llm.molecules import canonical_smiles
from predilect.evaluation.bootstrap import bootstrap_intervals
from predilect.runs import write_json, write_rows

_CUTOFFS = (1, 10)


@dataclass(frozen=True)
class RetrievalEvaluation:
    """Results of retrieval.

    Attributes:
        results: `rows`; of `text_by_graph` and `graph_by_text` the metrics `hit@1`, `hit@10` and `mrr`, their
            intervals (`<metric>_low`, `<metric>_high`) and, as `chance_<metric>`, what a random order has.
        rows: `smiles`, `text`, and the rank of the right one in both directions, from 1.
    """

    results: dict[str, Any]
    rows: Dataset

    def save(self, folder: str | Path) -> None:
        """Write `evaluation.json` and `rows.parquet`."""
        write_json(Path(folder) / "evaluation.json", {"results": self.results})
        write_rows(Path(folder) / "rows.parquet", self.rows)


def evaluate_retrieval(
    similarity: NDArray[Any], smiles: Sequence[str], texts: Sequence[str], *, bootstrap: int = 1000, seed: int = 0
) -> RetrievalEvaluation:
    """Rank all n texts for each of n graphs, and all graphs for each text.

    Right are a row's own text and graph, and those of rows with the same text or molecule; the rank is that of the
    best right one, 1 + the number of wrong ones whose similarity is at least as high, so that ties count against.
    Intervals resample molecules.

    Args:
        similarity: (n, n), graphs by texts.
        smiles: n molecules.
        texts: n texts.
        bootstrap: resamples; 0: no intervals.
        seed: of the resampling.

    Raises:
        ValueError: another shape, a similarity that is not finite, or fewer than two rows.
    """
    count = len(smiles)
    if similarity.shape != (count, len(texts)) or count < 2:
        raise ValueError(
            f"n >= 2 graphs and texts have n x n similarities (got {count}, {len(texts)} and {similarity.shape})"
        )
    if not np.isfinite(similarity).all():
        raise ValueError("a similarity is not finite")
    molecules = _numbers([canonical_smiles(text) for text in smiles])
    same_text = _numbers(list(texts))
    right = (molecules[:, None] == molecules) | (same_text[:, None] == same_text)
    per_row: dict[str, NDArray[np.float64]] = {}
    chance: dict[str, float] = {}
    ranks: dict[str, NDArray[np.int64]] = {}
    for name, scores in (("text_by_graph", similarity), ("graph_by_text", similarity.T)):
        ranks[name] = _ranks(scores, right)
        for cutoff in _CUTOFFS:
            per_row[f"{name}_hit@{cutoff}"] = (ranks[name] <= cutoff).astype(np.float64)
        per_row[f"{name}_mrr"] = 1 / ranks[name]
        chance |= {f"chance_{name}_{metric}": value for metric, value in _chance(right).items()}
    results: dict[str, Any] = {"rows": count, **{name: float(values.mean()) for name, values in per_row.items()}}
    results |= chance
    if bootstrap:
        for name, interval in bootstrap_intervals(per_row, groups=molecules, resamples=bootstrap, seed=seed).items():
            results[f"{name}_low"], results[f"{name}_high"] = interval.low, interval.high
    columns = {f"rank_of_{name.split('_')[0]}": values for name, values in ranks.items()}
    return RetrievalEvaluation(results, Dataset.from_dict({"smiles": list(smiles), "text": list(texts), **columns}))


def _ranks(scores: NDArray[Any], right: NDArray[np.bool_]) -> NDArray[np.int64]:
    best = np.where(right, scores, -np.inf).max(axis=1)
    found: NDArray[np.int64] = 1 + ((scores >= best[:, None]) & ~right).sum(axis=1)
    return found


def _chance(right: NDArray[np.bool_]) -> dict[str, float]:
    """Of a random order of n, c of them right: P(rank > r) = prod_{i < r} (n - c - i) / (n - i)."""
    n = len(right)
    counts, rows = np.unique(right.sum(axis=1), return_counts=True)
    totals = dict.fromkeys([*(f"hit@{cutoff}" for cutoff in _CUTOFFS), "mrr"], 0.0)
    for c, share in zip(counts, rows / n, strict=True):
        places = np.arange(n)
        later = np.concatenate([[1.0], np.cumprod(np.clip(n - c - places, 0, None) / (n - places))])  # P(rank > r)
        for cutoff in _CUTOFFS:
            totals[f"hit@{cutoff}"] += share * (1 - later[min(cutoff, n)])
        totals["mrr"] += share * float(((later[:-1] - later[1:]) / (places + 1)).sum())
    return {name: float(value) for name, value in totals.items()}


def _numbers(values: Sequence[str]) -> NDArray[np.int64]:
    number = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return np.array([number[value] for value in values])
