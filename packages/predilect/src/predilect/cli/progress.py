"""Progress in the terminal: of a fit, and of a file that is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback

_NOT_SHOWN = ("_runtime", "_per_second", "_loss")


class TrainingProgress(TrainerCallback):
    """One bar per stage, named after its folder, and one line per validated epoch; a context manager.

    A line holds the loss, the validation metric that epochs are chosen by (`*`: the best so far), and whatever else
    the trainer measures.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            TextColumn("{task.description:12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task: Any = None
        self.logged: dict[str, float] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A stage, or the training of the retriever."""
        name = Path(args.output_dir).name
        self.task = self.bars.add_task(name, total=state.max_steps, completed=state.global_step, status="")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bars.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The loss since the last log, and what the epoch's line will tell."""
        self.logged.update(kwargs.get("logs") or {})
        if (loss := self.logged.get("loss")) is not None:
            self.bars.update(self.task, status=f"loss {float(loss):.3f}")

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The line of an epoch."""
        metric = f"eval_{(args.metric_for_best_model or '').removeprefix('eval_')}"
        if (reached := self.logged.get(metric)) is None:
            return
        best = state.best_metric is None or reached > state.best_metric
        line = f"epoch {state.epoch:.0f}: loss {self.logged.get('loss', float('nan')):.4f}, validation "
        line += f"{metric.removeprefix('eval_')} {reached:.4f}{'*' if best else ''}"
        others = {
            name.removeprefix("eval_").replace("items_", ""): value
            for name, value in self.logged.items()
            if name.startswith("eval_") and name != metric and not name.endswith(_NOT_SHOWN)
        }
        if others:
            line += "; " + ", ".join(f"{name} {value:.3f}" for name, value in others.items())
        self.console.print(line, highlight=False, soft_wrap=True)


@contextmanager
def file_progress(what: str) -> Iterator[Callable[[float, int], None]]:
    """A bar on standard error, where that is a terminal; it is told the share of a file, 0..1, and the rows so far."""
    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bars:
        task = bars.add_task(what, total=1.0, rows=0)
        yield lambda share, rows: bars.update(task, completed=share, rows=rows)
