from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from llm_rec import base
from llm_rec.language import LanguageRecommender, SoftmaxDPORecommender
from llm_rec.rows import training_examples
from predilect.evaluation import evaluate
from predilect.recommender import Recommender
from predilect.tokenization import encode_answers

SMALL = {"dtype": "float32", "num_candidates": 5, "batch_size": 4, "retriever": "popularity", "shortlist": 5}


@pytest.fixture(scope="module")
def options(model_folder: Path) -> dict[str, Any]:
    return {"model": str(model_folder), "max_length": 700, "inject_rows": 8, **SMALL}


@pytest.fixture(scope="module")
def splits(tiny_splits: Any) -> Any:
    return tiny_splits.with_candidates(5)


@pytest.fixture(scope="module")
def fitted(options: dict[str, Any], splits: Any) -> LanguageRecommender:
    return LanguageRecommender(**options, sft_steps=3, preference_steps=2, num_negatives=2, inject="none").fit(splits)


def test_a_score_is_the_log_probability_of_the_title_after_its_prompt(fitted: Any, splits: Any) -> None:
    rows = splits.test
    history, candidates = rows.histories(slice(3)), rows.candidate_sets(slice(3))
    scores = fitted.score(history, candidates)
    assert scores.shape == (3, 5)
    template = fitted.prompter.prompts[0]
    tokenizer = fitted.prompter.tokenizer
    for row in range(3):
        titles = [splits.catalogue.title(int(i)) for i in candidates[row]]
        past = [splits.catalogue.title(int(i)) for i in history[row] if i]
        prompt = tokenizer.encode(template.render(history=past, candidates=titles), add_special_tokens=False)
        for column, answer in enumerate(encode_answers(tokenizer, titles)):
            ids = torch.tensor([prompt + answer], device=fitted.model.device)
            with torch.inference_mode():
                logps = fitted.model(input_ids=ids).logits[0].log_softmax(-1)
            expected = logps[torch.arange(len(prompt) - 1, ids.shape[1] - 1), torch.tensor(answer)].sum()
            torch.testing.assert_close(scores[row, column], expected.cpu(), rtol=1e-4, atol=1e-3)


def test_scores_do_not_depend_on_the_batch(fitted: Any, splits: Any) -> None:
    rows = splits.test
    whole = fitted.score(rows.histories(slice(7)), rows.candidate_sets(slice(7)))
    alone = torch.cat([fitted.score(rows.histories([i]), rows.candidate_sets([i])) for i in range(7)])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-3)


def test_saved_and_loaded_it_recommends_the_same_for_a_typed_history(fitted: Any, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path / "saved")
    loaded = Recommender.from_pretrained(tmp_path / "saved")
    typed = ["Film number 3", "film NUMBER 4 (2004)"]
    assert loaded.recommend(typed, k=6) == fitted.recommend(typed, k=6)
    assert {r.item_id for r in loaded.recommend(typed, k=20)} == set(range(1, 21)) - {3, 4}


def test_the_language_model_ranks_the_shortlist_and_the_retriever_the_rest(fitted: Any, splits: Any) -> None:
    history = splits.test.histories()[:4]
    scores = fitted.score(history)
    shortlists = fitted.retriever.score(history).clone()
    for row in range(4):
        past = [int(i) for i in history[row] if i]
        shortlists[row, torch.tensor(past) - 1] = -torch.inf
        shortlist = shortlists[row].argsort(descending=True, stable=True)[:5] + 1
        order = scores[row].argsort(descending=True) + 1
        assert set(order[:5].tolist()) == set(shortlist.tolist())
        by_model = fitted.score(history[row : row + 1], shortlist[None]).argsort(descending=True)[0]
        assert order[:5].tolist() == shortlist[by_model].tolist()
        rest = (fitted.retriever.score(history)[row].argsort(descending=True, stable=True) + 1).tolist()
        assert order[5:].tolist() == [i for i in rest if i not in shortlist.tolist()]


