"""What test pairs and samples say, on numbers worked by hand and on tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from pref_losses.align.measures import (
    RowScores,
    preference_report,
    row_accuracy,
    sample_answers,
    sampled_kl,
    score_rows,
    with_interval,
)
from pref_losses.data import prepare_preferences


def test_report_by_hand() -> None:
    # rewards: row 0 (1, 0), row 1 (-1, 1), row 2 (0.5, -0.5, 1)
    policy = RowScores([[-4.0, -6.0], [-7.0, -2.0], [-1.5, -2.5, -2.0]], [[2, 4], [4, 2], [3, 3, 1]])
    reference = RowScores([[-5.0, -6.0], [-6.0, -3.0], [-2.0, -2.0, -3.0]], policy.tokens)
    report = preference_report(policy, reference)
    assert report["rows"] == 3
    assert report["accuracy"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert report["accuracy_all"] == pytest.approx(1 / 3)
    assert report["margin"] == pytest.approx((1 - 2 + (1 - 0.5) / 2) / 3)
    assert (report["accuracy_chosen_shorter"], report["pairs_chosen_shorter"]) == (1.0, 1)  # row 0
    assert (report["accuracy_chosen_longer"], report["pairs_chosen_longer"]) == (
        0.0,
        2,
    )  # row 1 and the second of row 2
    assert report["log_ratio_chosen"] == pytest.approx((1 - 1 + 0.5) / 3)
    # per token: row 0 -2 > -1.5? no; row 1 -1.75 > -1? no; row 2 -0.5 > -0.833 yes, -0.5 > -2 yes
    assert report["accuracy_mean_logp"] == pytest.approx(2 / 4)
    pairs = np.array([[-2, 1.0], [2, -2.0], [0, 1.0], [2, -0.5]])
    assert report["length_bias"] == pytest.approx(np.corrcoef(pairs.T)[0, 1])
    assert report["accuracy_low"] <= report["accuracy"] <= report["accuracy_high"]  # type: ignore[operator]
    np.testing.assert_allclose(row_accuracy(policy, reference), [1, 0, 0.5])


def test_equal_lengths_leave_the_length_bias_open() -> None:
    scores = RowScores([[-1.0, -2.0], [-1.0, -3.0]], [[2, 2], [2, 2]])
    report = preference_report(scores, RowScores([[0.0, 0.0]] * 2, scores.tokens))
    assert report["length_bias"] is None
    assert report["accuracy_chosen_shorter"] is None


def test_scores_equal_a_plain_forward_pass(model: Any, tokenizer: Any) -> None:
    data = [
        {"prompt": f"say {c}:", "chosen": f" {c}", "rejected": [" x", " yy!", f" {c}z"][i % 2 :]}
        for i, c in enumerate("abcdef")
    ]
    rows = prepare_preferences(Dataset.from_list(data), tokenizer)
    model.train()
    scores = score_rows(model, rows, tokenizer, batch_size=4)
    assert model.training
    model.eval()
    for number, row in enumerate(rows):
        for k, answer in enumerate([row["chosen_ids"], *row["rejected_ids"]]):
            ids = torch.tensor([row["prompt_ids"] + answer])
            logps = torch.log_softmax(model(ids).logits[0, :-1].float(), -1)
            start = len(row["prompt_ids"]) - 1
            expected = logps[range(start, ids.shape[1] - 1), ids[0, start + 1 :]].sum().item()
            assert scores.logps[number][k] == pytest.approx(expected, abs=1e-3)
            assert scores.tokens[number][k] == len(answer)


def test_samples_are_reproducible_and_leave_the_generator_alone(model: Any, tokenizer: Any) -> None:
    prompts = [tokenizer(text)["input_ids"] for text in ("say a:", "say b, please:")]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = sample_answers(model, tokenizer, prompts, max_new_tokens=6)
    assert torch.equal(torch.rand(1), expected)
    assert first == sample_answers(model, tokenizer, prompts, max_new_tokens=6)
    assert first != sample_answers(model, tokenizer, prompts, max_new_tokens=6, seed=1)
    assert all(1 <= len(answer) <= 6 for answer in first)


def test_kl_to_oneself_is_nothing(model: Any, tokenizer: Any) -> None:
    prompts = [tokenizer("say a:")["input_ids"]] * 4
    answers = sample_answers(model, tokenizer, prompts, max_new_tokens=5)
    told = sampled_kl(model, model, tokenizer, prompts, answers)
    assert told["kl"] == pytest.approx(0, abs=1e-5)
    assert told["answer_tokens"] == pytest.approx(np.mean([len(a) for a in answers]))


def test_kl_estimates_the_divergence(model: Any, model_folder: Path, tokenizer: Any) -> None:
    """Answers of one token: the divergence is a sum over the vocabulary, and the estimate lies near it."""
    reference = AutoModelForCausalLM.from_pretrained(model_folder)
    with torch.no_grad():
        noise = torch.Generator().manual_seed(0)
        weight = reference.lm_head.weight
        weight += 0.15 * torch.randn(weight.shape, generator=noise)
    prompt = tokenizer("say a:")["input_ids"]
    model.eval()
    reference.eval()
    with torch.no_grad():
        pi, ref = (torch.log_softmax(m(torch.tensor([prompt])).logits[0, -1].double(), -1) for m in (model, reference))
    exact = float((pi.exp() * (pi - ref)).sum())
    assert exact > 0.05
    prompts = [prompt] * 400
    answers = sample_answers(model, tokenizer, prompts, max_new_tokens=1, batch_size=400)
    told = sampled_kl(model, reference, tokenizer, prompts, answers, batch_size=400)
    spread = (told["kl_high"] - told["kl_low"]) / 2
    assert abs(told["kl"] - exact) < 2 * spread
    assert told["kl_per_token"] == pytest.approx(told["kl"])


def test_one_value_has_no_interval() -> None:
    assert with_interval("margin", np.array([2.5])) == {"margin": 2.5, "margin_low": None, "margin_high": None}
    two = with_interval("margin", np.array([0.0, 1.0]))
    assert (two["margin_low"], two["margin"], two["margin_high"]) == (0.0, 0.5, 1.0)
