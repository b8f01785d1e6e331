"""Interaction logs: reading, checking, filtering, splitting, candidate sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predilect.lazy import attach

if TYPE_CHECKING:
    from predilect.data.catalogue import Catalogue, UnknownItemError
    from predilect.data.dataset import RecDataset
    from predilect.data.loading import available_data, load
    from predilect.data.readers import READERS
    from predilect.data.rows import SequenceRows, UserSequences
    from predilect.data.schema import DataError, SchemaReport
    from predilect.data.splits import SequenceSplits, StepCount, sample_candidates

__all__ = [
    "READERS",
    "Catalogue",
    "DataError",
    "RecDataset",
    "SchemaReport",
    "SequenceRows",
    "SequenceSplits",
    "StepCount",
    "UnknownItemError",
    "UserSequences",
    "available_data",
    "load",
    "sample_candidates",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "READERS": "predilect.data.readers",
        "Catalogue": "predilect.data.catalogue",
        "DataError": "predilect.data.schema",
        "RecDataset": "predilect.data.dataset",
        "SchemaReport": "predilect.data.schema",
        "SequenceRows": "predilect.data.rows",
        "SequenceSplits": "predilect.data.splits",
        "StepCount": "predilect.data.splits",
        "UnknownItemError": "predilect.data.catalogue",
        "UserSequences": "predilect.data.rows",
        "available_data": "predilect.data.loading",
        "load": "predilect.data.loading",
        "sample_candidates": "predilect.data.splits",
    },
)
