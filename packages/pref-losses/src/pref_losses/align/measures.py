"""What test pairs and sampled answers say of a policy: accuracy, margin, length bias and KL divergence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import GenerationConfig

from predilect.evaluation import PreferenceMetrics
from predilect.evaluation.bootstrap import bootstrap_interval
from predilect.modeling.packed import check_packable
from pref_losses.scoring import PreferenceCollator, score_answers


@dataclass(frozen=True)
class RowScores:
    """Log-probabilities of the answers of every row, chosen first.

    Attributes:
        logps: one list a row, of sums over the answer's tokens, in nats.
        tokens: one list a row, of the answers' numbers of tokens.
    """

    logps: list[list[float]]
    tokens: list[list[int]]


@torch.no_grad()
def score_rows(model: Any, rows: Dataset, tokenizer: Any, *, batch_size: int = 8) -> RowScores:
    """Scores of rows as `prepare_preferences` makes them, with dropout off.

    Prompts are shared by their answers where the model allows it.
    """
    collate = PreferenceCollator(tokenizer.pad_token_id, _packable(model))
    lengths = [len(row["prompt_ids"]) + len(row["chosen_ids"]) + sum(map(len, row["rejected_ids"])) for row in rows]
    order = sorted(range(len(rows)), key=lengths.__getitem__)  # similar lengths together: little padding
    logps: list[list[float]] = [[] for _ in order]
    tokens: list[list[int]] = [[] for _ in order]
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = {name: part.to(model.device) for name, part in collate([rows[n] for n in numbers]).items()}
            scores = score_answers(model, batch)
            for n, mask, sums, counts in zip(
                numbers, batch["answer_mask"].cpu(), scores.sums.cpu(), scores.counts.cpu(), strict=True
            ):
                logps[n], tokens[n] = sums[mask].tolist(), counts[mask].tolist()
    return RowScores(logps, tokens)


def preference_report(policy: RowScores, reference: RowScores, *, seed: int = 0) -> dict[str, float | None]:
    """What the test pairs say of a policy; a reward is log pi - log ref of an answer, without beta.

    Returns:
        `accuracy` (share of pairs whose chosen answer has the higher reward), `accuracy_all` (above all rejected
        answers) and `margin` (mean difference of rewards, nats), each with its 95 % bootstrap interval over rows;
        `length_bias` (correlation of a pair's margin and its difference of lengths, -1..1);
        `accuracy_chosen_shorter` and `accuracy_chosen_longer` with the number of such pairs (a policy that only
        learned to prefer long answers has 0 and 1); `accuracy_mean_logp` (by the policy's log-prob per token, without
        reference: what SimPO and alpha-DPO rank by); `log_ratio_chosen` and `log_ratio_rejected` (mean rewards). None
        where there is nothing to compute it from.
    """
    by_length: dict[str, list[bool]] = {"shorter": [], "longer": []}
    per_token, rewards = [], []
    for logps, refs, lengths in zip(policy.logps, reference.logps, policy.tokens, strict=True):
        reward, mean, count = np.subtract(logps, refs), np.divide(logps, lengths), np.array(lengths)
        rewards.append(reward)
        per_token += (mean[0] > mean[1:]).tolist()
        for right, difference in zip(reward[0] > reward[1:], count[0] - count[1:], strict=True):
            if difference != 0:
                by_length["shorter" if difference < 0 else "longer"].append(bool(right))
    metrics = _metrics_of(policy, reference)
    report: dict[str, float | None] = {"rows": len(policy.logps)}
    for name in ("accuracy", "accuracy_all", "margin"):
        report |= with_interval(name, metrics.per_row()[name], seed=seed)
    report["length_bias"] = _number(metrics.compute()["length_bias"])
    for name, outcomes in by_length.items():
        report |= {f"accuracy_chosen_{name}": _mean(outcomes), f"pairs_chosen_{name}": len(outcomes)}
    report["accuracy_mean_logp"] = _mean(per_token)
    report["log_ratio_chosen"] = _mean([r[0] for r in rewards])
    report["log_ratio_rejected"] = _mean([value for r in rewards for value in r[1:]])
    return report


def row_accuracy(policy: RowScores, reference: RowScores) -> np.ndarray:
    """(N,) share of a row's rejected answers that its chosen answer beats."""
    return np.asarray(_metrics_of(policy, reference).per_row()["accuracy"])


def with_interval(name: str, values: np.ndarray, *, seed: int = 0) -> dict[str, float | None]:
    """The mean of `values` (N,) as `name`, and the ends of its 95 % bootstrap interval, which one value has not."""
    if len(values) < 2:
        return {name: _mean(values), f"{name}_low": None, f"{name}_high": None}
    mean, low, high = bootstrap_interval(values, seed=seed)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _metrics_of(policy: RowScores, reference: RowScores) -> PreferenceMetrics:
    metrics = PreferenceMetrics()
    for logps, refs, lengths in zip(policy.logps, reference.logps, policy.tokens, strict=True):
        pi, ref, count = (torch.tensor(values, dtype=torch.float64) for values in (logps, refs, lengths))
        many = {"chosen_lengths": count[:1], "rejected_lengths": count[None, 1:]}
        metrics.update(pi[:1], pi[None, 1:], ref[:1], ref[None, 1:], **many)
    return metrics


@torch.no_grad()
def sample_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    seed: int = 0,
    batch_size: int = 8,
) -> list[list[int]]:
    """One answer a prompt, drawn from the model's own distribution: temperature 1, nothing cut off.

    Answers end with their EOS if they came to it.

    Args:
        model: a causal LM.
        tokenizer: its tokenizer.
        prompts: token ids.
        max_new_tokens: longest answer.
        seed: of the draws; the global generators are left as they were.
        batch_size: prompts at once; the draws depend on it.
    """
    how = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    answers: list[list[int]] = []
    with evaluating(model), torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(prompts), batch_size):
            rows = [list(ids) for ids in prompts[start : start + batch_size]]
            width = max(map(len, rows))
            ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(r)) + r for r in rows], device=model.device)
            mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=model.device)
            drawn = model.generate(input_ids=ids, attention_mask=mask, generation_config=how)[:, width:].tolist()
            answers += [_until_eos(answer, tokenizer.eos_token_id) for answer in drawn]
    return answers


