"""S-DPO on Last.fm candidate selection: zero-shot, fine-tuned, DPO, S-DPO with 3 and 8 negatives.

    python -m benchmarks.claims.llm_rec_sdpo_lastfm [--quick] [--kept] [--output FOLDER] [--work FOLDER]

The preference stages go on from the fine-tuned model of the same seed; so does "fine-tuned further", for as many steps
on as many fresh rows. Each of them has the learning rate that is its best on validation rows with the first seed. The
sample that the authors published is split by listener, so that no window of a test listener was trained on.
"""

from __future__ import annotations

from benchmarks import _preferences as shared
from benchmarks.claims._recommenders import Data, Study, System, Training, grid, main

from llm_rec import read_sdpo

SFT_STEPS, PREFERENCE_STEPS, BATCH = 400, 100, 16
RATES = (1e-4, 3e-4, 1e-3)
NEGATIVES = (1, 3, 8)
ALONE = {"domain": "music", "inject": "none", "retriever": "popularity", "batch_size": BATCH}
SFT = Training("language", {**ALONE, "sft_steps": SFT_STEPS})
ON = {**ALONE, "start_from": SFT}
NAMES = {k: "DPO" if k == 1 else f"S-DPO, K = {k}" for k in NEGATIVES}


def aligned(negatives: int) -> System:
    options = {
        "sft_steps": 0,
        "preference_steps": PREFERENCE_STEPS,
        "num_negatives": negatives,
        "objective": {"link": "softmax", "beta": 1.0},
    }
    return System(grid("language", {**ON, **options}, preference_learning_rate=RATES))


STUDY = Study(
    name="llm_rec_sdpo_lastfm",
    paper="Chen et al. 2024, S-DPO (arXiv 2406.09215)",
    words="SmolLM2-135M-Instruct, LoRA on all linear layers, beta 1; the claims are about hr@1",
    data={
        "Last.fm": Data(
            lambda: read_sdpo(shared.DATA / "sdpo-lastfm", ratios=(0.6, 0.15, 0.25)),
            "Last.fm candidate prompts of S-DPO's sample (20 candidates, histories of at most 10), split by listener "
            "0.6 : 0.15 : 0.25",
            {"protocol": "candidates"},
        )
    },
    systems={
        "popularity": System(grid("popularity")),
        "zero-shot": System((Training("language", {**ALONE, "sft_steps": 0}),)),
        "fine-tuned": System((SFT,)),
        "fine-tuned further": System(
            grid("language", {**ON, "sft_steps": PREFERENCE_STEPS}, learning_rate=RATES),
        ),
        **{NAMES[k]: aligned(k) for k in NEGATIVES},
    },
    claims={
        "S-DPO chooses the next artist better than as many more steps of fine-tuning.": [
            ("S-DPO, K = 3", "fine-tuned further")
        ],
        "S-DPO chooses the next artist better than DPO.": [("S-DPO, K = 3", "DPO")],
        "More negatives help.": [("S-DPO, K = 8", "S-DPO, K = 3")],
    },
    metrics=("hr@1", "ndcg@5"),
    seeds=8,
)

if __name__ == "__main__":
    main(STUDY)
