"""S-DPO with 3 and 7 negatives against DPO (one negative) at choosing the next artist out of 20.

    python -m benchmarks.claims.pref_losses_softmax_dpo_negatives [--quick] [--output FOLDER] [--work FOLDER]

hr@1: the true artist has the highest likelihood among the 20 candidates of the prompt. All systems see the same
prompts; negatives of fewer are among those of more. Rows of one listener may fall on both sides of the split: the file
does not say whose they are.
"""

from __future__ import annotations

import numpy as np
from benchmarks import _preferences as shared
from benchmarks.claims._claims import Data, Row, Sizes, Study, main

MOST = 7


def _some_negatives(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    return [
        row | {"rejected_ids": [row["rejected_ids"][i] for i in rng.permutation(len(row["rejected_ids"]))[:MOST]]}
        for row in rows
    ]


def _as_is(row: Row, draw: float) -> Row:
    return row


LASTFM = Data(
    name="lastfm",
    rows=shared.artist_choices,
    sizes=Sizes(sft=1500, train=640, validation=160, test=460),
    words="Last.fm candidate prompts of S-DPO's sample (histories of at most 10, 20 candidates)",
    longest=400,
    answers=_some_negatives,
    sft_rate=5e-4,
    sft_epochs=3,
)
STUDY = Study(
    name="pref_losses_softmax_dpo_negatives",
    paper="Chen et al. 2024, S-DPO (arXiv 2406.09215)",
    data=LASTFM,
    systems={
        "DPO": {"beta": 1.0, "negatives": 1},
        "S-DPO, K = 3": {"beta": 1.0, "link": "softmax", "negatives": 3},
        "S-DPO, K = 7": {"beta": 1.0, "link": "softmax", "negatives": MOST},
    },
    baseline="DPO",
    settings={"as is": _as_is},
    tune_on=("as is", _as_is),
    claims={
        "More negatives help: S-DPO with 3 and with 7 negatives finds the next item more often than DPO.": {
            f"S-DPO, K = {k} - DPO": (f"S-DPO, K = {k}", "DPO", ["as is"]) for k in (3, MOST)
        }
    },
    metric="hr@1",
)

if __name__ == "__main__":
    main(STUDY)
