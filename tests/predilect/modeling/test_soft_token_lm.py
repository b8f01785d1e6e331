from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from predilect.modeling.packed import completion_logps
from predilect.modeling.soft_token_lm import SoftTokenCausalLM
from predilect.tokenization import SharedPrefixCollator, SoftTokens, TitleTrie

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "a", "b", "c", "d", "e", "heat", "ran", "next"]
SIZES = {"item": 5, "molecule": 3}


def make_tokenizer(words: list[str] = WORDS) -> Any:
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
    )


def make_lm(kind: str = "llama", vocabulary: int = len(WORDS), seed: int = 0, **options: Any) -> Any:
    """Weights large enough that inputs matter to the logits."""
    torch.set_num_threads(1)
    lm = build_lm(kind, vocabulary, seed, options)
    for parameter in lm.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    lm.tie_weights()
    return lm.eval()


def build_lm(kind: str, vocabulary: int, seed: int, options: dict[str, Any]) -> Any:
    torch.manual_seed(seed)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": vocabulary}
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **ids, **options))
    if kind == "opt":
        config = OPTConfig(
            hidden_size=16,
            ffn_dim=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            word_embed_proj_dim=8,
            max_position_embeddings=64,
            **{**ids, **options},
        )
        return OPTForCausalLM(config)
    options = {"hidden_size": 16, "tie_word_embeddings": True, **options}
    config = LlamaConfig(intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, **ids, **options)
    return LlamaForCausalLM(config)


def lora(lm: Any) -> Any:
    return get_peft_model(lm, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))


def make(lm: Any = None, **options: Any) -> SoftTokenCausalLM:
    soft = SoftTokens({"item": 1, "molecule": 2})
    return SoftTokenCausalLM(make_lm() if lm is None else lm, make_tokenizer(), soft, input_sizes=SIZES, **options)


def inputs(model: SoftTokenCausalLM) -> dict[str, Any]:
    item, molecule = model.soft_tokens.text("item"), model.soft_tokens.text("molecule")
    texts = [f"a {item} b {item} next", f"c {molecule} next", "d e"]
    encoded = model.tokenizer(texts, return_tensors="pt", padding=True)
    generator = torch.Generator().manual_seed(1)
    vectors = {
        "item": torch.randn(2, 5, generator=generator),
        "molecule": torch.randn(1, 2, 3, generator=generator),
    }
    return {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask, "vectors": vectors}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("projector", ["linear", "mlp"])
def test_forward_is_the_lm_on_words_and_projected_vectors(kind: str, projector: str) -> None:
    model = make(make_lm(kind), projector=projector)
    given = inputs(model)
    logits = model(**given).logits
    items = model.projectors["item"](given["vectors"]["item"])
    table = model.lm.get_input_embeddings().weight
    words = [model.tokenizer.convert_tokens_to_ids(w) for w in ("a", "b", "next")]
    row = torch.stack([table[words[0]], items[0], table[words[1]], items[1], table[words[2]]])  # row 0 has no padding
    torch.testing.assert_close(logits[0], model.lm(inputs_embeds=row[None]).logits[0])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_left_padding_changes_nothing(kind: str) -> None:
    model = make(make_lm(kind))
    given = inputs(model)
    batch = model(**given).logits
    one = model.tokenizer(f"c {model.soft_tokens.text('molecule')} next", return_tensors="pt")
    alone = model(
        **{k: one[k] for k in ("input_ids", "attention_mask")}, vectors={"molecule": given["vectors"]["molecule"]}
    )
    torch.testing.assert_close(batch[1, -4:], alone.logits[0], atol=1e-5, rtol=0)


def test_the_vocabulary_is_not_resized_and_ties_hold() -> None:
    lm = make_lm()
    before = lm.get_input_embeddings().weight.clone()
    model = make(lm, added_tokens=["<ph>"])
    assert model(**inputs(model)).logits.shape[-1] == len(WORDS)
    assert lm.lm_head.weight is lm.model.embed_tokens.weight
    assert torch.equal(lm.lm_head.weight, before)
    assert len(model.tokenizer) == len(WORDS) + 3


def test_added_tokens_start_at_the_mean_and_are_trained() -> None:
    model = make(added_tokens=["<ph>", "<end>"])
    ids = model.tokenizer("a <ph> b", return_tensors="pt").input_ids
    mean = model.lm.get_input_embeddings().weight.mean(dim=0)
    torch.testing.assert_close(model.embed(ids)[0, 1], mean)
    model(ids, labels=torch.tensor([[-100, -100, 5]])).loss.backward()
    assert model.added_embeddings.grad[0].abs().sum() > 0
    assert model.added_embeddings.grad[1].abs().sum() == 0


