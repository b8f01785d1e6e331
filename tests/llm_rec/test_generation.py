from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM

from predilect.modeling import SoftTokenCausalLM
from predilect.modeling.answer_scores import score_candidates
from predilect.modeling.generation import generate_text, generate_titles
from predilect.tokenization import SoftTokens, TitleTrie, encode_answers

# shared beginnings, one that begins another, one twice, regex characters and quotes
TITLES = ["The End", "The Endless", "The Ring", "Heat", "The End", "[REC]", 'Say "Hi"', "(500) Days", "The", "Ran"]
PAD = 0
PROMPTS = ["Seen: Heat. Answer:", ":", "Seen: The Ring; Ran; Alien; Jaws. Which one comes next? Answer:"]


@pytest.fixture(scope="module")
def lm(model_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_folder).eval()


@pytest.fixture(scope="module")
def trie(tokenizer: Any) -> TitleTrie:
    return TitleTrie.from_titles(TITLES, tokenizer)


@pytest.fixture(scope="module")
def prompts(tokenizer: Any) -> list[list[int]]:
    return [tokenizer.encode(text) for text in PROMPTS]


def ranked(
    model: Any, tokenizer: Any, prompt: Sequence[int], items: Sequence[int], **inputs: Any
) -> list[tuple[int, float]]:
    """All items by the log-probability of their titles, ties by id."""
    answers = encode_answers(tokenizer, [TITLES[item - 1] for item in items])
    scores = score_candidates(model, [prompt], [answers], pad_token_id=PAD, **inputs)[0].tolist()
    return sorted(zip(items, scores, strict=True), key=lambda pair: (-round(pair[1], 3), pair[0]))


