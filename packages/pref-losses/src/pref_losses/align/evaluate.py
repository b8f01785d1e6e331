"""`predilect align evaluate`: a trained model on held-out preferences, and on answers of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from predilect.runs import write_json, write_text
from pref_losses.align.console import print_metrics, silence_libraries
from pref_losses.align.data import load_rows
from pref_losses.align.judging import load_judges, win_rate
from pref_losses.align.measures import preference_report, sample_answers, sampled_kl, score_rows
from pref_losses.align.models import load_model
from pref_losses.align.options import EvaluateOptions
from pref_losses.align.parsing import parse_evaluate
from pref_losses.data import Answer, as_answers, prepare_preferences


def main(arguments: Sequence[str]) -> None:
    """`predilect align evaluate`."""
    silence_libraries()
    options = parse_evaluate(arguments)
    metrics, samples = evaluate_model(options)
    folder = Path(options.output_dir or str(options.model))
    write_json(folder / "evaluation.json", {"options": asdict(options)} | metrics)
    if samples:
        write_text(folder / "samples.jsonl", "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples))
    print_metrics(metrics)
    print(f"written: {folder / 'evaluation.json'}{' and samples.jsonl' if samples else ''}")


def evaluate_model(options: EvaluateOptions) -> tuple[dict[str, float | None], list[dict[str, Any]]]:
    """Every number that the options ask for, and the sampled answers."""
    assert options.model is not None
    assert options.reference is not None
    test = load_rows(options)[1]
    if test is None:
        raise ValueError("nothing is held out: set --test-size or --test-dataset")
    policy, tokenizer = load_model(options.model, dtype=options.dtype)
    reference, _ = load_model(options.reference, dtype=options.dtype)
    rows = prepare_preferences(
        test, tokenizer, max_length=options.max_length, truncation_mode=options.truncation_mode, name="test"
    )
    scores = [score_rows(model, rows, tokenizer, batch_size=options.batch_size) for model in (policy, reference)]
    metrics = preference_report(*scores, seed=options.seed)
    if not options.samples:
        return metrics, []
    kept = rows.select(range(min(options.samples, len(rows))))
    drawing: dict[str, int] = {
        "max_new_tokens": options.max_new_tokens,
        "seed": options.seed,
        "batch_size": options.batch_size,
    }
    answers = sample_answers(policy, tokenizer, kept["prompt_ids"], **drawing)
    metrics |= sampled_kl(policy, reference, tokenizer, kept["prompt_ids"], answers, batch_size=options.batch_size)
    asked = test.select(kept["row"])
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    if options.against == "chosen":
        others = [_answer_text(answer) for answer in asked["chosen"]]
    else:
        drawn = sample_answers(reference, tokenizer, kept["prompt_ids"], **drawing)
        others = tokenizer.batch_decode(drawn, skip_special_tokens=True)
    del policy, reference
    for name, judge in load_judges(options.judge, options.reward_model):
        won = win_rate(judge, asked["prompt"], texts, others, seed=options.seed)
        metrics |= {f"{name}/{key}": value for key, value in won.items()}
    answered = zip(asked["prompt"], texts, others, strict=True)
    return metrics, [{"prompt": p, "answer": a, options.against: o} for p, a, o in answered]


def _answer_text(answer: Answer) -> str:
    return answer if isinstance(answer, str) else str(as_answers(answer)[0][0]["content"])  # type: ignore[index]
