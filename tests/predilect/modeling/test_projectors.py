"""Registered projectors: modules with inputs of their own behind a soft token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.predilect.modeling.test_soft_token_lm import WORDS, lora, make_lm, make_tokenizer
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from predilect.modeling import projectors
from predilect.modeling.answer_scores import score_candidates
from predilect.modeling.projectors import Projector, build_projector, register_projector
from predilect.modeling.soft_token_lm import SoftTokenCausalLM
from predilect.tokenization import SoftTokens


class PooledBags(Projector):
    """Bags of symbols, flat with their bag's number: `size` vectors per bag, the mean of its symbols' embeddings."""

    kind = "pooled-bags"

    def __init__(self, width: int, *, symbols: int = 6, size: int = 2) -> None:
        super().__init__(width, symbols=symbols, size=size)
        self.table = nn.Embedding(symbols, size * width)
        self.norm = nn.BatchNorm1d(size * width)  # buffers of other dtypes belong to the folder too

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        bags = int(inputs["bag"].max()) + 1
        total = torch.zeros(bags, self.table.embedding_dim).index_add(0, inputs["bag"], self.table(inputs["symbol"]))
        pooled = total / torch.bincount(inputs["bag"], minlength=bags).unsqueeze(1)
        return self.norm(pooled).view(bags, -1, self.width)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_projector(PooledBags)
    yield
    projectors._HERE.pop(PooledBags.kind, None)


BAGS = {"symbol": torch.tensor([0, 1, 2, 2, 5]), "bag": torch.tensor([0, 0, 1, 2, 2])}


def make(tuning: str = "frozen", lm: Any = None) -> SoftTokenCausalLM:
    lm = make_lm() if lm is None else lm
    torch.manual_seed(0)
    return SoftTokenCausalLM(
        lora(lm) if tuning == "adapter" else lm,
        make_tokenizer(),
        SoftTokens({"item": 1, "bag": 2}),
        input_sizes={"item": 5},
        projectors={"bag": PooledBags(16, symbols=6)},
        tuning=tuning,
    )


def inputs(model: SoftTokenCausalLM) -> dict[str, Any]:
    bag, item = model.soft_tokens.text("bag"), model.soft_tokens.text("item")
    encoded = model.tokenizer([f"a {bag} b {bag} next", f"{item} {bag} next"], return_tensors="pt", padding=True)
    return {**encoded, "vectors": {"bag": BAGS, "item": torch.ones(1, 5)}}


def test_what_the_module_gives_stands_at_the_placeholders() -> None:
    model = make().eval()
    given = inputs(model)
    embeds = model.embed(given["input_ids"], given["vectors"])
    where = given["input_ids"] == model.soft_tokens.ids["bag"]
    expected = model.projectors["bag"](BAGS)
    torch.testing.assert_close(embeds[where], expected.flatten(0, 1))
    once = model.project(given["vectors"])
    assert torch.equal(model.embed(given["input_ids"], once), embeds)


@pytest.mark.parametrize("tuning", ["frozen", "adapter", "full"])
def test_it_is_trained_and_the_folder_restores_it_exactly(tuning: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": len(WORDS)}
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(**shape, **ids)).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    model = make(tuning, LlamaForCausalLM.from_pretrained(tmp_path / "base")).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = model.projectors["bag"].table.weight.detach().clone()
    for _ in range(2):
        given = inputs(model)
        labels = torch.full_like(given["input_ids"], -100)
        labels[:, -1] = model.tokenizer.convert_tokens_to_ids("next")
        model(**given, labels=labels).loss.backward()
        optimizer.step()
    assert not torch.equal(model.projectors["bag"].table.weight, before)
    model.eval().save_pretrained(tmp_path / "saved")
    loaded = SoftTokenCausalLM.from_pretrained(tmp_path / "saved")
    assert isinstance(loaded.projectors["bag"], PooledBags)
    assert loaded.projectors["bag"].options == {"symbols": 6, "size": 2}
    assert int(loaded.projectors["bag"].norm.num_batches_tracked) == 2
    assert torch.equal(loaded(**inputs(loaded)).logits, model(**inputs(model)).logits)


def test_answers_are_scored_with_inputs_of_its_own() -> None:
    model = make().eval()
    given = inputs(model)
    prompts = [r[m.bool()].tolist() for r, m in zip(given["input_ids"], given["attention_mask"], strict=True)]
    answers = [[[4, 2], [5, 6, 2]], [[7, 2], [5, 2]]]
    together = score_candidates(model, prompts, answers, pad_token_id=0, vectors=given["vectors"])
    second = {"bag": {"symbol": torch.tensor([2, 5]), "bag": torch.tensor([0, 0])}, "item": torch.ones(1, 5)}
    alone = score_candidates(model, prompts[1:], answers[1:], pad_token_id=0, vectors=second)
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


def test_an_unknown_or_changed_projector_is_refused_in_one_line(tmp_path: Path) -> None:
    make_lm().save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    make(lm=LlamaForCausalLM.from_pretrained(tmp_path / "base")).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())

    def refused(message: str, **about: Any) -> None:
        changed = {**config, "projectors": {"bag": {**config["projectors"]["bag"], **about}}}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=message) as caught:
            SoftTokenCausalLM.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value)

    refused(r"projector 'other' is not registered \(.*pooled-bags.*\): install or import", kind="other")
    refused("cannot be built from the options .*'colours'", options={"colours": 3})
    refused("projectors.bag.table.weight has another shape", options={"symbols": 9, "size": 2})
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "bag.table" not in k}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="the projector of 'bag' is missing"):
        SoftTokenCausalLM.from_pretrained(tmp_path)


def test_what_does_not_fit_is_refused() -> None:
    model = make().eval()
    ids = inputs(model)["input_ids"]
    with pytest.raises(ValueError, match="'item' reads one tensor of vectors, not a mapping with bag, symbol"):
        model.embed(ids, {"item": BAGS})
    wrong = PooledBags(16, size=3)
    model.projectors["bag"] = wrong
    with pytest.raises(ValueError, match=r"projector of 'bag' must give \(n, 2, 16\) \(got \(3, 3, 16\)\)"):
        model.embed(ids, inputs(model)["vectors"])
    soft = SoftTokens({"bag": 2})
    with pytest.raises(ValueError, match="of the width 8, but the language model reads 16"):
        SoftTokenCausalLM(make_lm(), make_tokenizer(), soft, input_sizes={}, projectors={"bag": PooledBags(8)})
    with pytest.raises(ValueError, match=r"must name \['bag'\] \(got \['bag', 'bag'\]\)"):
        SoftTokenCausalLM(
            make_lm(), make_tokenizer(), soft, input_sizes={"bag": 3}, projectors={"bag": PooledBags(16)}
        )
    with pytest.raises(ValueError, match="'nothing' is not registered"):
        build_projector("nothing", {}, 16)

    class Another(PooledBags):
        """Under a name that is taken."""

    with pytest.raises(ValueError, match="'pooled-bags' is registered already"):
        register_projector(Another)
