from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from predilect.modeling import SoftTokenCausalLM
from predilect.modeling.answer_scores import chunked, groups, is_packable, score_candidates, score_catalogue
from predilect.tokenization import SoftTokens, encode_answers

EOS, PAD = 1, 0
PROMPTS = [[7, 8, 9], [5], [9, 9, 8, 7, 6, 5, 4, 3, 2]]
# shared beginnings, one that begins another, one twice, one of a single token
ANSWERS = [
    [4, 5, EOS],
    [4, 5, 6, EOS],
    [4, 5, 6, 7, EOS],
    [4, EOS],
    [8, 5, 6, EOS],
    [4, 5, EOS],
    [EOS],
    [8, 5, 9, EOS],
]


@pytest.fixture(scope="module")
def lm(model_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_folder).eval()


@torch.no_grad()
def by_loop(model: Any, prompt: Sequence[int], answers: Sequence[Sequence[int]], **inputs: Any) -> torch.Tensor:
    """One unpadded row per answer, token after token."""
    sums = []
    for answer in answers:
        logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False, **inputs).logits[0]
        logps = logits[-len(answer) - 1 : -1].double().log_softmax(-1)
        sums.append(sum(float(logps[place, token]) for place, token in enumerate(answer)))
    return torch.tensor(sums)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 15, 40, 2048])
def test_candidates_equal_separate_rows(lm: Any, max_tokens: int) -> None:
    expected = torch.stack([by_loop(lm, prompt, ANSWERS) for prompt in PROMPTS])
    close(score_candidates(lm, PROMPTS, [ANSWERS] * 3, pad_token_id=PAD, max_tokens=max_tokens), expected)


def test_prompts_have_candidates_of_their_own(lm: Any) -> None:
    own = [ANSWERS[:2], ANSWERS[3:8], ANSWERS[5:6]]
    scores = score_candidates(lm, PROMPTS, own, pad_token_id=PAD)
    assert scores.shape == (3, 5)
    for row, answers in enumerate(own):
        close(scores[row, : len(answers)], by_loop(lm, PROMPTS[row], answers))
        assert bool((scores[row, len(answers) :] == -torch.inf).all())


def test_probabilities_of_all_answers_of_one_token_sum_to_one(lm: Any) -> None:
    answers = [[token] for token in range(lm.config.vocab_size)]
    close(score_catalogue(lm, PROMPTS, answers, pad_token_id=PAD).exp().sum(1), torch.ones(3))


@pytest.mark.parametrize("tree", [True, False])
@pytest.mark.parametrize("chunk_size", [1, 4, 9, 256])
@pytest.mark.parametrize("max_tokens", [1, 20, 2048])
def test_catalogue_equals_candidates(lm: Any, tree: bool, chunk_size: int, max_tokens: int) -> None:
    found = score_catalogue(
        lm, PROMPTS, ANSWERS, pad_token_id=PAD, tree=tree, chunk_size=chunk_size, max_tokens=max_tokens
    )
    close(found, torch.stack([by_loop(lm, prompt, ANSWERS) for prompt in PROMPTS]))


@pytest.mark.parametrize("tree", [True, False])
@given(
    titles=st.lists(st.lists(st.integers(2, 5), max_size=5), min_size=1, max_size=12),
    prompts=st.lists(st.lists(st.integers(2, 200), min_size=1, max_size=6), min_size=1, max_size=3),
    chunk_size=st.integers(1, 20),
)
@settings(max_examples=25, deadline=None)
def test_catalogue_of_random_titles(
    lm: Any, tree: bool, titles: list[list[int]], prompts: list[list[int]], chunk_size: int
) -> None:
    answers = [[*title, EOS] for title in titles]
    found = score_catalogue(lm, prompts, answers, pad_token_id=PAD, tree=tree, chunk_size=chunk_size)
    close(found, torch.stack([by_loop(lm, prompt, answers) for prompt in prompts]))


def test_real_titles(lm: Any, tokenizer: Any) -> None:
    titles = ["The End", "The Endless (2017)", "The End", "[REC]", 'Say "Hi"', "(500) Days", "$9.99", "The"]
    answers = encode_answers(tokenizer, titles)
    prompt = tokenizer.encode("Seen: Heat. Answer:")
    expected = by_loop(lm, prompt, answers)[None]
    close(score_candidates(lm, [prompt], [answers], pad_token_id=PAD), expected)
    close(score_catalogue(lm, [prompt], answers, pad_token_id=PAD, chunk_size=16), expected)


