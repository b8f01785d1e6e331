"""One alignment run, from preferences to a saved model with its metrics and plots.

`predilect align ...`, `python -m pref_losses.align ...` and `accelerate launch -m pref_losses.align ...` are the same command.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer, get_peft_config

import pref_losses.trainer as trainers
from predilect.evaluation import ClassificationMetrics
from predilect.leaderboard.storage import read_json, write_json
from pref_losses.align_data import flip_preferences, load_rows
from pref_losses.align_evaluate import (
    RUN_FILE,
    RowScores,
    preference_report,
    sample_answers,
    sampled_kl,
    score_rows,
)
from pref_losses.align_models import load_for_training
from pref_losses.align_options import METHODS, AlignOptions, LanguageModelConfig, StageOptions, parse_align
from pref_losses.align_storage import WEIGHTS_FILE, evaluation_options, fingerprint, newest_checkpoint, open_folder
from pref_losses.config import PreferenceConfig
from pref_losses.data import prepare_preferences

logger = logging.getLogger(__name__)
METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class Task:
    """What several runs may share: data, the model to start from, and its scores of the test rows.

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
    options, training, model = parse_align(arguments)
    metrics = align(options, training, model)
    if PartialState().is_main_process:
        for name, value in metrics.items():
            print(f"{name:<28} {value:.4g}" if isinstance(value, float) else f"{name:<28} {value}")
        print(f"model, metrics and plots: {training.output_dir}")


def align(options: AlignOptions, training: PreferenceConfig, model: LanguageModelConfig) -> dict[str, Any]:
    """Run the whole of `predilect align`; a finished run that is resumed gives its metrics again.

    Raises:
        ValueError: an output folder in use, or one of another run; data that cannot be used.
    """
    assert options.method is not None
    folder = Path(training.output_dir)
    start = start_model(options, model, folder)
    now = {
        "options": fingerprint(options, training, model),
        "evaluation": evaluation_options(options, training, start),
    }
    state = PartialState()
    if state.is_main_process:
        open_folder(folder, RUN_FILE, now, resume=options.resume, overwrite=options.overwrite)
    state.wait_for_everyone()
    if (folder / METRICS_FILE).is_file():
        finished: dict[str, Any] = read_json(folder / METRICS_FILE)
        return finished
    task = prepare_task(options, training, model, folder)
    metrics = train_method(options.method, task, options, training, model)
    if state.is_main_process:
        _write_plots(folder, options.method)
    return metrics


def start_model(options: StageOptions, model: LanguageModelConfig, folder: Path) -> str:
    """What training starts from: the model named, or what its supervised fine-tuning leaves in `folder`."""
    assert model.model_name_or_path is not None
    return str(folder / "sft") if options.sft_steps or options.sft_epochs else model.model_name_or_path


def prepare_task(options: StageOptions, training: PreferenceConfig, model: LanguageModelConfig, folder: Path) -> Task:
    """Load and split the data, fine-tune if asked to, flip pairs if asked to.

    Fine-tuning sees the chosen answers before any flip, so that every flip rate starts from the same model.
    """
    with PartialState().main_process_first():
        train, test = load_rows(options)
    if options.sft_steps or options.sft_epochs:
        fine_tune(train, options, training, model, folder / "sft")
    if options.flip_rate:
        with PartialState().main_process_first():
            train = flip_preferences(train, options.flip_rate, options.split_seed)
        if PartialState().is_main_process:
            flipped = [row for row, was in enumerate(train["flipped"]) if was]
            write_json(folder / "flipped.json", {"seed": options.split_seed, "of": len(train), "rows": flipped})
    return Task(train, test, start_model(options, model, folder))


