"""A run's progress in the terminal: bars with time left where there is a screen, plain lines where there is none."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from predilect.leaderboard.charts import duration
from predilect.leaderboard.observer import Observer
from predilect.leaderboard.results import HEADLINE, ModelResult


class TerminalProgress(Observer):
    """Shows the whole run and the present model; a context manager.

    Args:
        console: where to print.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:18}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[status]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.total = self.bars.add_task("data", total=None, status="reading")
        self.model: Any = None

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def prepared(self, data: Any, models: list[str]) -> None:
        self.console.print(data.describe())
        self.bars.update(self.total, description="all models", total=len(models), completed=0, status="")

    def started(self, model: str, *, resumed: bool) -> None:
        self._drop()
        status = "continues from its checkpoint" if resumed else "fitting"
        self.model = self.bars.add_task(model, total=None, status=status)
        if resumed:
            self.console.print(f"{model} continues where it was interrupted", highlight=False)

    def epoch(self, model: str, record: dict[str, Any]) -> None:
        done, planned = record["epoch"], record["epochs"]
        left = duration(record["seconds"] / done * (planned - done))
        status = f"validation {HEADLINE} {record[HEADLINE]:.4f}, at most {left} left"
        self.bars.update(self.model, total=round(planned), completed=round(done), status=status)

    def step(self, model: str, done: int, planned: int) -> None:
        self.bars.update(self.model, total=planned, completed=done, status="fine-tuning")

    def ranking(self, model: str) -> None:
        self.bars.update(self.model, total=None, status="on the test rows")

    def finished(self, result: ModelResult, *, reused: bool) -> None:
        self._drop()
        self.bars.advance(self.total)
        if result.status == "failed":
            self.console.print(f"[red]{result.name:18}[/] failed: ", end="", highlight=False)
            self.console.print(result.error, markup=False, highlight=False)
            return
        seconds = duration(result.fit_seconds + result.evaluation_seconds)
        how = "kept from the earlier run" if reused else f"in {seconds}"
        self.console.print(f"{result.name:18} {result.metric} {result.headline:.4f}  {how}", highlight=False)

    def note(self, text: str) -> None:
        self.console.print(text, style="yellow", markup=False, highlight=False)

    def _drop(self) -> None:
        if self.model is not None:
            self.bars.remove_task(self.model)
            self.model = None