def test_placeholder_ids_inside_a_padded_table_are_still_replaced() -> None:
    """Some models have more embedding rows than their tokenizer has tokens: new ids then fall inside the table."""
    model = make(make_lm(vocabulary=64), added_tokens=["<ph>"])
    given = inputs(model)
    embeds = model.embed(given["input_ids"], given["vectors"])
    torch.testing.assert_close(embeds[0, 1], model.projectors["item"](given["vectors"]["item"])[0])
    ids = model.tokenizer("<ph>", return_tensors="pt").input_ids
    torch.testing.assert_close(model.embed(ids)[0, 0], model.added_embeddings[0])


def test_start_is_seeded_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    lm = make_lm()
    torch.set_rng_state(state)
    a, b, c = make(lm), make(lm), make(lm, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a.projectors["item"].weight, b.projectors["item"].weight)
    assert not torch.equal(a.projectors["item"].weight, c.projectors["item"].weight)


def test_what_is_trained_follows_the_tuning() -> None:
    def trained(model: SoftTokenCausalLM) -> set[str]:
        return {
            n.split(".")[0] + ("+lora" if "lora_" in n else "") for n, p in model.named_parameters() if p.requires_grad
        }

    assert trained(make()) == {"projectors"}
    assert trained(make(lora(make_lm()))) == {"projectors", "lm+lora"}
    assert trained(make(tuning="full")) == {"projectors", "lm"}


@pytest.mark.parametrize("beams", [1, 2])
def test_generate_equals_forward_step_by_step(beams: int) -> None:
    model = make(make_lm("gpt2"))  # absolute positions: wrong ones would show
    given = inputs(model)
    out = model.generate(**given, max_new_tokens=3, min_new_tokens=3, do_sample=False, num_beams=beams)
    assert out.shape == (3, 3)
    if beams == 1:
        ids, mask = given["input_ids"], given["attention_mask"]
        for _ in range(3):
            logits = model(ids, mask, vectors=given["vectors"]).logits[:, -1]
            logits[:, 2] = -torch.inf  # no EOS before three tokens
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
            mask = torch.cat([mask, torch.ones(3, 1, dtype=mask.dtype)], dim=1)
        assert torch.equal(ids[:, -3:], out)


def test_generation_under_a_trie_and_refusal_of_right_padding() -> None:
    model = make()
    trie = TitleTrie.from_titles(["heat", "ran", "a b c"], model.tokenizer)
    given = inputs(model)
    out = model.generate(
        **given, num_beams=3, max_new_tokens=trie.max_length, logits_processor=[trie.logits_processor(0)]
    )
    assert all(trie.decode(row) for row in out)
    with pytest.raises(ValueError, match='padding_side="left"'):
        model.generate(given["input_ids"], given["attention_mask"].flip(1), given["vectors"])


def test_packed_completions_with_vectors() -> None:
    model = make(lora(make_lm()))
    item = model.tokenizer.convert_tokens_to_ids("<|item|>")
    features = [
        {"prompt_ids": [4, item, 5, item, 11], "completions": [[9, 2], [10, 4, 2]]},
        {"prompt_ids": [4, item, 11], "completions": [[9, 2]]},
    ]
    vectors = {"item": torch.randn(3, 5)}
    sums, counts = completion_logps(model, SharedPrefixCollator(0)(features), vectors=vectors)
    assert counts.tolist() == [[2, 3], [2, 0]]
    for row, part in ((0, vectors["item"][:2]), (1, vectors["item"][2:])):
        for k, completion in enumerate(features[row]["completions"]):
            prompt = features[row]["prompt_ids"]
            logps = model(torch.tensor([prompt + completion]), vectors={"item": part}).logits[0].log_softmax(-1)
            expected = sum(logps[len(prompt) - 1 + i, t] for i, t in enumerate(completion))
            torch.testing.assert_close(sums[row, k], expected, atol=1e-4, rtol=0)


def test_half_precision_lm_with_float32_projector() -> None:
    model = make(make_lm().to(torch.bfloat16))
    assert model.projectors["item"].weight.dtype == torch.float32
    given = inputs(model)
    loss = model(**given, labels=torch.where(given["attention_mask"] == 1, 4, -100)).loss
    loss.backward()
    assert model.projectors["molecule"].weight.grad.isfinite().all()


@pytest.mark.parametrize("tuning", ["frozen", "adapter"])
def test_gradient_checkpointing_changes_no_gradient(tuning: str) -> None:
    model = make(lora(make_lm()) if tuning == "adapter" else make_lm()).train()
    given = {**inputs(model), "labels": torch.where(inputs(model)["attention_mask"] == 1, 4, -100)}
    model(**given).loss.backward()
    plain = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    assert all(layer.gradient_checkpointing for layer in model.get_decoder().layers)
    model(**given).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, plain[name], msg=name)