def test_training_learns_the_planted_order(options: dict[str, Any], letter_splits: Any) -> None:
    """The next film is the one after the last: a model that is trained in full finds it, an untrained one does not."""
    options = {**options, "tuning": "full", "inject": "none", "batch_size": 16}
    trained = LanguageRecommender(**options, sft_steps=150, learning_rate=3e-3).fit(letter_splits)
    untrained = LanguageRecommender(**options, sft_steps=0).fit(letter_splits)
    found = [
        evaluate(r, letter_splits, protocol="candidates", bootstrap=0).metrics["ndcg@5"] for r in (trained, untrained)
    ]
    assert found[0] > 0.9 > found[1]


class Kill(TrainerCallback):
    """Dies after a step of the second stage."""

    def __init__(self, stage: str, step: int) -> None:
        self.stage, self.step = stage, step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stage in args.output_dir and state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("stage", "step"), [("sft", 2), ("sft", 4), ("preference", 2)])
def test_a_killed_fit_goes_on_to_the_same_model(
    options: dict[str, Any], splits: Any, tmp_path: Path, alike: Any, stage: str, step: int
) -> None:
    options = {**options, "sft_steps": 4, "preference_steps": 4, "num_negatives": 2, "save_steps": 2}
    unbroken = SoftmaxDPORecommender(**options).fit(splits, output_dir=tmp_path / "unbroken")
    killed = SoftmaxDPORecommender(**options)
    killed.callbacks = [Kill(stage, step)]
    with pytest.raises(KeyboardInterrupt):
        killed.fit(splits, output_dir=tmp_path / "killed")
    resumed = SoftmaxDPORecommender(**options).fit(splits, output_dir=tmp_path / "killed", resume=True)
    ours, theirs = resumed.model.state_dict(), unbroken.model.state_dict()
    assert ours.keys() == theirs.keys()
    alike(ours, theirs)
    alike(resumed.injection.weights, unbroken.injection.weights)
    assert not list(tmp_path.rglob("training_args.bin"))


def test_training_goes_on_from_a_saved_model(options: dict[str, Any], splits: Any, tmp_path: Path) -> None:
    tuned = LanguageRecommender(**options, sft_steps=2, inject="none").fit(splits)
    tuned.save_pretrained(tmp_path)
    stage = {"preference_steps": 2, "num_negatives": 2, "inject": "none"}
    later = SoftmaxDPORecommender(**options, sft_steps=0, start_from=str(tmp_path), **stage).fit(splits)
    before = tuned.model.state_dict()
    assert any(not torch.equal(before[key], value) for key, value in later.model.state_dict().items())
    unmoved = LanguageRecommender(**options, sft_steps=0, start_from=str(tmp_path), inject="none").fit(splits)
    rows = splits.test
    found = [r.score(rows.histories(slice(3)), rows.candidate_sets(slice(3))) for r in (tuned, unmoved, later)]
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
    with pytest.raises(FileNotFoundError, match="start_from is the folder of a saved recommender"):
        LanguageRecommender(**options, start_from=str(tmp_path / "absent")).fit(splits)


