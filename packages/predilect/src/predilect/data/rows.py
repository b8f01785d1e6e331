"""Rows of next-item prediction: places in everybody's sequences, from which histories are cut when they are needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from predilect.data.arrow import as_dataset, list_column

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

Index = slice | np.ndarray | list[int]
_BATCH = 1 << 16


@dataclass(frozen=True)
class UserSequences:
    """All events of every user in time order, as flat arrays (compressed rows).

    Attributes:
        items: item ids, user after user, shape (interactions,), int32.
        offsets: user `u` (0..U-1) owns `items[offsets[u]:offsets[u + 1]]`, shape (U + 1,), int64.
        timestamp: of each event, int64; None where there is no clock.
        rating: of each event, float32; None where there are none.
        event: code of each event's behaviour, int8, into `events`; None where the log has one behaviour.
        events: names of behaviours, such as ("click", "purchase").
    """

    items: np.ndarray
    offsets: np.ndarray
    timestamp: np.ndarray | None = None
    rating: np.ndarray | None = None
    event: np.ndarray | None = None
    events: tuple[str, ...] = ()

    def past(self, users: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Everything each user took before `positions`: pairs (row, item id), two arrays of equal length."""
        return self._pairs(self.offsets[users], positions.astype(np.int64))

    def whole(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Everything each user ever took: pairs (row, item id)."""
        return self._pairs(self.offsets[users], self.offsets[users + 1] - self.offsets[users])

    def _pairs(self, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.repeat(np.arange(len(starts)), lengths)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return rows, self.items[np.repeat(starts, lengths) + within]


@dataclass(frozen=True)
class SequenceRows:
    """Rows of one part: the target is the event of `user` at `position`, its history all that came before.

    A row holds two numbers, whatever the length of its history.

    Attributes:
        sequences: of all users.
        user: (R,) int32.
        position: (R,) int32, the target's place in its user's sequence, from 0.
        max_history: longest history; what is older is cut off.
        done: (R,) bool, whether the user's events of this part end with the target: there is no next state.
        weight: (R,) float32 weight of the row's loss in training; None: all 1.
        candidates: (R, C) int32 fixed candidate sets, the target among them; None: none.
    """

    sequences: UserSequences
    user: np.ndarray
    position: np.ndarray
    max_history: int
    done: np.ndarray
    weight: np.ndarray | None = None
    candidates: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.user)

    @property
    def target_event(self) -> np.ndarray:
        """(R,) int64, where the targets stand in the flat arrays of `sequences`."""
        place: np.ndarray = self.sequences.offsets[self.user] + self.position
        return place

    @property
    def target(self) -> np.ndarray:
        """(R,) int64 item ids."""
        items: np.ndarray = self.sequences.items[self.target_event].astype(np.int64)
        return items

    @property
    def timestamp(self) -> np.ndarray:
        """(R,) int64 times of the targets; their order where the log has no clock."""
        time = self.sequences.timestamp
        result: np.ndarray = self.target_event if time is None else time[self.target_event]
        return result

    @property
    def rating(self) -> np.ndarray:
        """(R,) float32 ratings of the targets; 1 where the log has none."""
        rating = self.sequences.rating
        result: np.ndarray = (
            np.ones(len(self), dtype=np.float32) if rating is None else rating[self.target_event]
        )
        return result

    @property
    def event(self) -> np.ndarray | None:
        """(R,) int8 codes of the targets' behaviour into `sequences.events`; None where the log has one."""
        event = self.sequences.event
        return None if event is None else event[self.target_event]

    @property
    def history_length(self) -> np.ndarray:
        """(R,) items in each row's history, at most `max_history`."""
        length: np.ndarray = np.minimum(self.position, self.max_history)
        return length

    def histories(self, index: Index | None = None) -> torch.Tensor:
        """(B, max_history) int64: histories, oldest first, padded with 0 on the left; of all rows, or of some."""
        return self._cut(index, 0)

    def next_histories(self, index: Index | None = None) -> torch.Tensor:
        """(B, max_history) int64: histories with the target appended, the state after the row; see `done`."""
        return self._cut(index, 1)

    def _cut(self, index: Index | None, more: int) -> torch.Tensor:
        import torch

        rows = self if index is None else self.select(index)
        end = rows.target_event[:, None] + more
        columns = np.arange(-self.max_history, 0)
        there = columns >= -(rows.position[:, None] + more)
        cut = np.where(there, rows.sequences.items[np.where(there, end + columns, 0)], 0)
        return torch.from_numpy(cut.astype(np.int64))

    def targets(self, index: Index | None = None) -> torch.Tensor:
        """(B,) int64 targets as a tensor."""
        import torch

        return torch.from_numpy(self.target if index is None else self.select(index).target)

    def candidate_sets(self, index: Index | None = None) -> torch.Tensor | None:
        """(B, C) int64 candidates as a tensor; None where there are none."""
        import torch

        if self.candidates is None:
            return None
        chosen = self.candidates if index is None else self.candidates[index]
        return torch.from_numpy(chosen.astype(np.int64))

    def seen(self, index: Index | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Everything the users took before their targets: pairs (row within `index`, item id)."""
        rows = self if index is None else self.select(index)
        return rows.sequences.past(rows.user, rows.position)

    def select(self, index: Index) -> SequenceRows:
        """Some of the rows, in the order of `index`."""
        if not isinstance(index, slice):
            index = np.asarray(index, dtype=np.int64)
        names = ("user", "position", "done", "weight", "candidates")
        columns = {name: getattr(self, name) for name in names}
        return replace(self, **{name: None if c is None else c[index] for name, c in columns.items()})

    def with_weights(self, weight: np.ndarray) -> SequenceRows:
        """The rows with these weights in training.

        Raises:
            ValueError: another number of weights than of rows; a weight that is negative or not finite.
        """
        weight = np.asarray(weight, dtype=np.float32)
        if weight.shape != (len(self),):
            raise ValueError(f"weights must be one per row, shape ({len(self)},) (got {weight.shape})")
        if not np.isfinite(weight).all() or (weight < 0).any():
            row = int(np.argmin(np.isfinite(weight) & (weight >= 0)))
            raise ValueError(f"weights must be finite and at least 0 (got {weight[row]} in row {row})")
        return replace(self, weight=weight)

    def to_dataset(self) -> Dataset:
        """The rows as a table for people: `user_id`, `history` (list of item ids), `target`, `timestamp`, `position`,
        and where the rows have them `rating`, `event` (name), `weight`, `candidates`."""
        import pyarrow as pa

        lengths = self.history_length
        starts = np.repeat(self.target_event - lengths, lengths)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        columns: dict[str, Any] = {
            "user_id": self.user,
            "history": list_column(self.sequences.items[starts + within], lengths),
            "target": self.target.astype(np.int32),
            "timestamp": self.timestamp,
            "position": self.position,
        }
        if self.sequences.rating is not None:
            columns["rating"] = self.rating
        if (event := self.event) is not None:
            columns["event"] = np.array(self.sequences.events, dtype=object)[event]
        if self.weight is not None:
            columns["weight"] = self.weight
        if self.candidates is not None:
            size = self.candidates.shape[1]
            columns["candidates"] = list_column(self.candidates.astype(np.int32).ravel(), np.full(len(self), size))
        return as_dataset(pa.table(columns))


def ends_of_users(user: np.ndarray, position: np.ndarray) -> np.ndarray:
    """(E,) bool: whether no event of the same user, of those given, comes later."""
    last = np.full(int(user.max(initial=-1)) + 1, -1, dtype=np.int64)
    np.maximum.at(last, user, position)
    done: np.ndarray = position == last[user]
    return done