def same(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    assert [item for item, _ in found] == [item for item, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-3)


def test_enough_beams_rank_the_whole_catalogue(lm: Any, tokenizer: Any, trie: TitleTrie, prompts: Any) -> None:
    everything = list(range(1, len(TITLES) + 1))
    found = generate_titles(lm, trie, prompts, num_beams=len(trie), pad_token_id=PAD)
    for row, prompt in zip(found, prompts, strict=True):
        same(row, ranked(lm, tokenizer, prompt, everything))


def beam_search(model: Any, trie: TitleTrie, prompt: list[int], width: int) -> list[tuple[int, float]]:
    """The textbook's search without batches, caches or padding: the best `width` hypotheses at each step, a title
    that ends among them is put aside.
    """
    running, ended = [([], 0.0)], []
    while running:
        extended = []
        for tokens, score in running:
            with torch.no_grad():
                logps = model(torch.tensor([prompt + tokens])).logits[0, -1].log_softmax(-1)
            extended += [([*tokens, t], score + float(logps[t])) for t in trie.allowed(tokens)]
        extended.sort(key=lambda pair: -pair[1])
        ended += [pair for pair in extended[:width] if pair[0][-1] == trie.eos_token_id]
        running = [pair for pair in extended if pair[0][-1] != trie.eos_token_id][:width]
    ended.sort(key=lambda pair: -pair[1])
    return [(item, score) for tokens, score in ended[:width] for item in sorted(trie.decode(tokens))]


@pytest.mark.parametrize("num_beams", [1, 2, 3])
def test_few_beams_equal_the_textbook(lm: Any, trie: TitleTrie, prompts: Any, num_beams: int) -> None:
    found = generate_titles(lm, trie, prompts, num_beams=num_beams, pad_token_id=PAD)
    for row, prompt in zip(found, prompts, strict=True):
        same(row, beam_search(lm, trie, prompt, num_beams))


def test_a_prompt_is_computed_once_for_all_beams(lm: Any, trie: TitleTrie, prompts: Any) -> None:
    positions: list[int] = []
    handle = lm.register_forward_pre_hook(
        lambda _, args, kwargs: positions.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    try:
        generate_titles(lm, trie, prompts[:1], num_beams=4, pad_token_id=PAD)
    finally:
        handle.remove()
    assert positions[0] == len(prompts[0])
    assert set(positions[1:]) == {4}  # a token per beam


def test_a_sliding_window(prompts: Any, tokenizer: Any, trie: TitleTrie) -> None:
    """Such a model takes no mask and no cache from outside: its prompts are computed once per beam."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"vocab_size": len(tokenizer), "num_key_value_heads": 1}
    config = MistralConfig(**shape, sliding_window=8, initializer_range=0.3)
    model = MistralForCausalLM(config).eval()
    found = generate_titles(model, trie, prompts, num_beams=len(trie), pad_token_id=PAD)
    for row, prompt in zip(found, prompts, strict=True):
        same(row, ranked(model, tokenizer, prompt, range(1, len(TITLES) + 1)))


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("max_tokens", [1, 300, 2048])
def test_batches_change_nothing(lm: Any, trie: TitleTrie, prompts: Any, num_beams: int, max_tokens: int) -> None:
    options = {"num_beams": num_beams, "pad_token_id": PAD}
    found = generate_titles(lm, trie, prompts, max_tokens=max_tokens, **options)
    for row, prompt in zip(found, prompts, strict=True):
        (alone,) = generate_titles(lm, trie, [prompt], **options)
        same(row, alone)


def test_greedy_score_is_that_of_the_title(lm: Any, tokenizer: Any, trie: TitleTrie, prompts: Any) -> None:
    for row, prompt in zip(generate_titles(lm, trie, prompts, num_beams=1, pad_token_id=PAD), prompts, strict=True):
        items = [item for item, _ in row]
        same(row, ranked(lm, tokenizer, prompt, items))


def test_items_with_one_title_come_together(lm: Any, tokenizer: Any, prompts: Any) -> None:
    twins = TitleTrie.from_titles(["Heat", "Heat"], tokenizer, item_ids=[9, 4])
    for num_beams in (1, 3):
        (row,) = generate_titles(lm, twins, prompts[:1], num_beams=num_beams, pad_token_id=PAD)
        assert [item for item, _ in row] == [4, 9]
        assert row[0][1] == row[1][1]
    chosen = generate_titles(lm, twins, prompts[:2], num_beams=3, pad_token_id=PAD, candidates=[[9], [4]])
    assert [[item for item, _ in row] for row in chosen] == [[9], [4]]


@pytest.mark.parametrize("num_beams", [1, 3, 20])
def test_candidates_of_each_prompt(lm: Any, tokenizer: Any, trie: TitleTrie, prompts: Any, num_beams: int) -> None:
    candidates = [[2, 5, 9], [7], [1, 5, 3, 10, 8, 4]]
    found = generate_titles(
        lm, trie, prompts, num_beams=num_beams, pad_token_id=PAD, candidates=candidates, max_tokens=900
    )
    for row, prompt, own in zip(found, prompts, candidates, strict=True):
        assert {item for item, _ in row} <= set(own)
        if num_beams == 20:  # more than there are titles: no filler, nothing twice
            same(row, ranked(lm, tokenizer, prompt, own))


@given(st.lists(st.text("ab ", min_size=1, max_size=5).filter(str.strip), min_size=1, max_size=8), st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_random_titles(lm: Any, tokenizer: Any, prompts: Any, titles: list[str], num_beams: int) -> None:
    trie = TitleTrie.from_titles(titles, tokenizer)
    found = generate_titles(lm, trie, prompts[:2], num_beams=num_beams, pad_token_id=PAD)
    for row, prompt in zip(found, prompts, strict=False):
        items = [item for item, _ in row]
        assert len(items) == len(set(items))
        assert len({titles[item - 1] for item in items}) == min(num_beams, len(set(titles)))
        assert row == sorted(row, key=lambda pair: -pair[1])
        answers = encode_answers(tokenizer, [titles[item - 1] for item in items])
        scores = score_candidates(lm, [prompt], [answers], pad_token_id=PAD)[0].tolist()
        assert [score for _, score in row] == pytest.approx(scores, abs=1e-3)


def test_generation_config_of_the_model_is_left_out(
    model_folder: Path, lm: Any, trie: TitleTrie, prompts: Any
) -> None:
    """Chat models come with sampling and a penalty on repetition, which would change the scores."""
    other = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    other.generation_config.update(do_sample=True, temperature=0.3, top_k=2, repetition_penalty=1.5, max_length=3)
    other.generation_config.eos_token_id = [1, 40]
    for num_beams in (1, 4):
        options = {"num_beams": num_beams, "pad_token_id": PAD}
        found, expected = (generate_titles(model, trie, prompts, **options) for model in (other, lm))
        for row, alike in zip(found, expected, strict=True):
            same(row, alike)


def test_adapter(model_folder: Path, tokenizer: Any, trie: TitleTrie, prompts: Any) -> None:
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder), config).eval()
    found = generate_titles(model, trie, prompts, num_beams=len(trie), pad_token_id=PAD)
    for row, prompt in zip(found, prompts, strict=True):
        same(row, ranked(model, tokenizer, prompt, range(1, len(TITLES) + 1)))


def test_soft_tokens(model_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    lm = AutoModelForCausalLM.from_pretrained(model_folder)
    model = SoftTokenCausalLM(lm, tokenizer, SoftTokens({"item": 1}), input_sizes={"item": 6}).eval()
    trie = TitleTrie.from_titles(TITLES, tokenizer)
    texts = ["a<|item|>b", "long prompt without vectors", "<|item|><|item|>"]
    prompts = [tokenizer.encode(text) for text in texts]
    vectors = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    parts = [vectors[:1], vectors[1:1], vectors[1:]]
    for num_beams in (1, len(trie)):
        options = {"num_beams": num_beams, "pad_token_id": PAD, "max_tokens": 250}
        found = generate_titles(model, trie, prompts, vectors={"item": vectors}, **options)
        for row, prompt, part in zip(found, prompts, parts, strict=True):
            items = range(1, len(TITLES) + 1) if num_beams > 1 else [item for item, _ in row]
            same(row, ranked(model, tokenizer, prompt, items, vectors={"item": part}))
    assert len(generate_text(model, tokenizer, prompts, vectors={"item": vectors})) == 3


def test_impossible_requests_are_refused(lm: Any, trie: TitleTrie, prompts: Any) -> None:
    with pytest.raises(ValueError, match="num_beams=0"):
        generate_titles(lm, trie, prompts, num_beams=0, pad_token_id=PAD)
    with pytest.raises(ValueError, match="3 prompts, 1 lists"):
        generate_titles(lm, trie, prompts, num_beams=1, pad_token_id=PAD, candidates=[[1]])
    with pytest.raises(ValueError, match="prompt 2 has no candidates"):
        generate_titles(lm, trie, prompts, num_beams=1, pad_token_id=PAD, candidates=[[1], [2], []])
    with pytest.raises(ValueError, match="item 99 is not in this trie"):
        generate_titles(lm, trie, prompts[:1], num_beams=1, pad_token_id=PAD, candidates=[[99]])
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        generate_titles(lm, trie, [[5], []], num_beams=1, pad_token_id=PAD)
    assert generate_titles(lm, trie, [], num_beams=1, pad_token_id=PAD) == []


@pytest.fixture
def says(lm: Any, tokenizer: Any) -> Iterator[Callable[[dict[str, str]], None]]:
    """`says({prompt: text})`: the model goes on with this text after a prompt that ends in this letter."""
    replies: dict[int, list[int]] = {}
    handles = []

    def force(_: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        for row, (reply, step) in enumerate(steps(kwargs["input_ids"])):
            output.logits[row, -1] = -100.0
            output.logits[row, -1, reply[min(step, len(reply) - 1)]] = 0.0
        return output

    state: dict[str, Any] = {}

    def steps(ids: torch.Tensor) -> list[tuple[list[int], int]]:
        if ids.shape[1] > 1:
            state.update(rows=[replies[int(row[-1])] for row in ids], step=-1)
        state["step"] += 1
        return [(reply, state["step"]) for reply in state["rows"]]

    def set_replies(texts: dict[str, str]) -> None:
        for prompt, text in texts.items():
            replies[tokenizer.encode(prompt)[-1]] = [*tokenizer.encode(text), tokenizer.eos_token_id]
        handles.append(lm.register_forward_hook(force, with_kwargs=True))

    yield set_replies
    for handle in handles:
        handle.remove()


def test_text_is_cut_at_eos_and_the_first_line_break(lm: Any, tokenizer: Any, says: Any) -> None:
    replies = {
        "xa": " The End",
        "xxxxb": " Heat\nRan\nAlien",
        "xxc": "",
        "xd": "\n Jaws \nBig",
        "xe": " the title that never comes to its end",
    }
    says(replies)
    prompts = [tokenizer.encode(prompt) for prompt in replies]
    for max_tokens in (2048, 6):
        texts = generate_text(lm, tokenizer, prompts, max_new_tokens=20, max_tokens=max_tokens)
        assert texts == ["The End", "Heat", "", "Jaws", "the title that neve"]


def test_text_equals_that_of_each_prompt_alone(lm: Any, tokenizer: Any, prompts: Any) -> None:
    texts = generate_text(lm, tokenizer, prompts, max_new_tokens=8)
    for text, prompt in zip(texts, prompts, strict=True):
        tokens: list[int] = []
        with torch.no_grad():
            while len(tokens) < 8 and tokens[-1:] != [tokenizer.eos_token_id]:
                tokens.append(int(lm(torch.tensor([prompt + tokens])).logits[0, -1].argmax()))
        expected = tokenizer.decode(tokens, skip_special_tokens=True).strip().split("\n")[0].strip()
        assert text == expected
    assert generate_text(lm, tokenizer, []) == []
