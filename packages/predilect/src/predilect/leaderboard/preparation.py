"""From the options of a run to the splits that it fits and ranks on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from predilect.leaderboard.config import ProtocolConfig, ReaderConfig, SplitConfig
from predilect.registry import SPLITS, load_registered, registered

if TYPE_CHECKING:
    from predilect.data import RecDataset, SequenceSplits


def read_data(source: str, config: ReaderConfig) -> RecDataset:
    """Read a packaged data set, or files in a known format."""
    from predilect.data import load

    names = ("separator", "encoding", "time_unit", "items", "list_separator")
    return load(
        source,
        format=config.format,
        columns=config.column or None,
        on_error=config.on_error,
        ties=config.ties,
        ties_seed=config.ties_seed,
        **{name: value for name in names if (value := getattr(config, name)) is not None},
    )


def _refuse_reader_options(config: SplitConfig) -> None:
    """Raise for options of tables where the format is none: they would do nothing."""
    fields = [field for field in dataclasses.fields(ReaderConfig) if field.name != "format"]
    defaults = ReaderConfig()
    given = [field.name for field in fields if getattr(config, field.name) != getattr(defaults, field.name)]
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ValueError(f"the format {config.format} is read as published and takes no {flags}: leave that out")


def prepare(config: SplitConfig) -> SequenceSplits:
    """Read, filter and cut the data, and draw the candidate sets where the protocol ranks candidates.

    Formats that packages register under the entry-point group `predilect.splits` come cut already, with candidates.
    """
    if config.format in registered(SPLITS):
        if not isinstance(config, ProtocolConfig):
            raise ValueError(f"the format {config.format} holds rows with candidates, and a log is needed here")
        _refuse_reader_options(config)
        cut: SequenceSplits = load_registered(config.format, SPLITS, kind="format")(config)
        return cut
    data = read_data(config.data, config)
    if config.k_core:
        data = data.k_core(config.k_core)
    splits = data.split(
        config.split,
        ratios=config.ratios,
        max_history=config.max_history,
        min_history=config.min_history,
        seed=config.seed,
    )
    if isinstance(config, ProtocolConfig) and config.protocol == "candidates":
        splits = splits.with_candidates(config.num_candidates, seed=config.seed, negatives=config.negatives)
    return splits