def fine_tune(
    rows: Dataset, options: StageOptions, training: PreferenceConfig, model: LanguageModelConfig, folder: Path
) -> None:
    """Supervised fine-tuning on the chosen answers; what is finished is kept, what is not goes on from its checkpoint."""
    done = folder / "sft.json"
    if done.is_file():
        return
    assert model.model_name_or_path is not None
    network, tokenizer = load_for_training(model.model_name_or_path, model)
    own = ("prompt", "chosen")
    pairs = rows.select_columns(list(own)).rename_column("chosen", "completion")
    same = (
        "per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "bf16", "fp16", "max_length", "seed", "use_cpu",
        "logging_steps", "save_strategy", "save_steps", "save_total_limit", "report_to", "disable_tqdm", "dataset_num_proc",
    )  # fmt: skip
    config = SFTConfig(
        str(folder),
        num_train_epochs=options.sft_epochs or 1,
        max_steps=options.sft_steps or -1,
        learning_rate=options.sft_learning_rate,
        **{name: getattr(training, name) for name in same},
    )
    trainer = SFTTrainer(
        network, config, train_dataset=pairs, processing_class=tokenizer, peft_config=_new_adapter(network, model)
    )
    trainer.train(resume_from_checkpoint=_checkpoint(folder))
    trainer.save_model()
    if trainer.is_world_process_zero():
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        write_json(done, {"steps": trainer.state.global_step, "rows": len(pairs), "losses": losses})
    trainer.accelerator.wait_for_everyone()


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
    rows = prepared_test(task, tokenizer, training)
    alone = PartialState().num_processes == 1
    if rows is not None and before is None and alone:
        before = score_rows(network, rows, tokenizer, batch_size=training.per_device_eval_batch_size)
    trainer = getattr(trainers, METHODS[method].trainer)(
        network,
        args=training,
        train_dataset=task.train,
        eval_dataset=task.test,
        processing_class=tokenizer,
        peft_config=_new_adapter(network, model),
    )
    checkpoint = training.resume_from_checkpoint or _checkpoint(folder)
    trainer.add_callback(_KeepWeights(trainer, checkpoint))
    started = time.monotonic()
    result = trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.monotonic() - started
    metrics = {
        "method": method,
        "seed": training.seed,
        "steps": trainer.state.global_step,
        "train_loss": result.training_loss,
        "train_rows": len(task.train),
        "train_seconds": seconds,  # of this start: a resumed run does not know what went before
    }
    if task.test is not None:
        metrics |= {k: v for k, v in trainer.evaluate().items() if k in ("eval_loss", "eval_rewards/accuracies")}
    if options.flip_rate:
        metrics["flipped_auc"] = flipped_auc(trainer.example_weights, task.train["flipped"])
    if rows is not None and before is not None:
        after = score_rows(trainer.model, rows, tokenizer, batch_size=training.per_device_eval_batch_size)
        metrics |= {f"test/{key}": value for key, value in preference_report(after, before).items()}
        write_json(
            folder / "test_scores.json",
            {"logps": after.logps, "reference_logps": before.logps, "tokens": after.tokens},
        )
        if options.samples:
            metrics |= _kl(trainer.model, task, rows, tokenizer, options, training, model)
    elif rows is not None:
        logger.warning(
            "intervals, length bias and KL are computed in one process: predilect align evaluate --model %s", folder
        )
    trainer.save_state()
    trainer.save_model()
    if trainer.is_world_process_zero():
        _write_weights(folder, trainer.example_weights)
        write_json(folder / METRICS_FILE, metrics)
    trainer.accelerator.wait_for_everyone()
    return metrics


def prepared_test(task: Task, tokenizer: Any, training: PreferenceConfig) -> Dataset | None:
    """The test rows as tokens."""
    if task.test is None:
        return None
    cut = {"max_length": training.max_length, "truncation_mode": training.truncation_mode}
    return prepare_preferences(task.test, tokenizer, **cut, name="test")


def flipped_auc(weights: Mapping[int, float], flipped: Sequence[bool]) -> float | None:
    """How well an example's weight tells clean pairs from flipped ones: the probability that a clean one weighs more, 0.5 is chance.

    Every example counts with its weight when it was last seen. None where all are clean or all are flipped.
    """
    seen = sorted(weights)
    labels = [int(not flipped[row]) for row in seen]
    if len(set(labels)) < 2:
        return None
    metrics = ClassificationMetrics(threshold=1.0)
    metrics.update([weights[row] for row in seen], labels)
    return metrics.compute()["auc_roc"]


def read_weights(folder: Path) -> dict[int, float]:
    """The weights of the examples that a run or checkpoint kept: row -> weight when last seen."""
    return {int(row): weight for row, weight in read_json(folder / WEIGHTS_FILE).items()}


class _KeepWeights(TrainerCallback):
    """Puts the examples' weights into every checkpoint, and back from the one that training goes on with."""

    def __init__(self, trainer: Any, checkpoint: str | None) -> None:
        self.trainer = trainer
        if checkpoint is not None and (Path(checkpoint) / WEIGHTS_FILE).is_file():
            trainer.example_weights.update(read_weights(Path(checkpoint)))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            _write_weights(folder, self.trainer.example_weights)


def _write_weights(folder: Path, weights: Mapping[int, float]) -> None:
    write_json(folder / WEIGHTS_FILE, {str(row): weights[row] for row in sorted(weights)})


def _kl(
    policy: Any,
    task: Task,
    rows: Dataset,
    tokenizer: Any,
    options: StageOptions,
    training: PreferenceConfig,
    model: LanguageModelConfig,
) -> dict[str, Any]:
    prompts = rows["prompt_ids"][: options.samples]
    how = {"max_new_tokens": options.max_new_tokens, "seed": training.seed}
    answers = sample_answers(policy, tokenizer, prompts, **how)
    reference, _ = load_for_training(task.start, model)
    return {f"test/{key}": value for key, value in sampled_kl(policy, reference, tokenizer, prompts, answers).items()}


def _new_adapter(network: Any, model: LanguageModelConfig) -> Any:
    """The config of a new adapter, unless the model brings one."""
    return None if hasattr(network, "peft_config") else get_peft_config(model)


def _checkpoint(folder: Path) -> str | None:
    found = newest_checkpoint(folder)
    return None if found is None else str(found)


def _write_plots(folder: Path, method: str) -> None:
    from pref_losses.align_plots import write_plots

    try:
        write_plots({method: read_json(folder / "trainer_state.json")["log_history"]}, folder)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        print("no plots: matplotlib is not installed (pip install 'pref-losses[plots]')", file=sys.stderr)


def _launched() -> None:
    """As a module, a wrong option is one line and not a traceback."""
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    _launched()
