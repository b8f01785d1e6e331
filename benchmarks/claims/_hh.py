"""HH helpful-base pairs for the claims that are made on them; the scripts share the SFT stages."""

from __future__ import annotations

import numpy as np
from benchmarks import _preferences as shared
from benchmarks.claims._claims import Data, Row, Sizes


def _with_decoys(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """A second rejected answer to every prompt: the one to another prompt, easy to tell from the chosen one."""
    others = np.roll(np.arange(len(rows)), 1)
    return [
        row | {"rejected_ids": [row["rejected_ids"][0], rows[i]["rejected_ids"][0]]}
        for row, i in zip(rows, others, strict=True)
    ]


HH = Data(
    name="hh",
    rows=shared.hh_pairs,
    sizes=Sizes(sft=300, train=1200, validation=240, test=600),
    words="HH helpful-base test pairs (prompts cut to their last 256 tokens)",
    longest=600,
    answers=_with_decoys,
)
