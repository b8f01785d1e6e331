"""Packed log-probs against K separate rows, for every model shape, padding side and attention."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from predilect.modeling.packed import check_packable, completion_logps, label_logps, shared_prefix_mask
from predilect.tokenization import SharedPrefixCollator, pack_shared_prefix

LLAMA = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {
    "vocab_size": 97,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OPT = {
    "vocab_size": 97,
    "hidden_size": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "word_embed_proj_dim": 16,
    "pad_token_id": 1,
}
FULL = {"layer_types": ["full_attention", "full_attention"]}
MAIN = {"llama": LLAMA, "gpt2": GPT2, "opt": OPT, "qwen2": LLAMA}
OTHERS: dict[str, dict[str, Any]] = {  # logits scaled or capped after the head, or other attention
    "gemma2": {**LLAMA, **FULL, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 5.0},
    "granite": {**LLAMA, "logits_scaling": 3.0},
    "cohere": {**LLAMA, "logit_scale": 0.3},
    "mistral": {**LLAMA, "sliding_window": None},
    "gpt_neox": {k: v for k, v in LLAMA.items() if k not in ("num_key_value_heads", "head_dim")},
}


def make(kind: str, options: dict[str, Any], attention: str = "sdpa") -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **options)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def rows(seed: int = 0) -> list[dict[str, Any]]:
    """Ragged prompts, completions and numbers of completions."""
    generator = torch.Generator().manual_seed(seed)

    def ids(length: int) -> list[int]:
        return torch.randint(3, 97, (length,), generator=generator).tolist()

    shapes = [(7, (3, 1, 5)), (1, (2, 2)), (12, (4,)), (3, (1, 1, 1, 6))]
    return [{"prompt_ids": ids(n), "completions": [ids(c) for c in lengths]} for n, lengths in shapes]


def separate(model: Any, features: list[dict[str, Any]], width: int) -> torch.Tensor:
    """One row per completion, through the model's ordinary forward."""
    result = []
    for feature in features:
        prompt = feature["prompt_ids"]
        sums = []
        for completion in feature["completions"]:
            logps = model(torch.tensor([prompt + completion])).logits.float().log_softmax(-1)[0]
            places = torch.arange(len(completion)) + len(prompt) - 1
            sums.append(logps[places, torch.tensor(completion)].sum())
        result.append(torch.stack(sums + [torch.zeros(())] * (width - len(sums))))
    return torch.stack(result)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", MAIN)
