from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predilect.tokenization import TitleTrie, encode_answers

TITLES = [
    "Heat",
    "The Heat",
    "Heat",
    "Alien",
    "Aliens",
    "Alien Aliens",
    "Amélie",
    "東京物語",
    "Ran",
    "The Matrix (1999)",
]


def sequences(
    trie: TitleTrie, candidates: list[int] | None = None, start: tuple[int, ...] = ()
) -> set[tuple[int, ...]]:
    """Everything that the trie lets through, by following every allowed token up to the first EOS."""
    found = set()
    for token in trie.allowed(start, candidates):
        path = (*start, token)
        found |= {path} if token == trie.eos_token_id else sequences(trie, candidates, path)
    return found


def test_exactly_the_catalogue(tokenizer: Any) -> None:
    trie = TitleTrie.from_titles(TITLES, tokenizer)
    encoded = [tuple(s) for s in encode_answers(tokenizer, TITLES)]
    assert sequences(trie) == set(encoded)
    assert len(trie) == 9
    assert trie.max_length == max(map(len, encoded))
    for item_id, ids in enumerate(encoded, start=1):
        assert trie.sequence(item_id) == list(ids)
        assert trie.decode(ids) == ([1, 3] if TITLES[item_id - 1] == "Heat" else [item_id])


def test_decode_takes_padding_after_the_end_and_nothing_else(tokenizer: Any) -> None:
    trie = TitleTrie.from_titles(TITLES, tokenizer)
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = trie.sequence(4)
    assert trie.decode(torch.tensor([*ids, pad, pad])) == [4]
    assert trie.decode([*ids, eos]) == [4]
    assert trie.decode(ids[:-1]) == []  # "Alien" may go on as "Aliens"
    assert trie.decode([*ids, ids[0]]) == []
    assert trie.decode([]) == []
    assert trie.decode([10**6]) == []
    assert trie.allowed(ids) == sorted({eos, pad})
    assert trie.allowed([10**6]) == []


def test_prefix_titles_end_or_go_on(tokenizer: Any) -> None:
    trie = TitleTrie.from_titles(["Big", "Big Jaws"], tokenizer)
    after = trie.allowed(trie.sequence(1)[:-1])
    assert len(after) == 2
    assert tokenizer.eos_token_id in after


def test_titles_that_tokenise_alike_share_a_sequence() -> None:
    trie = TitleTrie([[5, 6, 2], [5, 2], [5, 6, 2]], [10, 20, 30], eos_token_id=2, pad_token_id=0)
    assert trie.decode([5, 6, 2]) == [10, 30]
    assert len(trie) == 2
    assert trie.num_nodes == 5  # root, 5, then 2 and 6, then 2


def test_candidates_restrict_each_row(tokenizer: Any) -> None:
    trie = TitleTrie.from_titles(TITLES, tokenizer)
    encoded = [tuple(s) for s in encode_answers(tokenizer, TITLES)]
    for items in ([4, 6], [7], [1, 2, 3], list(range(1, 11))):
        assert sequences(trie, items) == {encoded[i - 1] for i in items}


def test_bad_input_is_named(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="without a title cannot be generated: 2, 4"):
        TitleTrie.from_titles(["Heat", "", "Ran", "  "], tokenizer)
    with pytest.raises(ValueError, match="1, 2, 3, 4, 5 and 2 more"):
        TitleTrie.from_titles([""] * 7, tokenizer)
    with pytest.raises(ValueError, match="at least one title"):
        TitleTrie.from_titles([], tokenizer)
    with pytest.raises(ValueError, match="got 1 for 2 titles"):
        TitleTrie.from_titles(["Heat", "Ran"], tokenizer, item_ids=[1])
    with pytest.raises(ValueError, match="distinct"):
        TitleTrie.from_titles(["Heat", "Ran"], tokenizer, item_ids=[1, 1])
    with pytest.raises(ValueError, match="holds the end token"):
        TitleTrie.from_titles(["Heat </s>"], tokenizer)
    trie = TitleTrie.from_titles(["Heat", "Ran"], tokenizer)
    with pytest.raises(ValueError, match="item 3 is not in this trie of 2 items"):
        trie.logits_processor(0, candidates=[[1], [3]])
    with pytest.raises(ValueError, match="row 1 has no candidates"):
        trie.prefix_allowed_tokens_fn(0, candidates=[[1], []])
    with pytest.raises(ValueError, match="3 rows, not a multiple of the 2 rows"):
        trie.logits_processor(0, candidates=[[1], [2]])(torch.zeros(3, 0, dtype=torch.long), torch.zeros(3, 400))


@cache
def cached_tokenizer(kind: str) -> Any:
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    spec = spec_from_file_location("tokenizers_for_tests", Path(__file__).with_name("conftest.py"))
    module = module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module.byte_level() if kind == "byte-level" else module.sentence_piece()


titles = st.text(st.sampled_from("ab TheHat é東:(1)"), min_size=1, max_size=8).filter(lambda t: t.strip())


