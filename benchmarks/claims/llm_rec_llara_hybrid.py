"""LLaRA on MovieTweetings: text, hybrid and curriculum prompts with SASRec, and the curriculum with other backbones.

    python -m benchmarks.claims.llm_rec_llara_hybrid [--quick] [--output FOLDER] [--work FOLDER]

Beside them popularity, the backbones by themselves, and the default recommender, which adds the retriever's score and
popularity to the language model's.
"""

from __future__ import annotations

from typing import Any

from benchmarks.claims._llm_rec import Bench, Study, System, main, ring

import predilect
from llm_rec import BIGRec, LanguageRecommender, LLaRA
from predilect.data import SequenceSplits
from predilect.recommender import Recommender, recommender_class
from predilect.recommenders import Popularity

STEPS = 100
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


def fused(bench: Bench, seed: int) -> Recommender:
    backbone("sasrec")(bench, seed)
    return LanguageRecommender(
        **{**bench.options, "inject": "retriever"},
        retriever="sasrec",
        retriever_folder=str(bench.folder / "sasrec"),
        sft_steps=bench.steps(STEPS),
        seed=seed,
    ).fit(bench.splits)


def bigrec(bench: Bench, seed: int) -> Recommender:
    return BIGRec(**bench.options, cache_titles=not bench.quick, sft_steps=bench.steps(STEPS), seed=seed).fit(
        bench.splits
    )


STUDY = Study(
    name="llm_rec_llara_hybrid",
    paper="Liao et al. 2024, LLaRA (arXiv 2312.02445)",
    claim="Hybrid prompts beat text-only ones, and a curriculum beats hybrid prompts from the start.",
    splits=splits,
    words=(
        "MovieTweetings-100K, 5-core, temporal split, 20 uniform candidates, 300 test rows; SmolLM2-135M-Instruct, "
        f"LoRA, {STEPS} steps of 8 rows; all but the last two language models rank by themselves"
    ),
    systems={
        "popularity": popularity,
        **{name: backbone(name) for name in BACKBONES},
        "LLaRA, text": llara("sasrec", "text"),
        "LLaRA, hybrid": llara("sasrec", "hybrid"),
        **{f"LLaRA, curriculum, {name}": llara(name, "curriculum") for name in BACKBONES},
        "language with injection": fused,
        "BIGRec": bigrec,
    },
    once=frozenset({*(f"LLaRA, curriculum, {name}" for name in BACKBONES[1:]), "language with injection", "BIGRec"}),
    rows=300,
    differences={
        "hybrid - text": ("LLaRA, hybrid", "LLaRA, text"),
        "curriculum - text": ("LLaRA, curriculum, sasrec", "LLaRA, text"),
        "curriculum - hybrid": ("LLaRA, curriculum, sasrec", "LLaRA, hybrid"),
    },
    options={},
)

if __name__ == "__main__":
    main(STUDY)