def test_packed_equals_separate_rows_with_gradients(kind: str, attention: str) -> None:
    model, features = make(kind, MAIN[kind], attention), rows()
    expected = separate(model, features, 4)
    expected.sum().backward()
    wanted = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    for side in ("left", "right"):
        model.zero_grad()
        sums, counts = completion_logps(model, SharedPrefixCollator(0, padding_side=side)(features))
        assert sums.dtype == torch.float32
        assert expected.abs().max() > 10  # far from a uniform guess of zero difference
        torch.testing.assert_close(sums, expected, atol=1e-4, rtol=0)
        assert counts.tolist() == [[3, 1, 5, 0], [2, 2, 0, 0], [4, 0, 0, 0], [1, 1, 1, 6]]
        sums.sum().backward()
        gradients = [(wanted[n].flatten(), p.grad.flatten()) for n, p in model.named_parameters() if n in wanted]
        ours, theirs = torch.cat([b for _, b in gradients]), torch.cat([a for a, _ in gradients])
        assert torch.cosine_similarity(ours, theirs, dim=0) > 0.99999
        torch.testing.assert_close(ours.norm(), theirs.norm(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_shapes_and_logits_that_are_changed_after_the_head(kind: str) -> None:
    model, features = make(kind, OTHERS[kind], "eager"), rows()
    with torch.no_grad():
        sums, _ = completion_logps(model, SharedPrefixCollator(0)(features))
        torch.testing.assert_close(sums, separate(model, features, 4), atol=1e-4, rtol=0)


def test_other_completions_do_not_matter() -> None:
    model, features = make("llama", LLAMA), rows()[:1]
    with torch.no_grad():
        before, _ = completion_logps(model, SharedPrefixCollator(0)(features))
        changed = [{**features[0], "completions": [features[0]["completions"][0], [9] * 6, [8], [7, 6]]}]
        after, _ = completion_logps(model, SharedPrefixCollator(0, pad_to_multiple_of=32)(changed))
    torch.testing.assert_close(before[0, 0], after[0, 0], atol=1e-5, rtol=0)


def test_the_head_is_applied_to_completion_positions_only() -> None:
    model, seen = make("llama", LLAMA), []
    model.lm_head.register_forward_hook(lambda _, args, out: seen.append(tuple(out.shape)))
    completion_logps(model, SharedPrefixCollator(0)(rows()))
    assert seen == [(1, 3 + 1 + 5 + 2 + 2 + 4 + 9, 97)]
    assert not model.lm_head._forward_pre_hooks


def test_the_batch_serves_an_ordinary_loss() -> None:
    model = make("gpt2", GPT2)
    for side in ("left", "right"):
        batch = SharedPrefixCollator(0, padding_side=side)(rows())
        with torch.no_grad():
            sums, counts = completion_logps(model, batch)
            loss = model(
                input_ids=batch["input_ids"],
                attention_mask=shared_prefix_mask(batch["segment_ids"], torch.float32),
                position_ids=batch["position_ids"],
                labels=batch["labels"],
            ).loss
        torch.testing.assert_close(loss, -sums.sum() / counts.sum(), atol=1e-5, rtol=0)


def test_half_precision_and_autocast_stay_finite_and_close() -> None:
    model, features = make("llama", LLAMA), rows()
    batch = SharedPrefixCollator(0)(features)
    with torch.no_grad():
        exact = separate(model, features, 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast, _ = completion_logps(model, batch)
        half, _ = completion_logps(model.to(torch.bfloat16), batch)
    for sums in (cast, half):
        assert sums.dtype == torch.float32
        torch.testing.assert_close(sums, exact, rtol=0.05, atol=0.5)


def test_adapters_and_gradient_checkpointing() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(make("llama", LLAMA), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable()
    model.train()
    features = rows()
    sums, _ = completion_logps(model, SharedPrefixCollator(0)(features))
    torch.testing.assert_close(sums, separate(model, features, 4), atol=1e-4, rtol=0)
    sums.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


def test_layout_by_hand() -> None:
    row = pack_shared_prefix([5, 6, 7], [[8, 9], [4]])
    assert row.input_ids == [5, 6, 7, 8, 9, 7, 4]
    assert row.position_ids == [0, 1, 2, 3, 4, 2, 3]
    assert row.segment_ids == [0, 0, 1, 1, 1, 2, 2]
    assert row.labels == [-100, -100, -100, 8, 9, -100, 4]


def test_mask_by_hand() -> None:
    mask = shared_prefix_mask(torch.tensor([[-1, 0, 1, 1, 2]]), torch.float32)
    assert mask.shape == (1, 1, 5, 5)
    assert (mask[0, 0] == 0).int().tolist() == [
        [1, 0, 0, 0, 0],  # padding sees itself
        [0, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 0, 0, 1],
    ]
    assert torch.isfinite(mask).all()
    assert torch.isfinite(shared_prefix_mask(torch.tensor([[0, 1]]), torch.float16)).all()
    assert torch.isfinite(mask.to(torch.bfloat16)).all()


tokens = st.lists(st.integers(3, 50), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(tokens, st.lists(tokens, min_size=1, max_size=5))
def test_every_completion_can_be_read_back(prompt: list[int], completions: list[list[int]]) -> None:
    row = pack_shared_prefix(prompt, completions)
    assert len(row) == len(prompt) - 1 + sum(1 + len(c) for c in completions)
    for number, completion in enumerate(completions, start=1):
        seen = [i for i, s in enumerate(row.segment_ids) if s in (0, number)]
        assert [row.input_ids[i] for i in seen] == prompt + completion
        assert [row.position_ids[i] for i in seen] == list(range(len(seen)))
        assert [row.labels[i] for i in seen if row.labels[i] != -100] == completion
    for here, after in pairwise(range(len(row))):  # a label is predicted by the token before it, of the same segment
        if row.labels[after] != -100:
            assert row.segment_ids[here] == row.segment_ids[after]


def test_max_length_cuts_the_prompt_on_the_left_and_no_completion() -> None:
    row = pack_shared_prefix([1, 2, 3, 4, 5], [[7, 7, 7], [8]], max_length=5)
    assert row == pack_shared_prefix([4, 5], [[7, 7, 7], [8]])
    with pytest.raises(ValueError, match="3 tokens leaves no room for a prompt within max_length 3"):
        pack_shared_prefix([1, 2], [[7, 7, 7]], max_length=3)


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        pack_shared_prefix([], [[1]])
    with pytest.raises(ValueError, match="no completion"):
        pack_shared_prefix([1], [])
    with pytest.raises(ValueError, match="completion 1 is empty"):
        pack_shared_prefix([1], [[2], []])
    with pytest.raises(ValueError, match="row 1 of the batch: the prompt is empty"):
        SharedPrefixCollator(0)([{"prompt_ids": [1], "completions": [[2]]}, {"prompt_ids": [], "completions": [[2]]}])
    with pytest.raises(ValueError, match="got 'middle'"):
        SharedPrefixCollator(0, padding_side="middle")  # type: ignore[arg-type]


@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention", "paged|sdpa"])
def test_attention_without_a_4d_mask_is_refused_with_the_way_out(attention: str) -> None:
    model = make("llama", LLAMA)
    model.config._attn_implementation_internal = attention
    with pytest.raises(ValueError, match=r'takes no 4-D mask.*attn_implementation="sdpa"'):
        check_packable(model)


REFUSED = {
    "bloom": ({"vocab_size": 97, "hidden_size": 32, "n_layer": 1, "n_head": 4}, "position"),
    "mpt": ({"vocab_size": 97, "d_model": 32, "n_layers": 1, "n_heads": 4}, "position"),
    "falcon": (
        {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "alibi": True},
        "position",
    ),
    "gemma3_text": ({**LLAMA, "layer_types": ["sliding_attention", "full_attention"]}, "sliding_attention"),
    "lfm2": ({**LLAMA, "layer_types": ["conv", "full_attention"]}, "conv"),
    "mistral": ({**LLAMA, "sliding_window": 8}, "sliding window of 8"),
    "mamba": ({"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}, "recurrent"),
    "gpt_neo": (
        {
            "vocab_size": 97,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": 64,
            "attention_types": [[["global", "local"], 1]],
        },
        "local",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_models_that_packing_would_get_wrong_are_refused_by_name(kind: str) -> None:
    options, reason = REFUSED[kind]
    with pytest.raises(ValueError, match=f"^{kind} .*{reason}.*one row per completion"):
        check_packable(make(kind, options, "eager"))


def test_prompt_tuning_and_data_parallel_are_refused() -> None:
    from peft import PromptTuningConfig, get_peft_model

    model = make("llama", LLAMA)
    with pytest.raises(ValueError, match="DataParallel"):
        check_packable(torch.nn.DataParallel(model))
    with pytest.raises(ValueError, match="PROMPT_TUNING adapter"):
        check_packable(get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)))
    with pytest.raises(ValueError, match="shifts the positions of all labels"):
        label_logps(
            get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)),
            torch.tensor([[-100, 5]]),
            input_ids=torch.tensor([[4, 5]]),
        )


def test_a_head_that_is_not_called_is_reported() -> None:
    model = make("llama", LLAMA)
    model.get_output_embeddings = lambda: torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="llama applied its output head 0 times"):
        completion_logps(model, SharedPrefixCollator(0)(rows()))
