"""A fit's progress in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from transformers import TrainerCallback


class EpochLines(TrainerCallback):
    """One line an epoch: the loss, the validation `ndcg@10` (`*`: the best so far), the item table's metrics."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.logged: dict[str, float] = {}

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What the epoch's line will tell."""
        self.logged.update(kwargs.get("logs") or {})

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The line."""
        logs, reached = self.logged, self.logged["eval_ndcg@10"]
        best = state.best_metric is None or reached > state.best_metric
        items = ", ".join(
            f"{name} {logs[f'eval_items_{name}']:.3f}" for name in ("variance", "effective_rank", "margin")
        )
        line = (
            f"epoch {state.epoch:.0f}: loss {logs['loss']:.4f}, validation ndcg@10 {reached:.4f}{'*' if best else ''}"
        )
        self.console.print(f"{line}; items: {items}", highlight=False, soft_wrap=True)
