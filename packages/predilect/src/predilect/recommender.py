"""`Recommender`: what every method of every package offers, and the registry by which the command line finds them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from predilect.data.catalogue import Catalogue
from predilect.processes import processes
from predilect.registry import RECOMMENDERS, registered

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

    from predilect.data.splits import SequenceSplits

_FILE = "recommender.json"
_RUN = "run.json"


class Recommendation(NamedTuple):
    """One place of a list: the item, its title as a person reads it, and its score, higher is better."""

    item_id: int
    title: str
    score: float


@dataclasses.dataclass
class RecommenderConfig:
    """Options that every recommender has; methods extend it, one dataclass per method, `help` on every field."""

    seed: int = dataclasses.field(default=0, metadata={"help": "Seed of everything random in fitting and scoring."})

    def quick(self) -> Self:
        """The config of a run that shows that all works, in seconds; counting methods have nothing to shorten."""
        return self


class Recommender(ABC):
    """Fit on splits, score items for histories, recommend for anyone, save and load.

    A subclass sets `name` (its name in the registry and on the command line) and `config_class`, and implements `fit`,
    `score`, `_save` and `_load`. It is registered under the entry-point group `predilect.recommenders`.

    Args:
        config: an instance of `config_class`; defaults to its defaults.
        **options: fields of `config_class` by name, in place of `config`.

    Raises:
        TypeError: both `config` and options, or an option that the config does not have.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[RecommenderConfig]] = RecommenderConfig
    runs_in: ClassVar[Literal["quick", "default", "chosen"]] = "quick"
    """The smallest leaderboard run that it belongs to: a quick one, a default one, or only one that names it."""
    max_test_rows: int | None = None
    """In a leaderboard, rank this many test rows, drawn at random; None: all. For methods that take long per row."""
    callbacks: Sequence[TrainerCallback] = ()
    """Told about training by methods that use a `Trainer`; to be set before `fit`."""

    def __init__(self, config: RecommenderConfig | None = None, **options: Any) -> None:
        if config is not None and options:
            raise TypeError(f"pass either a config or options, not both (got options {sorted(options)})")
        known = {f.name for f in dataclasses.fields(self.config_class)}
        if unknown := sorted(set(options) - known):
            raise TypeError(
                f"{self.name} has no option {', '.join(unknown)}; its options are {', '.join(sorted(known))}"
            )
        self.config: Any = config if config is not None else self.config_class(**options)
        self._catalogue: Catalogue | None = None

    @property
    def catalogue(self) -> Catalogue:
        """The items this recommender was fitted on."""
        if self._catalogue is None:
            raise RuntimeError(f"{self.name} is not fitted: call fit(splits) or from_pretrained(folder) first")
        return self._catalogue

    @property
    def num_parameters(self) -> int:
        """Number of learned parameters; 0 for counting methods."""
        return 0

    def unsuited(self, splits: SequenceSplits) -> str | None:
        """Why this recommender cannot be fitted on these data or on this machine; None if it can.

        A leaderboard leaves an unsuited recommender out, and says so, unless it was asked for by name.
        """
        return None

    @abstractmethod
    def fit(self, splits: SequenceSplits, *, output_dir: Path | None = None, resume: bool = False) -> Self:
        """Learn from `splits.train` (and select on `splits.validation`).

        Args:
            splits: the data.
            output_dir: where checkpoints go; None: a temporary folder.
            resume: continue from the newest checkpoint in `output_dir`, if there is one.
        """

    @abstractmethod
    def score(self, histories: torch.Tensor, candidates: torch.Tensor | None = None) -> torch.Tensor:
        """Score items; higher is better, finite.

        Args:
            histories: (B, L) item ids, oldest first, padded with 0 on the left; a row of zeros is an empty history.
            candidates: (B, C) item ids 1..N, or None for all items.

        Returns:
            float32 (B, C); or (B, N), where column `j` is item `j + 1`: padding has no column.
        """

    @abstractmethod
    def _save(self, folder: Path) -> None:
        """Write what `_load` needs, in files of safe formats (safetensors, Parquet, JSON)."""

    @abstractmethod
    def _load(self, folder: Path) -> None:
        """Restore what `_save` wrote; `self.config` and the catalogue are already there."""

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
        import torch

        if k < 1:
            raise ValueError(f"k must be at least 1 (got {k})")
        ids = self.catalogue.resolve(history)
        scores = self.score(torch.tensor([ids or [0]]))[0].clone()
        if exclude_history and ids:
            scores[torch.tensor(ids) - 1] = -torch.inf
        best = torch.argsort(scores, descending=True, stable=True)[:k].tolist()
        return [
            Recommendation(i + 1, self.catalogue.title(i + 1), float(scores[i]))
            for i in best
            if scores[i] > -torch.inf
        ]

    def _claim(
        self, folder: Path, splits: SequenceSplits, *, resume: bool, stale: Sequence[str] = ("checkpoint-*",)
    ) -> None:
        """Write down whose checkpoints lie in the folder; refuse to continue somebody else's.

        Args:
            folder: where `fit` keeps them.
            splits: the data.
            resume: continue the same run; otherwise what matches `stale` is removed.
            stale: names of the folders that a run leaves.
        """
        state = processes()
        if state.is_main_process:
            self._claim_alone(folder, splits, resume, stale)
        state.wait_for_everyone()

    def _claim_alone(self, folder: Path, splits: SequenceSplits, resume: bool, stale: Sequence[str]) -> None:
        run = {
            "recommender": self.name,
            "config": dataclasses.asdict(self.config),
            "data": {"protocol": splits.protocol, "items": splits.num_items, "rows": len(splits.train)},
        }
        run = json.loads(json.dumps(run))
        path = folder / _RUN
        if resume and path.is_file() and (found := json.loads(path.read_text())) != run:
            other = sorted(key for key in run if found.get(key) != run[key])
            raise ValueError(
                f"{folder} holds a run with another {' and '.join(other)} (got {[run[key] for key in other]}, found "
                f"{[found.get(key) for key in other]}): use resume=False to discard it, or another output_dir"
            )
        if resume and path.is_file():
            return
        for pattern in stale:  # before the claim: a kill between the two must not mix two runs
            for left in folder.glob(pattern):
                shutil.rmtree(left)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(run, indent=2))
        unfinished.replace(path)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write one folder that `from_pretrained` restores exactly."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.catalogue.save(folder / "catalogue.parquet")
        self._save(folder)
        description = {"recommender": self.name, "config": dataclasses.asdict(self.config)}
        (folder / _FILE).write_text(json.dumps(description, indent=2))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load a folder written by `save_pretrained`; on `Recommender` itself, the class that the folder names.

        Raises:
            FileNotFoundError: not such a folder, or a part of it is missing.
            ValueError: the folder holds another kind of recommender.
        """
        folder = Path(folder)
        if not (folder / _FILE).is_file():
            raise FileNotFoundError(f"{folder} is not a saved recommender: it has no {_FILE}")
        description = json.loads((folder / _FILE).read_text())
        found = description["recommender"]
        kind: Any = recommender_class(found) if cls is Recommender else cls
        if kind.name != found:
            raise ValueError(f"{folder} holds {found!r}, not {kind.name!r}: use Recommender.from_pretrained")
        recommender: Self = kind(kind.config_class(**description["config"]))
        recommender._catalogue = Catalogue.load(folder / "catalogue.parquet")
        recommender._load(folder)
        return recommender


def available_recommenders() -> list[str]:
    """Names of all installed recommenders, without importing them."""
    return [entry.name for entry in registered(RECOMMENDERS)]


def recommender_class(name: str) -> type[Recommender]:
    """The class registered as `name`.

    Raises:
        ValueError: no such recommender is installed; lists those that are.
    """
    for entry in registered(RECOMMENDERS):
        if entry.name == name:
            found: type[Recommender] = entry.load()
            return found
    raise ValueError(f"no recommender {name!r} is installed; there are {', '.join(available_recommenders())}")
