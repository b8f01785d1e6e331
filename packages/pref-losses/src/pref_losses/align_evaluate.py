"""Evaluation without a paid judge: accuracy, margin and length bias on test pairs, KL divergence and win rates on sampled answers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from predilect.evaluation import PreferenceMetrics
from predilect.evaluation.bootstrap import bootstrap_interval, bootstrap_intervals
from predilect.leaderboard.storage import read_json, write_json, write_text
from predilect.tokenization import check_packable
from pref_losses.align_data import load_rows
from pref_losses.align_models import load_model
from pref_losses.align_options import DataOptions, OptionParser, _option, read_config
from pref_losses.data import Answer, as_answers, prepare_preferences
from pref_losses.judging import load_judges, win_rate
from pref_losses.scoring import PreferenceCollator, score_answers

RUN_FILE = "align.json"


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
    """Scores of rows as `prepare_preferences` makes them, with dropout off; prompts are shared where the model allows it."""
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
        `accuracy` (share of pairs whose chosen answer has the higher reward), `accuracy_all` (above all rejected answers) and `margin`
        (mean difference of rewards, nats), each with its 95 % bootstrap interval over rows; `length_bias` (correlation of a pair's
        margin and its difference of lengths, -1..1), `accuracy_chosen_shorter` and `accuracy_chosen_longer` with the number of such
        pairs (a policy that only learned to prefer long answers has 0 and 1); `accuracy_mean_logp` (by the policy's log-prob per token,
        without reference: what SimPO and alpha-DPO rank by); `log_ratio_chosen` and `log_ratio_rejected` (mean rewards). None where
        there is nothing to compute it from.
    """
    metrics = _metrics_of(policy, reference)
    shorter: dict[str, list[bool]] = {"shorter": [], "longer": []}
    per_token, rewards = [], []
    for logps, refs, lengths in zip(policy.logps, reference.logps, policy.tokens, strict=True):
        reward, mean, count = np.subtract(logps, refs), np.divide(logps, lengths), np.array(lengths)
        rewards.append(reward)
        per_token += (mean[0] > mean[1:]).tolist()
        for right, difference in zip(reward[0] > reward[1:], count[0] - count[1:], strict=True):
            if difference != 0:
                shorter["shorter" if difference < 0 else "longer"].append(bool(right))
    report: dict[str, float | None] = {"rows": len(policy.logps)}
    for name, (mean, low, high) in bootstrap_intervals(row_metrics(policy, reference), seed=seed).items():
        report |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    report["length_bias"] = _number(metrics.compute()["length_bias"])
    for name, outcomes in shorter.items():
        report |= {f"accuracy_chosen_{name}": _mean(outcomes), f"pairs_chosen_{name}": len(outcomes)}
    report["accuracy_mean_logp"] = _mean(per_token)
    report["log_ratio_chosen"] = _mean([r[0] for r in rewards])
    report["log_ratio_rejected"] = _mean([value for r in rewards for value in r[1:]])
    return report


def row_metrics(policy: RowScores, reference: RowScores) -> dict[str, np.ndarray]:
    """`accuracy`, `accuracy_all` and `margin` of every row, (N,) each; see `preference_report`."""
    rows = _metrics_of(policy, reference).per_row()
    return {name: rows[name] for name in ("accuracy", "accuracy_all", "margin")}


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
    """One answer a prompt, drawn from the model's own distribution (temperature 1, nothing cut off), with its EOS if it came to it.

    Args:
        model: a causal LM.
        tokenizer: its tokenizer.
        prompts: token ids.
        max_new_tokens: longest answer.
        seed: of the draws; the global generators are left as they were.
        batch_size: prompts at once; the draws depend on it.
    """
    from transformers import GenerationConfig

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
) -> dict[str, float]:
    r"""KL(policy || reference) from answers that `sample_answers` drew from the policy.

    `E_{y ~ pi}[log pi(y|x) - log ref(y|x)]` is the divergence itself, so the mean over the samples estimates it without bias; single samples may be
    negative. The same mean over the data's own answers would estimate something else. Answers are at most `max_new_tokens` long, which makes it
    the divergence of the distributions over answers cut there.

    Returns:
        `kl` (nats per answer) with its 95 % bootstrap interval over prompts, `kl_per_token` (sum over all tokens divided by their number),
        `answer_tokens` (mean length).
    """
    pairs = zip(prompts, answers, strict=True)
    rows = Dataset.from_list(
        [
            {"prompt_ids": list(p), "chosen_ids": list(a), "rejected_ids": [], "row": n}
            for n, (p, a) in enumerate(pairs)
        ]
    )
    of_policy, of_reference = (
        score_rows(model, rows, tokenizer, batch_size=batch_size) for model in (policy, reference)
    )
    ratios = np.array(of_policy.logps)[:, 0] - np.array(of_reference.logps)[:, 0]
    tokens = np.array(of_policy.tokens)[:, 0]
    mean, low, high = bootstrap_interval(ratios)
    return {
        "kl": mean,
        "kl_low": low,
        "kl_high": high,
        "kl_per_token": float(ratios.sum() / tokens.sum()),
        "answer_tokens": float(tokens.mean()),
    }


@contextmanager
def evaluating(model: Any) -> Any:
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


