from __future__ import annotations

from typing import Any

import pytest
import torch

from predilect.tokenization import SoftTokens


@pytest.fixture
def soft(own_tokenizer: Any) -> tuple[SoftTokens, Any]:
    soft = SoftTokens({"item": 1, "molecule": 3})
    soft.add_to(own_tokenizer)
    own_tokenizer.padding_side = "left"
    return soft, own_tokenizer


def batch(soft: SoftTokens, tokenizer: Any) -> torch.Tensor:
    item, molecule = soft.text("item"), soft.text("molecule")
    texts = [f"Heat {item}; Ran {item}", f"Big {molecule} and {item}", "no placeholder here at all"]
    return tokenizer(texts, return_tensors="pt", padding=True).input_ids


def test_placeholders_are_single_tokens_and_adding_twice_changes_nothing(own_tokenizer: Any) -> None:
    size = len(own_tokenizer)
    soft = SoftTokens({"item": 1, "sequence": 2})
    ids = soft.add_to(own_tokenizer)
    assert ids == [size, size + 1]
    assert own_tokenizer.encode("a" + soft.text("sequence"))[-2:] == [size + 1] * 2
    assert SoftTokens({"item": 1, "sequence": 2}).add_to(own_tokenizer) == ids
    assert len(own_tokenizer) == size + 2


def test_injection_replaces_exactly_the_placeholders_in_reading_order(soft: tuple[SoftTokens, Any]) -> None:
    tokens, tokenizer = soft
    ids = batch(tokens, tokenizer)
    embeds = torch.randn(*ids.shape, 4)
    items, molecules = torch.randn(3, 4), torch.randn(1, 3, 4)
    out = tokens.inject(embeds, ids, {"item": items, "molecule": molecules})
    where = tokens.locate(ids)
    assert torch.equal(out[where["item"]], items)
    assert torch.equal(out[where["molecule"]], molecules[0])
    rest = ~(where["item"] | where["molecule"])
    assert torch.equal(out[rest], embeds[rest])
    assert not torch.equal(out, embeds)  # and the input is untouched


def test_vectors_may_be_listed_per_row_and_are_checked_per_row(soft: tuple[SoftTokens, Any]) -> None:
    tokens, tokenizer = soft
    ids = batch(tokens, tokenizer)
    embeds, items, molecules = torch.zeros(*ids.shape, 4), torch.randn(3, 4), torch.randn(1, 3, 4)
    flat = tokens.inject(embeds, ids, {"item": items, "molecule": molecules})
    rows = {"item": [items[:2], items[2:], items[:0]], "molecule": [molecules[:0], molecules, molecules[:0]]}
    assert torch.equal(tokens.inject(embeds, ids, rows), flat)
    shifted = {**rows, "item": [items[:1], items[1:], items[:0]]}  # right in total, wrong by row
    with pytest.raises(ValueError, match=r"row 0 holds 2 occurrences of 'item'.*for 1 were given"):
        tokens.inject(embeds, ids, shifted)
    with pytest.raises(ValueError, match="2 lists of vectors for 3 rows"):
        tokens.inject(embeds, ids, {**rows, "item": [items, items]})


def test_gradients_reach_vectors_and_words(soft: tuple[SoftTokens, Any]) -> None:
    tokens, tokenizer = soft
    ids = batch(tokens, tokenizer)
    embeds = torch.randn(*ids.shape, 4, requires_grad=True)
    items = torch.randn(3, 4, requires_grad=True)
    tokens.inject(embeds, ids, {"item": items, "molecule": torch.randn(1, 3, 4)}).sum().backward()
    assert torch.equal(items.grad, torch.ones(3, 4))
    assert embeds.grad.sum() == 4 * (ids.numel() - 6)


def test_vectors_are_cast_to_the_embeddings_dtype(soft: tuple[SoftTokens, Any]) -> None:
    tokens, tokenizer = soft
    ids = batch(tokens, tokenizer)[:1]
    out = tokens.inject(
        torch.zeros(*ids.shape, 4, dtype=torch.bfloat16), ids, {"item": torch.ones(2, 4, dtype=torch.float64)}
    )
    assert out.dtype == torch.bfloat16
    assert out.sum() == 8


def test_counts_that_differ_are_named(soft: tuple[SoftTokens, Any]) -> None:
    tokens, tokenizer = soft
    ids = batch(tokens, tokenizer)
    embeds, molecules = torch.zeros(*ids.shape, 4), torch.zeros(1, 3, 4)
    with pytest.raises(ValueError, match="holds 3 occurrences of 'item' in the prompt, but vectors for 2 were given"):
        tokens.inject(embeds, ids, {"item": torch.zeros(2, 4), "molecule": molecules})
    with pytest.raises(ValueError, match="holds 1 occurrences of 'molecule' in the prompt, but vectors for 0"):
        tokens.inject(embeds, ids, {"item": torch.zeros(3, 4)})
    first = tokens.locate(ids)["molecule"] & (tokens.locate(ids)["molecule"].cumsum(1) == 1)
    with pytest.raises(ValueError, match=r"row 1 holds 2 '<\|molecule\|>', not a multiple of 3"):
        tokens.inject(embeds, ids.masked_fill(first, 5), {"item": torch.zeros(3, 4), "molecule": molecules})


def test_bad_input_is_refused(soft: tuple[SoftTokens, Any]) -> None:
    tokens, tokenizer = soft
    ids = batch(tokens, tokenizer)[:1]
    embeds = torch.zeros(*ids.shape, 4)
    with pytest.raises(ValueError, match=r"shape \(2, 1, 4\) \(got \(2, 5\)\)"):
        tokens.inject(embeds, ids, {"item": torch.zeros(2, 5)})
    with pytest.raises(ValueError, match="no soft token 'film'"):
        tokens.inject(embeds, ids, {"film": torch.zeros(2, 4)})
    with pytest.raises(ValueError, match="got 'item': 0"):
        SoftTokens({"item": 0})
    with pytest.raises(ValueError, match="got 'an item': 1"):
        SoftTokens({"an item": 1})
    with pytest.raises(ValueError, match="at least one name"):
        SoftTokens({})
    with pytest.raises(RuntimeError, match="add_to"):
        SoftTokens({"item": 1}).locate(ids)
