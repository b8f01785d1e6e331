"""S-DPO on Last.fm candidate selection: zero-shot, fine-tuned, DPO, S-DPO with 3 and 8 negatives.

    python -m benchmarks.claims.llm_rec_sdpo_lastfm [--quick] [--output FOLDER] [--work FOLDER]

The preference stages go on from the fine-tuned model of the same seed, each with the learning rate that is its best on
validation rows with the first seed. The sample that the authors published is split by listener, so that no window of a
test listener was trained on.
"""

from __future__ import annotations

from typing import Any

from benchmarks import _preferences as shared
from benchmarks.claims._kept import kept
from benchmarks.claims._llm_rec import Bench, Study, System, main, ring

from llm_rec import LanguageRecommender, read_sdpo
from predilect.data import SequenceSplits
from predilect.evaluation import evaluate
from predilect.recommender import Recommender
from predilect.recommenders import Popularity

SFT_STEPS, PREFERENCE_STEPS = 400, 100
RATES = (1e-4, 3e-4, 1e-3)
NEGATIVES = (1, 3, 8)
BATCH = 16


def splits(*, quick: bool) -> SequenceSplits:
    return ring(size=12) if quick else read_sdpo(shared.DATA / "sdpo-lastfm", ratios=(0.6, 0.15, 0.25))


def popularity(bench: Bench, seed: int) -> Recommender:
    return Popularity(seed=seed).fit(bench.splits)


def tuned(bench: Bench, seed: int, **options: Any) -> Recommender:
    return LanguageRecommender(**{**bench.options, **options}, seed=seed).fit(bench.splits)


def zero_shot(bench: Bench, seed: int) -> Recommender:
    return tuned(bench, seed, sft_steps=0)


def fine_tuned(bench: Bench, seed: int) -> Recommender:
    folder = bench.kept("sft", lambda: tuned(bench, seed, sft_steps=bench.steps(SFT_STEPS)))
    return LanguageRecommender.from_pretrained(folder)


def aligned(negatives: int) -> System:
    def with_rate(bench: Bench, seed: int, rate: float) -> Recommender:
        fine_tuned(bench, seed)
        return tuned(
            bench,
            seed,
            sft_steps=0,
            start_from=str(bench.folder / "sft"),
            preference_steps=bench.steps(PREFERENCE_STEPS),
            preference_learning_rate=rate,
            num_negatives=negatives,
            objective={"link": "softmax", "beta": 1.0},
        )

    def choose(bench: Bench) -> dict[str, Any]:
        rates = RATES[:1] if bench.quick else RATES
        tried = {rate: validation_score(with_rate(bench, 0, rate), bench) for rate in rates}
        print(f"{NAMES[negatives]}, ndcg@5 on validation rows by learning rate: {tried}", flush=True)
        return {"rate": max(tried, key=lambda rate: tried[rate]), "tried": tried}

    def fit(bench: Bench, seed: int) -> Recommender:
        first = bench.of_seed(0)
        found = kept(first.folder / f"rate-{negatives}.json", lambda: choose(first))
        return with_rate(bench, seed, found["rate"])

    return fit


def validation_score(recommender: Recommender, bench: Bench) -> float:
    found = evaluate(recommender, bench.splits, "validation", protocol="candidates", bootstrap=0, batch_size=128)
    return float(found.metrics["ndcg@5"])


NAMES = {k: "DPO" if k == 1 else f"S-DPO, K = {k}" for k in NEGATIVES}
STUDY = Study(
    name="llm_rec_sdpo_lastfm",
    paper="Chen et al. 2024, S-DPO (arXiv 2406.09215)",
    splits=splits,
    words=(
        "Last.fm candidate prompts of S-DPO's sample (20 candidates, histories of at most 10), split by listener "
        f"0.6 : 0.15 : 0.25; SmolLM2-135M-Instruct, LoRA on all linear layers, {SFT_STEPS} steps of {BATCH} rows of "
        f"fine-tuning, then {PREFERENCE_STEPS} of preferences with beta 1"
    ),
    systems={
        "popularity": popularity,
        "zero-shot": zero_shot,
        "fine-tuned": fine_tuned,
        **{NAMES[k]: aligned(k) for k in NEGATIVES},
    },
    claims={
        "S-DPO chooses the next artist better than fine-tuning alone.": [("S-DPO, K = 3", "fine-tuned")],
        "S-DPO chooses the next artist better than DPO.": [("S-DPO, K = 3", "DPO")],
        "More negatives help.": [("S-DPO, K = 8", "S-DPO, K = 3")],
    },
    rows=1000,
    options={"domain": "music", "inject": "none", "retriever": "popularity", "batch_size": BATCH},
)

if __name__ == "__main__":
    main(STUDY)
