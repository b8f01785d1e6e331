"""LLaRA on MovieTweetings: text, hybrid and curriculum prompts with SASRec, and the curriculum with other backbones.

    python -m benchmarks.claims.llm_rec_llara_hybrid [--quick] [--output FOLDER] [--work FOLDER]

Beside them popularity, the backbones by themselves, a text-only language model without soft tokens, fine-tuned and
then aligned by S-DPO, the same with the scores of SASRec and popularity added (the package's default), and BIGRec.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.claims._llm_rec import Bench, Study, System, main, ring

import predilect
from llm_rec import BIGRec, LanguageRecommender, LLaRA
from predilect.data import SequenceSplits
from predilect.recommender import Recommender, recommender_class
from predilect.recommenders import Popularity

STEPS, PREFERENCE_STEPS, BATCH = 300, 75, 32
BACKBONES = ("sasrec", "gru4rec", "caser")


def splits(*, quick: bool) -> SequenceSplits:
    if quick:
        return ring(size=12)
    return predilect.load("movietweetings-100k").k_core(5).split("temporal", max_history=10).with_candidates(20)


def popularity(bench: Bench, seed: int) -> Recommender:
    return Popularity(seed=seed).fit(bench.splits)


def backbone(name: str) -> System:
    def fit(bench: Bench, seed: int) -> Recommender:
        kind: Any = recommender_class(name)
        config = kind.config_class(seed=seed)
        folder = bench.kept(name, lambda: kind(config.quick() if bench.quick else config).fit(bench.splits))
        return Recommender.from_pretrained(folder)

    return fit


def llara(name: str, mode: str, **options: Any) -> System:
    def fit(bench: Bench, seed: int) -> Recommender:
        backbone(name)(bench, seed)
        return LLaRA(
            **{**bench.options, "inject": "none", **options},
            retriever=name,
            retriever_folder=str(bench.folder / name),
            mode=mode,
            sft_steps=bench.steps(STEPS),
            seed=seed,
        ).fit(bench.splits)

    return fit


def fine_tuned(bench: Bench, seed: int) -> Recommender:
    return Recommender.from_pretrained(sft(bench, seed))


def sft(bench: Bench, seed: int) -> Path:
    """Folder of the text-only language model, from which others start."""
    options = {**bench.options, "inject": "none", "sft_steps": bench.steps(STEPS), "seed": seed}
    return bench.kept("sft", lambda: LanguageRecommender(**options).fit(bench.splits))


def aligned(bench: Bench, seed: int) -> Recommender:
    return LanguageRecommender(
        **{**bench.options, "inject": "none"},
        start_from=str(sft(bench, seed)),
        sft_steps=0,
        preference_steps=bench.steps(PREFERENCE_STEPS),
        preference_learning_rate=3e-4,
        num_negatives=3,
        objective={"link": "softmax", "beta": 1.0},
        seed=seed,
    ).fit(bench.splits)


def injected(bench: Bench, seed: int) -> Recommender:
    backbone("sasrec")(bench, seed)
    return LanguageRecommender(
        **{**bench.options, "inject": "retriever", "inject_rows": 8 if bench.quick else 400},
        start_from=str(sft(bench, seed)),
        sft_steps=0,
        retriever="sasrec",
        retriever_folder=str(bench.folder / "sasrec"),
        seed=seed,
    ).fit(bench.splits)


def bigrec(bench: Bench, seed: int) -> Recommender:
    return BIGRec(**bench.options, cache_titles=not bench.quick, sft_steps=bench.steps(STEPS), seed=seed).fit(
        bench.splits
    )


STUDY = Study(
    name="llm_rec_llara_hybrid",
    paper="Liao et al. 2024, LLaRA (arXiv 2312.02445)",
    splits=splits,
    words=(
        "MovieTweetings-100K, 5-core, temporal split, 20 uniform candidates, 1,000 test rows; SmolLM2-135M-Instruct, "
        f"LoRA, {STEPS} steps of {BATCH} rows (S-DPO: {PREFERENCE_STEPS} more with beta 1); all but the "
        "one with injection rank alone"
    ),
    systems={
        "popularity": popularity,
        **{name: backbone(name) for name in BACKBONES},
        "LLaRA, text": llara("sasrec", "text"),
        "LLaRA, hybrid": llara("sasrec", "hybrid"),
        **{f"LLaRA, curriculum, {name}": llara(name, "curriculum") for name in BACKBONES},
        "fine-tuned": fine_tuned,
        "S-DPO, K = 3": aligned,
        "fine-tuned, injection": injected,
        "BIGRec": bigrec,
    },
    once=frozenset({*(f"LLaRA, curriculum, {name}" for name in BACKBONES[1:]), "BIGRec"}),
    rows=1000,
    claims={
        "Hybrid prompts beat text-only ones.": [("LLaRA, hybrid", "LLaRA, text")],
        "A curriculum beats text-only prompts.": [("LLaRA, curriculum, sasrec", "LLaRA, text")],
        "A curriculum beats hybrid prompts from the start.": [("LLaRA, curriculum, sasrec", "LLaRA, hybrid")],
        "S-DPO ranks better than fine-tuning alone (Chen et al. 2024).": [("S-DPO, K = 3", "fine-tuned")],
        "With injection (no paper's) a language model beats popularity.": [("fine-tuned, injection", "popularity")],
        "With injection (no paper's) a language model beats SASRec.": [("fine-tuned, injection", "sasrec")],
    },
    options={"batch_size": BATCH},
)

if __name__ == "__main__":
    main(STUDY)
