from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from predilect.recommender import Recommender, available_recommenders, recommender_class
from predilect.recommenders import Popularity
from predilect.testing import check_recommender, planted_splits, tiny_language_model

TRAINED = {"max_epochs": 1, "hidden_size": 8}
SMALL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("sasrec", "gru4rec", "caser", "nextitnet"), TRAINED),
    "injection": {"members": ("popularity", "item-knn"), "rows": 10},
    "dreamrec": {**TRAINED, "timesteps": 10, "steps": 3},
    "preferdiff": {**TRAINED, "timesteps": 10, "steps": 3},
    "group-reranker": {"base": "item-knn", "rows": 20},
    "ifairlrs": {"base": "sasrec", "base_options": TRAINED, "rows": 20},
}
LANGUAGE = {"sft_steps": 1, "batch_size": 2, "max_length": 600, "dtype": "float32"}
SHORTLIST = {**LANGUAGE, "shortlist": 4, "inject_rows": 4, "retriever": "item-knn"}
OF_LANGUAGE: dict[str, dict[str, Any]] = {
    "language": SHORTLIST,
    "softmax-dpo": {**SHORTLIST, "preference_steps": 1, "num_negatives": 2},
    "llara": {**SHORTLIST, "retriever": "sasrec"},
    "bigrec": {**LANGUAGE, "gamma_rows": 4, "cache_titles": False},
}


@pytest.mark.parametrize("name", sorted(set(available_recommenders()) - set(OF_LANGUAGE)))
def test_registered_recommenders_keep_their_promises(name: str) -> None:
    kind = recommender_class(name)
    options = SMALL.get(name, {})
    if name not in SMALL and hasattr(kind.config_class(), "max_epochs"):
        options = TRAINED
    check_recommender(kind, **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("lm")
    tiny_language_model(folder)
    return str(folder)


@pytest.mark.parametrize("name", sorted(OF_LANGUAGE))
def test_language_models_keep_their_promises(name: str, model: str, tmp_path: Path) -> None:
    if name not in available_recommenders():
        pytest.skip("llm-rec is not installed")
    splits, options = planted_splits(people=12), {"model": model, **OF_LANGUAGE[name]}
    if options.get("retriever") == "sasrec":
        recommender_class("sasrec")(**TRAINED).fit(splits).save_pretrained(tmp_path)
        options["retriever_folder"] = str(tmp_path)
    reads = name != "bigrec"  # the others' prompts name the candidates
    check_recommender(recommender_class(name), splits, tolerance=1e-3, reads_candidates=reads, **options)


class Faulty(Popularity):
    """Breaks one promise at a time."""

    name = "faulty"
    fault = ""

    def _score(self, histories: torch.Tensor) -> torch.Tensor:
        scores = super()._score(histories)
        if self.fault == "batch":
            return scores + len(histories)
        if self.fault == "padding":
            return scores + histories.shape[1]
        return scores + 1.0 / 7 if self.fault == "candidates" and len(histories) else scores

    def _score_candidates(self, histories: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        plain = Popularity._score(self, histories).gather(1, candidates - 1)
        return plain if self.fault == "candidates" else super()._score_candidates(histories, candidates)

    def _load(self, folder: Path) -> None:
        super()._load(folder)
        if self.fault == "folder":
            self.fault = "batch"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("batch", "must not depend on the batch"),
        ("padding", "padding must change no score"),
        ("candidates", "those of the whole catalogue"),
        ("folder", "saved and loaded"),
    ],
)
def test_a_broken_promise_is_named(fault: str, words: str) -> None:
    kind: type[Recommender] = type("Kind", (Faulty,), {"fault": fault})
    with pytest.raises(AssertionError, match=words):
        check_recommender(kind)
