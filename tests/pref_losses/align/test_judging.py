"""Judges and win rates, on models whose verdict is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from pref_losses.align.judging import LanguageModelJudge, RewardModelJudge, as_text, load_judges, win_rate

PROMPTS = ["what is one?", "what is two?", "what is three?"]


class Says:
    """A judge whose outcomes are given."""

    def __init__(self, *outcomes: float) -> None:
        self.outcomes = np.array(outcomes)

    def prefers_first(self, prompts: Any, first: Any, second: Any) -> np.ndarray:
        return self.outcomes


def test_a_tie_counts_one_half() -> None:
    told = win_rate(Says(1, 1, 0.5, 0), ["p"] * 4, ["a"] * 4, ["b"] * 4)
    assert (told["win_rate"], told["wins"], told["ties"]) == (0.625, 0.5, 0.25)
    assert told["win_rate_low"] <= 0.625 <= told["win_rate_high"]


class Likes(torch.nn.Module):
    """A causal LM: its logit of letter A as next token is a function of the text before."""

    def __init__(self, tokenizer: Any, odds_of_a: Any) -> None:
        super().__init__()
        self.tokenizer, self.odds_of_a = tokenizer, odds_of_a
        self.device = torch.device("cpu")

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> Any:
        logits = torch.zeros(len(input_ids), 1, len(self.tokenizer))
        for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            text = self.tokenizer.decode(ids[mask.bool()])
            first, second = (part.split("[")[0].strip() for part in text.split("[Answer A]")[1].split("[Answer B]"))
            second = second.split("\n")[0]
            logits[row, 0, self.tokenizer("A")["input_ids"][-1]] = self.odds_of_a(first, second)
        return SimpleNamespace(logits=logits)


@pytest.mark.parametrize("template", [True, False])
def test_language_model_judge_asks_in_both_orders(
    tokenizer: Any, template: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not template:
        monkeypatch.setattr(tokenizer, "chat_template", None)
    judge = LanguageModelJudge(Likes(tokenizer, lambda a, b: float(len(a) - len(b))), tokenizer, batch_size=2)
    got = judge.prefers_first(PROMPTS, ["long answer", "x", "same"], ["short", "longer", "size"])
    assert got.tolist() == [1.0, 0.0, 0.5]


def test_a_judge_that_always_says_a_gives_ties(tokenizer: Any) -> None:
    judge = LanguageModelJudge(Likes(tokenizer, lambda a, b: 3.0), tokenizer)
    assert judge.prefers_first(PROMPTS, ["a"] * 3, ["bb"] * 3).tolist() == [0.5] * 3


def test_language_model_judge_reads_real_models(model: Any, tokenizer: Any) -> None:
    """Padding does not change what the judge says."""
    model.eval()
    answers = (["short", "a rather longer answer than that", "c"], ["d", "e", "f"])
    together = LanguageModelJudge(model, tokenizer, batch_size=3).log_odds_of_a(PROMPTS, *answers)
    alone = LanguageModelJudge(model, tokenizer, batch_size=1).log_odds_of_a(PROMPTS, *answers)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert together.std() > 0


def test_letters_must_be_single_tokens(tokenizer: Any) -> None:
    def split(text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [1, 2, 3] if text.endswith("A") else [1, 2, 3, 4]}

    odd = type("Odd", (), {"chat_template": None, "__call__": lambda self, text, **k: split(text)})()
    judge = LanguageModelJudge(None, odd)
    with pytest.raises(ValueError, match="one token each"):
        judge.log_odds_of_a(["p"], ["a"], ["b"])


@pytest.fixture
def reward_model(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_labels=1, initializer_range=0.5, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LlamaForSequenceClassification(config).eval()


def test_reward_model_prefers_the_higher_reward(reward_model: Any, tokenizer: Any) -> None:
    judge = RewardModelJudge(reward_model, tokenizer, batch_size=2)
    first, second = ["a", "much longer one", "same"], ["zz", "b", "same"]
    rewards = []
    for answers in (first, second):
        ids = [tokenizer(p + a, return_tensors="pt")["input_ids"] for p, a in zip(PROMPTS, answers, strict=True)]
        rewards.append([reward_model(i).logits.item() for i in ids])
    expected = [1.0 if a > b else 0.0 for a, b in zip(*rewards, strict=True)]
    assert judge.prefers_first(PROMPTS, first, second).tolist() == [*expected[:2], 0.5]
    np.testing.assert_allclose(judge.rewards(PROMPTS, first), rewards[0], atol=1e-4)


def test_reward_model_has_one_output(reward_model: Any, tokenizer: Any) -> None:
    reward_model.config.num_labels = 3
    with pytest.raises(ValueError, match="got 3 labels"):
        RewardModelJudge(reward_model, tokenizer)


def test_messages_become_readable() -> None:
    assert as_text([{"role": "user", "content": "hi"}]) == "user: hi"
    assert as_text(" hi\n") == "hi"


def test_saved_reward_models_load_by_name(reward_model: Any, tokenizer: Any, tmp_path: Any) -> None:
    reward_model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ((name, judge),) = load_judges(None, str(tmp_path))
    assert name == "reward_model"
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    expected = RewardModelJudge(again, tokenizer).rewards(PROMPTS, ["a"] * 3)
    np.testing.assert_allclose(judge.rewards(PROMPTS, ["a"] * 3), expected, atol=1e-6)
