"""`predilect rl ope`: recommenders judged by a log's own sessions, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from offline_rl_rec.judged import fitted, named_methods
from offline_rl_rec.logged_policies import logged_episodes
from offline_rl_rec.off_policy import off_policy_estimates
from offline_rl_rec.simulation.transition import TransitionChoice

if TYPE_CHECKING:
    from rich.table import Table

    from offline_rl_rec.cli import OpeConfig


def judge_all(config: OpeConfig, tell: Callable[[str], Any] = lambda text: None) -> list[dict[str, Any]]:
    """One row per recommender and estimator; the first row is what the log itself earned.

    Raises:
        ValueError: a recommender of another catalogue, a log without rewards, options outside their ranges.
        FileNotFoundError: neither a folder nor the name of a recommender.
    """
    from predilect.leaderboard.preparation import prepare

    methods = named_methods(config)  # before data are read: what is wrong is said soon
    tell("reading the log")
    splits = prepare(config)
    behaviour = TransitionChoice(seed=config.seed).fit(splits.train, splits.num_items, config.rule)
    rows: list[dict[str, Any]] = []
    for name, recommender in fitted(methods, splits, tell):
        tell(f"judging {name}")
        episodes = logged_episodes(
            recommender,
            splits,
            config.part,
            behaviour=behaviour,
            rule=config.rule,
            k=config.k,
            mix=config.mix,
            discount=config.discount,
            max_steps=config.max_steps,
            exclude_history=config.mask_seen,
        )
        found = off_policy_estimates(episodes, clip=config.clip)
        logged = found["logged"].sessions
        for estimator, estimate in found.items():
            if estimator == "logged" and rows:
                continue
            rows.append(
                {
                    "model": "the log" if estimator == "logged" else name,
                    "estimator": estimator,
                    "return": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "effective_sessions": estimate.effective,
                    "sessions": len(logged),
                    **{key: getattr(config, key) for key in ("k", "mix", "max_steps", "discount", "clip", "seed")},
                }
            )
    return rows


def ope_table(rows: Sequence[Mapping[str, Any]], config: OpeConfig) -> Table:
    """The rows for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="off-policy estimates of the return", title_style="bold", header_style="bold")
    table.add_column("model")
    table.add_column("estimator")
    for name in ("return", "95 % interval", "effective sessions"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        ends = f"{row['low']:.3f} to {row['high']:.3f}"
        numbers = (f"{row['return']:.3f}", ends, f"{row['effective_sessions']:.0f} of {row['sessions']}")
        table.add_row(Text(row["model"]), row["estimator"], *numbers)
    table.caption = (
        f"lists of {config.k} decide {1 - config.mix:.0%} of the first {config.max_steps} events, the log the others\n"
        "the log's own policy is estimated: smoothed transitions of the training part\n"
        "below some 30 effective sessions an interval says little"
    )
    return table
