"""`Method`: what is fitted, kept, loaded and shared; the base of every method of every package."""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self

from huggingface_hub import ModelHubMixin
from typing_extensions import TypeVar

from predilect.configuration import make_config, option, plain
from predilect.registry import METHODS, RECOMMENDERS, load_registered, registered
from predilect.runs import OutputFolder, data_fingerprint, read_json, temporary_folder, write_json

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from predilect.data.catalogue import Catalogue
    from predilect.data.splits import SequenceSplits

METHOD_FILE = "method.json"
_CATALOGUE = "catalogue.parquet"
HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_CARD = """---
{{ card_data }}
---

A method saved by Predilect:

```python
import predilect

method = predilect.Method.from_pretrained("NAME/OF-THIS-REPOSITORY")
```

What it is and its options are in `method.json`.
"""

T = TypeVar("T")


@dataclasses.dataclass
class MethodConfig:
    """Options that every method has; methods extend it, one dataclass per method, `help` on every field."""

    seed: int = option("Seed of everything random in fitting and scoring.", default=0)

    def quick(self) -> Self:
        """The config of a run that shows that all works, in seconds; counting methods have nothing to shorten."""
        return self


ConfigT = TypeVar("ConfigT", bound=MethodConfig, default=Any)


class Method(ModelHubMixin, ABC, Generic[ConfigT], library_name="predilect", model_card_template=_CARD):
    """Fit on data, save, load, share.

    A subclass sets `name` (in the registry and on the command line) and `config_class`, and implements `_fit`,
    `_save`, `_load` and `fingerprint`. It is registered under the entry-point group `predilect.methods`, or
    `predilect.recommenders` if it ranks items. `push_to_hub` is that of `huggingface_hub.ModelHubMixin`.

    Args:
        config: an instance of `config_class`; defaults to its defaults.
        **options: fields of `config_class` by name, in place of `config`.

    For the command line a subclass may also set `presets` (the name of the package in which its settings lie as YAML
    files, `predilect.presets`); `data_options`, where it learns from something else than a log of interactions; and
    `measure`, where it ranks no items.

    Attributes:
        config: the options.
        callbacks: `transformers.TrainerCallback`s that are told about training by methods that use a `Trainer`; to be
            set before `fit`.

    Raises:
        TypeError: both `config` and options, or an option that the config does not have.
        ValueError: a negative seed.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[Any]] = MethodConfig
    presets: ClassVar[str | None] = None
    # a keyword-only dataclass with options of the command line, `seed` among them, whose `read()` gives what `fit`
    # takes; None: a log and its protocol
    data_options: ClassVar[type[Any] | None] = None
    # the smallest leaderboard run that it belongs to: a quick one, a default one, or only one that names it
    runs_in: ClassVar[Literal["quick", "default", "chosen"]] = "quick"
    # `method.json` holds the options; the mixin would keep a copy of them in config.json
    _hub_mixin_config: Any = property(lambda self: None, lambda self, value: None)

    def __init__(self, config: ConfigT | None = None, **options: Any) -> None:
        if config is not None and options:
            raise TypeError(f"pass either a config or options, not both (got options {sorted(options)})")
        known = {f.name for f in dataclasses.fields(self.config_class)}
        if unknown := sorted(set(options) - known):
            raise TypeError(
                f"{self.name} has no option {', '.join(unknown)}; its options are {', '.join(sorted(known))}"
            )
        self.config: ConfigT = config if config is not None else self.config_class(**options)
        if self.config.seed < 0:
            raise ValueError(f"seed must be at least 0 (got {self.config.seed})")
        self.callbacks: Sequence[TrainerCallback] = ()

    @property
    def num_parameters(self) -> int:
        """Number of learned parameters; 0 for counting methods."""
        return 0

    # --- fitting --------------------------------------------------------------------------------------------------

    def fit(
        self, data: Any, *, output_dir: str | Path | None = None, resume: bool = False, overwrite: bool = False
    ) -> Self:
        """Learn from data.

        Args:
            data: what the method learns from.
            output_dir: where checkpoints go; None: a temporary folder.
            resume: go on with the same run in `output_dir`, from its newest checkpoint; where there is none, begin.
            overwrite: remove the run that is in `output_dir`.

        Raises:
            ValueError: data that the method cannot learn from; an `output_dir` that another process works in, that is
                in use, or, with `resume`, that holds a run with other options or other data (`OutputFolder`).
        """
        self._require(data)
        with self._run_folder(data, output_dir, resume, overwrite) as folder:
            self._begin(data)
            self._fit(data, folder)
        return self

    @contextmanager
    def _run_folder(self, data: Any, output_dir: str | Path | None, resume: bool, overwrite: bool) -> Iterator[Path]:
        if output_dir is None:
            with temporary_folder() as folder:
                yield folder
            return
        with OutputFolder(Path(output_dir), "fit", resume=resume, overwrite=overwrite, ways="call") as output:
            output.claim({"method": self.name, **self._run(data)})
            yield output.folder

    def require_ready(self) -> None:
        """Raise ValueError or FileNotFoundError for options that name what is not there, such as a folder.

        The commands ask before they read any data; what was saved is loaded without.
        """

    def unsuited(self, splits: Any) -> str | None:
        """Why this method cannot be fitted on these data or on this machine; None if it can.

        A leaderboard leaves an unsuited method out, and says so, unless it was asked for by name.
        """
        return None

    def measure(self, data: Any, part: str, options: Any) -> Mapping[str, Any]:
        """Name -> result of a part of the data ("validation", "test") by the options of the command line.

        A result has `results` (as `predilect.evaluation.Evaluation`) and `save(folder)`. Recommenders are ranked
        (`predilect.evaluation.evaluate`) instead; of other methods that do not say how good they are there is none.
        """
        return {}

    def _require(self, data: Any) -> None:
        """Raise ValueError, before anything is written, for data that the method cannot learn from."""

    def _run(self, data: Any) -> dict[str, Any]:
        """All that the result of `fit` depends on, as JSON holds it."""
        return {"config": plain(self.config), "data": self.fingerprint(data)}

    def _begin(self, data: Any) -> None:
        """What comes before every `_fit`."""
        from transformers import set_seed

        set_seed(self.config.seed)

    @abstractmethod
    def fingerprint(self, data: Any) -> str:
        """A digest of the content of the data."""

    @abstractmethod
    def _fit(self, data: Any, folder: Path) -> None:
        """Learn; checkpoints go to `folder`, and what lies there belongs to this very run: go on from it."""

    def _fitted(self, part: T | None) -> T:
        """A part that fitting or loading makes.

        Raises:
            RuntimeError: neither has happened.
        """
        if part is None:
            raise RuntimeError(f"{self.name} is not fitted: call fit(...) or from_pretrained(folder) first")
        return part

    # --- folders --------------------------------------------------------------------------------------------------

    @abstractmethod
    def _save(self, folder: Path) -> None:
        """Write what `_load` needs, in files of safe formats (safetensors, Parquet, JSON)."""

    @abstractmethod
    def _load(self, folder: Path) -> None:
        """Restore what `_save` wrote; `self.config` is already there."""

    def _save_parts(self, folder: Path) -> None:
        """What a base class keeps, and `_save`."""
        self._save(folder)

    def _load_parts(self, folder: Path) -> None:
        """What a base class kept, and `_load`."""
        self._load(folder)

    def _save_pretrained(self, save_directory: Path) -> None:
        (save_directory / METHOD_FILE).unlink(missing_ok=True)
        self._save_parts(save_directory)
        # last: a folder without it is not complete
        write_json(save_directory / METHOD_FILE, {"method": self.name, "config": plain(self.config)})

    @classmethod
    def from_pretrained(cls, folder: str | Path, **hub_options: Any) -> Self:  # type: ignore[override]
        """Load what `save_pretrained` wrote; on a base class such as `Method`, the class that the folder names.

        Args:
            folder: a folder, or the id of a repository on the hub ("name/repository").
            **hub_options: as for `huggingface_hub.snapshot_download`, such as `revision` and `token`.

        Raises:
            FileNotFoundError: no such folder, nor repository; not a saved method, or a part of it is missing.
            ValueError: the folder holds another kind of method.
        """
        path = Path(folder)
        if not path.is_dir():
            if not HUB_ID.fullmatch(str(folder)):
                raise FileNotFoundError(f"there is no folder {folder}")
            path = _downloaded(str(folder), hub_options)
        about = read_json(path / METHOD_FILE)
        if about is None:
            raise FileNotFoundError(
                f"{path} is not a saved method: it has no {METHOD_FILE} (folders of earlier versions cannot be read: "
                "fit and save again)"
            )
        name = about["method"]
        kind = cls if hasattr(cls, "name") else method_class(name)
        if kind.name != name or not issubclass(kind, cls):
            raise ValueError(
                f"{path} holds {name!r}, not {getattr(cls, 'name', cls.__name__)!r}: use Method.from_pretrained"
            )
        loaded = kind(make_config(kind.config_class, about["config"], source=str(path / METHOD_FILE)))
        loaded._load_parts(path)
        return loaded


def _downloaded(repository: str, hub_options: dict[str, Any]) -> Path:
    """The snapshot of a repository of the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, **hub_options))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(
            f"there is no folder {repository}, nor could a repository of that name be read: {error}"
        ) from error


