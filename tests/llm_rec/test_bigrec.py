from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from llm_rec.bigrec import BIGRec
from llm_rec.bigrec.grounding import inject
from predilect.recommender import Recommender


@pytest.fixture(scope="module")
def options(model_folder: Path) -> dict[str, Any]:
    return {"model": str(model_folder), "dtype": "float32", "max_length": 700, "batch_size": 4, "cache_titles": False}


@pytest.fixture(scope="module")
def fitted(options: dict[str, Any], letter_splits: Any) -> BIGRec:
    return BIGRec(**options, sft_steps=2, gamma=3.0).fit(letter_splits)


def test_scores_are_injected_distances_of_what_was_generated(fitted: BIGRec, letter_splits: Any) -> None:
    history = letter_splits.test.histories()[:4]
    texts = fitted.generate(history)
    expected = inject(fitted.grounding.distances(texts).cpu(), fitted.retriever.score(history), 3.0)
    scores = fitted.score(history)
    torch.testing.assert_close(scores, expected)
    candidates = torch.tensor([[3, 9, 20]] * 4)
    assert torch.equal(fitted.score(history, candidates), scores[:, [2, 8, 19]])


def test_answers_do_not_depend_on_the_batch(fitted: BIGRec, letter_splits: Any) -> None:
    history = letter_splits.test.histories()[:5]
    assert fitted.generate(history) == [fitted.generate(history[i : i + 1])[0] for i in range(5)]


def test_it_learns_to_name_the_next_item(options: dict[str, Any], letter_splits: Any) -> None:
    settings = {**options, "tuning": "full", "batch_size": 16, "gamma": 0.0}
    recommender = BIGRec(**settings, sft_steps=250, learning_rate=3e-3).fit(letter_splits)
    rows = letter_splits.test
    answers = recommender.generate(rows.histories(slice(50)))
    titles = [letter_splits.catalogue.title(int(i)) for i in rows.target[:50]]
    assert sum(a == t for a, t in zip(answers, titles, strict=True)) > 40
    best = recommender.score(rows.histories(slice(50))).argmax(dim=1) + 1
    assert float((best == rows.targets(slice(50))).float().mean()) > 0.8


def test_gamma_is_chosen_on_validation_rows(options: dict[str, Any], letter_splits: Any) -> None:
    """Popularity says nothing here; the neighbours of the last item say all, so their weight is high."""
    chosen = BIGRec(**{**options, "retriever": "item-knn"}, sft_steps=0, gamma_rows=40).fit(letter_splits)
    assert chosen.gamma > 0


def test_gamma_is_chosen_on_the_candidates_that_are_ranked(
    options: dict[str, Any], letter_splits: Any, tiny_splits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(
        "llm_rec.bigrec.recommender.choose_gamma", lambda *args, candidates, **kwargs: given.append(candidates) or 1.0
    )
    settings = {**options, "sft_steps": 0, "gamma_rows": 6}
    BIGRec(**settings).fit(letter_splits)
    BIGRec(**settings).fit(tiny_splits)
    assert given[0].shape == (6, letter_splits.protocol["candidates"])
    assert given[1] is None


def test_saved_and_loaded_it_recommends_the_same(fitted: BIGRec, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path)
    loaded = Recommender.from_pretrained(tmp_path)
    assert isinstance(loaded, BIGRec)
    assert loaded.gamma == 3.0
    assert loaded.recommend(["c", "d"], k=5) == fitted.recommend(["c", "d"], k=5)


def test_options_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"gamma must be in 0..100, or none \(got 200\)"):
        BIGRec(gamma=200)
