"""Protocol `generate`: free generation and matching, as the papers evaluate; to be reported beside rankings."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

from llm_rec.base import PromptedRecommender
from llm_rec.matching import TitleMatcher
from predilect.data.splits import SequenceSplits
from predilect.evaluation import Evaluation, GenerationMetrics
from predilect.evaluation.bootstrap import bootstrap_intervals


def evaluate_generation(
    recommender: PromptedRecommender,
    splits: SequenceSplits,
    part: str = "test",
    *,
    max_rows: int | None = None,
    max_new_tokens: int | None = None,
    batch_size: int = 256,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Let the model write one title per row and look which item it names.

    Among the row's candidates where the splits have them and the prompts name them, otherwise in the whole catalogue.
    See `TitleMatcher` for what counts as naming an item, `GenerationMetrics` for the three metrics: `hr@1` counts an
    answer that is no item as wrong, and is comparable with `hr@1` of protocol `candidates` on the same rows.

    Args:
        recommender: fitted.
        splits: the data.
        part: "test" or "validation".
        max_rows: this many rows, drawn as `predilect.evaluation.evaluate` draws them; None: all.
        max_new_tokens: longest answer; None: the longest title. (S-DPO's 20 tokens cut long titles.)
        batch_size: rows whose answers are generated in one go.
        bootstrap: resamples of the intervals over users; 0: none.
        seed: of the rows drawn and of the bootstrap.

    Returns:
        An `Evaluation` whose rows hold `row`, `user_id`, `position`, `target`, `answer`, `item` (0: none), `reason`.
    """
    total = len(splits.part(part))
    numbers = np.arange(total)
    if max_rows is not None and max_rows < total:
        numbers = np.sort(np.random.default_rng(seed).permutation(total)[:max_rows])
    rows = splits.part(part).select(numbers)
    named = rows.candidate_sets() if recommender.prompter.names_candidates else None
    if recommender.prompter.names_candidates and named is None:
        raise ValueError(f"the part {part!r} has no candidates for the prompts to name: use splits.with_candidates")
    answers: list[str] = []
    for start in range(0, len(rows), batch_size):
        some = slice(start, start + batch_size)
        answers += recommender.generate(
            rows.histories(some), None if named is None else named[some], max_new_tokens=max_new_tokens
        )
    catalogue = recommender.catalogue
    everything = None if named is not None else TitleMatcher([catalogue.title(i + 1) for i in range(len(catalogue))])
    matches = []
    for row, answer in enumerate(answers):
        ids = [] if named is None else named[row].tolist()
        matcher = everything or TitleMatcher([catalogue.title(i) for i in ids], ids)
        matches.append(matcher.match(answer))
    metrics = GenerationMetrics()
    metrics.update([m.item_id for m in matches], rows.targets())
    results: dict[str, Any] = {"rows": len(rows), "users": len(np.unique(rows.user)), **metrics.compute()}
    if bootstrap:
        for name, interval in bootstrap_intervals(
            metrics.per_row(), groups=rows.user, resamples=bootstrap, seed=seed
        ).items():
            results[f"{name}_low"], results[f"{name}_high"] = interval.low, interval.high
    setting = {
        **splits.protocol,
        "protocol": "generate",
        "part": part,
        "candidates": len(catalogue) if named is None else named.shape[1],
        "rows_drawn": None if len(numbers) == total else [max_rows, seed],
    }
    table = {
        "row": numbers,
        "user_id": rows.user,
        "position": rows.position,
        "target": rows.target,
        "answer": answers,
        "item": [m.item_id or 0 for m in matches],
        "reason": [m.reason for m in matches],
    }
    return Evaluation(recommender.name, setting, results, Dataset.from_dict(table))