def available_methods() -> list[str]:
    """Names of all installed methods, those that rank items and those that do not, without importing them."""
    return sorted(registered(RECOMMENDERS, METHODS))


def method_class(name: str) -> type[Method]:
    """The class registered as `name`.

    Raises:
        ValueError: no such method is installed; lists those that are.
    """
    kind: type[Method] = load_registered(name, RECOMMENDERS, METHODS, kind="method")
    return kind


class CatalogueMethod(Method[ConfigT]):
    """A method that learns from the rows of a catalogue's splits, and keeps the catalogue with it."""

    def __init__(self, config: ConfigT | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._catalogue: Catalogue | None = None

    @property
    def catalogue(self) -> Catalogue:
        """The items this method was fitted on."""
        return self._fitted(self._catalogue)

    @abstractmethod
    def _fit(self, data: SequenceSplits, folder: Path) -> None:
        """Learn from `data.train` (and select on `data.validation`); `self.catalogue` is there already.

        See `Method._fit`.
        """

    def fingerprint(self, data: SequenceSplits) -> str:
        return data_fingerprint(data)

    def _begin(self, data: SequenceSplits) -> None:
        self._catalogue = data.catalogue
        super()._begin(data)

    def _save_parts(self, folder: Path) -> None:
        self.catalogue.save(folder / _CATALOGUE)
        super()._save_parts(folder)

    def _load_parts(self, folder: Path) -> None:
        from predilect.data.catalogue import Catalogue

        self._catalogue = Catalogue.load(folder / _CATALOGUE)
        super()._load_parts(folder)
