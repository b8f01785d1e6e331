"""One alignment run, from preferences to a saved model with its metrics and plots."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset

import pref_losses.trainer as trainers
from predilect.modeling.base_model import describe_base, write_base
from predilect.runs import OutputFolder, read_json, write_json
from predilect.training import newest_checkpoint
from pref_losses.align.console import print_metrics, show_headlines, silence_libraries
from pref_losses.align.data import flip_preferences, load_rows, preferences_fingerprint
from pref_losses.align.measures import RowScores, preference_report, sample_answers, sampled_kl, score_rows
from pref_losses.align.models import load_for_training, on_device, tokenizer_for_training
from pref_losses.align.options import METHODS, AlignOptions, LanguageModelConfig, StageOptions
from pref_losses.align.parsing import parse_align
from pref_losses.align.plots import write_plots
from pref_losses.align.sft import fine_tune, new_adapter
from pref_losses.align.storage import (
    METRICS_FILE,
    RUN,
    evaluation_options,
    fingerprint,
)
from pref_losses.align.weights import ExampleWeights, flipped_auc
from pref_losses.config import PreferenceConfig
from pref_losses.data import prepare_preferences, require_usable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What several runs may share: data, and the model to start from.

    Attributes:
        train: training rows, some of them flipped.
        test: test rows, clean; None if nothing is held out.
        start: name or folder of the model that training starts from, and that is its reference.
    """

    train: Dataset
    test: Dataset | None
    start: str


def main(arguments: Sequence[str]) -> None:
    """`predilect align`."""
    silence_libraries()
    options, training, model = parse_align(arguments)
    metrics = align(options, training, model)
    if PartialState().is_main_process:
        print_metrics(metrics)
        print(f"model, metrics and plots: {training.output_dir}")


def align(options: AlignOptions, training: PreferenceConfig, model: LanguageModelConfig) -> dict[str, Any]:
    """Run the whole of `predilect align`; a finished run that is resumed gives its metrics again.

    Raises:
        ValueError: an output folder in use, or one of another run; data that cannot be used.
    """
    assert options.method is not None
    folder, state = Path(training.output_dir), PartialState()
    with OutputFolder(folder, RUN, resume=options.resume, overwrite=options.overwrite) as output:
        with state.main_process_first():
            rows = load_rows(options, usable_rows(training, model))
        output.claim(
            fingerprint(options, training, model, data=preferences_fingerprint(*rows)),
            about=evaluation_options(options, training, start_model(options, model, folder)),
        )
        if (folder / METRICS_FILE).is_file():
            finished: dict[str, Any] = read_json(folder / METRICS_FILE)
            return finished
        task = prepare_task(*rows, options, training, model, folder)
        metrics = train_method(options.method, task, options, training, model)
        if state.is_main_process:
            write_plots({options.method: read_json(folder / "trainer_state.json")["log_history"]}, folder)
    return metrics


def usable_rows(training: PreferenceConfig, model: LanguageModelConfig) -> Callable[[Dataset], None]:
    """A check that needs the tokenizer only."""
    return partial(
        require_usable,
        tokenizer=tokenizer_for_training(model),
        max_length=training.max_length,
        truncation_mode=training.truncation_mode,
        name="given",
    )


def start_model(options: StageOptions, model: LanguageModelConfig, folder: Path) -> str:
    """What training starts from: the model named, or what its supervised fine-tuning leaves in `folder`."""
    assert model.model_name_or_path is not None
    return str(folder / "sft") if options.sft_steps or options.sft_epochs else model.model_name_or_path


def prepare_task(
    train: Dataset,
    test: Dataset | None,
    options: StageOptions,
    training: PreferenceConfig,
    model: LanguageModelConfig,
    folder: Path,
) -> Task:
    """Fine-tune if asked to, flip pairs if asked to.

    Fine-tuning sees the chosen answers before any flip, so that every flip rate starts from the same model.
    """
    state = PartialState()
    if options.sft_steps or options.sft_epochs:
        fine_tune(train, options, training, model, folder / "sft")
    if options.flip_rate:
        with state.main_process_first():
            train = flip_preferences(train, options.flip_rate, options.split_seed)
        if state.is_main_process:
            flipped = [row for row, was in enumerate(train["flipped"]) if was]
            write_json(folder / "flipped.json", {"seed": options.split_seed, "of": len(train), "rows": flipped})
    return Task(train, test, start_model(options, model, folder))


