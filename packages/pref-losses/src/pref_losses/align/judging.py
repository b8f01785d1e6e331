"""Win rates without a paid judge: by a reward model, or by a local language model that reads both answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from predilect.training import default_device
from pref_losses.align.measures import with_interval
from pref_losses.align.models import load_model, on_device

Prompt = str | list[dict[str, Any]]

_QUESTION = """Two assistants answered the same request.

[Request]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

Which answer is more helpful, correct and to the point? Do not let the order or the length of the answers influence \
you. Reply with one letter, A or B.

Better answer:"""


class Judge(Protocol):
    """Says of every prompt which of two answers is better."""

    def prefers_first(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """(N,) 1.0 where the first answer wins, 0.0 where the second does, 0.5 for a tie."""


@dataclass
class RewardModelJudge:
    """A sequence classifier with one output, the reward of prompt and answer; equal rewards tie.

    Messages are rendered by the tokenizer's chat template, plain prompts have the answer appended.
    """

    model: Any
    tokenizer: Any
    batch_size: int = 8
    max_length: int = 1024

    def __post_init__(self) -> None:
        if (outputs := self.model.config.num_labels) != 1:
            raise ValueError(f"a reward model has one output (got {outputs} labels)")
        self.model.config.pad_token_id = self.tokenizer.pad_token_id

    @torch.no_grad()
    def rewards(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        """(N,) rewards; what exceeds `max_length` is cut from the prompt's beginning."""
        texts = [self._text(p, a) for p, a in zip(prompts, answers, strict=True)]
        rewards = []
        self.tokenizer.truncation_side = "left"
        for start in range(0, len(texts), self.batch_size):
            batch = self.tokenizer(
                texts[start : start + self.batch_size],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            ).to(self.model.device)
            logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            rewards.append(logits[:, 0].float().cpu().numpy())
        return np.concatenate(rewards)

    def prefers_first(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        difference = self.rewards(prompts, first) - self.rewards(prompts, second)
        return np.asarray((np.sign(difference) + 1) / 2)

    def _text(self, prompt: Prompt, answer: str) -> str:
        if isinstance(prompt, str):
            return prompt + answer
        messages = [*prompt, {"role": "assistant", "content": answer}]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False))


@dataclass
class LanguageModelJudge:
    """A causal LM that is shown both answers, in both orders, and asked for a letter.

    Its choice in one order is the more probable of the next tokens "A" and "B". An answer wins if it is chosen in both
    orders; if the choice changes with the order, or the two letters are equally probable, the answers tie, so a judge
    that always says "A" gives every pair a tie.
    """

    model: Any
    tokenizer: Any
    batch_size: int = 8

    def prefers_first(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        forward = np.sign(self.log_odds_of_a(prompts, first, second))
        backward = -np.sign(self.log_odds_of_a(prompts, second, first))
        return np.where(forward == backward, (forward + 1) / 2, 0.5)

    @torch.no_grad()
    def log_odds_of_a(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """(N,) log P("A") - log P("B") as the next token."""
        asked = [self._question(p, a, b) for p, a, b in zip(prompts, first, second, strict=True)]
        odds = []
        self.tokenizer.padding_side = "left"
        for start in range(0, len(asked), self.batch_size):
            rows = asked[start : start + self.batch_size]
            batch = self.tokenizer.pad({"input_ids": [ids for ids, _, _ in rows]}, return_tensors="pt").to(
                self.model.device
            )
            positions = (batch["attention_mask"].cumsum(1) - 1).clamp_min(0)
            logits = self.model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                position_ids=positions,
                logits_to_keep=1,
            ).logits[:, -1]
            letters = torch.tensor([[a, b] for _, a, b in rows], device=logits.device)
            of_a, of_b = logits.float().gather(1, letters).unbind(1)
            odds.append((of_a - of_b).cpu().numpy())
        return np.concatenate(odds)

    def _question(self, prompt: Prompt, first: str, second: str) -> tuple[list[int], int, int]:
        """Tokens of the question, and the tokens that answer it with "A" and with "B"."""
        text = _QUESTION.format(prompt=as_text(prompt), first=first.strip(), second=second.strip())
        ends = (" A", " B")
        if self.tokenizer.chat_template:
            message = [{"role": "user", "content": text}]
            text = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
            ends = ("A", "B")
        special = not self.tokenizer.chat_template  # the template writes its own
        a, b = (self.tokenizer(text + end, add_special_tokens=special)["input_ids"] for end in ends)
        if len(a) != len(b) or a[:-1] != b[:-1] or a[-1] == b[-1]:
            raise ValueError(
                "the judge's tokenizer does not write the letters A and B as one token each: use another judge"
            )
        return a[:-1], a[-1], b[-1]


def as_text(prompt: Prompt) -> str:
    """A prompt as a person would read it."""
    if isinstance(prompt, str):
        return prompt.strip()
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def win_rate(
    judge: Judge, prompts: Sequence[Prompt], answers: Sequence[str], against: Sequence[str], *, seed: int = 0
) -> dict[str, float | None]:
    """How often the judge prefers `answers` to `against`; a tie counts one half.

    Returns:
        `win_rate` with its 95 % bootstrap interval over prompts, `wins` and `ties` (shares).
    """
    outcomes = judge.prefers_first(prompts, answers, against)
    shares = {"wins": float((outcomes == 1).mean()), "ties": float((outcomes == 0.5).mean())}
    return with_interval("win_rate", outcomes, seed=seed) | shares


def load_judges(judge: str | None, reward_model: str | None) -> Iterator[tuple[str, Judge]]:
    """The judges that a user named, one by one: "reward_model" and "judge"."""
    if reward_model is not None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(reward_model)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        classifier = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
        yield "reward_model", RewardModelJudge(on_device(classifier, default_device()), tokenizer)
    if judge is not None:
        yield "judge", LanguageModelJudge(*load_model(judge))
