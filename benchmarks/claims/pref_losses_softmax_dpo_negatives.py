"""S-DPO with 3 and 7 negatives against DPO (one negative) at choosing the next artist out of 20.

    python -m benchmarks.claims.pref_losses_softmax_dpo_negatives [--quick] [--kept] [--output FOLDER] [--work FOLDER]

hr@1: the true artist has the highest likelihood among the 20 candidates of the prompt. All systems see the same
prompts; negatives of fewer are among those of more. The file does not say whose a row is, but rows that continue each
other's windows are one listener's (`llm_rec.read_sdpo`): all rows of a listener fall into one part, and listeners are
what intervals resample.
"""

from __future__ import annotations

import numpy as np
from benchmarks import _preferences as shared
from benchmarks.claims._claims import Data, Row, Sizes, Study, main
from datasets import Dataset

from llm_rec import read_sdpo
from predilect.tokenization import PromptSet

MOST = 7


def choices(*, quick: bool) -> Dataset:
    """As `artist_choices`, with the listener of each row as `person`."""
    if quick:
        rows = shared.artist_choices(quick=True)
        return rows.add_column("person", [i // 4 for i in range(len(rows))])
    splits, template = read_sdpo(shared.DATA / "sdpo-lastfm"), PromptSet.for_domain("music")[0]
    title, found = splits.catalogue.title, []
    for part in ("train", "validation", "test"):
        rows = splits.part(part)
        assert rows.candidates is not None
        columns = zip(rows.user, rows.histories().tolist(), rows.candidates, rows.target, strict=True)
        for person, history, candidates, target in columns:
            names = [title(int(i)) for i in candidates]
            found.append(
                {
                    "prompt": template.render(history=[title(i) for i in history if i], candidates=names),
                    "chosen": f" {title(int(target))}",
                    "rejected": [f" {name}" for name in names if name != title(int(target))],
                    "person": int(person),
                }
            )
    return Dataset.from_list(found)


def _some_negatives(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    return [
        row | {"rejected_ids": [row["rejected_ids"][i] for i in rng.permutation(len(row["rejected_ids"]))[:MOST]]}
        for row in rows
    ]


def _as_is(row: Row, draw: float) -> Row:
    return row


LASTFM = Data(
    name="lastfm",
    rows=choices,
    sizes=Sizes(sft=1440, train=600, validation=160, test=460),
    words="Last.fm candidate prompts of S-DPO's sample (histories of at most 10, 20 candidates), split by listener",
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
    settings={"as is": _as_is},
    claims={
        "More negatives help: S-DPO with 3 and with 7 negatives finds the next item more often than DPO.": [
            (f"S-DPO, K = {k}", "DPO", ["as is"]) for k in (3, MOST)
        ]
    },
    metric="hr@1",
)

if __name__ == "__main__":
    main(STUDY)