def test_a_tree_has_one_node_per_distinct_beginning() -> None:
    beginnings = {tuple(answer[:n]) for answer in ANSWERS for n in range(1, len(answer))}
    (chunk,) = chunked(ANSWERS, 100, shared=True)
    assert len(chunk.tokens) == len(beginnings) == 8
    (plain,) = chunked(ANSWERS, 100, shared=False)
    assert len(plain.tokens) == sum(len(answer) - 1 for answer in ANSWERS)
    for nodes, depths, visible, *_ in (chunk, plain):
        for node in range(len(nodes)):  # a node sees one node of each smaller depth, and itself
            assert sorted(depths[visible[node]].tolist()) == list(range(int(depths[node]) + 1))


def test_chunks_keep_their_size_and_hold_each_answer_once() -> None:
    for shared in (True, False):
        chunks = list(chunked(ANSWERS, 5, shared=shared))
        assert len(chunks) > 1
        assert all(len(chunk.tokens) <= 5 for chunk in chunks)
        owners = [set(chunk.owner.tolist()) for chunk in chunks]
        assert sorted(n for own in owners for n in own) == list(range(len(ANSWERS)))
        for chunk in chunks:
            for number in set(chunk.owner.tolist()):
                assert chunk.target[chunk.owner == number].tolist() == ANSWERS[number]
    assert [len(chunk.tokens) for chunk in chunked([[3] * 8], 5, shared=True)] == [7]  # too long, but never cut


@given(st.lists(st.integers(1, 30), max_size=30), st.integers(1, 60))
def test_groups_hold_every_row_within_the_limit(lengths: list[int], max_tokens: int) -> None:
    found = list(groups(lengths, max_tokens))
    assert sorted(row for group in found for row in group) == list(range(len(lengths)))
    for group in found:
        assert len(group) == 1 or len(group) * max(lengths[row] for row in group) <= max_tokens


class Counted:
    """Positions of each forward pass of a model."""

    def __init__(self, model: Any) -> None:
        self.positions: list[int] = []
        self.handle = model.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, _: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.positions.append(kwargs["input_ids"].numel())


def test_a_pass_has_at_most_max_tokens_positions(lm: Any) -> None:
    counted = Counted(lm)
    try:
        score_candidates(lm, PROMPTS * 5, [ANSWERS] * 15, pad_token_id=PAD, max_tokens=64)
        assert max(counted.positions) <= 64
        counted.positions.clear()
        score_catalogue(lm, PROMPTS * 5, ANSWERS, pad_token_id=PAD, max_tokens=64, chunk_size=8)
        assert max(counted.positions) <= 64
        counted.positions.clear()
        score_catalogue(lm, PROMPTS[2:], ANSWERS, pad_token_id=PAD)
        assert counted.positions == [9, 8]  # the prompt once, then each distinct beginning once
    finally:
        counted.handle.remove()


def test_the_head_sees_needed_positions_only(lm: Any) -> None:
    seen: list[int] = []
    handle = lm.get_output_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    try:
        score_candidates(lm, PROMPTS[2:], [ANSWERS], pad_token_id=PAD)
        score_catalogue(lm, PROMPTS[2:], ANSWERS, pad_token_id=PAD)
    finally:
        handle.remove()
    assert seen == [9, 1, 8]  # the end of the prompt and 8 nodes


def test_padding_token_changes_nothing(lm: Any) -> None:
    a, b = (score_catalogue(lm, PROMPTS, ANSWERS, pad_token_id=pad) for pad in (PAD, 77))
    close(a, b)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_adapter(model_folder: Path, attention: str) -> None:
    base = AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation=attention)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(base, config).eval()
    expected = torch.stack([by_loop(model, prompt, ANSWERS) for prompt in PROMPTS])
    close(score_candidates(model, PROMPTS, [ANSWERS] * 3, pad_token_id=PAD), expected)
    close(score_catalogue(model, PROMPTS, ANSWERS, pad_token_id=PAD, chunk_size=5), expected)


def test_learned_positions() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3)
    model = GPT2LMHeadModel(config).eval()
    expected = torch.stack([by_loop(model, prompt, ANSWERS) for prompt in PROMPTS])
    close(score_candidates(model, PROMPTS, [ANSWERS] * 3, pad_token_id=PAD), expected)
    close(score_catalogue(model, PROMPTS, ANSWERS, pad_token_id=PAD, chunk_size=5), expected)


