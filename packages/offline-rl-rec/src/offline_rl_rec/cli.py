"""`predilect rl simulate`, `realism` and `ope`; light, so that `predilect --help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from predilect.cli.options import config_command
from predilect.configuration import option
from predilect.leaderboard.config import PROTOCOL, SplitConfig

if TYPE_CHECKING:
    from offline_rl_rec.sessions import RewardRule

SIMULATION, USERS, REWARDS, JUDGED = "Simulation", "Simulated users", "Rewards", "Recommenders"
POLICY = "Policy"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="What recommenders earn over whole sessions: of simulated users, or judged by a log. `predilect train mcrl`, "
    "`sqn`, ... train agents for them.",
)


@dataclass(kw_only=True)
class RewardsConfig(SplitConfig):
    """What an event is worth."""

    click_reward: float = option("Reward of a click.", panel=REWARDS, default=0.2)
    purchase_reward: float = option("Reward of a purchase.", panel=REWARDS, default=1.0)
    liked: float | None = option(
        "Where the log has ratings only: the lowest that counts as a purchase; none: 0.8 of the highest.",
        panel=REWARDS,
        default=None,
    )

    @property
    def rule(self) -> RewardRule:
        """The rule of these rewards."""
        from offline_rl_rec.sessions import RewardRule

        return RewardRule(self.click_reward, self.purchase_reward, self.liked)


@dataclass(kw_only=True)
class JudgedConfig(RewardsConfig):
    """Which recommenders are judged."""

    model: tuple[str, ...] = option(
        "Saved recommenders (folders), or names of recommenders, which are fitted on the training part.",
        panel=JUDGED,
        default=(),
    )
    recommenders: dict[str, dict[str, Any]] = option(
        "An option of one recommender that is named, e.g. sqn.hidden_size=32; in YAML a section per recommender.",
        panel=JUDGED,
        default={},
    )
    mask_seen: bool = option("Lists hold nothing that is in the history.", panel=PROTOCOL, default=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise ValueError("name at least one recommender: --model FOLDER, or --model popularity,sqn")
        if unknown := sorted(set(self.recommenders) - set(self.model)):
            raise ValueError(
                f"options for {', '.join(unknown)}, which --model does not name ({', '.join(self.model)})"
            )


@dataclass(kw_only=True)
class UsersConfig(RewardsConfig):
    """Which users are simulated."""

    simulators: tuple[str, ...] = option("Families of simulated users.", panel=USERS, default=("logit", "transition"))
    part: Literal["validation", "test"] = option(
        "The part of the log that they are fitted on, unseen in training.", panel=USERS, default="test"
    )
    patience: int = option("Steps without a taken item, in a row, after which a user leaves.", panel=USERS, default=3)
    reluctance: float = option(
        "A slate that holds this share of what users take next is taken from half of the time.",
        panel=USERS,
        default=0.1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        from offline_rl_rec.simulation import SIMULATORS

        if not self.simulators or not set(self.simulators) <= set(SIMULATORS):
            raise ValueError(f"simulators are {', '.join(SIMULATORS)} (got {', '.join(self.simulators) or 'none'})")


@dataclass(kw_only=True)
class SimulateConfig(UsersConfig, JudgedConfig):
    """Options of `predilect rl simulate`."""

    users: tuple[str, ...] = option(
        "Folders of saved users, in place of fitted ones; see --keep-users.", panel=USERS, default=()
    )
    keep_users: Path | None = option(
        "Save the fitted users here, a folder for each family.", panel=USERS, default=None
    )
    sessions: int = option("Simulated sessions per recommender.", panel=SIMULATION, default=1000)
    slate_size: int = option("Items that are shown at a time.", panel=SIMULATION, default=10)
    discount: float = option("Of the discounted return, in 0..1.", panel=SIMULATION, default=0.9)
    max_steps: int = option("Sessions are cut off after as many steps.", panel=SIMULATION, default=100)
    bootstrap: int = option(
        "Times that sessions are resampled for the 95 % intervals.", panel=SIMULATION, default=1000
    )
    output: Path = option("The table, .csv.", panel=SIMULATION, default=Path("runs/simulation.csv"))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(bootstrap=10)
        of_the_fit = ("simulators", "part", "patience", "reluctance", "click_reward", "purchase_reward", "liked")
        standard = type(self).__dataclass_fields__
        given = [name for name in (*of_the_fit, "keep_users") if getattr(self, name) != standard[name].default]
        if self.users and given:
            raise ValueError(f"users were saved with what they were fitted with: {', '.join(given)} does not apply")


@app.command("simulate")
@config_command(SimulateConfig)
def simulate(
    config: SimulateConfig,
    log: Annotated[
        str | None, typer.Argument(help="The log: a packaged data set, a folder or a file; as --data.")
    ] = None,
) -> None:
    """What recommenders earn until simulated users leave, under differently fitted users."""
    from rich.console import Console

    from offline_rl_rec.simulation.report import returns_table, rows_of, simulate_all, write_table

    config = with_log(config, log)
    console = Console()
    with console.status("simulating") as status:
        found = simulate_all(config, status.update)
    for name in dict.fromkeys(returns.simulator for _, returns in found):
        console.print(returns_table([named for named in found if named[1].simulator == name]))
    write_table(rows_of(found), config.output)
    typer.echo(f"written to {config.output}")


@dataclass(kw_only=True)
class RealismConfig(UsersConfig):
    """Options of `predilect rl realism`."""

    against: Literal["validation", "test"] = option(
        "The part of the log that simulated sessions are compared with.", panel=SIMULATION, default="test"
    )
    sessions: int = option("Sessions to simulate.", panel=SIMULATION, default=1000)
    output_dir: Path = option("Folder of the table and the plots.", panel=SIMULATION, default=Path("runs/realism"))


@app.command("realism")
@config_command(RealismConfig)
def realism(
    config: RealismConfig,
    log: Annotated[str | None, typer.Argument(help="A packaged data set, a folder or a file; as --data.")] = None,
) -> None:
    """How far sessions of simulated users are from those of the log, as a table and as plots."""
    from rich.console import Console

    from offline_rl_rec.simulation.report import compare_with_log, realism_table, write_table

    config = with_log(config, log)
    console = Console()
    with console.status("simulating"):
        found = compare_with_log(config)
    console.print(realism_table(found))
    write_table(found.rows, config.output_dir / "realism.csv")
    found.plots(config.output_dir)
    typer.echo(f"table and plots in {config.output_dir}")


@dataclass(kw_only=True)
class OpeConfig(JudgedConfig):
    """Options of `predilect rl ope`."""

    part: Literal["validation", "test"] = option("The part whose sessions judge.", panel=POLICY, default="test")
    k: int = option("Items of a list; the judged policy takes each with the same chance.", panel=POLICY, default=10)
    mix: float = option(
        "Share of the events that are left to the log, in (0, 1]; the lists decide the others.",
        panel=POLICY,
        default=0.5,
    )
    max_steps: int = option("Events of a session that count.", panel=POLICY, default=10)
    discount: float = option("Of the return, in 0..1.", panel=POLICY, default=0.9)
    clip: float = option("Largest weight of the clipped estimate.", panel=POLICY, default=10.0)
    output: Path = option("The table, .csv.", panel=POLICY, default=Path("runs/ope.csv"))


@app.command("ope")
@config_command(OpeConfig)
def ope(
    config: OpeConfig,
    log: Annotated[str | None, typer.Argument(help="A packaged data set, a folder or a file; as --data.")] = None,
) -> None:
    """What recommenders would have earned in the log's own sessions: off-policy evaluation with intervals."""
    from rich.console import Console

    from offline_rl_rec.off_policy_report import judge_all, ope_table
    from offline_rl_rec.simulation.report import write_table

    config = with_log(config, log)
    console = Console()
    with console.status("judging") as status:
        rows = judge_all(config, status.update)
    console.print(ope_table(rows, config))
    write_table(rows, config.output)
    typer.echo(f"written to {config.output}")


def with_log(config: Any, log: str | None) -> Any:
    """The config with the argument LOG for its data.

    Raises:
        ValueError: LOG and --data name two data sets.
    """
    if log is None:
        return config
    standard = type(config).__dataclass_fields__["data"].default
    if config.data not in (standard, log):
        raise ValueError(f"LOG ({log}) and --data ({config.data}) are two data sets: give one")
    return replace(config, data=log)
