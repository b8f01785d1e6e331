"""`Recommender`: what every method that ranks items offers, and the registry by which the command line finds them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from predilect.method import CatalogueMethod, ConfigT, MethodConfig
from predilect.registry import RECOMMENDERS, load_registered, registered

if TYPE_CHECKING:
    import torch


class Recommendation(NamedTuple):
    """One place of a list: the item, its title as a person reads it, and its score, higher is better."""

    item_id: int
    title: str
    score: float


@dataclass
class RecommenderConfig(MethodConfig):
    """Options that every recommender has."""


class Recommender(CatalogueMethod[ConfigT]):
    """A method that scores items for histories, and recommends to anyone.

    A subclass implements `_fit`, `_score`, `_save` and `_load` (see `Method`); one that can rank a few candidates with
    less work than all items also `_score_candidates`. It is registered under the entry-point group
    `predilect.recommenders`.
    """

    counts: ClassVar[bool] = False
    """Scores are counts, at least 0: where scores are summed, log(1 + count) stands for them."""
    max_test_rows: int | None = None
    """In a leaderboard, rank this many test rows, drawn at random; None: all. For methods that take long per row."""

    @property
    def device(self) -> torch.device:
        """Where histories are scored; they are moved there, and scores back."""
        import torch

        return torch.device("cpu")

    @abstractmethod
    def _score(self, histories: torch.Tensor) -> torch.Tensor:
        """Scores (B, N) of all items for checked histories (B, L) on `device`; column `j` is item `j + 1`."""

    def _score_candidates(self, histories: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        """Scores (B, C) of checked candidates (B, C) on `device`."""
        return self._score_all(histories).gather(1, candidates - 1)

    def _score_all(self, histories: torch.Tensor) -> torch.Tensor:
        """What `_score` gives, of the right shape: a column too many would belong to padding."""
        return self._shaped(self._score(histories), (len(histories), len(self.catalogue)))

    def _shaped(self, scores: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        if tuple(scores.shape) != shape:
            raise ValueError(
                f"{self.name}.score must return the shape {shape}: (histories, items), without a column for padding, "
                f"or (histories, candidates) (got {tuple(scores.shape)})"
            )
        return scores

    def score(self, histories: torch.Tensor, candidates: torch.Tensor | None = None) -> torch.Tensor:
        """Score items; higher is better, finite.

        Args:
            histories: (B, L) item ids, oldest first, padded with 0 on the left; a row of zeros is an empty history.
            candidates: (B, C) item ids 1..N, or None for all items.

        Returns:
            float32 (B, C); or (B, N), where column `j` is item `j + 1`: padding has no column. On the device of
            `histories`.

        Raises:
            ValueError: ids of another shape or type or outside the catalogue, padding behind an item, another number
                of rows in `candidates`; scores that are NaN or infinite.
        """
        import torch

        check_histories(histories, len(self.catalogue))
        with torch.no_grad():
            moved = histories.to(self.device, torch.int64)
            if candidates is None:
                scores = self._score_all(moved)
            else:
                check_ids(candidates, len(self.catalogue), lowest=1, what="candidates")
                if len(candidates) != len(histories):
                    raise ValueError(
                        f"candidates must have one row per history (got {len(candidates)} for {len(histories)})"
                    )
                chosen = candidates.to(self.device, torch.int64)
                scores = self._shaped(self._score_candidates(moved, chosen), tuple(candidates.shape))
            scores = scores.to(histories.device, torch.float32)
            if not bool(scores.isfinite().all()):
                raise ValueError(f"{self.name}: scores must not be NaN or infinite")
        return scores

    def recommend(
        self, history: Sequence[int | str], k: int = 10, *, exclude_history: bool = True
    ) -> list[Recommendation]:
        """The k best items for a person, known or never seen before.

        Args:
            history: ids (int) or titles or raw ids (str), oldest first; may be empty.
            k: length of the list; at most the number of items that can be recommended is returned.
            exclude_history: never return an item of `history`.

        Raises:
            UnknownItemError: an entry is not in the catalogue; names it and close titles.
        """
        return self.recommend_many([history], k, exclude_history=exclude_history)[0]

    def recommend_many(
        self,
        histories: Iterable[Sequence[int | str]],
        k: int = 10,
        *,
        exclude_history: bool = True,
        batch_size: int = 1024,
    ) -> list[list[Recommendation]]:
        """`recommend` for many people, scored in batches: memory does not grow with people x items.

        Args:
            histories: one per person, as for `recommend`.
            k: length of the lists.
            exclude_history: never return an item of a person's own history.
            batch_size: histories scored at once.

        Raises:
            UnknownItemError: an entry is not in the catalogue; names it and close titles.
        """
        for name, value in (("k", k), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1 (got {value})")
        resolved = [self.catalogue.resolve(history) for history in histories]
        lists: list[list[Recommendation]] = []
        for start in range(0, len(resolved), batch_size):
            lists += self._best(resolved[start : start + batch_size], k, exclude_history=exclude_history)
        return lists

    def _best(
        self, histories: Sequence[Sequence[int]], k: int, *, exclude_history: bool
    ) -> list[list[Recommendation]]:
        import torch

        padded = pad_histories(histories)
        scores = self.score(padded)
        if exclude_history:
            taken = torch.zeros(len(scores), scores.shape[1] + 1, dtype=torch.bool).scatter_(1, padded, True)
            scores = scores.masked_fill(taken[:, 1:], -torch.inf)
        best = torch.argsort(scores, dim=1, descending=True, stable=True)[:, :k]  # of equal scores the lower id
        return [
            [
                Recommendation(item + 1, self.catalogue.title(item + 1), score)
                for item, score in zip(items.tolist(), row_scores.gather(0, items).tolist(), strict=True)
                if score > -torch.inf
            ]
            for items, row_scores in zip(best, scores, strict=True)
        ]


def pad_histories(histories: Sequence[Sequence[int]]) -> torch.Tensor:
    """(B, L) int64: histories padded with 0 on the left to the longest of them, at least one column."""
    import torch

    padded = torch.zeros(len(histories), max([1, *map(len, histories)]), dtype=torch.int64)
    for row, history in enumerate(histories):
        if history:
            padded[row, -len(history) :] = torch.tensor(list(history))
    return padded


def check_ids(ids: torch.Tensor, num_items: int, *, lowest: int, what: str) -> None:
    """Raise ValueError unless `ids` is (B, L) of integers in lowest..num_items."""
    if ids.dim() != 2 or ids.is_floating_point():
        raise ValueError(f"{what} must be (batch, length) of integer ids (got {tuple(ids.shape)}, {ids.dtype})")
    if ids.numel() and (int(ids.min()) < lowest or int(ids.max()) > num_items):
        raise ValueError(f"{what} must hold ids in {lowest}..{num_items} (got {int(ids.min())}..{int(ids.max())})")


def check_histories(histories: torch.Tensor, num_items: int) -> None:
    """Raise ValueError unless `histories` are ids (B, L) with padding before the first item of a row only."""
    check_ids(histories, num_items, lowest=0, what="histories")
    if histories.shape[1] > 1 and bool(((histories[:, 1:] == 0) & (histories[:, :-1] != 0)).any()):
        row = int(((histories[:, 1:] == 0) & (histories[:, :-1] != 0)).any(dim=1).nonzero()[0])
        raise ValueError(f"histories are padded with 0 on the left: row {row} has a 0 behind an item")


def available_recommenders() -> list[str]:
    """Names of all installed recommenders, without importing them."""
    return sorted(registered(RECOMMENDERS))


def recommender_class(name: str) -> type[Recommender]:
    """The class registered as `name`.

    Raises:
        ValueError: no such recommender is installed; lists those that are.
    """
    kind: type[Recommender] = load_registered(name, RECOMMENDERS, kind="recommender")
    return kind
