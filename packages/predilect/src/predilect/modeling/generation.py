"""Generation of titles along a trie, always items of the catalogue, and the papers' free generation of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from predilect.modeling.answer_scores import (
    Ids,
    Vectors,
    cache_name,
    check_prompts,
    groups,
    is_packable,
    pad_left,
    prompt_cache,
    vectors_of,
    vectors_of_prompts,
)
from predilect.tokenization import TitleTrie

_FILLER = -1e8  # beam search fills up with hypotheses of -1e9 or less; no title is as improbable as this
_PLAIN = {"do_sample": False, "repetition_penalty": 1.0, "return_dict_in_generate": True}


@torch.no_grad()
def generate_titles(
    model: Any,
    trie: TitleTrie,
    prompts: Sequence[Ids],
    *,
    num_beams: int,
    pad_token_id: int,
    candidates: Sequence[Sequence[int]] | None = None,
    vectors: Vectors | None = None,
    max_tokens: int = 2048,
) -> list[list[tuple[int, float]]]:
    """Items whose titles a language model generates, by greedy search (one beam) or beam search along a trie.

    Every hypothesis is a title of the trie, and no item comes twice. The score is the log-probability of the title and
    its EOS given the prompt, `sum_t log p(title_t | prompt, title_<t)` over the whole vocabulary and not divided by
    the length, so it equals that of `score_candidates`. With at least as many beams as there are titles the search is
    exhaustive. A prompt is computed once for all beams, where `check_packable` accepts the model. Results do not
    depend on what else is in the call.

    Args:
        model: a causal LM, also with PEFT adapters, or a `SoftTokenCausalLM`; in eval mode.
        trie: the titles.
        prompts: B prompts of at least one token.
        num_beams: hypotheses that are kept at each step, at least 1.
        pad_token_id: what to pad with; never attended to.
        candidates: per prompt the ids of the items that may come; None: all of the trie.
        vectors: see `score_candidates`.
        max_tokens: most positions of the prompts of one pass, padding and beams included; one prompt may exceed it.

    Returns:
        Per prompt (item id, score in nats), best first: the items of at most `num_beams` titles, fewer where there are
        fewer titles. Items with one and the same title all come, by ascending id, with the same score.

    Raises:
        ValueError: `num_beams` below 1, an empty prompt, a prompt without candidates, candidates that the trie lacks,
            or vectors that do not fit the prompts.
    """
    if num_beams < 1:
        raise ValueError(f"a search needs at least one beam (got num_beams={num_beams})")
    _check_candidates(prompts, candidates)
    lists: list[list[tuple[int, float]]] = [[] for _ in prompts]
    shared = num_beams > 1 and is_packable(model)
    for group, inputs, width in _batches(model, prompts, vectors, pad_token_id, max_tokens, rows=num_beams):
        allowed = None if candidates is None else [candidates[row] for row in group]
        output = model.generate(
            **inputs,
            **_PLAIN,
            **(_shared_prompts(model, inputs, num_beams) if shared else {}),
            logits_processor=[trie.logits_processor(width, candidates=allowed)],
            **_search(num_beams),
            max_new_tokens=trie.max_length,
            eos_token_id=trie.eos_token_id,
            pad_token_id=trie.pad_token_id,
        )
        titles = output.sequences[:, width:]
        scores = (
            _greedy_scores(output.logits, titles, trie.eos_token_id) if num_beams == 1 else output.sequences_scores
        )
        for place, row in enumerate(group):
            own = slice(place * num_beams, (place + 1) * num_beams)
            among = None if allowed is None else set(map(int, allowed[place]))
            lists[row] = _items(trie, titles[own].tolist(), scores[own].tolist(), among)
    return lists


@torch.no_grad()
def generate_text(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Ids],
    *,
    max_new_tokens: int = 20,
    vectors: Vectors | None = None,
    max_tokens: int = 2048,
) -> list[str]:
    """What a language model writes by itself, greedily: how S-DPO and LLaRA ask their models for an item.

    Decoded from the generated tokens only (the official code cuts the prompt off the decoded text by its number of
    characters, which drops or repeats some), up to EOS and to the first line break, without blanks at the ends.

    Args:
        model: see `generate_titles`.
        tokenizer: the model's tokenizer.
        prompts: B prompts of at least one token.
        max_new_tokens: longest text; S-DPO takes 20, LLaRA 64.
        vectors: see `score_candidates`.
        max_tokens: most positions of the prompts of one pass, padding included; one prompt may exceed it.

    Returns:
        B texts; "" where the model ends at once.

    Raises:
        ValueError: an empty prompt, or vectors that do not fit the prompts.
    """
    eos = tokenizer.eos_token_id
    pad = eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    texts = [""] * len(prompts)
    for group, inputs, width in _batches(model, prompts, vectors, pad, max_tokens):
        output = model.generate(
            **inputs, **_PLAIN, num_beams=1, max_new_tokens=max_new_tokens, eos_token_id=eos, pad_token_id=pad
        )
        for row, tokens in zip(group, output.sequences[:, width:].tolist(), strict=True):
            texts[row] = answer_text(tokenizer, tokens)
    return texts


def answer_text(tokenizer: Any, generated_ids: Sequence[int] | torch.Tensor) -> str:
    """What a model answered: its first line that is not blank, up to the first EOS, without special tokens.

    Args:
        tokenizer: the model's tokenizer.
        generated_ids: (T,) the new tokens of one row, without its prompt. Decoding them alone needs no search for the
            end of the prompt in the text, which fails where special tokens, spaces or truncation change it.
    """
    ids = generated_ids.tolist() if isinstance(generated_ids, torch.Tensor) else list(generated_ids)
    if tokenizer.eos_token_id in ids:
        ids = ids[: ids.index(tokenizer.eos_token_id)]
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return next(iter(text.strip().splitlines()), "").strip()


def _check_candidates(prompts: Sequence[Ids], candidates: Sequence[Sequence[int]] | None) -> None:
    if candidates is None:
        return
    if len(candidates) != len(prompts):
        raise ValueError(f"every prompt needs its candidates (got {len(prompts)} prompts, {len(candidates)} lists)")
    if empty := [row for row, own in enumerate(candidates) if not len(own)]:
        raise ValueError(f"prompt {empty[0]} has no candidates: leave candidates out to allow every item")


def _batches(
    model: Any, prompts: Sequence[Ids], vectors: Vectors | None, pad_token_id: int, max_tokens: int, rows: int = 1
) -> Iterator[tuple[list[int], dict[str, Any], int]]:
    """Numbers of some prompts, what `generate` takes of them, and the columns of its output that are no new tokens."""
    check_prompts(prompts)
    of_prompt = vectors_of_prompts(model, prompts, vectors)
    device = model.get_input_embeddings().weight.device
    for group in groups([rows * len(prompt) for prompt in prompts], max_tokens):
        ids, mask = pad_left([prompts[row] for row in group], pad_token_id)
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device), **vectors_of(of_prompt, group)}
        yield group, inputs, 0 if hasattr(model, "soft_tokens") else ids.shape[1]


def _search(num_beams: int) -> dict[str, Any]:
    if num_beams == 1:
        return {"num_beams": 1, "output_logits": True}
    # The scores are sums of log-probabilities, and can only fall: with this penalty search stops when no hypothesis
    # that is still running can come among the best.
    return {
        "num_beams": num_beams,
        "num_return_sequences": num_beams,
        "length_penalty": 0.0,
        "early_stopping": False,
        "output_scores": True,
    }


def _shared_prompts(model: Any, inputs: Mapping[str, Any], num_beams: int) -> dict[str, DynamicCache]:
    """The keys and values of all but the last token of each prompt, for all of its beams: `generate` by itself would
    compute every prompt once per beam.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    if ids.shape[1] == 1:
        return {}
    cache, _ = prompt_cache(model, ids, mask, **{k: v for k, v in inputs.items() if k == "vectors"})
    cache.crop(-1)
    cache.batch_repeat_interleave(num_beams)
    return {cache_name(model): cache}


def _greedy_scores(logits: Sequence[Tensor], titles: Tensor, eos_token_id: int) -> Tensor:
    """(B,) sums over the tokens up to the first EOS; beam search brings its own."""
    steps = [step.float().log_softmax(-1).gather(1, titles[:, [t]]) for t, step in enumerate(logits)]
    ends = titles == eos_token_id
    return (torch.cat(steps, dim=1) * (ends.cumsum(1) - ends.long() == 0)).sum(dim=1)


def _items(
    trie: TitleTrie, titles: Sequence[Sequence[int]], scores: Sequence[float], among: set[int] | None
) -> list[tuple[int, float]]:
    """The items of hypotheses that come best first."""
    return [
        (item, score)
        for title, score in zip(titles, scores, strict=True)
        if score > _FILLER
        for item in sorted(trie.decode(title))
        if among is None or item in among
    ]
