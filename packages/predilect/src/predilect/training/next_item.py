"""Next-item training: rows and windows of sequences, and a `Trainer` with early stopping and exact resume."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import TrainOutput

from predilect.data.rows import SequenceRows, UserSequences
from predilect.evaluation.ranking import rank_metric, target_ranks
from predilect.modeling.sequential import SequentialModel
from predilect.processes import processes
from predilect.training.checkpoints import STATE_FILE, checkpoint_step, is_whole, newest_checkpoint
from predilect.training.silence import quiet
from predilect.training.trainer import Trainer

METRIC = "ndcg@10"
_WEIGHTS = "model.safetensors"


class NextItemRows(Dataset[dict[str, Tensor]]):
    """Rows of a split, each the item after one history; a whole batch is cut at once, when it is asked for."""

    def __init__(self, rows: SequenceRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def highest_item(self) -> int:
        """The largest id of a target."""
        return int(self.rows.target.max())

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """The batch of these rows: `history` (B, L), `target` (B,), and `weight` (B,) where rows have weights."""
        batch = {"history": self.rows.histories(indices), "target": self.rows.targets(indices)}
        weight = self.rows.weight
        return batch if weight is None else {**batch, "weight": torch.from_numpy(weight[indices])}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])

    def seen(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """What the users of rows `start` to `stop` took before: pairs (row, counted from `start`; item)."""
        return self.rows.seen(slice(start, stop))


class NextItemWindows(Dataset[dict[str, Tensor]]):
    """The same rows, many to an example: a window of a user's sequence and the item after each of its positions.

    Windows are as long as histories. The first of a user holds its first `max_history` targets; each further one the
    next `stride`, after at least `max_history - stride + 1` items: windows overlap, so that histories are long. Each
    row is a target once, in one window; what is no row (other parts' events, rows without enough history) is none,
    wherever in the sequence it lies.

    Args:
        sequences: what the users took.
        user, position: of the rows, (R,).
        max_history: L, the length of a window.
        stride: in 1..L; None: half of L, rounded up.
        weight: of the rows, (R,); None: all 1.

    Raises:
        ValueError: `stride` outside 1..L.
    """

    def __init__(
        self,
        sequences: UserSequences,
        user: np.ndarray,
        position: np.ndarray,
        *,
        max_history: int,
        stride: int | None = None,
        weight: np.ndarray | None = None,
    ) -> None:
        stride = (max_history + 1) // 2 if stride is None else stride
        if not 1 <= stride <= max_history:
            raise ValueError(f"stride must lie in 1..max_history = {max_history} (got {stride})")
        if weight is not None:
            user, position, weight = user[weight > 0], position[weight > 0], weight[weight > 0]
        start = sequences.offsets[user]
        event = start + position
        self.max_history, self.num_targets = max_history, len(event)
        self.items = torch.from_numpy(sequences.items)
        self.weight = torch.from_numpy(np.bincount(event, weight, minlength=len(sequences.items)).astype(np.float32))
        self.weighted = weight is not None or bool((self.weight > 1).any())  # the same row twice
        number = np.where(position < max_history, 0, 1 + (position - max_history) // stride)
        order = np.lexsort((position, user))
        changes = np.diff(user[order], prepend=-1) | np.diff(number[order], prepend=-1)
        first = np.flatnonzero(changes)
        last = np.append(first[1:], len(order))[: len(first)] - 1
        self.first, self.last, self.start = (
            torch.from_numpy(values) for values in (event[order[first]], event[order[last]], start[order[first]])
        )

    def __len__(self) -> int:
        return len(self.first)

    @property
    def highest_item(self) -> int:
        """The largest id of a target."""
        return int(self.items[self.weight > 0].max())

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """The batch of these windows: `history` and `target` (B, L), `weight` too where rows have weights.

        Columns that no window of the batch needs are left out.
        """
        event, start, first = self._events(indices)
        history = torch.where(event > start, self.items[(event - 1).clamp(min=0)], 0)
        weight = self.weight[event.clamp(min=0)] * (event >= first)
        target = torch.where(weight > 0, self.items[event.clamp(min=0)], 0)
        batch = {"history": history.long(), "target": target.long()}
        return {**batch, "weight": weight} if self.weighted else batch

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])

    def _events(self, indices: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Places in the flat arrays: of the columns' targets, (B, L); of the users' first events and of the windows'
        first targets, before which columns are context, (B, 1)."""
        chosen = torch.tensor(indices)
        first, last, start = (x[chosen, None] for x in (self.first, self.last, self.start))
        width = int(torch.maximum((last - start).clamp(max=self.max_history), last - first + 1).max())
        return last - torch.arange(width - 1, -1, -1), start, first  # histories end one event before the targets


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
    """Train a backbone on rows; keep the epoch with the best `ndcg@10` on the evaluation rows.

    Evaluation ranks the whole catalogue without what the user took before, as `predilect.evaluation.evaluate` does by
    default, except that a target which was taken before can be ranked: in a log of repeats nothing else would be left
    to choose by. Training stops after `patience` epochs without a new best.

    A run that was killed at any moment continues from its newest whole checkpoint, with the order of the data, the
    dropout masks, the optimizer and the count of epochs without progress of an unbroken run: both end with the same
    weights (to the last bit on the same machine with the same number of threads).

    Args:
        model: the backbone.
        args: from `next_item_arguments`.
        train_dataset: `NextItemWindows` or `NextItemRows`; batches of what the model's `forward` takes.
        eval_dataset: rows to choose the epoch by.
        patience: number of evaluations without a new best after which training stops.
        callbacks: more `TrainerCallback`s, for example a progress bar.

    Raises:
        ValueError: a data set without rows; an item that the model does not have; `patience` < 1.
    """

    def __init__(
        self,
        model: SequentialModel,
        args: TrainingArguments,
        train_dataset: NextItemRows | NextItemWindows,
        eval_dataset: NextItemRows,
        *,
        patience: int = 5,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        for part, rows in (("train", train_dataset), ("validation", eval_dataset)):
            if not len(rows):
                raise ValueError(f"the split has no {part} rows: use other ratios, or a lower k-core or min_history")
            if rows.highest_item > model.config.num_items:
                raise ValueError(
                    f"the {part} data has {rows.highest_item} items (got a model of {model.config.num_items})"
                )
        if patience < 1:
            raise ValueError(f"patience must be at least 1 (got {patience})")
        super().__init__(
            model,
            args,
            data_collator=lambda batch: batch,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=[EarlyStoppingCallback(patience), *callbacks],
        )

    def train(
        self, resume_from_checkpoint: bool | str | Path | None = None, *, overwrite: bool = False, **kwargs: Any
    ) -> TrainOutput:
        """Train; leaves the best epoch's weights in the model.

        Args:
            resume_from_checkpoint: continue from this checkpoint; True: from the newest whole one in the output
                folder, and from the start where there is none. What a killed run left half-written there is removed.
            overwrite: delete the output folder's whole checkpoints that are not continued from.
            **kwargs: as for `Trainer.train`.

        Raises:
            ValueError: the given checkpoint is not whole; or, without `overwrite`, the output folder has whole
                checkpoints that are not continued from: they would be mixed with those of this run.
        """
        checkpoint = self._chosen_checkpoint(resume_from_checkpoint)
        self.run_folder = Path(self.args.output_dir) if checkpoint is None else checkpoint.parent
        self._make_room(checkpoint, overwrite)
        with quiet():
            if checkpoint is None:
                return super().train(**kwargs)
            state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
            if self._has_stopped(state):
                return self._finish(state)
            return super().train(resume_from_checkpoint=str(checkpoint), **kwargs)

    def _chosen_checkpoint(self, resume: bool | str | Path | None) -> Path | None:
        if resume is None or isinstance(resume, bool):
            return newest_checkpoint(self.args.output_dir) if resume else None
        if not is_whole(Path(resume)):
            raise ValueError(f"{resume} is not a whole checkpoint: pass another one, or True for the newest whole one")
        return Path(resume)

    def _make_room(self, checkpoint: Path | None, overwrite: bool) -> None:
        """Nothing later than `checkpoint` stays in the folder: it would count as this run's."""
        folder = Path(self.args.output_dir)
        step = -1 if checkpoint is None else checkpoint_step(checkpoint)
        later = [other for other in folder.glob("checkpoint-*") if checkpoint_step(other) > step]
        whole = sorted(other.name for other in later if is_whole(other))
        self.accelerator.wait_for_everyone()  # every process has chosen before one of them deletes
        if whole and not overwrite:
            raise ValueError(
                f"{folder} holds {', '.join(whole)} of an earlier run: continue it (resume_from_checkpoint=True), "
                "delete them (overwrite=True), or choose another output_dir"
            )
        if self.is_world_process_zero():
            for other in later:
                shutil.rmtree(other)
        self.accelerator.wait_for_everyone()

    def evaluate(
        self, eval_dataset: NextItemRows | None = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """`ndcg@10` of the evaluation rows, or of other rows; `ignore_keys` exists for `Trainer`."""
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        values = rank_metric(self._ranks(rows).numpy(), METRIC)
        metrics = {f"{metric_key_prefix}_{METRIC}": float(values.mean())}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.inference_mode()
    def _ranks(self, rows: NextItemRows) -> Tensor:
        self.model.eval()
        ranks, size = [], self.args.eval_batch_size
        for start in range(0, len(rows), size):
            stop = min(start + size, len(rows))
            batch = rows.__getitems__(list(range(start, stop)))
            scores = self.model.scores(batch["history"].to(self.args.device))
            ranks.append(target_ranks(scores.float(), batch["target"], exclude=rows.seen(start, stop)).cpu())
        return torch.cat(ranks)

    def on_resumed(self) -> None:
        """The best checkpoint lies beside the one continued from, whatever that folder was called before."""
        if self.state.best_global_step:
            best = self.run_folder / f"checkpoint-{self.state.best_global_step}"
            self.state.best_model_checkpoint = str(best)

    @staticmethod
    def _has_stopped(state: TrainerState) -> bool:
        """Whether early stopping ended the run that wrote this state: `Trainer` would go on for one more step."""
        stopping = state.stateful_callbacks.get(EarlyStoppingCallback.__name__)
        if stopping is None:
            return False
        failures, patience = stopping["attributes"]["early_stopping_patience_counter"], stopping["args"]
        return bool(failures >= patience["early_stopping_patience"])

    def _finish(self, state: TrainerState) -> TrainOutput:
        self.state = state
        self.on_resumed()
        self.model.load_state_dict(load_file(Path(state.best_model_checkpoint) / _WEIGHTS))
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        return TrainOutput(state.global_step, losses[-1], {})
