"""What a run is: data, protocol, models. Plain values only, so that `predilect --help` can read it cheaply."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from predilect.configuration import option

DATA, PROTOCOL, RUN = "Data", "Protocol", "Run"


@dataclass(kw_only=True)
class ReaderConfig:
    """How to read data; the same options for every command that reads any."""

    format: str | None = option(
        "Name of the reader, where the files do not show it (see `predilect data inspect --list`).",
        panel=DATA,
        default=None,
    )
    column: dict[str, str] = option(
        "Your column for one of ours: user_id=uid, item_id=isbn, timestamp=when, rating=stars, title=... . "
        "Numbers where there is no header; nothing behind = leaves one out.",
        panel=DATA,
        default={},
    )
    separator: str | None = option(
        "Between the columns of your own text table: one character, tab, space or ::; by default found.",
        panel=DATA,
        default=None,
    )
    encoding: str | None = option("Of your own text files: cp1252, utf-16-le, ...", panel=DATA, default=None)
    time_unit: Literal["s", "ms", "us", "ns"] | None = option(
        "Of times that are numbers in your own table; by default known by their size.", panel=DATA, default=None
    )
    items: str | None = option("Your own item table, where it is not beside the log.", panel=DATA, default=None)
    list_separator: str | None = option(
        "Between an item's categories in your own table; by default |.", panel=DATA, default=None
    )
    ties: Literal["random", "file"] = option(
        "Order of rows that share user and time: that of the file, or drawn.", panel=DATA, default="file"
    )
    ties_seed: int = option("Seed of the order that --ties random draws.", panel=DATA, default=0)
    on_error: Literal["raise", "skip"] = option(
        "On faulty rows: raise, or skip (drop and count them).", panel=DATA, default="raise"
    )


@dataclass(kw_only=True)
class DataConfig(ReaderConfig):
    """Which data to read, and how."""

    data: str = option(
        "A packaged data set, or a folder or file in a known format.", panel=DATA, default="movietweetings-100k"
    )


@dataclass(kw_only=True)
class SplitConfig(DataConfig):
    """How data is prepared and cut."""

    split: Literal["temporal", "leave_one_out", "by_user", "official"] = option(
        "How the log is cut into training, validation and test.", panel=PROTOCOL, default="temporal"
    )
    ratios: tuple[float, float, float] = option(
        "Shares of training, validation and test (temporal and by_user).", panel=PROTOCOL, default=(0.8, 0.1, 0.1)
    )
    k_core: int = option(
        "Keep users and items with at least this many interactions; 0 keeps all.", panel=PROTOCOL, default=5
    )
    max_history: int = option("Longest history a model sees, in items.", panel=PROTOCOL, default=10)
    min_history: int = option("Rows with a shorter history are left out.", panel=PROTOCOL, default=1)
    seed: int = option("Seed of splits, candidates, models and intervals.", panel=PROTOCOL, default=0)

    def __post_init__(self) -> None:
        self._at_least(k_core=0, max_history=1, min_history=0, seed=0)

    def _at_least(self, **least: int) -> None:
        for name, number in least.items():
            if (value := getattr(self, name)) < number:
                raise ValueError(f"{name} must be at least {number} (got {value})")


@dataclass(kw_only=True)
class ProtocolConfig(SplitConfig):
    """How data is prepared, cut and ranked: two results are comparable where all of this is equal."""

    protocol: Literal["full", "candidates"] = option(
        "Rank all items, or a fixed candidate set per row.", panel=PROTOCOL, default="full"
    )
    num_candidates: int = option(
        "Size of a candidate set, the target included (protocol candidates).", panel=PROTOCOL, default=20
    )
    negatives: Literal["uniform", "popularity"] = option(
        "How the other candidates are drawn; uniform flatters popular items.", panel=PROTOCOL, default="uniform"
    )
    mask_seen: bool = option("Do not rank what the user already took.", panel=PROTOCOL, default=True)
    bootstrap: int = option(
        "Times that users are resampled for the 95 % intervals; more make their ends steadier.",
        panel=PROTOCOL,
        default=1000,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(num_candidates=2, bootstrap=10)


@dataclass(kw_only=True)
class RunConfig:
    """How a leaderboard is run, whatever it compares; beside the options of its data."""

    output_dir: Path = option(
        "Folder of results, plots, report and fitted models.", panel=RUN, default=Path("runs/leaderboard")
    )
    quick: bool = option("A smaller run to see that all works; results say so.", panel=RUN, default=False)
    resume: bool = option("Continue the run in the output folder.", panel=RUN, default=False)
    overwrite: bool = option("Throw away the run in the output folder.", panel=RUN, default=False)

    def __post_init__(self) -> None:
        if (others := getattr(super(), "__post_init__", None)) is not None:  # the options of the data
            others()
        if self.resume and self.overwrite:
            raise ValueError("resume keeps the run in the output folder and overwrite throws it away: choose one")
        models: tuple[str, ...] = getattr(self, "models", ())
        if len(set(models)) < len(models):
            raise ValueError(f"models must be distinct (got {', '.join(models)})")


@dataclass(kw_only=True)
class LeaderboardConfig(RunConfig, ProtocolConfig):
    """One leaderboard run."""

    models: tuple[str, ...] = option(
        "Recommenders to compare; by default all that are quick to fit, and one language model.", panel=RUN, default=()
    )
    recommenders: dict[str, dict[str, Any]] = option(
        "An option of one recommender, e.g. sasrec.hidden_size=32; in YAML a section per recommender.",
        panel=RUN,
        default={},
    )
