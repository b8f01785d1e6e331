"""Next-item training: `transformers.Trainer` on tensors, with early stopping and exact resume."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from predilect.data.splits import RowTensors, SequenceSplits
from predilect.evaluation.ranking import rank_metric, target_ranks
from predilect.modeling.sequential import SequentialModel
from predilect.processes import processes

METRIC = "ndcg@10"
_STATE = "trainer_state.json"
_WEIGHTS = "model.safetensors"


class NextItemRows(Dataset[dict[str, Tensor]]):
    """Rows of a split; a whole batch is cut from the tensors by one index, and the collator has nothing left to do."""

    def __init__(self, rows: RowTensors) -> None:
        self.history, self.target = rows.history, rows.target

    def __len__(self) -> int:
        return len(self.target)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """The batch of these rows: `history` (B, L) and `target` (B,)."""
        chosen = torch.tensor(indices)
        return {"history": self.history[chosen], "target": self.target[chosen]}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])


def next_item_arguments(
    output_dir: str | Path, *, max_epochs: int, batch_size: int, **options: Any
) -> TrainingArguments:
    """`TrainingArguments` for `NextItemTrainer`: evaluate and save once per epoch, silent, nothing computed for logs
    only.

    Args:
        output_dir: where checkpoints go.
        max_epochs: training ends here at the latest.
        batch_size: rows per optimizer step, in training, over all processes; evaluation uses 1024.
        **options: any other field of `TrainingArguments`; wins over what is set here.
    """
    count = processes().num_processes
    if batch_size % count:
        raise ValueError(f"batch_size must be a multiple of the {count} processes (got {batch_size})")
    defaults: dict[str, Any] = {
        "num_train_epochs": max_epochs,
        "per_device_train_batch_size": batch_size // count,
        "per_device_eval_batch_size": 1024,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_strategy": "epoch",
        "save_total_limit": 2,  # the best and the newest
        "load_best_model_at_end": True,
        "metric_for_best_model": METRIC,
        "greater_is_better": True,
        "restore_callback_states_from_checkpoint": True,  # the count of epochs without progress
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,  # the data set lies in memory; pinning copies each batch once more
        "logging_nan_inf_filter": False,  # reads the loss back at every step
        "disable_tqdm": True,
        "use_cpu": not torch.accelerator.is_available(),
        "report_to": [],
    }
    return TrainingArguments(output_dir=str(output_dir), **{**defaults, **options})


class NextItemTrainer(Trainer):
    """Train a backbone on the rows of a split; keep the epoch with the best `ndcg@10` on its validation rows.

    Validation ranks the whole catalogue without what the user took before, as `predilect.evaluation.evaluate` does by
    default. Training stops after `patience` epochs without a new best.

    A run that was killed at any moment continues from its newest whole checkpoint, with the order of the data, the
    dropout masks, the optimizer and the count of epochs without progress of an unbroken run: both end with the same
    weights (to the last bit on the same machine with the same number of threads).

    Args:
        model: the backbone.
        args: from `next_item_arguments`.
        splits: the data.
        patience: number of evaluations without a new best after which training stops.
        callbacks: more `TrainerCallback`s, for example a progress bar.

    Raises:
        ValueError: no training or no validation rows; the model has another number of items than the data; `patience`
            < 1.
    """

    def __init__(
        self,
        model: SequentialModel,
        args: TrainingArguments,
        splits: SequenceSplits,
        *,
        patience: int = 5,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        for part in ("train", "validation"):
            if not len(splits.part(part)):
                raise ValueError(f"the split has no {part} rows: use other ratios, or a lower k-core or min_history")
        if model.config.num_items != splits.num_items:
            raise ValueError(f"the data has {splits.num_items} items (got a model of {model.config.num_items})")
        if patience < 1:
            raise ValueError(f"patience must be at least 1 (got {patience})")
        self.validation = splits.tensors("validation")
        self.seen = splits.sequences.past(self.validation.user_id.numpy(), self.validation.position.numpy())
        super().__init__(
            model,
            args,
            data_collator=lambda batch: batch,
            train_dataset=NextItemRows(splits.tensors("train")),
            eval_dataset=NextItemRows(self.validation),
            callbacks=[EarlyStoppingCallback(patience), *callbacks],
        )
        self.remove_callback(PrinterCallback)

    def train(self, resume_from_checkpoint: bool | None = None, **kwargs: Any) -> TrainOutput:
        """Train; leaves the best epoch's weights in the model.

        Args:
            resume_from_checkpoint: continue from the newest whole checkpoint in the output folder; without one, or if
                False, start anew. Checkpoints that are not continued from are deleted.
            **kwargs: as for `Trainer.train`.
        """
        folder = Path(self.args.output_dir)
        checkpoint = newest_checkpoint(folder) if resume_from_checkpoint else None
        keep = -1 if checkpoint is None else _step(checkpoint)
        self.accelerator.wait_for_everyone()  # every process has chosen before one of them deletes
        if self.is_world_process_zero():
            for other in folder.glob("checkpoint-*"):
                if _step(other) > keep or checkpoint is None:
                    shutil.rmtree(other)
        self.accelerator.wait_for_everyone()
        with quiet():
            if checkpoint is None:
                return super().train(**kwargs)
            state = TrainerState.load_from_json(str(checkpoint / _STATE))
            if self._has_stopped(state):
                return self._finish(state)
            return super().train(resume_from_checkpoint=str(checkpoint), **kwargs)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """`ndcg@10` on the validation rows; the arguments exist for `Trainer`, which passes none that matters here."""
        values = rank_metric(self._validation_ranks().numpy(), METRIC)
        metrics = {f"{metric_key_prefix}_{METRIC}": float(values.mean())}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: Any) -> int:
        """0: the count of `Trainer` walks through all parameters at every step and is wrong for these models."""
        return 0

    @torch.inference_mode()
    def _validation_ranks(self) -> Tensor:
        self.model.eval()
        rows, items = self.seen
        ranks, size = [], self.args.eval_batch_size
        for start in range(0, len(self.validation), size):
            batch = slice(start, start + size)
            scores = self.model.scores(self.validation.history[batch].to(self.args.device))
            first, last = np.searchsorted(rows, (start, start + size))
            exclude = (rows[first:last] - start, items[first:last])
            ranks.append(target_ranks(scores.float(), self.validation.target[batch], exclude=exclude).cpu())
        return torch.cat(ranks)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        return grad_norm  # `Trainer` computes a norm at every step for its log even where nothing is clipped

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        # `Trainer` would add its arguments as a pickle
        self.model.save_pretrained(output_dir or self.args.output_dir, state_dict=state_dict)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        position: tuple[int, int] = super()._init_training_state(*args, **kwargs)
        self._locate_best()
        return position

    def _locate_best(self) -> None:
        """The best checkpoint lies in our folder, whatever the folder was called when it was written."""
        if self.state.best_global_step:
            best = Path(self.args.output_dir) / f"checkpoint-{self.state.best_global_step}"
            self.state.best_model_checkpoint = str(best)

    @staticmethod
    def _has_stopped(state: TrainerState) -> bool:
        """Whether early stopping ended the run that wrote this state: `Trainer` would go on for one more step."""
        stopping = state.stateful_callbacks[EarlyStoppingCallback.__name__]
        failures, patience = stopping["attributes"]["early_stopping_patience_counter"], stopping["args"]
        return bool(failures >= patience["early_stopping_patience"])

    def _finish(self, state: TrainerState) -> TrainOutput:
        self.state = state
        self._locate_best()
        self.model.load_state_dict(load_file(Path(state.best_model_checkpoint) / _WEIGHTS))
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        return TrainOutput(state.global_step, losses[-1], {})


def newest_checkpoint(folder: str | Path) -> Path | None:
    """The newest checkpoint that was written to its end; None if there is none.

    `Trainer` writes the state last; a process killed before leaves a folder without it, or with half of it.
    """
    checkpoints = sorted(Path(folder).glob("checkpoint-*"), key=_step, reverse=True)
    return next((checkpoint for checkpoint in checkpoints if _is_whole(checkpoint)), None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _is_whole(checkpoint: Path) -> bool:
    parts = ("config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth")
    if not all((checkpoint / part).is_file() for part in parts):
        return False
    try:
        json.loads((checkpoint / _STATE).read_text())
        with safe_open(checkpoint / _WEIGHTS, "pt") as weights:
            return len(list(weights.keys())) > 0
    except (OSError, ValueError, SafetensorError):
        return False


@contextmanager
def quiet() -> Iterator[None]:
    """No messages and no progress bars of transformers; what the user has set is put back."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