@settings(max_examples=60, deadline=None)
@given(st.lists(titles, min_size=1, max_size=12), st.sampled_from(["byte-level", "sentencepiece"]), st.data())
def test_any_catalogue_gives_itself_and_nothing_else(catalogue: list[str], kind: str, data: st.DataObject) -> None:
    tokenizer = cached_tokenizer(kind)
    trie = TitleTrie.from_titles(catalogue, tokenizer)
    encoded = [tuple(s) for s in encode_answers(tokenizer, catalogue)]
    assert sequences(trie) == set(encoded)
    for ids in encoded:
        assert trie.decode(ids) == [i for i, other in enumerate(encoded, start=1) if other == ids]
    some = data.draw(st.lists(st.integers(1, len(catalogue)), min_size=1))
    assert sequences(trie, some) == {encoded[i - 1] for i in some}
    # the vectorised processor allows the same tokens, at every prefix of every title
    prefixes = [ids[:n] for ids in set(encoded) for n in range(len(ids) + 1)]
    for length, group in {len(p): [q for q in prefixes if len(q) == len(p)] for p in prefixes}.items():
        ids = torch.tensor(group, dtype=torch.long).reshape(len(group), length)
        out = trie.logits_processor(0)(ids, torch.zeros(len(group), 500))
        for prefix, scores in zip(group, out, strict=True):
            assert scores.isfinite().nonzero().flatten().tolist() == trie.allowed(prefix)


PROMPTS = ["Reply with its title. Answer:", "A viewer watched these movies, oldest first: Heat; Ran. Answer:", "Next:"]
CANDIDATES = [[1, 4, 5], [2, 3, 6, 7], [8, 9, 10]]


@pytest.mark.parametrize("form", ["processor", "function"])
@pytest.mark.parametrize(("beams", "sample"), [(1, False), (3, False), (1, True)])
@pytest.mark.parametrize("restricted", [False, True])
def test_generation_always_gives_titles(
    tokenizer: Any, tiny_lm: Any, form: str, beams: int, sample: bool, restricted: bool
) -> None:
    trie = TitleTrie.from_titles(TITLES, tokenizer)
    batch = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    width = batch.input_ids.shape[1]
    candidates = CANDIDATES if restricted else None
    constraint = (
        {"logits_processor": [trie.logits_processor(width, candidates=candidates)]}
        if form == "processor"
        else {"prefix_allowed_tokens_fn": trie.prefix_allowed_tokens_fn(width, candidates=candidates)}
    )
    torch.manual_seed(0)
    out = tiny_lm.generate(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        num_beams=beams,
        num_return_sequences=beams,
        do_sample=sample,
        max_new_tokens=trie.max_length,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **constraint,
    )
    found = [trie.decode(row) for row in out[:, width:]]
    assert all(found)
    for row, items in enumerate(found):
        if restricted:
            assert set(items) & set(CANDIDATES[row // beams])
    for start in range(0, len(found), beams):  # the beams of a prompt are different titles
        assert len({tuple(f) for f in found[start : start + beams]}) == beams


def test_beams_are_the_best_titles(tokenizer: Any, tiny_lm: Any) -> None:
    """With as many beams as titles, beam search is exhaustive: its order is that of the titles' log-probs."""
    trie = TitleTrie.from_titles(TITLES, tokenizer)
    prompt = tokenizer(PROMPTS[1], return_tensors="pt").input_ids
    out = tiny_lm.generate(
        input_ids=prompt,
        num_beams=9,
        num_return_sequences=9,
        length_penalty=0.0,
        max_new_tokens=trie.max_length,
        logits_processor=[trie.logits_processor(prompt.shape[1])],
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    scores = {}
    for item_id in range(1, len(TITLES) + 1):
        ids = torch.tensor(trie.sequence(item_id))
        logps = tiny_lm(torch.cat([prompt[0], ids])[None]).logits[0].log_softmax(-1)
        scores[item_id] = logps[torch.arange(len(ids)) + prompt.shape[1] - 1, ids].sum().item()
    best = sorted(set(scores) - {3}, key=lambda i: -scores[i])
    assert [trie.decode(row)[0] for row in out[:, prompt.shape[1] :]] == best


def test_more_beams_than_titles_never_leave_the_trie_with_a_finite_score(tokenizer: Any, tiny_lm: Any) -> None:
    trie = TitleTrie.from_titles(["Heat", "Ran"], tokenizer)
    prompt = tokenizer(PROMPTS[0], return_tensors="pt").input_ids
    for constraint in (
        {"logits_processor": [trie.logits_processor(prompt.shape[1])]},
        {"prefix_allowed_tokens_fn": trie.prefix_allowed_tokens_fn(prompt.shape[1])},
    ):
        out = tiny_lm.generate(
            input_ids=prompt,
            num_beams=5,
            num_return_sequences=5,
            max_new_tokens=trie.max_length,
            output_scores=True,
            return_dict_in_generate=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **constraint,
        )
        found = [trie.decode(row) for row in out.sequences[:, prompt.shape[1] :]]
        good = [items for items, score in zip(found, out.sequences_scores, strict=True) if score > -1e6]
        assert sorted(good) == [[1], [2]]


def test_large_random_catalogue_matches_a_dictionary_trie() -> None:
    rng = np.random.default_rng(0)
    rows = [[*rng.integers(3, 40, rng.integers(1, 7)).tolist(), 2] for _ in range(3000)]
    trie = TitleTrie(rows, range(1, 3001), eos_token_id=2, pad_token_id=2)
    children: dict[tuple[int, ...], set[int]] = {}
    for row in rows:
        for n in range(len(row)):
            children.setdefault(tuple(row[:n]), set()).add(row[n])
    assert trie.num_nodes == 1 + sum(len(c) for c in children.values())
    for prefix in list(children)[::7]:
        assert trie.allowed(prefix) == sorted(children[prefix])