def _mean(values: Sequence[Any]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


# --- the command ------------------------------------------------------------------------------------------------------


@dataclass
class EvaluateOptions(DataOptions):
    """Options of `predilect align evaluate`; the folder of a run brings its own reference and data."""

    model: str | None = _option("The aligned model: the folder of a run, or any model.", None)
    reference: str | None = _option("What it started from.", None)
    samples: int = _option("Test prompts to answer, for the KL divergence and the win rates; 0: none.", 64)
    max_new_tokens: int = _option("Longest answer sampled.", 128)
    max_length: int = _option("Longest prompt and answer together.", 1024)
    truncation_mode: str = _option("What is cut beyond it: 'keep_start' or 'keep_end'.", "keep_start")
    reward_model: str | None = _option("A sequence classifier with one output, as judge of the samples.", None)
    judge: str | None = _option("A causal LM, as judge of the samples.", None)
    against: str = _option(
        "Whose answers the samples are judged against: 'chosen' (the data's) or 'reference'.", "chosen"
    )
    batch_size: int = _option("Prompts at once.", 8)
    dtype: str | None = _option("Of the weights; without it as saved.", None)
    seed: int = _option("Of the samples and the intervals.", 0)
    output_dir: str | None = _option(
        "Where to write evaluation.json and samples.jsonl; without it the model's folder.", None
    )


def parse_evaluate(arguments: Sequence[str]) -> EvaluateOptions:
    """The options, those left out taken from the run's `align.json`."""
    values, source = read_config(arguments)
    values = {"model" if key == "model_name_or_path" else key: value for key, value in values.items()}
    parser = OptionParser([EvaluateOptions], prog="predilect align evaluate")
    (options,) = parser.parse(arguments, values, source=source)
    if options.model is None:
        raise ValueError("name the model to evaluate: --model FOLDER")
    run = Path(options.model) / RUN_FILE
    if run.is_file():
        (options,) = parser.parse(arguments, read_json(run)["evaluation"] | values, source=source)
    for name, flag in (("reference", "reference"), ("dataset_name", "dataset")):
        if getattr(options, name) is None:
            raise ValueError(f"{options.model} is not the folder of a run of predilect align, so name --{flag}")
    if options.against not in ("chosen", "reference"):
        raise ValueError(f"against is 'chosen' or 'reference' (got {options.against!r})")
    if (options.judge or options.reward_model) and not options.samples:
        raise ValueError("a judge needs answers to judge: raise --samples")
    return options


def evaluate_model(options: EvaluateOptions) -> tuple[dict[str, float | None], list[dict[str, Any]]]:
    """Every number that the options ask for, and the sampled answers."""
    assert options.model is not None
    assert options.reference is not None
    test = load_rows(options)[1]
    if test is None:
        raise ValueError("nothing is held out: set --test-size or --test-dataset")
    policy, tokenizer = load_model(options.model, dtype=options.dtype)
    reference, _ = load_model(options.reference, dtype=options.dtype)
    cut = {"max_length": options.max_length, "truncation_mode": options.truncation_mode}
    rows = prepare_preferences(test, tokenizer, **cut, name="test")
    scores = [score_rows(model, rows, tokenizer, batch_size=options.batch_size) for model in (policy, reference)]
    metrics: dict[str, float | None] = preference_report(*scores, seed=options.seed)
    if not options.samples:
        return metrics, []
    kept = rows.select(range(min(options.samples, len(rows))))
    drawing = {"max_new_tokens": options.max_new_tokens, "seed": options.seed, "batch_size": options.batch_size}
    answers = sample_answers(policy, tokenizer, kept["prompt_ids"], **drawing)
    metrics |= sampled_kl(policy, reference, tokenizer, kept["prompt_ids"], answers, batch_size=options.batch_size)
    prompts = test.select(kept["row"])["prompt"]
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    if options.against == "chosen":
        others = [_answer_text(answer) for answer in test.select(kept["row"])["chosen"]]
    else:
        drawn = sample_answers(reference, tokenizer, kept["prompt_ids"], **drawing)
        others = tokenizer.batch_decode(drawn, skip_special_tokens=True)
    del policy, reference
    for name, judge in load_judges(options.judge, options.reward_model):
        won = win_rate(judge, prompts, texts, others, seed=options.seed)
        metrics |= {f"{name}/{key}": value for key, value in won.items()}
    samples = [{"prompt": p, "answer": a, options.against: o} for p, a, o in zip(prompts, texts, others, strict=True)]
    return metrics, samples


def _answer_text(answer: Answer) -> str:
    return answer if isinstance(answer, str) else str(as_answers(answer)[0][0]["content"])  # type: ignore[index]


def main(arguments: Sequence[str]) -> None:
    """`predilect align evaluate`."""
    options = parse_evaluate(arguments)
    metrics, samples = evaluate_model(options)
    folder = Path(options.output_dir or str(options.model))
    write_json(folder / "evaluation.json", {"model": options.model, "reference": options.reference} | metrics)
    if samples:
        write_text(folder / "samples.jsonl", "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples))
    for name, value in metrics.items():
        print(f"{name:<28} {'-' if value is None else f'{value:.4g}'}")
    print(f"written: {folder / 'evaluation.json'}")