def test_a_stage_goes_on_behind_the_rows_that_its_model_has_seen(
    options: dict[str, Any], splits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def noted(*args: Any, **kwargs: Any) -> Any:
        found = training_examples(*args, **kwargs)
        seen.extend(found.row.tolist())
        return found

    monkeypatch.setattr(base, "training_examples", noted)
    stage = {"preference_steps": 2, "num_negatives": 2, "inject": "none"}
    SoftmaxDPORecommender(**options, sft_steps=3, **stage).fit(splits)
    at_once, seen[:] = list(seen), []
    assert len(at_once) == len(set(at_once)) == 5 * options["batch_size"]
    LanguageRecommender(**options, sft_steps=3, inject="none").fit(splits).save_pretrained(tmp_path / "sft")
    later = {**options, "sft_steps": 0, "start_from": str(tmp_path / "sft"), "seed": 9}
    SoftmaxDPORecommender(**{**later, **stage}).fit(splits).save_pretrained(tmp_path / "preference")
    assert seen == at_once  # of the first model's order, whatever the seed of the second
    more = {**later, "sft_steps": 1, "start_from": str(tmp_path / "preference"), "inject": "none"}
    LanguageRecommender(**more).fit(splits)
    assert len(seen) == len(set(seen)) == 6 * options["batch_size"]


def test_lora_on_the_last_blocks_only(options: dict[str, Any], splits: Any, tmp_path: Path) -> None:
    """No gradient is computed below them: a block that is not adapted keeps no graph."""
    recommender = LanguageRecommender(**options, sft_steps=2, lora_layers=1).fit(splits)
    adapted = [name for name, _ in recommender.model.named_parameters() if "lora_" in name]
    assert adapted
    assert all(".layers.1." in name for name in adapted)
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in adapted} >= {"q_proj", "o_proj", "down_proj"}
    ids = torch.ones(1, 3, dtype=torch.long, device=recommender.model.device)
    states = recommender.model(input_ids=ids, output_hidden_states=True).hidden_states
    assert [state.requires_grad for state in states] == [False, False, True]
    recommender.save_pretrained(tmp_path)
    histories = splits.test.histories()[:4]
    candidates = splits.test.candidate_sets()[:4]
    again = LanguageRecommender.from_pretrained(tmp_path)
    assert torch.equal(again.score(histories, candidates), recommender.score(histories, candidates))
    with pytest.raises(ValueError, match=r"lora_layers must be at most 2, the blocks of this model \(got 3\)"):
        LanguageRecommender(**options, lora_layers=3).fit(splits)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_half_precision_without_detours_changes_no_number(
    checkpointing: bool, options: dict[str, Any], splits: Any, alike: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both stages; PEFT's casts of the activations to float32 are skipped in training, and only there."""
    casts: list[bool] = []
    settings = {**options, "dtype": "bfloat16", "gradient_checkpointing": checkpointing}

    def weights() -> dict[str, torch.Tensor]:
        fitted = LanguageRecommender(**settings, sft_steps=3, preference_steps=2, inject="none").fit(splits)
        layers = [m for m in fitted.model.modules() if hasattr(m, "cast_input_dtype_enabled")]
        casts.append(all(m.cast_input_dtype_enabled for m in layers))
        return {name: p for name, p in fitted.model.named_parameters() if "lora_B" in name}

    ours = weights()
    assert any(p.any() for p in ours.values())
    for module in ("predilect.training.answers", "pref_losses.trainer"):
        monkeypatch.setattr(f"{module}.disable_input_dtype_casting", lambda model, active: nullcontext())
    plain = weights()
    assert casts == [True, True]
    alike(ours, plain)


def test_another_run_in_the_folder_is_refused(options: dict[str, Any], splits: Any, tmp_path: Path) -> None:
    LanguageRecommender(**options, sft_steps=1, inject="none").fit(splits, output_dir=tmp_path)
    with pytest.raises(ValueError, match=r"holds another run \(sft_steps: 1 before, 2 now\)"):
        LanguageRecommender(**options, sft_steps=2, inject="none").fit(splits, output_dir=tmp_path, resume=True)


@pytest.mark.parametrize("inject", ["popularity", "retriever"])
def test_injection_follows_the_validation_rows(options: dict[str, Any], splits: Any, inject: str) -> None:
    recommender = LanguageRecommender(**{**options, "retriever": "item-knn"}, sft_steps=0, inject=inject).fit(splits)
    assert ("retriever" in recommender.injection.weights) == (inject == "retriever")
    rows = splits.validation
    alone = LanguageRecommender(**{**options, "retriever": "item-knn"}, sft_steps=0, inject="none").fit(splits)

    def likelihood(r: Any) -> float:
        scores = r.score(rows.histories(), rows.candidate_sets())
        columns = (rows.candidate_sets() == rows.targets()[:, None]).long().argmax(1)
        return -float(torch.nn.functional.cross_entropy(scores, columns))

    assert likelihood(recommender) > likelihood(alone)


@pytest.mark.parametrize("way", ["trie", "catalogue"])
def test_full_ranking_without_candidates(options: dict[str, Any], tiny_splits: Any, way: str) -> None:
    recommender = LanguageRecommender(
        **options, full_ranking=way, num_beams=4, sft_steps=1, inject="none", lora_dropout=0.1
    ).fit(tiny_splits)
    history = tiny_splits.test.histories()[:3]
    scores = recommender.score(history)
    assert scores.shape == (3, 20)
    assert bool(torch.isfinite(scores).all())
    every = torch.arange(1, 21).expand(3, -1)
    exact = recommender.score(history, every)  # open prompts name no candidates: the same log-probs
    if way == "catalogue":
        torch.testing.assert_close(scores, exact, rtol=1e-4, atol=1e-3)
    else:  # beams come first, in the order of their log-probs
        top = scores.argsort(dim=1, descending=True)[:, :4]
        kept = exact.gather(1, top)
        assert bool((kept.diff(dim=1) <= 1e-4).all())


def test_orders_of_candidates_are_averaged(options: dict[str, Any], splits: Any) -> None:
    one = LanguageRecommender(**options, sft_steps=1, inject="none").fit(splits)
    rows = splits.test
    history, candidates = rows.histories(slice(2)), rows.candidate_sets(slice(2))
    first = one.score(history, candidates)
    one.config.candidate_orders = 2
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1))
    second = one.score(history, candidates)
    one.config.candidate_orders = 1
    turned = torch.empty_like(first)
    turned[:, order] = one.score(history, candidates[:, order])
    torch.testing.assert_close(second, (first + turned) / 2)


