from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from llm_rec.prompting import Prompter
from llm_rec.rows import Examples, encoded_rows, in_batches, retriever_shortlist, training_examples, with_target
from predilect.recommenders import ItemKNN, Popularity
from predilect.tokenization import PromptSet, PromptTemplate


@pytest.fixture(scope="module")
def retriever(letter_splits: Any) -> ItemKNN:
    return ItemKNN().fit(letter_splits)


def examples(splits: Any, retriever: Any, count: int, **options: Any) -> Any:
    settings = {"size": 5, "negatives": "uniform", "seed": 0, **options}
    return training_examples(splits, count, retriever=retriever, **settings)


def test_rows_come_in_random_order_and_again_with_other_candidates(letter_splits: Any, retriever: Any) -> None:
    total = len(letter_splits.train)
    found = examples(letter_splits, retriever, 2 * total)
    first, second = found.row[:total], found.row[total:]
    assert sorted(first.tolist()) == list(range(total))
    assert sorted((second - total).tolist()) == list(range(total))
    assert first.tolist() != sorted(first.tolist())
    position = {row: i for i, row in enumerate(first.tolist())}
    same = [
        torch.equal(found.candidates[position[int(r) - total]], found.candidates[total + i])
        for i, r in enumerate(second)
    ]
    assert np.mean(same) < 0.1
    rest = examples(letter_splits, retriever, 10, skip=total - 4)
    assert torch.equal(rest.row, found.row[total - 4 : total + 6])
    assert torch.equal(rest.candidates, found.candidates[total - 4 : total + 6])


def test_no_pass_of_a_seed_draws_what_a_pass_of_another_draws(letter_splits: Any, retriever: Any) -> None:
    total = len(letter_splits.train)
    passes = {}
    for seed in range(3):
        found = examples(letter_splits, retriever, 3 * total, seed=seed)
        for number in range(3):
            part = slice(number * total, (number + 1) * total)
            order = found.row[part].argsort()  # the rows of the data in their own order
            passes[seed, number] = found.candidates[part][order]
    keys = list(passes)
    for i, one in enumerate(keys):
        for other in keys[i + 1 :]:
            assert (passes[one] == passes[other]).all(dim=1).float().mean() < 0.1, (one, other)


def test_a_target_does_not_bring_its_negatives(letter_splits: Any, retriever: Any) -> None:
    """S-DPO's code seeds the candidates with the target's id: then all rows of one target have one set."""
    found = examples(letter_splits, retriever, len(letter_splits.train))
    sets: dict[int, set[tuple[int, ...]]] = {}
    for target, candidates in zip(found.target.tolist(), found.candidates.tolist(), strict=True):
        assert target in candidates
        sets.setdefault(target, set()).add(tuple(sorted(candidates)))
    assert all(len(some) > 1 for some in sets.values())


def test_candidates_of_the_retriever_hold_the_target_and_nothing_of_the_history(
    letter_splits: Any, retriever: Any
) -> None:
    found = examples(letter_splits, retriever, 50, negatives="retriever")
    for history, target, candidates in zip(*(c.tolist() for c in found[:3]), strict=True):
        assert len(set(candidates)) == 5
        assert target in candidates
        assert not set(candidates) - {target} & set(history)
    places = (found.candidates == found.target[:, None]).long().argmax(dim=1)
    assert len(set(places.tolist())) == 5  # shuffled


def test_auto_follows_the_rows_to_be_ranked(letter_splits: Any, tiny_splits: Any, retriever: Any) -> None:
    """`letter_splits` have uniform candidates, `tiny_splits` none: those of the retriever are likelier items."""
    uniform = examples(letter_splits, retriever, 50, negatives="auto").candidates
    assert torch.equal(uniform, examples(letter_splits, retriever, 50, negatives="uniform").candidates)
    hard = examples(tiny_splits, retriever, 50, negatives="auto").candidates
    assert torch.equal(hard, examples(tiny_splits, retriever, 50, negatives="retriever").candidates)


def test_an_empty_history_gets_popular_items_and_taken_ones_go_last(letter_splits: Any, retriever: Any) -> None:
    popular = torch.tensor(letter_splits.catalogue.popularity).argsort(descending=True, stable=True) + 1
    assert retriever_shortlist(retriever, torch.zeros(1, 5, dtype=torch.long), 4)[0].tolist() == popular[:4].tolist()
    history = torch.tensor([[0, 0, 3, 4, 5]])
    scores = retriever.score(history)[0]
    wanted = sorted(
        (i for i in range(1, 21) if i not in (3, 4, 5)),
        key=lambda i: (-float(scores[i - 1]), -letter_splits.catalogue.popularity[i - 1], i),
    )
    assert retriever_shortlist(retriever, history, 8)[0].tolist() == wanted[:8]


