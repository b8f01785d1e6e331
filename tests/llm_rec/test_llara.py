from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from llm_rec.llara import CurriculumTrainer, LLaRA, hybrid_share, item_vectors
from llm_rec.llara.curriculum import ITEM
from llm_rec.llara.recommender import TEXT_ONLY
from predilect.evaluation import evaluate
from predilect.recommender import Recommender
from predilect.recommenders import SASRecRecommender


@pytest.fixture(scope="module")
def splits(tiny_splits: Any) -> Any:
    return tiny_splits.with_candidates(5)


@pytest.fixture(scope="module")
def backbone(splits: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sasrec")
    SASRecRecommender(hidden_size=16, max_epochs=4, batch_size=32, dropout=0.0).fit(splits).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def options(model_folder: Path, backbone: Path) -> dict[str, Any]:
    return {
        "model": str(model_folder),
        "retriever_folder": str(backbone),
        "dtype": "float32",
        "max_length": 700,
        "num_candidates": 5,
        "batch_size": 4,
        "shortlist": 5,
        "inject": "none",
    }


@pytest.fixture(scope="module")
def fitted(options: dict[str, Any], splits: Any) -> LLaRA:
    return LLaRA(**options, sft_steps=3).fit(splits)


def test_linear_and_competence_schedules_by_hand() -> None:
    assert [hybrid_share(t) for t in (0.0, 0.5, 1.0)] == [0.0, 0.5, 1.0]
    assert hybrid_share(0.0, schedule="competence") == pytest.approx(0.1)
    assert hybrid_share(1.0, schedule="competence") == 1.0
    assert hybrid_share(0.5, schedule="competence") == pytest.approx((0.5 * 0.99 + 0.01) ** 0.5)
    assert [hybrid_share(0.3, mode=mode) for mode in ("text", "hybrid")] == [0.0, 1.0]


class Kill(TrainerCallback):
    """Dies after a checkpoint."""

    def __init__(self, die_at: int) -> None:
        self.die_at = die_at

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.die_at:
            raise KeyboardInterrupt


def shares(options: dict[str, Any], splits: Any, monkeypatch: pytest.MonkeyPatch, folder: Path, **how: Any) -> Any:
    """(step, realised share) of every micro-batch of a fit, over its interruption if there is one."""
    trainers: list[CurriculumTrainer] = []
    original = CurriculumTrainer.__init__

    def kept(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.args.dataloader_num_workers = how.get("workers", 0)
        trainers.append(self)

    monkeypatch.setattr(CurriculumTrainer, "__init__", kept)
    steps = 40
    settings = {
        **options,
        "mode": "curriculum",
        "sft_steps": steps,
        "save_steps": 10,
        "draw": how.get("draw", "batch"),
    }
    if how.get("die_at"):
        killed = LLaRA(**settings)
        killed.callbacks = [Kill(how["die_at"])]
        with pytest.raises(KeyboardInterrupt):
            killed.fit(splits, output_dir=folder)
    LLaRA(**settings).fit(splits, output_dir=folder, resume=True)
    return [pair for trainer in trainers for pair in trainer.drawn]


@pytest.mark.slow
def test_the_realised_share_follows_the_schedule_for_any_workers_and_after_a_resume(
    options: dict[str, Any], splits: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = {}
    for name, how in {"none": {}, "one": {"workers": 1}, "two": {"workers": 2}, "resumed": {"die_at": 20}}.items():
        with monkeypatch.context() as patch:
            found[name] = shares(options, splits, patch, tmp_path / name, draw="sample", **how)
    assert found["none"] == found["one"] == found["two"] == found["resumed"]
    steps = [step for step, _ in found["none"]]
    assert steps == list(range(40))
    realised = torch.tensor([share for _, share in found["none"]])
    expected = torch.arange(40) / 40
    halves = [(realised[part].mean() - expected[part].mean()).abs() for part in (slice(0, 20), slice(20, 40))]
    assert max(halves) < 0.15  # 80 draws each: two and a half standard errors
    assert realised[0] == 0


def test_a_batch_is_hybrid_as_a_whole_where_the_draw_is_per_batch(
    options: dict[str, Any], splits: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn = shares(options, splits, monkeypatch, tmp_path)
    assert {share for _, share in drawn} == {0.0, 1.0}


def test_a_hybrid_prompt_has_one_vector_per_named_title_and_text_has_none(fitted: LLaRA, splits: Any) -> None:
    prompt = fitted.prompter.encode([3, 4, 5], [9, 2, 7, 1, 6], reserve=30)
    soft = fitted.model.soft_tokens.ids[ITEM]
    assert prompt.ids.count(soft) == 8
    assert prompt.item_ids == [3, 4, 5, 9, 2, 7, 1, 6]
    short = fitted.prompter.__class__(**{**vars(fitted.prompter), "max_length": 320})
    cut = short.encode([3, 4, 5], [9, 2, 7, 1, 6], reserve=30)
    assert cut.item_ids == [*[3, 4, 5][3 - (cut.ids.count(soft) - 5) :], 9, 2, 7, 1, 6]
    assert cut.ids.count(soft) < 8


def test_the_vectors_of_the_items_reach_the_model(fitted: LLaRA, splits: Any) -> None:
    rows = splits.test
    before = fitted.score(rows.histories(slice(2)), rows.candidate_sets(slice(2)))
    table = fitted._item_vectors
    fitted._item_vectors = table.flip(0)
    changed = fitted.score(rows.histories(slice(2)), rows.candidate_sets(slice(2)))
    fitted._item_vectors = table
    assert not torch.allclose(before, changed)
    alone = torch.cat([fitted.score(rows.histories([i]), rows.candidate_sets([i])) for i in range(2)])
    torch.testing.assert_close(before, alone, rtol=1e-4, atol=1e-3)


def test_item_vectors_are_standardised_and_padding_is_zero(backbone: Path) -> None:
    sasrec: Any = Recommender.from_pretrained(backbone)
    table = item_vectors(sasrec, bias=True)
    assert table.shape == (21, 17)
    assert not table[0].any()
    torch.testing.assert_close(table[1:].mean(0), torch.zeros(17), atol=1e-5, rtol=0)
    torch.testing.assert_close(table[1:].std(0), torch.ones(17), atol=1e-4, rtol=0)
    assert item_vectors(sasrec, bias=False).shape == (21, 16)


def test_text_steps_leave_the_projector_and_hybrid_steps_move_it(options: dict[str, Any], splits: Any) -> None:
    start = LLaRA(**options, sft_steps=0).fit(splits).model.projectors.state_dict()
    for mode, moved in (("text", False), ("hybrid", True)):
        model = LLaRA(**options, sft_steps=2, mode=mode).fit(splits).model
        same = all(torch.equal(start[key], value) for key, value in model.projectors.state_dict().items())
        assert same != moved


def test_hybrid_training_learns_the_planted_order(options: dict[str, Any], letter_splits: Any, tmp_path: Path) -> None:
    backbone = SASRecRecommender(hidden_size=16, max_epochs=20, batch_size=32, dropout=0.0, learning_rate=1e-2)
    backbone.fit(letter_splits).save_pretrained(tmp_path)
    settings = {**options, "retriever_folder": str(tmp_path), "tuning": "full", "batch_size": 16, "mode": "hybrid"}
    trained = LLaRA(**settings, sft_steps=150, learning_rate=3e-3).fit(letter_splits)
    untrained = LLaRA(**settings, sft_steps=0).fit(letter_splits)
    found = [
        evaluate(r, letter_splits, protocol="candidates", bootstrap=0).metrics["ndcg@5"] for r in (trained, untrained)
    ]
    assert found[0] > 0.9 > found[1]


@pytest.mark.parametrize("mode", ["curriculum", "text"])
def test_saved_and_loaded_it_recommends_the_same(
    options: dict[str, Any], splits: Any, tmp_path: Path, mode: str
) -> None:
    ours = LLaRA(**options, sft_steps=2, mode=mode).fit(splits)
    ours.save_pretrained(tmp_path)
    loaded = Recommender.from_pretrained(tmp_path)
    assert loaded.recommend(["Film number 3"], k=5) == ours.recommend(["Film number 3"], k=5)


def test_a_folder_without_its_projector_is_refused_by_name(fitted: LLaRA, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("projectors.")}
    save_file(kept, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="the projector of 'item' is missing"):
        Recommender.from_pretrained(tmp_path)


def test_a_folder_with_another_backbone_is_refused(fitted: LLaRA, splits: Any, tmp_path: Path, backbone: Path) -> None:
    fitted.save_pretrained(tmp_path)
    other = tmp_path / "other"
    SASRecRecommender(hidden_size=16, max_epochs=1, seed=1).fit(splits).save_pretrained(other)
    shutil.rmtree(tmp_path / "retriever")
    other.rename(tmp_path / "retriever")
    with pytest.raises(ValueError, match="is not the one whose embeddings"):
        Recommender.from_pretrained(tmp_path)


def test_a_backbone_without_embeddings_is_refused(options: dict[str, Any], splits: Any) -> None:
    with pytest.raises(ValueError, match="LLaRA needs item embeddings, which popularity has not"):
        LLaRA(**{**options, "retriever_folder": None, "retriever": "popularity"}).fit(splits)


def test_text_prompts_hold_the_placeholder(options: dict[str, Any], splits: Any) -> None:
    recommender = LLaRA(**options, sft_steps=0, mode="text").fit(splits)
    prompt = recommender.prompter.encode([3], [9, 2], reserve=10)
    assert prompt.ids.count(recommender.prompter.tokenizer.convert_tokens_to_ids(TEXT_ONLY)) == 3