def windowed() -> Any:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=4,
        initializer_range=0.3,
    )
    return MistralForCausalLM(config).eval()


def prompt_tuned() -> Any:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2))
    return get_peft_model(model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3)).eval()


@pytest.mark.parametrize("make", [windowed, prompt_tuned])
def test_models_that_cannot_be_packed_get_one_row_per_answer(make: Any) -> None:
    model = make()
    assert not is_packable(model)
    expected = torch.stack([by_loop(model, prompt, ANSWERS) for prompt in PROMPTS])
    close(score_candidates(model, PROMPTS, [ANSWERS] * 3, pad_token_id=PAD, max_tokens=50), expected)
    close(score_catalogue(model, PROMPTS, ANSWERS, pad_token_id=PAD), expected)


@pytest.fixture(scope="module")
def soft(model_folder: Path) -> SoftTokenCausalLM:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    lm = AutoModelForCausalLM.from_pretrained(model_folder)
    return SoftTokenCausalLM(lm, tokenizer, SoftTokens({"item": 1}), input_sizes={"item": 6}).eval()


def soft_prompts(model: SoftTokenCausalLM) -> tuple[list[list[int]], torch.Tensor]:
    item = model.soft_tokens.ids["item"]
    prompts = [[7, item, 8], [5, 6], [item, 9, item, 3, 4, 2, item]]  # the last ends in a placeholder
    return prompts, torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("max_tokens", [8, 40, 2048])
def test_soft_tokens_in_any_grouping(soft: SoftTokenCausalLM, max_tokens: int) -> None:
    prompts, vectors = soft_prompts(soft)
    parts = [vectors[:1], vectors[1:1], vectors[1:]]
    expected = torch.stack(
        [by_loop(soft, p, ANSWERS, vectors={"item": v}) for p, v in zip(prompts, parts, strict=True)]
    )
    for given_vectors in (vectors, parts):
        options = {"pad_token_id": PAD, "vectors": {"item": given_vectors}, "max_tokens": max_tokens}
        close(score_candidates(soft, prompts, [ANSWERS] * 3, **options), expected)
        close(score_catalogue(soft, prompts, ANSWERS, chunk_size=4, **options), expected)


def test_vectors_that_do_not_fit_are_refused(lm: Any, soft: SoftTokenCausalLM) -> None:
    prompts, vectors = soft_prompts(soft)
    with pytest.raises(ValueError, match="hold 4 'item', but 3 vectors"):
        score_catalogue(soft, prompts, ANSWERS, pad_token_id=PAD, vectors={"item": vectors[:3]})
    with pytest.raises(ValueError, match="2 lists of vectors for 3 prompts"):
        score_catalogue(soft, prompts, ANSWERS, pad_token_id=PAD, vectors={"item": [vectors[:1], vectors[1:]]})
    with pytest.raises(ValueError, match="no soft token 'user'"):
        score_catalogue(soft, prompts, ANSWERS, pad_token_id=PAD, vectors={"user": vectors})
    with pytest.raises(ValueError, match="SoftTokenCausalLM only"):
        score_candidates(lm, PROMPTS, [ANSWERS] * 3, pad_token_id=PAD, vectors={"item": vectors})


def test_bfloat16_is_near(model_folder: Path, lm: Any) -> None:
    half = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16).eval()
    found = score_catalogue(half, PROMPTS, ANSWERS, pad_token_id=PAD)
    exact = score_catalogue(lm, PROMPTS, ANSWERS, pad_token_id=PAD)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, atol=0.5, rtol=0.1)


def test_nothing_to_score(lm: Any) -> None:
    assert score_candidates(lm, [], [], pad_token_id=PAD).shape == (0, 0)
    assert score_catalogue(lm, [], ANSWERS, pad_token_id=PAD).shape == (0, 8)
    assert score_catalogue(lm, PROMPTS, [], pad_token_id=PAD).shape == (3, 0)


def test_what_cannot_be_scored_is_named(lm: Any) -> None:
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        score_catalogue(lm, [[5], []], ANSWERS, pad_token_id=PAD)
    with pytest.raises(ValueError, match="answer 2 of row 1 is empty"):
        score_candidates(lm, PROMPTS[:2], [ANSWERS, [[5], [6], []]], pad_token_id=PAD)
    with pytest.raises(ValueError, match="3 prompts, answers for 2"):
        score_candidates(lm, PROMPTS, [ANSWERS] * 2, pad_token_id=PAD)