def test_a_shortlist_that_is_too_long_is_refused(letter_splits: Any, retriever: Any) -> None:
    history = letter_splits.test.histories()[:2]
    with pytest.raises(ValueError, match=r"a shortlist of 18 besides a history of 5 needs more than .* 20 items"):
        retriever_shortlist(retriever, history, 18)


def test_the_target_takes_the_last_place_where_it_is_missing() -> None:
    found = with_target(torch.tensor([[3, 2, 1], [4, 5, 6]]), torch.tensor([2, 9]))
    assert found.tolist() == [[3, 2, 1], [4, 5, 9]]


def test_encoded_rows(letter_splits: Any, tokenizer: Any) -> None:
    prompter = Prompter(letter_splits.catalogue, tokenizer, PromptSet.for_domain("movie"), max_length=600)
    answers = prompter.answers()
    found = training_examples(
        letter_splits, 20, size=5, negatives="uniform", retriever=Popularity().fit(letter_splits), seed=0
    )
    rows = list(encoded_rows(prompter, answers, found, num_negatives=3))
    for row, target, candidates in zip(rows, found.target.tolist(), found.candidates.tolist(), strict=True):
        assert row["answer_ids"] == answers[target - 1]
        assert tokenizer.decode(row["answer_ids"]) == f" {letter_splits.catalogue.title(target)}</s>"
        others = [answers[i - 1] for i in candidates if i != target]
        assert len(row["rejected_ids"]) == 3
        assert all(ids in others for ids in row["rejected_ids"])
        assert len({tuple(ids) for ids in row["rejected_ids"]}) == 3
        text = tokenizer.decode(row["prompt_ids"])
        assert text.endswith("Answer:")
        assert "; ".join(letter_splits.catalogue.title(i) for i in candidates) in text


def test_weights_of_the_rows_reach_the_rows_of_token_ids(letter_splits: Any, tokenizer: Any) -> None:
    weight = np.arange(len(letter_splits.train), dtype=np.float32)
    splits = replace(letter_splits, train=letter_splits.train.with_weights(weight))
    found = training_examples(
        splits, 2 * len(weight), size=5, negatives="uniform", retriever=Popularity().fit(splits), seed=0
    )
    assert found.weight is not None
    assert found.weight.tolist() == (found.row.numpy() % len(weight)).tolist()
    prompter = Prompter(splits.catalogue, tokenizer, PromptSet.for_domain("movie"), max_length=600)
    few = Examples(*(column[:7] for column in found))
    assert [row["weight"] for row in encoded_rows(prompter, prompter.answers(), few)] == found.weight[:7].tolist()


def test_batches_hold_rows_of_similar_length_in_random_order() -> None:
    rng = np.random.default_rng(0)
    rows = [{"prompt_ids": [0] * int(n), "row": i} for i, n in enumerate(rng.integers(1, 100, 64))]
    batched = in_batches(rows, 8, seed=0)
    assert sorted(r["row"] for r in batched) == list(range(64))
    lengths = np.array([len(r["prompt_ids"]) for r in batched]).reshape(8, 8)
    assert (lengths.max(1) - lengths.min(1)).mean() < 15
    assert list(lengths.mean(1)) != sorted(lengths.mean(1))


def test_templates(letter_splits: Any, tokenizer: Any) -> None:
    catalogue, prompts = letter_splits.catalogue, PromptSet.for_domain("movie")
    drawn = Prompter(catalogue, tokenizer, prompts, max_length=600, template=None)
    trained = {tuple(drawn.encode([1], [2, 3], reserve=5, row=row).ids) for row in range(40)}
    assert len(trained) == len(prompts)
    assert drawn.encode([1], [2, 3], reserve=5) == Prompter(catalogue, tokenizer, prompts, 600).encode(
        [1], [2, 3], reserve=5
    )
    with pytest.raises(ValueError, match=r"template must be in 0..4 \(got 9\)"):
        Prompter(catalogue, tokenizer, prompts, max_length=600, template=9)
    with pytest.raises(ValueError, match=r"templates have the slots .*got context"):
        Prompter(catalogue, tokenizer, PromptSet((PromptTemplate("{context}"),)), max_length=600)
    with pytest.raises(ValueError, match="raise max_length"):
        Prompter(catalogue, tokenizer, prompts, max_length=40).encode([1], [2, 3], reserve=5)


def test_soft_tokens_of_slots_in_reading_order(letter_splits: Any, tokenizer: Any) -> None:
    candidates_first = PromptSet((PromptTemplate("From {candidates} after {history}?"),))
    prompter = Prompter(letter_splits.catalogue, tokenizer, candidates_first, max_length=600, mark="#")
    assert prompter.encode([0, 4, 5], [9, 8], reserve=3).item_ids == [9, 8, 4, 5]
