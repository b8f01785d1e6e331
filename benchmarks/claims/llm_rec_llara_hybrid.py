"""LLaRA on MovieTweetings: text, hybrid and curriculum prompts with SASRec; S-DPO; injection beside its control.

    python -m benchmarks.claims.llm_rec_llara_hybrid [--quick] [--kept] [--output FOLDER] [--work FOLDER]

Hybrid prompts are the paper's, without the item's bias, which carries popularity; with it they have a name of their
own. A linear curriculum has half as many hybrid updates as hybrid prompts throughout: beside it stand as many steps,
and as many hybrid updates. S-DPO goes on from the fine-tuned model; beside it stands fine-tuning that goes on from the
same model for as many steps, with as many learning rates to choose from.

Injection sums scores by weights that are fitted on validation rows of people on whose rows no member was selected. Its
control has the same members but the language model.
"""

from __future__ import annotations

from typing import Any

from benchmarks.claims._recommenders import Data, Study, System, Training, grid, main

import predilect
from predilect.data import SequenceSplits

STEPS, PREFERENCE_STEPS, BATCH = 900, 75, 32
BACKBONES = ("sasrec", "gru4rec", "caser")
RATES = (1e-4, 3e-4, 1e-3)
ALONE = {"batch_size": BATCH, "inject": "none"}


def splits() -> SequenceSplits:
    return predilect.load("movietweetings-100k").k_core(5).split("temporal", max_history=10).with_candidates(20)


def llara(mode: str, *, steps: int = STEPS, **options: Any) -> System:
    options = {"retriever": "sasrec", "retriever_folder": Training("sasrec"), "item_bias": False, **options}
    return System((Training("llara", {**ALONE, **options, "mode": mode, "sft_steps": steps}),))


SFT = Training("language", {**ALONE, "sft_steps": STEPS})
SELECTED_ON_HALF = Training("sasrec", selected_on="half")
COUNTED = (SELECTED_ON_HALF, "popularity")
ON = {**ALONE, "start_from": SFT}
STUDY = Study(
    name="llm_rec_llara_hybrid",
    paper="Liao et al. 2024, LLaRA (arXiv 2312.02445)",
    words="20 uniform candidates, 1,000 test rows; SmolLM2-135M-Instruct, LoRA; the claims are about hr@1",
    data={
        "MovieTweetings": Data(
            splits,
            "MovieTweetings-100K, 5-core, temporal split",
            {"protocol": "candidates", "max_rows": 1000},
        )
    },
    systems={
        "popularity": System(grid("popularity")),
        **{name: System((Training(name),)) for name in BACKBONES},
        "SASRec + popularity": System((Training("injection", {"members": COUNTED, "rows": 400}),)),
        "LLaRA, text": llara("text"),
        "LLaRA, hybrid": llara("hybrid"),
        "LLaRA, hybrid, half the steps": llara("hybrid", steps=STEPS // 2),
        "LLaRA, hybrid with item bias": llara("hybrid", item_bias=True),
        "LLaRA, curriculum": llara("curriculum"),
        "fine-tuned": System((SFT,)),
        "fine-tuned further": System(
            grid("language", {**ON, "sft_steps": PREFERENCE_STEPS}, learning_rate=RATES),
        ),
        "S-DPO, K = 3": System(
            grid(
                "language",
                {
                    **ON,
                    "sft_steps": 0,
                    "preference_steps": PREFERENCE_STEPS,
                    "num_negatives": 3,
                    "objective": {"link": "softmax", "beta": 1.0},
                },
                preference_learning_rate=RATES,
            )
        ),
        "fine-tuned + SASRec + popularity": System(
            (Training("injection", {"members": (SFT, *COUNTED), "rows": 400}),)
        ),
        "BIGRec": System((Training("bigrec", {"batch_size": BATCH, "sft_steps": STEPS}),), seeds=1),
    },
    claims={
        "Hybrid prompts beat text-only ones.": [("LLaRA, hybrid", "LLaRA, text")],
        "Hybrid prompts with the item's bias (not in the paper) beat those without.": [
            ("LLaRA, hybrid with item bias", "LLaRA, hybrid")
        ],
        "A curriculum beats text-only prompts.": [("LLaRA, curriculum", "LLaRA, text")],
        "A curriculum beats hybrid prompts from the start, of as many steps.": [
            ("LLaRA, curriculum", "LLaRA, hybrid")
        ],
        "A curriculum beats hybrid prompts from the start, of as many hybrid updates.": [
            ("LLaRA, curriculum", "LLaRA, hybrid, half the steps")
        ],
        "S-DPO ranks better than as many more steps of fine-tuning (Chen et al. 2024).": [
            ("S-DPO, K = 3", "fine-tuned further")
        ],
        "The sum of SASRec and popularity (no paper's, no language model) beats either.": [
            ("SASRec + popularity", "popularity"),
            ("SASRec + popularity", "sasrec"),
        ],
        "With injection (no paper's) a language model beats popularity.": [
            ("fine-tuned + SASRec + popularity", "popularity")
        ],
        "With injection (no paper's) a language model beats SASRec.": [("fine-tuned + SASRec + popularity", "sasrec")],
        "A language model adds to the sum of SASRec and popularity (no paper's).": [
            ("fine-tuned + SASRec + popularity", "SASRec + popularity")
        ],
    },
    metrics=("hr@1", "ndcg@5"),
)

if __name__ == "__main__":
    main(STUDY)
