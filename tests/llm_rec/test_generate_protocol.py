from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_rec.generate_protocol import evaluate_generation
from llm_rec.language import LanguageRecommender


@pytest.fixture(scope="module")
def fitted(model_folder: Path, letter_splits: Any) -> LanguageRecommender:
    return LanguageRecommender(
        model=str(model_folder), dtype="float32", max_length=700, num_candidates=5, sft_steps=0, inject="none",
        retriever="popularity", shortlist=5,
    ).fit(letter_splits)  # fmt: skip


def test_hand_made_answers_are_counted(fitted: Any, letter_splits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = letter_splits.test
    title = letter_splits.catalogue.title

    def answers(histories: Any, candidates: Any, *, max_new_tokens: Any) -> list[str]:
        told = []
        for row, own in enumerate(candidates.tolist()):
            target = int(rows.target[row])
            other = next(i for i in own if i != target)
            absent = next(i for i in range(1, 21) if i not in own)
            told.append(
                [title(target).upper(), title(other), title(absent), f"{title(target)} or {title(other)}"][row % 4]
            )
        return told

    monkeypatch.setattr(fitted, "generate", answers)
    found = evaluate_generation(fitted, letter_splits, batch_size=1000, bootstrap=20)
    count = len(rows)
    right, wrong = len(range(0, count, 4)), len(range(1, count, 4))
    assert found.metrics["hr@1"] == right / count
    assert found.metrics["valid_ratio"] == (right + wrong) / count
    assert found.metrics["hr@1_given_valid"] == right / (right + wrong)
    assert found.metrics["hr@1_low"] <= found.metrics["hr@1"] <= found.metrics["hr@1_high"]
    assert found.rows["reason"][:4] == ["exact", "exact", "none", "several"]
    assert found.metrics["protocol"] == "generate"


def test_rows_are_drawn_and_batched_without_changing_answers(fitted: Any, letter_splits: Any) -> None:
    some = evaluate_generation(fitted, letter_splits, max_rows=6, batch_size=4, bootstrap=0, max_new_tokens=8)
    again = evaluate_generation(fitted, letter_splits, max_rows=6, batch_size=6, bootstrap=0, max_new_tokens=8)
    assert some.rows[:] == again.rows[:]
    assert len(some.rows) == 6


def test_without_candidates_it_refuses(fitted: Any, tiny_splits: Any) -> None:
    with pytest.raises(ValueError, match="has no candidates for the prompts to name"):
        evaluate_generation(fitted, tiny_splits)
