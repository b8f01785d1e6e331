"""What weight every example had in training, and how well that tells flipped pairs from clean ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback

from predilect.evaluation import ClassificationMetrics
from predilect.runs import read_json, write_json

WEIGHTS_FILE = "example_weights.json"


class ExampleWeights(TrainerCallback):
    """The weight of every example when it was last seen, in whatever process; kept in checkpoints.

    Args:
        trainer: a `PreferenceTrainer`, whose `example_weights` are those of one process.
        checkpoint: folder that training goes on from.
    """

    def __init__(self, trainer: Any, checkpoint: str | None) -> None:
        self._trainer = trainer
        self.values: dict[int, float] = {} if checkpoint is None else read_weights(Path(checkpoint))

    def collect(self) -> dict[int, float]:
        """Row -> weight, over all processes; every process must call this."""
        for part in gather_object([dict(self._trainer.example_weights)]):
            self.values |= part
        self._trainer.example_weights.clear()  # so that an older weight never goes over another process's newer one
        return self.values

    def write(self, folder: Path) -> None:
        """Collect, and write the file in the main process."""
        values = self.collect()
        if self._trainer.is_world_process_zero():
            write_json(folder / WEIGHTS_FILE, {str(row): values[row] for row in sorted(values)})

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Within an epoch an example is seen by one process only."""
        self.collect()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.write(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def read_weights(folder: Path) -> dict[int, float]:
    """The weights that a run or checkpoint kept: row -> weight when last seen."""
    return {int(row): weight for row, weight in (read_json(folder / WEIGHTS_FILE) or {}).items()}


def flipped_auc(weights: Mapping[int, float], flipped: Sequence[bool]) -> float | None:
    """The probability that a clean pair weighs more than a flipped one; 0.5 is chance, None: all are of one kind.

    Examples:
        >>> flipped_auc({0: 2.0, 1: 0.5, 2: 1.0, 3: 1.0}, [False, True, False, True])  # three wins and a tie of four
        0.875
    """
    seen = sorted(weights)
    labels = [int(not flipped[row]) for row in seen]
    if len(set(labels)) < 2:
        return None
    metrics = ClassificationMetrics(threshold=1.0)
    metrics.update([weights[row] for row in seen], labels)
    return metrics.compute()["auc_roc"]
