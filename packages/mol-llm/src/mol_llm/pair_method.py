"""`PairMethod`: what is fitted on pairs of molecules and answers the question of a task about others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mol_llm.command import PairOptions
from mol_llm.evaluation import PairEvaluation, evaluate_pairs
from mol_llm.molecules import checked_target
from mol_llm.pair_splits import take
from mol_llm.pairs import PairData, PairRows, PairTask
from predilect.method import ConfigT, Method
from predilect.runs import read_json, write_json

_TASK = "task.json"


class PairMethod(Method[ConfigT]):
    """Two molecules in, the answer out: a value, probabilities of classes, or a text.

    A subclass sets `name` and `config_class`, and implements `_read`, `_fit`, `_predict`, `_save` and `_load`; the
    task is kept here. Registered under `predilect.methods`, it is run by `predilect train NAME --data pairs.csv`.
    """

    data_options: ClassVar[type[Any] | None] = PairOptions

    def __init__(self, config: ConfigT | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._task: PairTask | None = None

    @property
    def task(self) -> PairTask:
        """What it was fitted on."""
        return self._fitted(self._task)

    # --- fitting ----------------------------------------------------------------------------------------------

    def _require(self, data: PairData) -> None:
        if not len(data.train):
            raise ValueError("there is no pair to learn from")
        self._read(data.train.pairs)
        for row, target in enumerate(data.train.targets):
            try:
                checked_target(data.task, target)
            except ValueError as error:
                raise ValueError(f"row {row}: {error}; remove it, or read the rows with SmilesReader") from None

    def fingerprint(self, data: PairData) -> str:
        return data.fingerprint()

    def _begin(self, data: PairData) -> None:
        self._task = data.task
        super()._begin(data)

    # --- predictions ------------------------------------------------------------------------------------------

    @abstractmethod
    def _read(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Have ready what is needed of these molecules.

        Raises:
            ValueError: something that is no molecule; names row and SMILES.
        """

    def forget(self) -> None:
        """Free what was kept of molecules that were read, which grows with every call of `predict`.

        Whoever predicts millions of pairs part by part calls it in between.
        """

    @abstractmethod
    def _predict(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64] | list[str]:
        """Of n pairs that were read: values (n,), probabilities (n, classes), or n texts."""

    def predict(self, first: str | Sequence[str], second: str | Sequence[str], *, task: str | None = None) -> Any:
        """What happens when molecules meet.

        Args:
            first: SMILES of one or of n molecules.
            second: as many.
            task: name of the task, to be sure; None: that of `fit`.

        Returns:
            Of a value task the expected value, a float or (n,); of a class task the probability of each answer,
            (classes,) or (n, classes); of a text task the text or a list of n.

        Raises:
            ValueError: another task than that of `fit`, something that is no molecule, or unequal numbers.
        """
        if task not in (None, self.task.name):
            raise ValueError(f"this {type(self).__name__} was fitted on {self.task.name!r}, not on {task!r}")
        found = self._predict(self._pairs(first, second))
        if not (isinstance(first, str) and isinstance(second, str)):
            return found
        return float(found[0]) if self.task.kind == "value" else found[0]

    def _pairs(self, first: str | Sequence[str], second: str | Sequence[str]) -> list[tuple[str, str]]:
        """What was given to `predict` as pairs that were read."""
        firsts, seconds = ([x] if isinstance(x, str) else list(x) for x in (first, second))
        if len(firsts) != len(seconds):
            raise ValueError(f"as many first as second molecules are needed (got {len(firsts)} and {len(seconds)})")
        pairs = list(zip(firsts, seconds, strict=True))
        self._read(pairs)
        return pairs

    def measure(self, data: PairData, part: str, options: Any) -> dict[str, PairEvaluation]:
        """`evaluate_pairs` of a part; of a text task nothing."""
        if self.task.kind == "text":
            return {}
        rows = self._measured_rows(data, part, options)
        predictions = self.predict(list(rows.first), list(rows.second))
        result = evaluate_pairs(self.task, rows, predictions, bootstrap=options.bootstrap, seed=options.seed)
        return {"": result}

    def _measured_rows(self, data: PairData, part: str, options: Any) -> PairRows:
        """The rows of a part, or as many of them as the options of the command say."""
        rows = data.part(part)
        if options.test_rows is not None and options.test_rows < len(rows):
            drawn = np.random.default_rng(options.seed).permutation(len(rows))[: options.test_rows]
            rows = take(rows, np.sort(drawn))
        return rows

    # --- folders ----------------------------------------------------------------------------------------------

    def _save_parts(self, folder: Path) -> None:
        write_json(folder / _TASK, asdict(self.task))
        super()._save_parts(folder)

    def _load_parts(self, folder: Path) -> None:
        task = read_json(folder / _TASK)
        if task is None:
            raise FileNotFoundError(f"{folder} has no {_TASK}: it is incomplete, save the method again")
        self._task = PairTask(**task)
        super()._load_parts(folder)


class NumbersOnly(PairMethod[ConfigT]):
    """A method that answers values and classes and writes no text, and that may choose by validation rows."""

    def _require(self, data: PairData) -> None:
        if data.task.kind == "text":
            raise ValueError(
                f"{self.name} answers values and classes: {data.task.name!r} asks for a text (moltc writes)"
            )
        super()._require(data)
        if data.validation is not None and len(data.validation):
            self._require_validation(data.task, data.train, data.validation)

    def _require_validation(self, task: PairTask, train: PairRows, validation: PairRows) -> None:
        """Raise ValueError for rows that cannot be chosen by."""
        try:
            PairMethod._require(self, PairData(task, validation))
        except ValueError as error:
            raise ValueError(f"validation, {error}") from None
