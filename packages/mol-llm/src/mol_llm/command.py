"""Options of rows: which file, which task, how they are divided. Light, so that `predilect --help` can read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from predilect.configuration import at_least, option
from predilect.leaderboard.config import RUN, RunConfig

if TYPE_CHECKING:
    from mol_llm.descriptions import DescriptionData
    from mol_llm.molecules import ReadPairs
    from mol_llm.pairs import PairData, PairTask

Task = Literal["solvation", "interaction", "interaction-type", "absorption", "emission", "lifetime", "description"]
Layout = Literal[
    "csv",
    "chchminer",
    "zhangddi",
    "deepddi",
    "drugbank",
    "twosides",
    "freesolv",
    "combisolv",
    "combisolv-qm",
    "compsol",
    "abraham",
    "chromophore",
    "chebi20",
]
_FOLDERS = ("chchminer", "zhangddi", "deepddi", "drugbank")
_OF_ANY_CSV = (
    "solvation",
    "interaction",
    "absorption",
    "emission",
    "lifetime",
)  # sentences of types are in Drugbank's folder only
_TASKS_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("chchminer", "zhangddi", "deepddi", "twosides"), ("interaction",)),
    **dict.fromkeys(("freesolv", "combisolv", "combisolv-qm", "compsol", "abraham"), ("solvation",)),
    "drugbank": ("interaction-type",),
    "chromophore": ("absorption", "emission", "lifetime"),
    "chebi20": ("description",),
}
_PAIRS_DRAWN = 10_000
DATA, PARTS = "Data", "Parts"


@dataclass(kw_only=True)
class RowOptions:
    """A file of rows, how its SMILES are read, and how rows are divided and resampled."""

    data: Path | None = option("File of rows; .gz too.", panel=DATA, default=None)
    policy: Literal["raise", "skip", "largest-fragment"] = option(
        "On SMILES that cannot be used: raise; skip (leave out, and say so); or skip, and of salts take the largest "
        "part.",
        panel=DATA,
        default="raise",
    )
    canonical: bool = option("Write every SMILES as RDKit does.", panel=DATA, default=True)
    ratios: tuple[float, float, float] = option(
        "Shares of training, validation and test.", panel=PARTS, default=(0.8, 0.1, 0.1)
    )
    bootstrap: int = option("Times that rows are resampled for the 95 % intervals.", panel=PARTS, default=1000)
    seed: int = option("Seed of the parts, the method and the intervals.", default=0)

    def __post_init__(self) -> None:
        at_least(self, bootstrap=10, seed=0)


@dataclass(kw_only=True)
class PairOptions(RowOptions):
    """Rows of two molecules and an answer."""

    data: Path | None = option(
        "File of pairs, or the folder of ChChMiner's, ZhangDDI's, DeepDDI's or Drugbank's files; .gz too.",
        panel=DATA,
        default=None,
    )
    task: Task = option(
        "What is asked: the free energy of solvation; whether two drugs interact, or (layout drugbank) how; of a "
        "chromophore in a solvent the wavelength that is absorbed or emitted most, or the logarithm of the lifetime; "
        "or (layout chebi20) a description of both, which is pair pre-training.",
        panel=DATA,
        default="solvation",
    )
    layout: Layout = option("A CSV with the columns below, or a published layout.", panel=DATA, default="csv")
    side_effect: str | None = option(
        "Layout twosides: the side effect that is asked about, as the file names it.", panel=DATA, default=None
    )
    drawn: int | None = option(
        f"Layout chebi20: pairs that are drawn in all, from molecules of a part each; none: {_PAIRS_DRAWN:,}.",
        panel=DATA,
        default=None,
    )
    first: str = option("Column of the first molecule's SMILES (the solute).", panel=DATA, default="first")
    second: str = option("Column of the second molecule's SMILES (the solvent).", panel=DATA, default="second")
    target: str = option("Column of the answer: a number, or 0 and 1.", panel=DATA, default="target")
    split: Literal["random", "pair", "first", "second", "cold-one", "cold-both", "scaffold"] = option(
        "What the parts do not share: rows, unordered pairs, molecules of a role, drugs, or scaffolds.",
        panel=PARTS,
        default="pair",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        tasks = _TASKS_OF.get(self.layout, _OF_ANY_CSV)
        if self.task is not None and self.task not in tasks:
            raise ValueError(f"the layout {self.layout} is of the task {' or '.join(tasks)} (got --task {self.task})")
        if self.side_effect is not None and self.layout != "twosides":
            raise ValueError(f"side_effect is of the layout twosides (got --layout {self.layout}): leave it out")
        if self.drawn is not None and self.layout != "chebi20":
            raise ValueError(f"drawn is of the layout chebi20 (got --layout {self.layout}): leave it out")
        if self.layout == "chebi20" and self.split not in ("pair", "scaffold"):
            raise ValueError(
                f"parts of drawn pairs share no molecule (split pair) or no scaffold (got --split {self.split})"
            )
        at_least(self, drawn=1)

    @property
    def published_tasks(self) -> tuple[str, ...]:
        """Names of the tasks that a published layout is of; empty: a CSV, which is of any."""
        return _TASKS_OF.get(self.layout, ())

    def read(self, task: PairTask | None = None) -> PairData:
        """The rows, checked and divided.

        Args:
            task: what is asked; None: the task of this name.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: no file was named, a row that cannot be used (under the policy raise), a part without rows.
        """
        from mol_llm.pair_splits import split_pairs
        from mol_llm.pairs import PairData

        if self.data is None:
            raise ValueError("which pairs? Give --data FILE (a CSV with the columns first, second, target)")
        if not self.data.exists():
            raise FileNotFoundError(f"there is no file {self.data}")
        if self.data.is_dir() and self.layout not in _FOLDERS:
            raise ValueError(f"the layout {self.layout} is one file, and {self.data} is a folder: name the file in it")
        if self.layout == "chebi20":
            return self._described(self.data)
        task, found = self._rows(self.data, task)
        parts = split_pairs(found.rows, self.split, fractions=self.ratios, seed=self.seed)
        left_out = tuple(str(remark) for remark in found.remarks if not remark.kept)
        return PairData(task, parts.train, parts.validation, parts.test, left_out)

    def _described(self, data: Path) -> PairData:
        """Pairs drawn from described molecules; no molecule is in two parts."""
        from mol_llm.descriptions import DESCRIPTION, describe_pairs
        from mol_llm.pairs import PairData, PairRows

        options = DescriptionOptions(
            data=data,
            policy=self.policy,
            canonical=self.canonical,
            split="scaffold" if self.split == "scaffold" else "molecule",
            ratios=self.ratios,
            seed=self.seed,
        )
        molecules = options.read()
        parts = (molecules.part(name) for name in ("train", "validation", "test"))
        total = _PAIRS_DRAWN if self.drawn is None else self.drawn
        train, validation, test = (
            describe_pairs(part, max(1, round(share * total)), seed=self.seed) if share else PairRows([], [], [])
            for part, share in zip(parts, self.ratios, strict=True)
        )
        return PairData(DESCRIPTION, train, validation, test, molecules.left_out)

    def _rows(self, data: Path, task: PairTask | None) -> tuple[PairTask, ReadPairs]:
        """The task and its rows, checked."""
        from mol_llm import published, readers
        from mol_llm.molecules import SmilesReader
        from mol_llm.pairs import TASKS

        reader = SmilesReader(self.policy, self.canonical)
        if self.layout == "drugbank":
            return published.read_drugbank(data, reader=reader)
        if self.layout == "twosides":
            return published.read_twosides(data, self.side_effect, reader=reader)
        task = task or TASKS[self.task]
        if self.layout == "csv":
            columns = {"first": self.first, "second": self.second, "target": self.target}
            return task, readers.read_pairs_csv(data, task, reader=reader, **columns)
        if self.layout == "chromophore":
            return task, published.read_chromophore(data, task.name, reader=reader)
        home = readers if self.layout in ("chchminer", "freesolv", "combisolv") else published
        return task, getattr(home, f"read_{self.layout.replace('-', '_')}")(data, reader=reader)


@dataclass(kw_only=True)
class DescriptionOptions(RowOptions):
    """Rows of a molecule and a text about it."""

    data: Path | None = option("File of descriptions in ChEBI-20's layout; .gz too.", panel=DATA, default=None)
    split: Literal["molecule", "scaffold"] = option(
        "What the parts do not share: molecules, or Murcko scaffolds.", panel=PARTS, default="molecule"
    )

    def read(self) -> DescriptionData:
        """The rows, checked and divided.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: no file was named, a row that cannot be used (under the policy raise), a part without rows.
        """
        from mol_llm.descriptions import DescriptionData, read_chebi20, split_descriptions
        from mol_llm.molecules import SmilesReader

        if self.data is None:
            raise ValueError("which descriptions? Give --data FILE (a table with the columns smiles and description)")
        if not self.data.is_file():
            raise FileNotFoundError(f"there is no file {self.data}")
        found = read_chebi20(self.data, reader=SmilesReader(self.policy, self.canonical))
        parts = split_descriptions(found.rows, self.split, fractions=self.ratios, seed=self.seed)
        return DescriptionData(*parts, tuple(str(remark) for remark in found.remarks))


@dataclass(kw_only=True)
class PairLeaderboardConfig(RunConfig, PairOptions):
    """One leaderboard of pair methods."""

    models: tuple[str, ...] = option(
        "Methods to compare; by default all that are quick to fit, without language models.", panel=RUN, default=()
    )
    set: dict[str, dict[str, Any]] = option(
        "An option of one method, e.g. moltc.epochs=5; in YAML a section per method.", panel=RUN, default={}
    )
    test_rows: int | None = option(
        "Measure on this many test rows, drawn at random; none: all.", panel=PARTS, default=None
    )
    output_dir: Path = option(
        "Folder of results, plots, report and fitted methods.", panel=RUN, default=Path("runs/mol-leaderboard")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_rows is not None:
            at_least(self, test_rows=2)
