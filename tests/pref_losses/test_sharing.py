"""A prompt computed once for all its answers gives what one row an answer gives: losses, gradients, evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from pref_losses import PreferenceTrainer, SoftmaxDPOConfig
from pref_losses.scoring import PreferenceCollator, score_answers

Make = Callable[..., PreferenceTrainer]
close = torch.testing.assert_close
KINDS = {
    "one": {"negatives": None},
    "ragged": {"negatives": 4, "ragged": True},
}


@pytest.fixture(scope="session")
def gpt2_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=128,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, model_folder: Path, gpt2_folder: Path) -> Path:
    return {"llama": model_folder, "gpt2": gpt2_folder}[request.param]


class Watched(PreferenceTrainer):
    """Keeps the gradient of every optimizer step and the log-probs of every pass."""

    gradients: list[torch.Tensor]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        parts = [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
        self.gradients.append(torch.cat(parts).clone())
        return loss


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_losses_and_gradients_are_equal_over_ten_steps(
    kind: str,
    accumulation: int,
    folder: Path,
    make_trainer: Make,
    make_preferences: Callable[..., Dataset],
    logged: Callable[..., list[float]],
) -> None:
    data = make_preferences(16, **KINDS[kind])
    trainers = []
    for sharing in ("true", "false"):
        trainer = make_trainer(
            SoftmaxDPOConfig,
            trainer=Watched,
            model=str(folder),
            train_dataset=data,
            eval_dataset=data,
            prefix_sharing=sharing,
            gradient_accumulation_steps=accumulation,
            max_steps=10,
            learning_rate=1e-3,
            reduction="robust",
        )
        trainer.gradients = []
        trainer.train()
        trainers.append(trainer)
    shared, separate = trainers
    assert shared._collator.share_prefix
    assert not separate._collator.share_prefix
    close(logged(shared), logged(separate), atol=1e-5, rtol=0)
    assert len(shared.gradients) == len(separate.gradients) >= 10
    for one, other in zip(shared.gradients, separate.gradients, strict=True):
        assert torch.cosine_similarity(one, other, dim=0) > 0.99999
    found, expected = shared.evaluate(), separate.evaluate()
    for key in ("eval_loss", "eval_rewards/margins", "eval_logps/chosen", "eval_entropy", "eval_mean_token_accuracy"):
        assert found[key] == pytest.approx(expected[key], abs=2e-5), key


@pytest.mark.parametrize("kind", KINDS)
def test_reference_log_probs_are_equal(
    kind: str, folder: Path, make_trainer: Make, make_preferences: Callable[..., Dataset]
) -> None:
    stored = [
        make_trainer(
            model=str(folder),
            train_dataset=make_preferences(12, **KINDS[kind]),
            prefix_sharing=sharing,
            ref_log_probs_file=str(folder / f"{kind}-{sharing}.parquet"),
        ).train_dataset
        for sharing in ("true", "false")
    ]
    close(stored[0]["ref_chosen_logps"][:], stored[1]["ref_chosen_logps"][:], atol=1e-4, rtol=0)
    for one, other in zip(*(data["ref_rejected_logps"][:] for data in stored), strict=True):
        close(one, other, atol=1e-4, rtol=0)


@pytest.mark.parametrize("multiple", [None, 8])
@pytest.mark.parametrize("share", [True, False])
def test_scores_are_the_models_own_log_probs(
    share: bool, multiple: int | None, folder: Path, make_preferences: Callable[..., Dataset], make_trainer: Make
) -> None:
    rows = list(make_trainer(model=str(folder), train_dataset=make_preferences(5, 3, ragged=True)).train_dataset)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    batch = PreferenceCollator(0, share, multiple)(rows)
    assert batch["input_ids"].shape[1] % (multiple or 1) == 0
    scores = score_answers(model, batch, statistics=True)
    entropies, right, chosen_logits = [], [], []
    for number, row in enumerate(rows):
        answers = [row["chosen_ids"], *row["rejected_ids"]]
        assert batch["answer_mask"][number].sum() == len(answers)
        for place, answer in enumerate(answers):
            ids = torch.tensor([row["prompt_ids"] + answer])
            logits = model(ids).logits[0, len(row["prompt_ids"]) - 1 : -1].detach()
            logps = logits.log_softmax(-1)
            close(scores.sums[number, place], logps.gather(1, torch.tensor(answer)[:, None]).sum(), atol=2e-4, rtol=0)
            assert scores.counts[number, place] == len(answer)
            entropies.append(-(logps.exp() * logps).sum(1))
            if place == 0:
                right.append(logits.argmax(1) == torch.tensor(answer))
                chosen_logits.append(logits.mean(1))
    told = scores.statistics
    close(told["entropy"], torch.cat(entropies).mean(), atol=1e-4, rtol=0)
    close(told["mean_token_accuracy"], torch.cat(right).float().mean())
    close(told["logits/chosen"], torch.cat(chosen_logits).mean(), atol=1e-5, rtol=0)


def sliding_window(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=8,
            pad_token_id=0,
        )
    )


def test_auto_gives_way_where_the_model_cannot_share_and_true_says_why(
    make_trainer: Make, tokenizer: Any, logged: Callable[..., list[float]]
) -> None:
    options = {"model": sliding_window(tokenizer), "ref_model": sliding_window(tokenizer)}
    trainer = make_trainer(prefix_sharing="auto", max_steps=1, **options)
    assert not trainer._collator.share_prefix
    trainer.train()
    assert logged(trainer)[0] == pytest.approx(0.693147, abs=1e-5)
    with pytest.raises(ValueError, match="sliding window of 8 tokens"):
        make_trainer(prefix_sharing="true", **options)


@pytest.mark.parametrize("stored", [False, True])
def test_a_reference_that_cannot_share_counts_too(stored: bool, make_trainer: Make, tokenizer: Any) -> None:
    reference = sliding_window(tokenizer)
    trainer = make_trainer(ref_model=reference, precompute_ref_log_probs=stored)
    assert not trainer._collator.share_prefix
    with pytest.raises(ValueError, match="sliding window of 8 tokens"):
        make_trainer(ref_model=reference, prefix_sharing="true")


def test_auto_shares_where_it_can(make_trainer: Make) -> None:
    assert make_trainer()._collator.share_prefix
