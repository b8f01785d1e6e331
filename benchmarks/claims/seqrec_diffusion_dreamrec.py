"""DreamRec with the paper's and with the stable objective beside classifiers, on three data sets.

    python -m benchmarks.claims.seqrec_diffusion_dreamrec [--quick] [--kept] [--output FOLDER] [--work FOLDER]

Every trained system gets two trainings, as many epochs and the same patience; each epoch of a diffusion is validated
by the sampling that the model ranks with. That of the paper's objective is conditional and compares by cosine: on
MovieTweetings' validation rows its ndcg@20 was .0400 by cosine and .0029 by the inner product, and guidance lowered
it. Guidance and steps of the chosen models are then changed without a training.

The metrics are hr@20 and ndcg@20 as in the paper. Zhihu's official split is ranked as there (nothing is left out of
the ranking); on the other data what a person took before is not ranked, as in the leaderboard.
"""

from __future__ import annotations

from benchmarks import _preferences as shared
from benchmarks.claims._recommenders import Data, Study, System, grid, main

import predilect
from predilect.data import RecDataset, SequenceSplits, load
from predilect.presets import Presets

CLASSIFIERS = ("SASRec", "GRU4Rec", "Caser", "DreamRec's encoder as a classifier")
PLAIN, STABLE = "DreamRec, paper's objective", "DreamRec, stable objective"
GUIDANCES, STEPS = (1.0, 2.0, 4.0), (1, 5, 100, 500)
ENOUGH = {"batch_size": 256, "max_epochs": 100, "patience": 15}
RATES = (1e-3, 2e-3)


def _temporal(data: RecDataset) -> SequenceSplits:
    return data.k_core(5).split("temporal", max_history=10)


DATA = {
    "Zhihu": Data(
        lambda: load(shared.DATA / "dreamrec-zhihu").split("official", max_history=10, min_history=0),
        "Zhihu, DreamRec's official split",
        {"mask_seen": False},
    ),
    "MovieTweetings": Data(
        lambda: _temporal(predilect.load("movietweetings-100k")),
        "MovieTweetings-100K, 5-core, temporal split",
        {"mask_seen": True},
    ),
    "ML-100K": Data(
        lambda: _temporal(load(shared.DATA / "ml-100k")), "ML-100K, 5-core, temporal split", {"mask_seen": True}
    ),
}
CONDITIONAL = {"sampler": "ddim", "steps": 20, "guidance": 0.0}
PAPERS = {**Presets("seqrec_diffusion.presets").read("zhihu")["set"], **ENOUGH, **CONDITIONAL, "similarity": "cosine"}
SYSTEMS = {
    "popularity": System(grid("popularity")),
    "SASRec": System(grid("sasrec", {**ENOUGH, "num_layers": 1, "dropout": 0.5}, learning_rate=RATES)),
    PLAIN: System(grid("dreamrec", PAPERS, learning_rate=(1e-2, 1e-3))),
    STABLE: System(grid("dreamrec", {**ENOUGH, **CONDITIONAL}, learning_rate=RATES)),
    "GRU4Rec": System(grid("gru4rec", {**ENOUGH, "dropout": 0.5}, learning_rate=RATES)),
    "Caser": System(grid("caser", {**ENOUGH, "dropout": 0.5}, learning_rate=RATES)),
    "DreamRec's encoder as a classifier": System(
        grid("dreamrec", {**ENOUGH, "encoder": "transformer", "objective": "softmax"}, learning_rate=RATES)
    ),
    **{
        f"{system}, {option} {value:g}": System(like=system, sampling={option: value})
        for system in (PLAIN, STABLE)
        for option, values in (("guidance", GUIDANCES), ("steps", STEPS))
        for value in values
    },
}
STUDY = Study(
    name="seqrec_diffusion_dreamrec",
    paper="Yang et al. 2023, DreamRec (arXiv 2310.20453)",
    words="the claims are about ndcg@20",
    data=DATA,
    systems=SYSTEMS,
    claims={
        "DreamRec with the paper's objective ranks better than a classifier.": [(PLAIN, c) for c in CLASSIFIERS],
        "The stable objective (no paper's) ranks better than the paper's.": [(STABLE, PLAIN)],
        "DreamRec with the stable objective ranks better than a classifier.": [(STABLE, c) for c in CLASSIFIERS],
        **{
            f"Guidance helps: w = 2 ranks better than conditional sampling ({system}).": [
                (f"{system}, guidance 2", system)
            ]
            for system in (PLAIN, STABLE)
        },
        **{
            f"More steps help: 20 rank better than one ({system}).": [(system, f"{system}, steps 1")]
            for system in (PLAIN, STABLE)
        },
    },
    metrics=("ndcg@20", "hr@20"),
)

if __name__ == "__main__":
    main(STUDY)