def broken(folder: Path, how: str) -> None:
    model = folder / "model"
    if how in ("adapter_model.safetensors", "base.json"):
        (model / how).unlink()
    elif how == "tokenizer":
        content = json.loads((model / "tokenizer.json").read_text())
        content["added_tokens"].append({**content["added_tokens"][0], "id": 300, "content": "<new>"})
        (model / "tokenizer.json").write_text(json.dumps(content))
    elif how == "retriever":
        shutil.rmtree(folder / "retriever")
    elif how == "weights":
        about = json.loads((model / "base.json").read_text())
        about["weights"] = {name: [v + 1 for v in values] for name, values in about["weights"].items()}
        (model / "base.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("adapter_model.safetensors", "no adapter_model.safetensors"),
        ("base.json", "no base.json"),
        ("tokenizer", "tokenizer in .* is not the one"),
        ("retriever", "no retriever"),
        ("weights", "has not the weights"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_by_name(fitted: Any, tmp_path: Path, how: str, told: str) -> None:
    fitted.save_pretrained(tmp_path)
    broken(tmp_path, how)
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        Recommender.from_pretrained(tmp_path)


def test_another_catalogue_is_refused(fitted: Any, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path)
    smaller = fitted.catalogue.subset(list(range(1, 20)))
    smaller.save(tmp_path / "catalogue.parquet")
    with pytest.raises(ValueError, match="another catalogue"):
        Recommender.from_pretrained(tmp_path)


def test_options_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"num_negatives must be below num_candidates.*20 and 20"):
        LanguageRecommender(num_candidates=20, num_negatives=20)
    with pytest.raises(TypeError, match="has no option beams"):
        LanguageRecommender(beams=3)


def test_what_keeps_it_out_of_a_leaderboard(
    options: dict[str, Any], splits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from llm_rec import base

    untitled = replace(splits, catalogue=replace(splits.catalogue, titles=("",) * 20))
    assert LanguageRecommender(**options).unsuited(splits) is None
    assert LanguageRecommender(**options).unsuited(untitled) == "it reads titles, and none of the 20 items has one"
    monkeypatch.setattr(base, "smollm2_missing", lambda: "install it")
    assert LanguageRecommender().unsuited(splits) == "install it"
    assert LanguageRecommender(**options).unsuited(splits) is None  # another model


def test_without_titles_it_refuses(options: dict[str, Any], splits: Any) -> None:
    from dataclasses import replace

    untitled = replace(splits.catalogue, titles=("",) * 20)
    with pytest.raises(ValueError, match="none of the 20 items has one"):
        LanguageRecommender(**options).fit(replace(splits, catalogue=untitled))
