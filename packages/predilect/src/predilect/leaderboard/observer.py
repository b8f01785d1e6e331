"""What a run tells about its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predilect.leaderboard.results import ModelResult


class Observer:
    """Told about every step of a run; a subclass overrides what it wants to know, by default nothing is done."""

    def prepared(self, data: Any, models: list[str]) -> None:
        """The data is ready, with a `describe()`; `models` will run in this order."""

    def started(self, model: str, *, resumed: bool) -> None:
        """A model begins to fit; `resumed`: from an earlier run's checkpoint."""

    def epoch(self, model: str, record: dict[str, Any]) -> None:
        """An epoch is over: `epoch`, `epochs`, `ndcg@10` on validation, `seconds`."""

    def step(self, model: str, done: int, planned: int) -> None:
        """An optimizer step of a training without validation is over."""

    def ranking(self, model: str) -> None:
        """The model is fitted and begins with the test rows."""

    def finished(self, result: ModelResult, *, reused: bool) -> None:
        """A model is done, or failed; `reused`: its result was in the output folder already."""

    def note(self, text: str) -> None:
        """Something that the person should know."""
