"""Windows of sessions with what an agent learns from: reward, end of the episode, how many events remain."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from offline_rl_rec.sessions import Sessions
from predilect.data.rows import SequenceRows
from predilect.training import NextItemWindows


class SessionWindows(NextItemWindows):
    """`NextItemWindows` whose batches also hold `reward`, `done` and `remaining`, each (B, L), one per target.

    The state after a target is that of the next column: one pass of a backbone gives states and next states.

    Args:
        rows: of training.
        sessions: their rewards.
        stride: see `NextItemWindows`.

    Raises:
        ValueError: every episode is one row long: no row has a next state to learn from.
    """

    def __init__(self, rows: SequenceRows, sessions: Sessions, *, stride: int | None = None) -> None:
        super().__init__(
            rows.sequences, rows.user, rows.position, max_history=rows.max_history, stride=stride, weight=rows.weight
        )
        if bool(rows.done.all()):
            raise ValueError(
                "every session ends with its first row: there are no transitions to learn from; use longer sessions, "
                "or min_history=0, which makes first events rows too"
            )
        place = rows.target_place
        done = np.ones(len(rows.sequences.items), dtype=bool)
        done[place] = rows.done
        order = np.lexsort((rows.position, rows.user))
        ends = np.flatnonzero(rows.done[order])
        left = np.zeros(len(done), dtype=np.float32)
        left[place[order]] = ends[np.searchsorted(ends, np.arange(len(order)))] - np.arange(len(order))
        self.of_events = {
            "reward": torch.from_numpy(sessions.reward),
            "done": torch.from_numpy(done),
            "remaining": torch.from_numpy(left),
        }

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        """The batch of these windows: `history`, `target`, `reward`, `done`, `remaining`, and rows' `weight`."""
        batch: dict[str, Any] = super().__getitems__(indices)
        event = self._events(indices)[0].clamp(min=0)
        return batch | {name: values[event] for name, values in self.of_events.items()}
