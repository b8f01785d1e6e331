"""Off-policy estimators against the true values of policies, on simulated users: bias, error, coverage of intervals.

    python -m benchmarks.claims.offline_rl_ope [--quick] [--output FOLDER]

Users are fitted on the last quarter of the packaged films (20-core). A policy shows one of the 20 most popular films
that are not in the history, in proportion to their counts to the power of beta; the log's policy has beta 0.5. The
truth is the mean discounted return of many sessions under the policy itself, with its standard error beside it.
Every estimate comes from a log of its own, and probabilities are those the log was made with. The values of
`doubly-robust` are those of items, counted on a further log: wrong, as they are on real data.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, NamedTuple

import numpy as np
from benchmarks.claims._kept import environment, write
from benchmarks.claims._results import options_of
from benchmarks.claims._statistics import Array

import predilect
from offline_rl_rec import LoggedEpisodes, LogitChoice, RewardRule, TransitionChoice, UserSimulator
from offline_rl_rec.off_policy import off_policy_estimates
from offline_rl_rec.simulation import Users

LOGGING, TARGETS = 0.5, (0.0, 0.5, 1.0, 2.0)
ITEMS, STEPS, DISCOUNT, CLIP = 20, 10, 0.9, 10.0
SESSIONS, LOGS, TRUTH = 500, 200, 100_000
BATCH = 20_000  # users at once


class Policy(NamedTuple):
    """Shows one of `items` (M,) that is not in the history, in proportion to `weight` (M,)."""

    items: Array
    weight: Array

    def probabilities(self, histories: Array) -> Array:
        """(n, M); uniform where all are in the history."""
        seen = (histories[:, :, None] == self.items).any(axis=1)
        weight = np.where(seen, 0.0, self.weight)
        weight[seen.all(axis=1)] = 1.0
        found: Array = weight / weight.sum(axis=1, keepdims=True)
        return found


class Log(NamedTuple):
    """Sessions, (E, T) each: place of the shown item among the policy's, reward, whether the user was there; and the
    histories before each step, (E, T, L)."""

    place: Array
    reward: Array
    there: Array
    histories: Array


def main() -> None:
    given = options_of("Off-policy estimators against the truth.")
    rows = [row for users in simulators() for row in rows_of(users, *((4, 200) if given.quick else (LOGS, TRUTH)))]
    result = {
        "name": "offline_rl_ope",
        "command": "python -m benchmarks.claims.offline_rl_ope",
        "date": date.today().isoformat(),
        **environment(),
        "data": f"packaged MovieTweetings, 20-core; {LOGS} logs of {SESSIONS} sessions of at most {STEPS} steps, one "
        f"film shown at a step, discount {DISCOUNT:g}, log's policy beta {LOGGING:g}, clip {CLIP:g}, seed 0; truth "
        f"from {TRUTH:,} sessions",
        "rows": rows,
    }
    for row in rows:
        print(row)
    write(given.output.parent / "offline_rl_ope.json", result, indent=2)


def simulators() -> list[UserSimulator]:
    splits = predilect.load().k_core(20).split(ratios=(0.5, 0.25, 0.25))
    rule = RewardRule(liked=8)
    return [kind().fit(splits.test, splits.num_items, rule) for kind in (LogitChoice, TransitionChoice)]


def policies(users: UserSimulator) -> dict[float, Policy]:
    """By beta; the popular films are those most often in the histories with which sessions begin."""
    counts = np.bincount(users.starts.ravel(), minlength=users.num_items + 1)[1:]
    items = 1 + np.argsort(-counts, kind="stable")[:ITEMS]
    return {beta: Policy(items, (counts[items - 1] + 1.0) ** beta) for beta in {LOGGING, *TARGETS}}


def rows_of(users: UserSimulator, logs: int, truth: int) -> Iterator[dict[str, Any]]:
    """A row for each target policy and estimator."""
    found, rng = policies(users), np.random.default_rng(0)
    logging = found[LOGGING]
    values = item_values(sessions(users, logging, truth // 10, rng))
    whole = sessions(users, logging, logs * SESSIONS, rng)
    for beta in TARGETS:
        returns = discounted(sessions(users, found[beta], truth, rng))
        true, error = float(returns.mean()), float(returns.std() / np.sqrt(len(returns)))
        estimates: dict[str, list[tuple[float, float, float, float]]] = {}
        for start in range(0, logs * SESSIONS, SESSIONS):
            one = Log(*(column[start : start + SESSIONS] for column in whole))
            for name, e in off_policy_estimates(episodes(one, logging, found[beta], values), clip=CLIP).items():
                if name != "logged" or beta == LOGGING:
                    estimates.setdefault(name, []).append((e.value, e.low, e.high, e.effective))
        for name, column in estimates.items():
            value, low, high, effective = np.array(column).T
            yield {
                "users": users.name,
                "beta": beta,
                "estimator": name,
                "truth": true,
                "truth_error": error,
                "bias": float(value.mean() - true),
                "bias_error": float(np.hypot(value.std(ddof=1) / np.sqrt(len(value)), error)),
                "rmse": float(np.sqrt(np.square(value - true).mean())),
                "coverage": float(((low <= true) & (true <= high)).mean()),
                "effective": float(effective.mean()),
            }


def sessions(users: UserSimulator, policy: Policy, number: int, rng: np.random.Generator) -> Log:
    """Sessions under a policy, cut off after `STEPS` steps."""
    parts = []
    for start in range(0, number, BATCH):
        n = min(BATCH, number - start)
        here, active = Users(users, n), np.ones(n, dtype=bool)
        here.begin(rng)
        columns = []
        for _ in range(STEPS):
            ends = np.cumsum(policy.probabilities(here.histories), axis=1)
            place = np.minimum((ends <= rng.random((n, 1))).sum(axis=1), len(policy.items) - 1)
            before, there = here.histories.astype(np.int32), active.copy()
            step = here.step(policy.items[place][:, None], rng, active)
            columns.append((place, step.reward, there, before))
            active = active & ~step.left
        parts.append([np.stack(column, axis=1) for column in zip(*columns, strict=True)])
    return Log(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def discounted(log: Log) -> Array:
    """(E,)."""
    returns: Array = (np.where(log.there, log.reward, 0.0).astype(np.float64) * DISCOUNT ** np.arange(STEPS)).sum(
        axis=1
    )
    return returns


def item_values(log: Log) -> Array:
    """(T, M) mean return from a step on, after each item was shown then."""
    rest, values = np.zeros(len(log.place)), np.zeros((STEPS, ITEMS))
    for step in reversed(range(STEPS)):
        there = log.there[:, step]
        rest = np.where(there, log.reward[:, step] + DISCOUNT * rest, 0.0)
        total = np.bincount(log.place[there, step], rest[there], minlength=ITEMS)
        values[step] = total / np.maximum(1, np.bincount(log.place[there, step], minlength=ITEMS))
    return values


def episodes(log: Log, logging: Policy, target: Policy, values: Array) -> LoggedEpisodes:
    shape = log.place.shape
    flat = log.histories.reshape(-1, log.histories.shape[2])
    theirs, ours = (policy.probabilities(flat).reshape(*shape, ITEMS) for policy in (logging, target))
    taken = log.place[..., None]
    return LoggedEpisodes(
        reward=log.reward.astype(np.float64),
        behaviour=np.take_along_axis(theirs, taken, axis=2)[..., 0],
        target=np.take_along_axis(ours, taken, axis=2)[..., 0],
        steps=log.there,
        discount=DISCOUNT,
        action_value=values[np.arange(STEPS)[None], log.place],
        state_value=(ours * values[None]).sum(axis=2),
    )


if __name__ == "__main__":
    main()
