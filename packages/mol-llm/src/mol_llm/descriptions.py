"""Molecules and what is written about them: rows, a reader of ChEBI-20's layout, and parts for a method."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from mol_llm.molecules import BadMolecule, Remark, SmilesReader, checked_target
from mol_llm.pair_splits import split_pairs
from mol_llm.pairs import PairRows, PairTask
from mol_llm.readers import opened

DESCRIPTION = PairTask("description", "Describe both molecules.", "text")


@dataclass
class DescriptionRows:
    """SMILES and a text about each."""

    smiles: Sequence[str]
    texts: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.smiles) != len(self.texts):
            raise ValueError(
                f"every molecule needs one text (got {len(self.smiles)} molecules and {len(self.texts)} texts)"
            )

    def __len__(self) -> int:
        return len(self.smiles)


@dataclass
class ReadDescriptions:
    """Rows that can be used, and why others cannot."""

    rows: DescriptionRows
    remarks: list[Remark] = field(default_factory=list)


@dataclass
class DescriptionData:
    """What is learned from, and measured on; see `PairData`."""

    train: DescriptionRows
    validation: DescriptionRows | None = None
    test: DescriptionRows | None = None
    left_out: tuple[str, ...] = ()

    def describe(self) -> str:
        """How many rows each part has, and what was left out."""
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        counts = ", ".join(f"{len(rows):,} {name}" for name, rows in parts.items() if rows is not None)
        lines = [f"descriptions: {counts} rows"]
        if self.left_out:
            lines += [f"left out: {len(self.left_out):,} rows", *(f"  {line}" for line in self.left_out[:5])]
        return "\n".join(lines)

    def part(self, name: str) -> DescriptionRows:
        """The rows of "train", "validation" or "test".

        Raises:
            ValueError: another name, or a part that is not there.
        """
        rows: DescriptionRows | None = getattr(self, name) if name in ("train", "validation", "test") else None
        if rows is None:
            raise ValueError(f"there is no part {name!r} of these descriptions")
        return rows

    def fingerprint(self) -> str:
        """A digest of the rows of all parts."""
        parts = [part for part in (self.train, self.validation, self.test) if part is not None]
        return hashlib.sha256(repr([[list(part.smiles), list(part.texts)] for part in parts]).encode()).hexdigest()


def read_chebi20(path: str | Path, *, reader: SmilesReader | None = None) -> ReadDescriptions:
    r"""ChEBI-20 (Edwards et al., EMNLP 2021): `CID`, `SMILES`, `description` (.gz too).

    The published files are parted by tabs and double every backslash of a SMILES, which is undone; a CSV with the same
    columns, in any case, is read as it stands.

    Raises:
        ValueError: a column is missing (names those there are), or no row can be used.
        BadMolecule: a bad row, under the reader's policy "raise"; names row and reason.
    """
    reader = reader or SmilesReader(policy="skip")
    with opened(path) as file:
        tabs = "\t" in file.readline()
        file.seek(0)
        table = csv.reader(file, **({"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {}))  # type: ignore[arg-type]
        names = [name.strip().lower() for name in next(table, [])]
        missing = [name for name in ("smiles", "description") if name not in names]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]!r}; it has {', '.join(names) or 'no header'}")
        rows = [dict(zip(names, row, strict=False)) for row in table]
    kept: list[tuple[str, str]] = []
    remarks: list[Remark] = []
    for number, row in enumerate(rows):
        smiles = row.get("smiles")
        try:
            text = checked_target(DESCRIPTION, row.get("description"))
            kept.append((reader.read(smiles.replace("\\\\", "\\") if tabs and smiles else smiles), text.strip()))
        except BadMolecule as error:
            if reader.policy == "raise":
                raise BadMolecule(f"{path}: row {number}: {error}") from None
            remarks.append(Remark(number, repr(smiles), str(error)))
    if not kept:
        raise ValueError(f"none of {len(rows)} rows of {path} can be used{f': {remarks[0]}' if remarks else ''}")
    return ReadDescriptions(DescriptionRows([s for s, _ in kept], [t for _, t in kept]), remarks)


def split_descriptions(
    rows: DescriptionRows,
    by: Literal["molecule", "scaffold"] = "molecule",
    *,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> tuple[DescriptionRows, DescriptionRows, DescriptionRows]:
    """Training, validation and test rows that share no molecule, or no Murcko scaffold; see `split_pairs`.

    Raises:
        ValueError: another kind, fractions that do not add up, or a part without rows.
    """
    if by not in ("molecule", "scaffold"):
        raise ValueError(f"by must be molecule or scaffold (got {by!r})")
    pairs = PairRows(rows.smiles, rows.smiles, rows.texts)
    parts = split_pairs(pairs, "first" if by == "molecule" else "scaffold", fractions=fractions, seed=seed)
    train, validation, test = (
        DescriptionRows(part.first, part.targets) for part in (parts.train, parts.validation, parts.test)
    )
    return train, validation, test


def describe_pairs(rows: DescriptionRows, count: int, *, words: int = 30, seed: int = 0) -> PairRows:
    """Pairs of different molecules, drawn at random, and as target the description of both: pair pre-training.

    Each description is cut to its first `words` words, as MolTC does. Pairs may repeat where there are few molecules.

    Raises:
        ValueError: fewer than two rows, or no pair or word asked for.

    Examples:
        >>> rows = describe_pairs(DescriptionRows(["CCO", "O"], ["An alcohol.", "Water it is."]), 1, words=2, seed=1)
        >>> rows.pairs, rows.targets
        ([('CCO', 'O')], ['First: An alcohol. Second: Water it'])
    """
    if len(rows) < 2 or count < 1 or words < 1:
        raise ValueError(
            f"pairs are drawn from two molecules or more, one pair and one word at least (got {len(rows)} molecules, "
            f"{count} pairs, {words} words)"
        )
    draw = np.random.default_rng(seed)
    first = draw.integers(len(rows), size=count)
    second = (first + draw.integers(1, len(rows), size=count)) % len(rows)
    texts = [" ".join(text.split()[:words]) for text in rows.texts]
    return PairRows(
        [rows.smiles[i] for i in first.tolist()],
        [rows.smiles[i] for i in second.tolist()],
        [f"First: {texts[i]} Second: {texts[j]}" for i, j in zip(first.tolist(), second.tolist(), strict=True)],
    )
