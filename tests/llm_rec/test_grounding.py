from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from llm_rec.bigrec.grounding import Grounding, choose_gamma, inject
from predilect.evaluation.ranking import rank_metric, target_ranks
from predilect.modeling import load_causal_lm

TITLES = ["Heat (1995)", "Ran", "Alien", "Aliens", "The Good, the Bad and the Ugly (1966)", "Q"]
TEXTS = ["Heat", "  Alien ", "", "The Good and the Ugly", "Amélie", "Alien"]


@pytest.fixture
def model(model_folder: Path) -> Any:
    return load_causal_lm(model_folder)[0]


@pytest.fixture
def with_adapter(model: Any) -> Any:
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules="all-linear", lora_dropout=0.5))
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return adapted


def one_by_one(model: Any, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Each text in a row of its own, through the whole model."""
    rows = []
    for text in texts:
        ids = [tokenizer.eos_token_id, *tokenizer.encode(text.strip(), add_special_tokens=False)]
        with torch.no_grad():
            rows.append(model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, -1])
    return torch.stack(rows)


def test_embeddings_and_distances_are_those_of_plain_loops(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    grounding = Grounding(model, tokenizer, TITLES, batch_size=4)
    titles, texts = one_by_one(model, tokenizer, TITLES), one_by_one(model, tokenizer, TEXTS)
    torch.testing.assert_close(grounding.title_embeddings, titles)
    torch.testing.assert_close(grounding.embed(TEXTS), texts)
    plain = torch.tensor([[float((a - b).double().pow(2).sum().sqrt()) for b in titles] for a in texts])
    torch.testing.assert_close(grounding.distances(TEXTS), plain, atol=1e-4, rtol=1e-4)
    assert grounding.distances(TEXTS).dtype == torch.float32
    assert torch.equal(grounding.scores(TEXTS), -grounding.distances(TEXTS))


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_batches_and_padding_change_nothing(model: Any, tokenizer: PreTrainedTokenizerFast, batch_size: int) -> None:
    reference = Grounding(model, tokenizer, TITLES, batch_size=3)
    padded_right = copy.deepcopy(tokenizer)
    padded_right.padding_side = "right"
    other = Grounding(model, padded_right, TITLES, batch_size=batch_size)
    torch.testing.assert_close(other.embed(TEXTS), reference.embed(TEXTS))
    torch.testing.assert_close(other.embed(TEXTS[::-1]).flip(0), reference.embed(TEXTS))


def test_learned_positions_count_from_the_text_and_dropout_is_off(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    size = {"vocab_size": len(tokenizer), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    model = GPT2LMHeadModel(GPT2Config(**size, initializer_range=0.5, resid_pdrop=0.5)).train()
    embeddings = Grounding(model, tokenizer, TITLES).embed(TEXTS)
    assert model.training
    torch.testing.assert_close(embeddings, one_by_one(model.eval(), tokenizer, TEXTS))


def test_bos_opens_where_there_is_one(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    with_bos = copy.deepcopy(tokenizer)
    with_bos.bos_token = "Z"
    ids = [tokenizer.convert_tokens_to_ids("Z"), *tokenizer.encode("Ran")]
    with torch.no_grad():
        expected = model.model(torch.tensor([ids])).last_hidden_state[:, -1]
    torch.testing.assert_close(Grounding(model, with_bos, TITLES).embed(["Ran"]), expected)


def test_a_title_has_distance_zero_to_itself_and_to_its_twins(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    grounding = Grounding(model, tokenizer, [*TITLES, "Ran"], batch_size=2)
    distances = grounding.distances([f" {title}\n" for title in TITLES])
    assert torch.equal(distances.diagonal(), torch.zeros(len(TITLES)))
    assert distances[1, 6] == 0
    assert (distances == 0).sum() == len(TITLES) + 1
    # Embedded anew, in another batch, it is zero up to rounding.
    again = torch.cdist(
        grounding.embed(TITLES), grounding.title_embeddings, compute_mode="donot_use_mm_for_euclid_dist"
    )
    assert (again.diagonal() < 1e-4 * grounding.title_embeddings[:6].norm(dim=1)).all()


def test_small_distances_survive(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    grounding = Grounding(model, tokenizer, TITLES)
    exact = grounding.title_embeddings.clone()
    grounding.title_embeddings = 1e4 + torch.zeros_like(exact)
    grounding.title_embeddings[1:, 0] += torch.arange(1, 6) / 64
    assert grounding.distances(["Heat (1995)"])[0].tolist() == [0, 1 / 64, 2 / 64, 3 / 64, 4 / 64, 5 / 64]


def test_rank_is_nearest_first(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    grounding = Grounding(model, tokenizer, ["Ran", "Heat", "Ran", "Alien"])
    ranked = grounding.rank(["Ran", "Heat", "Al"], k=10)
    assert ranked.shape == (3, 4)
    assert ranked[0, :2].tolist() == [1, 3]  # equal titles: the lower id first
    assert ranked[1, 0] == 2
    assert ranked[2].tolist() == (grounding.distances(["Al"])[0].argsort(stable=True) + 1).tolist()
    assert grounding.rank(["Ran"], k=2).tolist() == [[1, 3]]


def test_no_text_is_no_row(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    grounding = Grounding(model, tokenizer, TITLES)
    assert grounding.embed([]).shape == (0, 32)
    assert grounding.distances([]).shape == (0, len(TITLES))


def test_texts_that_are_titles_or_repeat_are_not_run_again(
    model: Any, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    grounding = Grounding(model, tokenizer, TITLES)
    rows = []
    forward = model.model.forward
    monkeypatch.setattr(
        model.model, "forward", lambda **inputs: (rows.append(len(inputs["input_ids"])), forward(**inputs))[1]
    )
    monkeypatch.setattr(model.lm_head, "forward", None)  # never called
    grounding.distances(["Alien", "new", "Ran", "new ", "Alien"])
    assert rows == [1]


def test_the_adapter_is_off_and_put_back_as_it_was(
    model: Any, with_adapter: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    with_adapter.train()
    for weight in with_adapter.parameters():
        weight.requires_grad_(False)
    trained = [weight for name, weight in with_adapter.named_parameters() if "lora_A" in name]
    for weight in trained:
        weight.requires_grad_(True)
    prompt = {"input_ids": torch.tensor([[5, 6, 7]])}
    modes = [module.training for module in with_adapter.modules()]
    tuned = with_adapter.eval()(**prompt).logits
    with_adapter.train()

    embeddings = Grounding(with_adapter, tokenizer, TITLES).embed(TEXTS)

    torch.testing.assert_close(embeddings, one_by_one(model, tokenizer, TEXTS))
    assert not embeddings.requires_grad
    assert [module.training for module in with_adapter.modules()] == modes
    assert {id(w) for w in with_adapter.parameters() if w.requires_grad} == {id(w) for w in trained}
    assert torch.equal(with_adapter.eval()(**prompt).logits, tuned)
    assert not torch.allclose(tuned, model(**prompt).logits)


def test_the_base_of_a_model_with_soft_tokens(
    model: Any, with_adapter: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    from predilect.modeling import SoftTokenCausalLM
    from predilect.tokenization import SoftTokens

    soft = SoftTokenCausalLM(with_adapter, copy.deepcopy(tokenizer), SoftTokens({"item": 1}), input_sizes={"item": 4})
    embeddings = Grounding(soft, soft.tokenizer, TITLES).embed(TEXTS)
    torch.testing.assert_close(embeddings, one_by_one(model, tokenizer, TEXTS))


def test_half_precision_gives_float32(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    grounding = Grounding(copy.deepcopy(model).bfloat16(), tokenizer, TITLES)
    assert grounding.title_embeddings.dtype == grounding.distances(TEXTS).dtype == torch.float32
    torch.testing.assert_close(grounding.embed(TEXTS), one_by_one(model, tokenizer, TEXTS), atol=0.3, rtol=0.1)


@pytest.mark.parametrize(
    ("titles", "message"), [([], "got none"), (["Heat", " ", "Ran", ""], r"\[2, 4\] \(2 in all\)")]
)
def test_titles_that_cannot_be_embedded(
    model: Any, tokenizer: PreTrainedTokenizerFast, titles: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Grounding(model, tokenizer, titles)


def test_other_arguments_that_are_refused(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Grounding(model, tokenizer, TITLES, batch_size=0)
    without = copy.deepcopy(tokenizer)
    without.eos_token = None
    with pytest.raises(ValueError, match="neither"):
        Grounding(model, without, TITLES)


# The cache


@pytest.fixture
def forbid_embedding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def embed(*_: Any) -> torch.Tensor:
        raise AssertionError("embedded anew")

    return lambda: monkeypatch.setattr(Grounding, "embed", embed)


def test_the_cache_is_read(
    model: Any,
    with_adapter: Any,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    forbid_embedding: Callable[[], None],
) -> None:
    folder = tmp_path / "new" / "folder"
    first = Grounding(model, tokenizer, TITLES, cache_dir=folder)
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]
    forbid_embedding()
    for same in (model, copy.deepcopy(model), with_adapter):  # an adapter is no part of the base model
        again = Grounding(same, tokenizer, TITLES, cache_dir=folder)
        assert torch.equal(again.title_embeddings, first.title_embeddings)


def _one_weight(model: Any, tokenizer: Any) -> tuple[Any, Any, list[str]]:
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[17, 5] += 1e-6
    return model, tokenizer, TITLES


def _precision(model: Any, tokenizer: Any) -> tuple[Any, Any, list[str]]:
    return model.bfloat16(), tokenizer, TITLES


def _one_title(model: Any, tokenizer: Any) -> tuple[Any, Any, list[str]]:
    return model, tokenizer, [*TITLES[:-1], "R"]


def _order(model: Any, tokenizer: Any) -> tuple[Any, Any, list[str]]:
    return model, tokenizer, TITLES[::-1]


def _opening(model: Any, tokenizer: Any) -> tuple[Any, Any, list[str]]:
    tokenizer.bos_token = "Z"
    return model, tokenizer, TITLES


@pytest.mark.parametrize("change", [_one_weight, _precision, _one_title, _order, _opening])
def test_the_cache_of_another_model_or_catalogue_is_not_read(
    change: Callable[[Any, Any], tuple[Any, Any, list[str]]],
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    forbid_embedding: Callable[[], None],
) -> None:
    Grounding(model, tokenizer, TITLES, cache_dir=tmp_path)
    forbid_embedding()
    with pytest.raises(AssertionError, match="embedded anew"):
        Grounding(*change(copy.deepcopy(model), copy.deepcopy(tokenizer)), cache_dir=tmp_path)


def test_a_broken_file_is_made_again(model: Any, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    first = Grounding(model, tokenizer, TITLES, cache_dir=tmp_path).title_embeddings
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.warns(UserWarning, match="cannot be used and are made again"):
        assert torch.equal(Grounding(model, tokenizer, TITLES, cache_dir=tmp_path).title_embeddings, first)
    assert path.read_bytes() == whole
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Grounding(model, tokenizer, TITLES, cache_dir=tmp_path)


def test_a_file_under_the_name_of_another_is_not_used(
    model: Any, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    first = Grounding(model, tokenizer, TITLES, cache_dir=tmp_path).title_embeddings
    (path,) = tmp_path.iterdir()
    save_file({"titles": torch.ones_like(first)}, path, metadata={"fingerprint": "other"})
    with pytest.warns(UserWarning, match="fingerprint other"):
        assert torch.equal(Grounding(model, tokenizer, TITLES, cache_dir=tmp_path).title_embeddings, first)
    assert torch.equal(load_file(path)["titles"], first)


# Injection


def test_injection_by_hand() -> None:
    distances = torch.tensor([[4.0, 2.0, 3.0], [0.0, 10.0, 5.0]])  # normalised: 1, 0, 1/2 and 0, 1, 1/2
    popularity = torch.tensor([100, 0, 25])  # 1, 0, 1/4
    expected = [[-1 / 4, 0.0, -0.5 / 1.25**2], [0.0, -1.0, -0.5 / 1.25**2]]
    torch.testing.assert_close(inject(distances, popularity, 2), torch.tensor(expected))
    scores = torch.tensor([[-1.0, 3.0, 1.0], [7.0, 7.0, 7.0]])  # 0, 1, 1/2 and a constant row
    expected = [[-1.0, 0.0, -0.5 / 1.5**2], [0.0, -1.0, -0.5]]
    torch.testing.assert_close(inject(distances, scores, 2), torch.tensor(expected))


def test_constant_rows_give_no_nan() -> None:
    assert inject(torch.full((2, 3), 5.0), torch.tensor([1, 2, 3]), 3).tolist() == [[0.0] * 3] * 2
    plain = inject(torch.tensor([[1.0, 3.0, 2.0]]), torch.zeros(3), 50)
    assert plain.tolist() == [[0.0, -1.0, -0.5]]
    assert inject(torch.tensor([[4.0]]), torch.tensor([2.0]), 1).tolist() == [[0.0]]


@given(st.integers(0, 2**31), st.floats(0, 100))
def test_gamma_zero_is_the_order_of_distances_and_the_nearest_stays_first(seed: int, gamma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    distances = torch.rand(4, 30, generator=generator) * 50
    prior = torch.randn(4, 30, generator=generator)
    assert torch.equal(
        inject(distances, prior, 0).argsort(descending=True, stable=True), distances.argsort(stable=True)
    )
    scores = inject(distances, prior, gamma)
    assert scores.dtype == torch.float32
    assert torch.equal(target_ranks(scores, distances.argmin(1) + 1), torch.ones(4, dtype=torch.int64))


def test_a_large_gamma_is_the_order_of_the_prior_among_equals() -> None:
    distances = torch.tensor([[0.0, 5.0, 5.0, 9.0]])
    assert inject(distances, torch.tensor([0, 1, 2, 3]), 50).argsort(descending=True).tolist() == [[0, 3, 2, 1]]


@pytest.mark.parametrize(
    ("distances", "prior", "gamma", "message"),
    [
        (torch.ones(2, 3), torch.ones(2), 1.0, r"got \(2, 3\) and \(2,\)"),
        (torch.ones(3), torch.ones(3), 1.0, r"got \(3,\)"),
        (torch.ones(1, 3), torch.ones(3), -1.0, "gamma must be in 0..100"),
        (torch.ones(1, 3), torch.ones(3), 101.0, "gamma must be in 0..100"),
        (torch.ones(1, 3), torch.ones(3), float("nan"), "gamma must be in 0..100"),
        (
            torch.tensor([[1.0, float("nan")]]),
            torch.ones(2),
            1.0,
            r"distances must be finite \(got nan first at \(0, 1\)",
        ),
        (
            torch.ones(1, 2),
            torch.tensor([1.0, float("-inf")]),
            1.0,
            r"prior must be finite \(got -inf first at \(1,\)",
        ),
    ],
)
def test_what_injection_refuses(distances: torch.Tensor, prior: torch.Tensor, gamma: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inject(distances, prior, gamma)


def planted(gamma: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The target is second behind the nearest item if the prior weighs as `gamma` says: less and it is behind a
    nearer item, more and it is behind a more popular one.
    """
    half, whole = np.log1p(0.5), np.log(2)
    near, popular = np.exp((0.5 - gamma) * half), np.exp((gamma + 0.5) * (whole - half))
    top = popular * 2
    row = [0.0, near, 1.0, popular, top]
    return torch.tensor([row] * 3), torch.tensor([0.0, 0.0, 0.5, 1.0, 0.0]), torch.tensor([3, 3, 3])


@pytest.mark.parametrize("gamma", [2, 5])
def test_choose_gamma_on_planted_data(gamma: int) -> None:
    distances, prior, targets = planted(gamma)
    assert choose_gamma(distances, prior, targets, gammas=range(10)) == gamma
    values = [
        rank_metric(target_ranks(inject(distances, prior, g), targets).numpy(), "ndcg@10").mean() for g in range(10)
    ]
    assert int(np.argmax(values)) == gamma
    assert values.count(max(values)) == 1


def test_choose_gamma_prefers_the_smallest_of_equals() -> None:
    distances, prior, targets = planted(3)
    assert choose_gamma(distances, prior, targets, gammas=[7, 4, 9], metric="hr@1") == 4  # hr@1 is 0 for all
    assert choose_gamma(distances, torch.ones(5), targets) == 0  # a prior that says nothing


def test_choose_gamma_ranks_no_excluded_item() -> None:
    distances = torch.tensor([[0.0, 4.0, 5.0, 9.0]])
    prior, target = torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.tensor([3])
    assert choose_gamma(distances, prior, target, metric="hr@1") == 0
    assert choose_gamma(distances, prior, target, metric="hr@1", exclude=([0], [1])) == 1


def test_choose_gamma_ranks_the_candidates_it_is_given() -> None:
    distances = torch.tensor([[0.0, 4.0, 5.0, 9.0]])
    prior, target = torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.tensor([3])
    among = torch.tensor([[3, 2]])  # of all items the nearest, 1, stays first for every gamma
    assert choose_gamma(distances, prior, target, metric="hr@1") == 0
    assert choose_gamma(distances, prior, target, metric="hr@1", candidates=among) == 1
    assert choose_gamma(distances, prior, target, metric="hr@1", candidates=torch.tensor([[4, 3]])) == 0


def test_choose_gamma_needs_something_to_choose_by() -> None:
    with pytest.raises(ValueError, match="no gamma"):
        choose_gamma(torch.ones(1, 2), torch.ones(2), torch.tensor([1]), gammas=[])
    with pytest.raises(ValueError, match="needs validation rows"):
        choose_gamma(torch.ones(0, 2), torch.ones(2), torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="a ranking metric is"):
        choose_gamma(torch.ones(1, 2), torch.ones(2), torch.tensor([1]), metric="auc")