def sampled_kl(
    policy: Any,
    reference: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    batch_size: int = 8,
) -> dict[str, float | None]:
    r"""KL(policy || reference) from answers that `sample_answers` drew from the policy.

    `E_{y ~ pi}[log pi(y|x) - log ref(y|x)]` is the divergence itself, so the mean over the samples estimates it
    without bias; single samples may be negative. The same mean over the data's own answers would estimate something
    else. Answers are at most `max_new_tokens` long, which makes it the divergence of the distributions over answers
    cut there.

    Returns:
        `kl` (nats per answer) with its 95 % bootstrap interval over prompts, `kl_per_token` (sum over all tokens
        divided by their number), `answer_tokens` (mean length).
    """
    rows = Dataset.from_list(
        [
            {"prompt_ids": list(prompt), "chosen_ids": list(answer), "rejected_ids": [], "row": number}
            for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
        ]
    )
    of_policy, of_reference = (score_rows(m, rows, tokenizer, batch_size=batch_size) for m in (policy, reference))
    ratios = np.array(of_policy.logps)[:, 0] - np.array(of_reference.logps)[:, 0]
    tokens = np.array(of_policy.tokens)[:, 0]
    per_token = {"kl_per_token": float(ratios.sum() / tokens.sum()), "answer_tokens": float(tokens.mean())}
    return with_interval("kl", ratios) | per_token


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Dropout off and the cache allowed, inside."""
    training, cache = model.training, model.config.use_cache
    model.eval()
    model.config.use_cache = True
    try:
        yield
    finally:
        model.train(training)
        model.config.use_cache = cache


def _packable(model: Any) -> bool:
    try:
        check_packable(model)
    except ValueError:
        return False
    return True


def _until_eos(answer: list[int], eos: int) -> list[int]:
    return answer[: answer.index(eos) + 1] if eos in answer else answer


def _mean(values: Sequence[Any] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
