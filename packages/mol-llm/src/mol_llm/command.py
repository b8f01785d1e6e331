"""Pairs for `predilect train`: which file, which task, how the rows are divided."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from predilect.configuration import at_least, option

if TYPE_CHECKING:
    from mol_llm.pairs import PairData

DATA, PARTS = "Data", "Parts"


@dataclass(kw_only=True)
class PairOptions:
    """Rows of two molecules and an answer."""

    data: Path | None = option("File of pairs, or the folder of ChChMiner's files; .gz too.", panel=DATA, default=None)
    task: Literal["solvation", "interaction"] = option(
        "What is asked: the free energy of solvation, or whether two drugs interact.", panel=DATA, default="solvation"
    )
    layout: Literal["csv", "chchminer", "freesolv", "combisolv"] = option(
        "A CSV with the columns below, or a published layout.", panel=DATA, default="csv"
    )
    first: str = option("Column of the first molecule's SMILES (the solute).", panel=DATA, default="first")
    second: str = option("Column of the second molecule's SMILES (the solvent).", panel=DATA, default="second")
    target: str = option("Column of the answer: a number, or 0 and 1.", panel=DATA, default="target")
    policy: Literal["raise", "skip", "largest-fragment"] = option(
        "On SMILES that cannot be used: raise; skip (leave out, and say so); or skip, and of salts take the largest "
        "part.",
        panel=DATA,
        default="raise",
    )
    canonical: bool = option("Write every SMILES as RDKit does.", panel=DATA, default=True)
    split: Literal["random", "pair", "first", "second", "cold-one", "cold-both", "scaffold"] = option(
        "What the parts do not share: rows, unordered pairs, molecules of a role, drugs, or scaffolds.",
        panel=PARTS,
        default="pair",
    )
    ratios: tuple[float, float, float] = option(
        "Shares of training, validation and test.", panel=PARTS, default=(0.8, 0.1, 0.1)
    )
    bootstrap: int = option("Times that rows are resampled for the 95 % intervals.", panel=PARTS, default=1000)
    seed: int = option("Seed of the parts, the method and the intervals.", default=0)

    def __post_init__(self) -> None:
        at_least(self, bootstrap=10, seed=0)
        task = {"chchminer": "interaction", "freesolv": "solvation", "combisolv": "solvation"}.get(self.layout)
        if task not in (None, self.task):
            raise ValueError(f"the layout {self.layout} is of the task {task} (got --task {self.task})")

    def read(self) -> PairData:
        """The rows, checked and divided.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: no file was named, a row that cannot be used (under the policy raise), a part without rows.
        """
        from mol_llm import readers
        from mol_llm.molecules import SmilesReader
        from mol_llm.pair_splits import split_pairs
        from mol_llm.pairs import TASKS, PairData

        if self.data is None:
            raise ValueError("which pairs? Give --data FILE (a CSV with the columns first, second, target)")
        if not self.data.exists():
            raise FileNotFoundError(f"there is no file {self.data}")
        if self.data.is_dir() and self.layout != "chchminer":
            raise ValueError(f"the layout {self.layout} is one file, and {self.data} is a folder: name the file in it")
        reader, task = SmilesReader(self.policy, self.canonical), TASKS[self.task]
        if self.layout == "csv":
            columns = {"first": self.first, "second": self.second, "target": self.target}
            found = readers.read_pairs_csv(self.data, task, reader=reader, **columns)
        else:
            found = getattr(readers, f"read_{self.layout}")(self.data, reader=reader)
        parts = split_pairs(found.rows, self.split, fractions=self.ratios, seed=self.seed)
        left_out = tuple(str(remark) for remark in found.remarks if not remark.kept)
        return PairData(task, parts.train, parts.validation, parts.test, left_out)