def train_method(
    method: str,
    task: Task,
    options: StageOptions,
    training: PreferenceConfig,
    model: LanguageModelConfig,
    *,
    before: RowScores | None = None,
) -> dict[str, Any]:
    """Train one method into `training.output_dir`, evaluate it and write `metrics.json` last.

    Args:
        method: a name of `METHODS`; what it does stands in `training`.
        task: data and start.
        options: of the stages.
        training: of the trainer.
        model: of loading and adapters.
        before: scores of the test rows by the start, if they are known already.
    """
    folder = Path(training.output_dir)
    network, tokenizer = load_for_training(task.start, model)
    about = describe_base(network, tokenizer)
    rows = None if task.test is None else prepare_test(task.test, tokenizer, training)
    if rows is not None and before is None and PartialState().num_processes == 1:
        before = score_rows(
            on_device(network, training.device), rows, tokenizer, batch_size=training.per_device_eval_batch_size
        )
    trainer = getattr(trainers, METHODS[method].trainer)(
        network,
        args=training,
        train_dataset=task.train,
        eval_dataset=rows,
        processing_class=tokenizer,
        peft_config=new_adapter(network, model),
    )
    found = training.resume_from_checkpoint or newest_checkpoint(folder)
    checkpoint = None if found is None else str(found)
    if checkpoint is not None:
        logger.warning("going on from %s", checkpoint)
    show_headlines(trainer)
    weights = ExampleWeights(trainer, checkpoint)
    trainer.add_callback(weights)
    result = trainer.train(resume_from_checkpoint=checkpoint)
    metrics = {
        "method": method,
        "seed": training.seed,
        "steps": trainer.state.global_step,
        "train_loss": result.training_loss,
        "train_rows": len(trainer.train_dataset),
        # A resumed run does not know how long it ran before.
        "train_seconds": result.metrics["train_runtime"] if checkpoint is None else None,
    }
    if rows is not None:
        metrics |= {k: v for k, v in trainer.evaluate().items() if k in ("eval_loss", "eval_rewards/accuracies")}
    weights.write(folder)
    trainer.save_state()
    trainer.save_model()
    if trainer.is_world_process_zero() and (folder / "adapter_config.json").is_file():
        write_base(folder, about)
    if options.flip_rate:
        metrics["flipped_auc"] = flipped_auc(weights.values, task.train["flipped"])
    if rows is not None and before is not None:
        measured = _measure(trainer, rows, before, task.start, options, model)
        metrics |= {f"test/{key}": value for key, value in measured.items()}
    elif rows is not None:
        logger.warning(
            "intervals, length bias and KL are computed in one process: predilect align evaluate --model %s", folder
        )
    if trainer.is_world_process_zero():
        write_json(folder / METRICS_FILE, metrics)
    trainer.accelerator.wait_for_everyone()
    return metrics


def prepare_test(rows: Dataset, tokenizer: Any, training: PreferenceConfig) -> Dataset:
    """The test rows as tokens."""
    return prepare_preferences(
        rows,
        tokenizer,
        max_length=training.max_length,
        truncation_mode=training.truncation_mode,
        num_proc=training.dataset_num_proc,
        name="test",
    )


def _measure(
    trainer: Any, rows: Dataset, before: RowScores, start: str, options: StageOptions, model: LanguageModelConfig
) -> dict[str, float | None]:
    """What the test rows say of the trained model; the scores of all rows are kept."""
    training, tokenizer = trainer.args, trainer.processing_class
    after = score_rows(trainer.model, rows, tokenizer, batch_size=training.per_device_eval_batch_size)
    kept = {"logps": after.logps, "reference_logps": before.logps, "tokens": after.tokens}
    write_json(Path(training.output_dir) / "test_scores.json", kept)
    metrics = preference_report(after, before)
    if options.samples:
        prompts = rows["prompt_ids"][: options.samples]
        answers = sample_answers(
            trainer.model, tokenizer, prompts, max_new_tokens=options.max_new_tokens, seed=training.seed
        )
        reference = on_device(load_for_training(start, model)[0], training.device)
        metrics |= sampled_kl(trainer.model, reference, tokenizer, prompts, answers)
    return metrics
