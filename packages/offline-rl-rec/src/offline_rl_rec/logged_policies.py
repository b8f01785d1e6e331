"""From a log and a recommender to `LoggedEpisodes`: what the log did, and what the recommender would have done."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import softmax

from offline_rl_rec.off_policy import LoggedEpisodes
from offline_rl_rec.sessions import RewardRule, Sessions
from offline_rl_rec.simulation.returns import best_items
from offline_rl_rec.simulation.transition import TransitionChoice
from predilect.data import SequenceSplits
from predilect.data.rows import SequenceRows
from predilect.recommender import Recommender

_PRIOR = 2.0  # events that the mean return is worth in an item's
_CHUNK = 1 << 22  # probabilities held at once


def logged_episodes(
    recommender: Recommender[Any],
    splits: SequenceSplits,
    part: str = "test",
    *,
    behaviour: TransitionChoice | None = None,
    rule: RewardRule | None = None,
    k: int = 10,
    mix: float = 0.5,
    discount: float = 0.9,
    max_steps: int = 10,
    exclude_history: bool = True,
) -> LoggedEpisodes:
    r"""The sessions of a part, judged as if the recommender's lists had decided a share of their events.

    The log does not say with which probability an item was taken, so the behaviour `b` is fitted on the training part:
    smoothed counts of transitions, over all items (`TransitionChoice`). The policy that is judged takes one of the
    recommender's `k` best items, each as likely, and acts as the log otherwise,

    .. math:: \pi(a | s) = (1 - mix) \frac{[a \in \text{top-}k(s)]}{k} + mix \, b(a | s).

    Without `mix` no session of any length would agree with it; with 1 it is the log. Values for `doubly_robust` are
    those of items: :math:`Q(s, a)` is the mean of the returns that followed `a` in the training part, drawn towards
    the mean over all items, and :math:`V(s)` its mean under :math:`\pi`.

    Args:
        recommender: fitted on the training part.
        splits: of the log.
        part: whose sessions are judged.
        behaviour: fitted; None: on the training part.
        rule: what an event is worth.
        k: items of a list.
        mix: share of the events that are left to the log, in (0, 1].
        discount: gamma, in [0, 1].
        max_steps: events of a session that count.
        exclude_history: lists never hold items of the history.

    Raises:
        ValueError: options outside their ranges; a log without rewards; fewer than two sessions in a part.
    """
    if not 0 < mix <= 1:
        raise ValueError(f"mix must be in (0, 1]: without it no session agrees with the lists (got {mix})")
    if not 1 <= k <= splits.num_items:
        raise ValueError(f"k must be in 1..{splits.num_items}, the number of items (got {k})")
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1 (got {max_steps})")
    rule = rule or RewardRule()
    behaviour = behaviour or TransitionChoice().fit(splits.train, splits.num_items, rule)
    values = _item_values(splits, rule, discount)
    rows, session, step = _first_steps(splits.part(part), max_steps)
    columns = {
        "reward": Sessions.of(rows, rule).rewards(rows).astype(np.float64),
        **_policies(recommender, behaviour, rows, values, k, mix, exclude_history),
    }
    shape = (int(session.max()) + 1, int(step.max()) + 1)
    there = np.zeros(shape, dtype=bool)
    there[session, step] = True
    tables = {name: np.zeros(shape) for name in columns}
    for name, column in columns.items():
        tables[name][session, step] = column
    return LoggedEpisodes(steps=there, discount=discount, **tables)


def _first_steps(rows: SequenceRows, max_steps: int) -> tuple[SequenceRows, np.ndarray, np.ndarray]:
    """Rows session after session, (R,) number of the session and (R,) of the step."""
    rows = rows.select(np.lexsort((rows.position, rows.user)))
    _, first, session = np.unique(rows.user, return_index=True, return_inverse=True)
    if len(first) < 2:
        raise ValueError(f"policies are judged on two sessions at least (got {len(first)})")
    step = np.arange(len(rows)) - first[session]
    kept = np.flatnonzero(step < max_steps)
    return rows.select(kept), session[kept], step[kept]


def _item_values(splits: SequenceSplits, rule: RewardRule, discount: float) -> np.ndarray:
    """(N + 1,) smoothed mean of the returns that followed each item in the training part; place 0 is unused."""
    rows, size = splits.train, splits.num_items + 1
    returns = Sessions.of(rows, rule).returns(rows, discount)
    total = np.bincount(rows.target, returns, minlength=size) + _PRIOR * returns.mean()
    values: np.ndarray = total / (np.bincount(rows.target, minlength=size) + _PRIOR)
    return values


def _policies(
    recommender: Recommender[Any],
    behaviour: TransitionChoice,
    rows: SequenceRows,
    values: np.ndarray,
    k: int,
    mix: float,
    exclude_history: bool,
) -> dict[str, np.ndarray]:
    """Probabilities of the targets under both policies, and values, (R,) each."""
    size = len(values) - 1
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("behaviour", "target", "state_value")}
    items = np.arange(1, size + 1)[None]
    step = max(1, _CHUNK // size)
    for start in range(0, len(rows), step):
        some = rows.select(slice(start, start + step))
        histories = some.histories().numpy()
        remembered = histories[:, -behaviour.max_history :]
        probability = softmax(behaviour.utilities(remembered, np.broadcast_to(items, (len(some), size))), axis=1)
        shown = best_items(recommender, histories, k, exclude_history)
        shares = (shown > 0) / np.maximum(1, (shown > 0).sum(axis=1, keepdims=True))
        here = np.arange(len(some))
        taken = probability[here, some.target - 1]
        listed = (shares * (shown == some.target[:, None])).sum(axis=1)
        found["behaviour"].append(taken)
        found["target"].append((1 - mix) * listed + mix * taken)
        found["state_value"].append((1 - mix) * (shares * values[shown]).sum(axis=1) + mix * probability @ values[1:])
    return {**{name: np.concatenate(parts) for name, parts in found.items()}, "action_value": values[rows.target]}
