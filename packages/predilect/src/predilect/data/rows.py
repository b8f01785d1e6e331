"""Rows of next-item prediction: places in everybody's sequences, from which histories are cut when they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from predilect.data.arrow import as_dataset, list_column

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

PARTS = ("train", "validation", "test")
Index = slice | np.ndarray | Sequence[int]
_ALL = slice(None)


@dataclass(frozen=True)
class UserSequences:
    """All events of every user in time order, as flat arrays (compressed rows).

    Attributes:
        items: item ids, user after user, shape (interactions,), int32.
        offsets: user `u` (0..U-1) owns `items[offsets[u]:offsets[u + 1]]`, shape (U + 1,), int64.
        timestamp: of each event, int64; None where there is no clock.
        rating: of each event, float32; None where there are none.
        event: code of each event's behaviour, an index into `events`, int32, -1 where it is not known; None where the
            log does not tell behaviours apart.
        events: names of the behaviours, such as ("click", "purchase").
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

    def of_users(self, users: np.ndarray) -> UserSequences:
        """The items of these users alone, who are numbered 0, 1, ... in the order of `users`."""
        lengths = self.offsets[users + 1] - self.offsets[users]
        return UserSequences(self.whole(users)[1], np.concatenate([[0], np.cumsum(lengths)]))

    def _pairs(self, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, places = spans(starts, lengths)
        return rows, self.items[places]


@dataclass(frozen=True)
class SequenceRows:
    """Rows of one part: the target is the event of `user` at `position`, its history all that came before.

    A row is two numbers, however long its history: memory grows with the interactions alone.

    Attributes:
        sequences: of all users.
        user: (R,) int32.
        position: (R,) int32, the target's place in its user's sequence, from 0.
        max_history: longest history; what is older is cut off.
        done: (R,) bool, whether no row of the part, when it was cut, stands later in the user's sequence: the episode
            ends here.
        weight: (R,) float32, at least 0: of the row's loss in training; None: all alike.
        candidates: (R, C) int32 fixed candidate sets, the target among them; None: none.
        labels: further columns of your own, name -> (R,) values; see `with_column`.
    """

    sequences: UserSequences
    user: np.ndarray
    position: np.ndarray
    max_history: int
    done: np.ndarray
    weight: np.ndarray | None = None
    candidates: np.ndarray | None = None
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def at(
        cls,
        sequences: UserSequences,
        user: np.ndarray,
        position: np.ndarray,
        max_history: int,
        candidates: np.ndarray | None = None,
    ) -> SequenceRows:
        """The rows whose targets stand at these places; `done` is worked out from them."""
        user, position = user.astype(np.int32), position.astype(np.int32)
        last = np.full(len(sequences.offsets) - 1, -1, dtype=np.int32)
        np.maximum.at(last, user, position)
        return cls(sequences, user, position, max_history, position == last[user], candidates=candidates)

    def __len__(self) -> int:
        return len(self.user)

    @property
    def target_place(self) -> np.ndarray:
        """(R,) int64, where the targets stand in the flat arrays of `sequences`."""
        place: np.ndarray = self.sequences.offsets[self.user] + self.position
        return place

    @property
    def target(self) -> np.ndarray:
        """(R,) int64 item ids."""
        items: np.ndarray = self.sequences.items[self.target_place].astype(np.int64)
        return items

    @property
    def timestamp(self) -> np.ndarray:
        """(R,) int64 times of the targets; their order where the log has no clock."""
        time = self.sequences.timestamp
        return self.target_place if time is None else time[self.target_place]

    @property
    def rating(self) -> np.ndarray:
        """(R,) float32 ratings of the targets; 1 where the log has none."""
        rating = self.sequences.rating
        return np.ones(len(self), dtype=np.float32) if rating is None else rating[self.target_place]

    @property
    def event(self) -> np.ndarray | None:
        """(R,) int32 codes of the targets' behaviour, indices into `sequences.events`; None where the log has none."""
        event = self.sequences.event
        return None if event is None else event[self.target_place]

    @property
    def repeat(self) -> np.ndarray:
        """(R,) bool, whether the user took the target before, at any time."""
        users, user = np.unique(self.user, return_inverse=True)
        theirs = self.sequences.of_users(users)
        place = theirs.offsets[user] + self.position
        repeat: np.ndarray = first_places(theirs)[place] < place
        return repeat

    def histories(self, index: Index = _ALL) -> torch.Tensor:
        """(B, max_history) int64: histories, oldest first, padded with 0 on the **left**; of all rows, or of some."""
        return self._cut(index, 0)

    def next_histories(self, index: Index = _ALL) -> torch.Tensor:
        """(B, max_history) int64: histories with the target appended, the state after the row; see `done`."""
        return self._cut(index, 1)

    def _cut(self, index: Index, more: int) -> torch.Tensor:
        import torch

        user, position = self.user[index], self.position[index][:, None] + more
        back = np.arange(self.max_history, 0, -1)
        there = back <= position
        place = self.sequences.offsets[user][:, None] + position - back
        return torch.from_numpy(np.where(there, self.sequences.items[np.where(there, place, 0)], 0).astype(np.int64))

    def targets(self, index: Index = _ALL) -> torch.Tensor:
        """(B,) int64 item ids of the targets, as a tensor."""
        import torch

        place = self.sequences.offsets[self.user[index]] + self.position[index]
        return torch.from_numpy(self.sequences.items[place].astype(np.int64))

    def candidate_sets(self, index: Index = _ALL) -> torch.Tensor | None:
        """(B, C) int64 candidates, as a tensor; None where there are none."""
        import torch

        return None if self.candidates is None else torch.from_numpy(self.candidates[index].astype(np.int64))

    def seen(self, index: Index = _ALL) -> tuple[np.ndarray, np.ndarray]:
        """Everything the users took before their targets: pairs (row, counted within `index`; item id)."""
        return self.sequences.past(self.user[index], self.position[index])

    def select(self, index: Index) -> SequenceRows:
        """Some of the rows, in the order of `index`; `done` stays what it was in the whole part."""
        if not isinstance(index, slice):
            index = np.asarray(index, dtype=np.int64)
        columns = {name: getattr(self, name) for name in ("user", "position", "done", "weight", "candidates")}
        chosen: dict[str, Any] = {name: None if values is None else values[index] for name, values in columns.items()}
        return replace(self, **chosen, labels={name: values[index] for name, values in self.labels.items()})

    def with_weights(self, weight: np.ndarray) -> SequenceRows:
        """The rows with these weights of their losses in training.

        Raises:
            ValueError: another number of weights than of rows; a weight that is negative or not finite.
        """
        weight = np.asarray(weight, dtype=np.float32)
        self._require_one_each("weights", weight)
        good = np.isfinite(weight) & (weight >= 0)
        if not good.all():
            row = int(good.argmin())
            raise ValueError(f"weights must be finite and at least 0 (got {weight[row]} in row {row})")
        return replace(self, weight=weight)

    def with_column(self, name: str, values: Any) -> SequenceRows:
        """The rows with a column of your own, by which an evaluation can be grouped: `evaluate(group_by=[name])`.

        Raises:
            ValueError: another number of values than of rows; the name of a column that rows have anyway.
        """
        values = np.asarray(values)
        self._require_one_each(f"values of {name}", values)
        if name in self.columns and name not in self.labels:
            raise ValueError(f"rows have a column {name!r}: choose another name")
        return replace(self, labels={**self.labels, name: values})

    def _require_one_each(self, what: str, values: np.ndarray) -> None:
        if values.shape != (len(self),):
            raise ValueError(f"{what} must be one per row, shape ({len(self)},) (got {values.shape})")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that `column` knows."""
        own = ("user_id", "target", "timestamp", "position", "rating", "repeat", "done")
        event = () if self.sequences.event is None else ("event",)
        weight = () if self.weight is None else ("weight",)
        return (*own, *event, *weight, *self.labels)

    def column(self, name: str) -> np.ndarray:
        """One value per row, (R,): an event by its name ("" where it is not known), the others as they are.

        Raises:
            ValueError: an unknown column; names those there are.
        """
        if name not in self.columns:
            raise ValueError(f"rows have the columns {', '.join(self.columns)} (got {name!r})")
        if name in self.labels:
            own: np.ndarray = self.labels[name]
            return own
        if (codes := self.event) is not None and name == "event":
            names = np.array([*self.sequences.events, ""], dtype=object)
            of_rows: np.ndarray = names[codes]
            return of_rows
        values: np.ndarray = getattr(self, {"user_id": "user"}.get(name, name))
        return values

    def to_dataset(self) -> Dataset:
        """The rows as a table for people: `user_id`, `history` (list of item ids), `target`, `timestamp`, `position`,
        `rating`, and where the rows have them `event` (its name), `weight`, `candidates` and your own columns.

        Holds every history: for a look, not for training.
        """
        lengths = np.minimum(self.position, self.max_history)
        _, places = spans(self.target_place - lengths, lengths)
        columns: dict[str, Any] = {
            "user_id": self.user,
            "history": list_column(self.sequences.items[places], lengths),
            "target": self.target.astype(np.int32),
        }
        columns |= {n: self.column(n) for n in self.columns if n not in ("user_id", "target", "repeat", "done")}
        if self.candidates is not None:
            size = self.candidates.shape[1]
            columns["candidates"] = list_column(self.candidates.astype(np.int32).ravel(), np.full(len(self), size))
        return as_dataset(pa.table(columns))


def spans(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers `starts[i]`, `starts[i] + 1`, ... of every span, and the `i` of each, as two arrays.

    Examples:
        >>> spans(np.array([10, 20]), np.array([2, 3]))
        (array([0, 0, 1, 1, 1]), array([10, 11, 20, 21, 22]))
    """
    span = np.repeat(np.arange(len(starts)), lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return span, np.repeat(starts, lengths) + within


def first_places(sequences: UserSequences) -> np.ndarray:
    """(interactions,) int64: where in the flat arrays the user of each event took its item for the first time.

    Examples:
        >>> first_places(UserSequences(np.array([5, 6, 5, 5]), np.array([0, 3, 4])))
        array([0, 1, 0, 3])
    """
    lengths = np.diff(sequences.offsets)
    user = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((sequences.items, user))  # stable: of equal pairs the earliest first
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(user[order]) != 0) | (np.diff(sequences.items[order]) != 0)
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[new][np.cumsum(new) - 1]
    return first
