"""What an agent's lists earn, as further columns of the core's evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from offline_rl_rec.sessions import RewardRule, Sessions, discounted_returns
from predilect.data.splits import SequenceSplits
from predilect.evaluation import Evaluation
from predilect.training import NextItemRows


def with_returns(
    evaluation: Evaluation,
    splits: SequenceSplits,
    rule: RewardRule | None = None,
    *,
    discount: float = 0.5,
    ks: Sequence[int] = (5, 10, 20),
    agent: Any = None,
) -> Evaluation:
    r"""An evaluation with what its lists earn; nothing is scored again, except values where an agent is given.

    A row earns its reward if its target is among the k best. Further results:

    * `reward@k`: mean reward earned per row;
    * `return@k`: mean over episodes of the discounted sum of what was earned, :math:`\sum_t \gamma^t r_t [rank_t \le
      k]`: an estimate from logged sessions, which go on as if the logged item had been taken;
    * `repetition@<top>`: share of a list that was in the same user's list one row earlier, where lists were kept;
    * `max_q`, `realised_return` and `overestimation`, their difference: the mean of the largest value before each row,
      and of the discounted return that followed in the log; where `agent` has values.

    Args:
        evaluation: of any recommender, all rows of a part.
        splits: the data it was made on.
        rule: rewards; None: 0.2 and 1.0.
        discount: gamma.
        ks: lengths of lists.
        agent: the fitted agent whose values are looked at; None: no values.

    Raises:
        ValueError: an evaluation of other data, or of drawn rows; see also `RewardRule.is_purchase`.
    """
    part = splits.part(evaluation.setting["part"])
    numbers = np.asarray(evaluation.rows["row"])
    rows = part.select(numbers) if len(numbers) and numbers.max() < len(part) else part
    if len(numbers) != len(part) or not np.array_equal(rows.target, np.asarray(evaluation.rows["target"])):
        raise ValueError(
            f"the evaluation has {len(numbers)} rows and the part {evaluation.setting['part']!r} of these splits "
            f"{len(part)}: pass the splits that were evaluated, and an evaluation of all rows"
        )
    sessions = Sessions.of(part, rule)
    order = np.lexsort((rows.position, rows.user))
    reward, rank, done = sessions.rewards(rows)[order], np.asarray(evaluation.rows["rank"])[order], rows.done[order]
    first = np.append(True, done[:-1])
    found: dict[str, float] = {}
    for k in ks:
        earned = reward * (rank <= k)
        found[f"reward@{k}"] = float(earned.mean())
        found[f"return@{k}"] = float(discounted_returns(earned, done, discount)[first].mean())
    if "top" in evaluation.rows.column_names:
        found |= _repetition([evaluation.rows["top"][int(i)] for i in order], first)
    if agent is not None and agent.model.config.has_values:
        found |= _overestimation(agent, splits, evaluation.setting["part"], sessions, discount)
    return replace(evaluation, results={**evaluation.results, **found})


def _repetition(lists: list[list[int]], first: np.ndarray) -> dict[str, float]:
    shares = [
        len(set(now) & set(before)) / max(1, len(now))
        for before, now, new in zip(lists, lists[1:], first[1:], strict=False)
        if not new
    ]
    return {f"repetition@{max(map(len, lists))}": float(np.mean(shares))} if shares else {}


def _overestimation(
    agent: Any, splits: SequenceSplits, part: str, sessions: Sessions, discount: float
) -> dict[str, float]:
    from offline_rl_rec.recommenders import max_values

    rows = splits.part(part)
    highest = float(max_values(agent.model, NextItemRows(rows)).mean())
    realised = float(sessions.returns(rows, discount).mean())
    return {"max_q": highest, "realised_return": realised, "overestimation": highest - realised}