def test_bad_input_is_refused() -> None:
    model = make(added_tokens=["<ph>"])
    given = inputs(model)
    with pytest.raises(ValueError, match="2 occurrences of 'item' in the prompt, but vectors for 0"):
        model(given["input_ids"], given["attention_mask"])
    with pytest.raises(ValueError, match=r"'item' must have the width 5 \(got the shape \(2, 4\)\)"):
        model(**{**given, "vectors": {**given["vectors"], "item": torch.zeros(2, 4)}})
    with pytest.raises(ValueError, match="no soft token 'film'"):
        model(**{**given, "vectors": {"film": torch.zeros(2, 4)}})
    with pytest.raises(ValueError, match="labels hold a placeholder"):
        model(**given, labels=given["input_ids"])
    soft, tokenizer = SoftTokens({"item": 1}), make_tokenizer()
    with pytest.raises(ValueError, match=r"must name \['item'\] \(got \['film'\]\)"):
        SoftTokenCausalLM(make_lm(), tokenizer, soft, input_sizes={"film": 3})
    with pytest.raises(ValueError, match="got 'cubic'"):
        make(projector="cubic")
    with pytest.raises(ValueError, match="got 'half'"):
        make(tuning="half")
    with pytest.raises(ValueError, match="get_peft_model first"):
        make(tuning="adapter")
    with pytest.raises(ValueError, match="merge_and_unload"):
        make(lora(make_lm()), tuning="frozen")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A language model on disk, so that a saved reference can be followed."""
    make_lm().save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def trained(base: Path, tuning: str, **options: Any) -> SoftTokenCausalLM:
    """A model whose every part differs from its start."""
    lm = LlamaForCausalLM.from_pretrained(base)
    model = make(
        lora(lm) if tuning == "adapter" else lm, tuning=tuning, added_tokens=["<ph>"], projector="mlp", **options
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    return model.eval()


@pytest.mark.parametrize("tuning", ["frozen", "adapter", "full"])
def test_a_saved_folder_restores_exactly(base: Path, tmp_path: Path, tuning: str) -> None:
    model = trained(base, tuning)
    given = inputs(model)
    model.save_pretrained(tmp_path / "saved")
    loaded = SoftTokenCausalLM.from_pretrained(tmp_path / "saved")
    assert torch.equal(loaded(**given).logits, model(**given).logits)
    ids = model.tokenizer("a <ph> b", return_tensors="pt").input_ids
    assert torch.equal(loaded.embed(ids), model.embed(ids))
    assert loaded.tokenizer.encode("a <ph> <|item|>") == model.tokenizer.encode("a <ph> <|item|>")
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    loaded.save_pretrained(tmp_path / "again")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("saved", "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_a_folder_holds_what_it_must_and_no_more(base: Path, tmp_path: Path) -> None:
    trained(base, "frozen").save_pretrained(tmp_path / "frozen")
    assert all(k.startswith(("projectors.", "added")) for k in load_file(tmp_path / "frozen/model.safetensors"))
    trained(base, "adapter").save_pretrained(tmp_path / "adapter")
    assert all(
        k.startswith(("projectors.", "added")) or "lora_" in k
        for k in load_file(tmp_path / "adapter/model.safetensors")
    )
    model = trained(base, "full")
    model.save_pretrained(tmp_path / "full")
    tied = {"lm.lm_head.weight", "lm.model.embed_tokens.weight"}
    assert len(tied & load_file(tmp_path / "full/model.safetensors").keys()) == 1
    loaded = SoftTokenCausalLM.from_pretrained(tmp_path / "full")
    assert loaded.lm.lm_head.weight is loaded.lm.model.embed_tokens.weight


def test_another_base_may_be_handed_in_if_it_is_the_same(base: Path, tmp_path: Path) -> None:
    model = trained(base, "adapter")
    model.save_pretrained(tmp_path / "saved")
    shutil.move(base, tmp_path / "moved")
    for same in (str(tmp_path / "moved"), LlamaForCausalLM.from_pretrained(tmp_path / "moved")):
        loaded = SoftTokenCausalLM.from_pretrained(tmp_path / "saved", base=same)
        assert torch.equal(loaded(**inputs(model)).logits, model(**inputs(model)).logits)
    half = SoftTokenCausalLM.from_pretrained(tmp_path / "saved", base=str(tmp_path / "moved"), dtype=torch.bfloat16)
    assert half.lm.dtype == torch.bfloat16


def drop(folder: Path, prefix: str) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in weights.items() if prefix not in k}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors")


def test_broken_folders_are_refused_by_name(base: Path, tmp_path: Path) -> None:
    trained(base, "adapter").save_pretrained(tmp_path / "whole")

    def broken(change: Any) -> Path:
        shutil.rmtree(tmp_path / "broken", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "broken")
        change(tmp_path / "broken")
        return tmp_path / "broken"

    def refuses(change: Any, message: str, error: type[Exception] = ValueError, **options: Any) -> None:
        with pytest.raises(error, match=message):
            SoftTokenCausalLM.from_pretrained(broken(change), **options)

    refuses(lambda f: drop(f, "projectors.molecule"), "the projector of 'molecule' is missing")
    refuses(lambda f: drop(f, "added_embeddings"), "the table of added embeddings is missing")
    refuses(lambda f: drop(f, "lora_A"), "the adapter is missing")
    refuses(lambda f: shutil.rmtree(f / "adapter"), "the adapter is missing", FileNotFoundError)
    for name in ("config.json", "model.safetensors", "base.json"):
        refuses(lambda f, name=name: (f / name).unlink(), f"has no {name}", FileNotFoundError)
    refuses(lambda f: make_tokenizer([*WORDS[:-1], "later"]).save_pretrained(f), "tokenizer in .* is not the one")

    def another_adapter(folder: Path) -> None:
        path = folder / "adapter/adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "r": 3}))

    refuses(another_adapter, "lora_A.* has another shape")
    refuses(lambda f: None, "another shape: saved with .*16.*now .*24", base=make_lm(hidden_size=24))
    refuses(lambda f: None, "another shape: saved with .*llama.*now .*gpt2", base=make_lm("gpt2"))
    refuses(lambda f: None, "not the weights of", base=make_lm(seed=5))

    def other_kind(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))

    refuses(other_kind, "holds a 'llama'")


def test_a_base_without_a_name_must_be_handed_in(tmp_path: Path) -> None:
    lm = make_lm()
    make(lm).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="pass base="):
        SoftTokenCausalLM.from_pretrained(tmp_path)
    assert SoftTokenCausalLM.from_pretrained(tmp_path, base=lm).config.tuning == "frozen"
    make(tuning="full").save_pretrained(tmp_path / "full")
    with pytest.raises(ValueError, match="leave base out"):
        SoftTokenCausalLM.from_pretrained(tmp_path / "full", base=lm)


def rows_of(model: SoftTokenCausalLM) -> list[dict[str, Any]]:
    """Two items that only their vectors tell apart: one means 'heat', the other 'ran'."""
    item = model.tokenizer.convert_tokens_to_ids("<|item|>")
    return [{"ids": [4, item, 11], "answer": [9 + k, 2], "vector": torch.eye(5)[k]} for k in (0, 1)] * 16


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "input_ids": torch.tensor([r["ids"] + r["answer"] for r in rows]),
        "attention_mask": torch.ones(len(rows), 5, dtype=torch.long),
        "labels": torch.tensor([[-100] * 3 + r["answer"] for r in rows]),
        "vectors": {"item": torch.stack([r["vector"] for r in rows])},
    }


def train(model: SoftTokenCausalLM, folder: Path, steps: int, resume: bool = False, **options: Any) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=0.02,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_steps=10,
        report_to=[],
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
        **options,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows_of(model),
        data_collator=collate,
        processing_class=model.tokenizer,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("tuning", ["frozen", "adapter"])
def test_trainer_learns_saves_and_resumes(base: Path, tmp_path: Path, tuning: str) -> None:
    lm = LlamaForCausalLM.from_pretrained(base)
    model = make(lora(lm) if tuning == "adapter" else lm)
    weights = lm.model.embed_tokens.weight.clone()
    trainer = train(model, tmp_path / "run", 20, gradient_checkpointing=True)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.1
    answer = model.eval()(**collate(rows_of(model)[:2])).logits[
        :, 2
    ]  # after training, the vector alone decides the answer
    assert answer[0, 9] > answer[0, 10]
    assert answer[1, 9] < answer[1, 10]
    assert torch.equal(lm.model.embed_tokens.weight, weights)

    checkpoint = SoftTokenCausalLM.from_pretrained(tmp_path / "run/checkpoint-20")
    batch = collate(rows_of(model)[:2])
    assert torch.equal(checkpoint(**batch).logits, model.eval()(**batch).logits)

    shutil.rmtree(tmp_path / "run/checkpoint-20")
    fresh = LlamaForCausalLM.from_pretrained(base)
    again = make(lora(fresh) if tuning == "adapter" else fresh)
    train(again, tmp_path / "run", 20, resume=True, gradient_checkpointing=True)
    for (name, a), (_, b) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0, msg=name)
