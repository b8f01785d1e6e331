"""`predilect rl simulate` and `predilect rl realism`: recommenders, and the log, beside all simulators, as tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offline_rl_rec.judged import fitted, named_methods
from offline_rl_rec.simulation import simulator_class
from offline_rl_rec.simulation.realism import Realism, realism
from offline_rl_rec.simulation.returns import SimulatedReturns, simulate
from offline_rl_rec.simulation.users import UserSimulator
from predilect.data import SequenceSplits
from predilect.runs import write_text

if TYPE_CHECKING:
    from rich.table import Table

    from offline_rl_rec.cli import RealismConfig, SimulateConfig, UsersConfig

Named = tuple[str, SimulatedReturns]


def fit_simulators(config: UsersConfig, splits: SequenceSplits) -> list[UserSimulator]:
    """The config's simulators, fitted on its part of the log."""
    rows = splits.part(config.part)
    return [
        simulator_class(name)(patience=config.patience, reluctance=config.reluctance, seed=config.seed).fit(
            rows, splits.num_items, config.rule
        )
        for name in config.simulators
    ]


def _simulators(config: SimulateConfig, splits: SequenceSplits) -> list[UserSimulator]:
    """Those that were saved, or else fitted ones, which are saved where the config says so.

    Raises:
        ValueError: users of another catalogue, or two of one family.
        FileNotFoundError: a folder without users.
    """
    if config.users:
        found = [UserSimulator.from_pretrained(folder, splits.catalogue) for folder in config.users]
        if len({users.name for users in found}) < len(found):
            raise ValueError(f"users are told apart by their family: one folder each (got {', '.join(config.users)})")
        return found
    found = fit_simulators(config, splits)
    if config.keep_users is not None:
        for users in found:
            users.save_pretrained(config.keep_users / users.name, splits.catalogue)
    return found


def simulate_all(config: SimulateConfig, tell: Callable[[str], Any] = lambda text: None) -> list[Named]:
    """Prepare the data, fit what has to be fitted, and simulate every recommender under every simulator.

    Returns:
        Pairs of a label, as `--model` has it, and the returns; recommender after recommender.

    Raises:
        ValueError: a recommender of another catalogue, a log without rewards, options outside their ranges.
        FileNotFoundError: neither a folder nor the name of a recommender.
    """
    from predilect.leaderboard.preparation import prepare

    methods = named_methods(config)  # before data are read: what is wrong is said soon
    tell("reading the log")
    splits = prepare(config)
    simulators = _simulators(config, splits)  # before methods are: it says where a log has no rewards
    found: list[Named] = []
    for name, recommender in fitted(methods, splits, tell):
        for simulator in simulators:
            tell(f"{name} with {simulator.name} users")
            returns = simulate(
                recommender,
                simulator,
                sessions=config.sessions,
                slate_size=config.slate_size,
                discount=config.discount,
                max_steps=config.max_steps,
                exclude_history=config.mask_seen,
                bootstrap=config.bootstrap,
                seed=config.seed,
            )
            found.append((name, returns))
    return found


def rows_of(found: Sequence[Named]) -> list[dict[str, Any]]:
    """One row per recommender and simulator: names, setting, results, and `return_minus_first` with its interval, the
    paired difference of returns to the first recommender under the same users."""
    first: dict[str, SimulatedReturns] = {}
    rows = []
    for label, returns in found:
        against = first.setdefault(returns.simulator, returns)
        row = {"model": label, "simulator": returns.simulator, **returns.results}
        if against is not returns:
            difference, low, high, _ = returns.minus(against)
            row |= {"return_minus_first": difference, "return_minus_first_low": low, "return_minus_first_high": high}
        rows.append({**row, **returns.setting})
    return rows


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Rows as CSV, whole or not at all; a column for every name that any row has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def returns_table(found: Sequence[Named]) -> Table:
    """Recommenders under one simulator as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    setting = found[0][1].setting
    table = Table(title=f"{found[0][1].simulator} users", title_style="bold", header_style="bold")
    table.add_column("model", overflow="fold")  # folders are long
    for name in ("return", "95 % interval", "- first", "discounted", "taken", "accepted"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows_of(found):
        minus = ""
        if "return_minus_first" in row:
            clear = row["return_minus_first_low"] > 0 or row["return_minus_first_high"] < 0
            minus = f"{row['return_minus_first']:+.3f}" + ("" if clear else " ≈")
        ends = f"{row['return_low']:.2f} to {row['return_high']:.2f}"
        numbers = (f"{row['discounted_return']:.3f}", f"{row['taken']:.2f}", f"{row['acceptance']:.1%}")
        table.add_row(Text(row["model"]), f"{row['return']:.3f}", ends, minus, *numbers)
    table.caption = (
        f"{setting['sessions']:,} sessions, slates of {setting['slate_size']}, discount {setting['discount']:g}\n"
        "≈: the 95 % interval of the paired difference holds 0\nmore columns in the file"
    )
    return table


def compare_with_log(config: RealismConfig) -> Realism:
    """Prepare the data, fit the simulators, and compare their sessions with the log's.

    Raises:
        ValueError: a log without rewards, options outside their ranges.
    """
    from predilect.leaderboard.preparation import prepare

    splits = prepare(config)
    simulators = fit_simulators(config, splits)
    return realism(simulators, splits.part(config.against), sessions=config.sessions, seed=config.seed)


def realism_table(found: Realism) -> Table:
    """Means and distances as a table for the terminal."""
    from rich.table import Table

    table = Table(title="simulated and logged sessions", title_style="bold", header_style="bold")
    table.add_column("quantity")
    for name in ("log", *found.simulated, "halves", *(f"{name} distance" for name in found.simulated)):
        table.add_column(name, justify="right")
    for row in found.rows:
        means = [row.get("logged"), *(row.get(f"{name}_mean") for name in found.simulated)]
        distances = [row["halves"], *(row[name] for name in found.simulated)]
        table.add_row(row["quantity"], *("" if v is None else f"{v:.3f}" for v in (*means, *distances)))
    table.caption = "means; Wasserstein distances (items: total variation); halves: between halves of the log"
    return table
