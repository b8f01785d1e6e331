"""`SmilesReader`: SMILES of any source to molecules that can be used, with a reason for each that cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rdkit import Chem, rdBase

from mol_llm.pairs import PairRows, PairTask

Policy = Literal["raise", "skip", "largest-fragment"]


class BadMolecule(ValueError):
    """A SMILES that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class MoleculePair:
    """Two molecules as SMILES; the order counts for a solute in a solvent, and not for two drugs."""

    first: str
    second: str

    def canonical(self) -> MoleculePair:
        """The same pair in RDKit's canonical SMILES, the lesser first: one value for (a, b) and (b, a).

        Examples:
            >>> MoleculePair("OCC", "O").canonical() == MoleculePair("O", "C(O)C").canonical()
            True
        """
        first, second = sorted((canonical_smiles(self.first), canonical_smiles(self.second)))
        return MoleculePair(first, second)


@dataclass(frozen=True)
class Remark:
    """What was found in one row: why it was left out, or (`kept`) what should be known about it."""

    row: int
    value: str
    reason: str
    kept: bool = False

    def __str__(self) -> str:
        return f"row {self.row}: {self.value}: {self.reason}"


@dataclass
class ReadPairs:
    """Rows that can be used, their numbers in the source, and a remark for each row with a fault or peculiarity."""

    rows: PairRows
    numbers: list[int] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)


@dataclass(frozen=True)
class SmilesReader:
    """Reads SMILES, and says by row which cannot be used and why.

    Attributes:
        policy: "raise" stops at the first bad row. "skip" leaves bad rows out with a remark. "largest-fragment" does
            so too, and reduces a substance of several fragments (a salt) to the one with the most heavy atoms; under
            the other two such a substance stays whole, with a remark.
        canonical: write the SMILES as RDKit does, so that one molecule has one text.
        largest: molecules of more heavy atoms are refused.

    Examples:
        >>> SmilesReader().read("CC(=O)[O-].[Na+]")
        'CC(=O)[O-].[Na+]'
        >>> SmilesReader(policy="largest-fragment", canonical=True).read("[Na+].[O-]C(C)=O")
        'CC(=O)[O-]'
        >>> SmilesReader().read("aspirin")
        Traceback (most recent call last):
        mol_llm.molecules.BadMolecule: 'aspirin' is not a SMILES (is it a name?)
    """

    policy: Policy = "raise"
    canonical: bool = False
    largest: int = 500

    def __post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise ValueError(f"policy must be one of {', '.join(get_args(Policy))} (got {self.policy!r})")
        if self.largest < 1:
            raise ValueError(f"largest must be 1 or more atoms (got {self.largest})")

    def read(self, smiles: Any) -> str:
        """The SMILES to use for one that was given.

        Raises:
            BadMolecule: it cannot be used; says why.
        """
        return self._read(smiles)[0]

    def read_pairs(
        self, first: Sequence[Any], second: Sequence[Any], targets: Sequence[Any], *, task: PairTask | None = None
    ) -> ReadPairs:
        """Rows of pairs, checked. With a `task`, targets are checked too: numbers, or classes.

        A pair whose targets contradict one another (two classes for one pair of molecules, in this order) is left
        out in every row.

        Raises:
            BadMolecule: a bad row under the policy "raise"; names row and reason.
            ValueError: the columns differ in length, or no row at all can be used.
        """
        PairRows(first, second, targets)  # its own check of the lengths
        kept: list[tuple[int, str, str, Any]] = []
        remarks: list[Remark] = []
        seen: dict[Any, tuple[str, str]] = {}  # each text is read once
        for row, (one, two, target) in enumerate(zip(first, second, targets, strict=True)):
            try:
                texts = [self._once(seen, value) for value in (one, two)]
                answer = target if task is None else checked_target(task, target)
            except BadMolecule as error:
                if self.policy == "raise":
                    raise BadMolecule(f"row {row}: {error}") from None
                remarks.append(Remark(row, f"{one!r}, {two!r}", str(error)))
                continue
            remarks += [Remark(row, text, note, kept=True) for text, note in texts if note]
            kept.append((row, texts[0][0], texts[1][0], answer))
        if task is not None and task.kind == "class":
            kept = self._without_contradictions(kept, remarks)
        if not kept:
            first_reason = f": {remarks[0]}" if remarks else ""
            raise ValueError(f"none of {len(first)} rows can be used{first_reason}")
        remarks.sort(key=lambda remark: remark.row)
        numbers, ones, twos, answers = (list(column) for column in zip(*kept, strict=True))
        return ReadPairs(PairRows(ones, twos, answers), numbers, remarks)

    def _without_contradictions(self, kept: list[Any], remarks: list[Remark]) -> list[Any]:
        found: dict[tuple[str, str], set[Any]] = {}
        for _, one, two, answer in kept:
            found.setdefault((one, two), set()).add(answer)
        bad = {pair for pair, answers in found.items() if len(answers) > 1}
        for row, one, two, answer in kept:
            if (one, two) in bad:
                reason = f"the pair has contradictory targets {sorted(found[one, two])}, here {answer}"
                if self.policy == "raise":
                    raise BadMolecule(f"row {row}: {one}, {two}: {reason}")
                remarks.append(Remark(row, f"{one}, {two}", reason))
        return [entry for entry in kept if (entry[1], entry[2]) not in bad]

    def _once(self, seen: dict[Any, tuple[str, str]], smiles: Any) -> tuple[str, str]:
        if not isinstance(smiles, str):
            return self._read(smiles)
        if smiles not in seen:
            seen[smiles] = self._read(smiles)
        return seen[smiles]

    def _read(self, smiles: Any) -> tuple[str, str]:
        """The text to use, and a note on it ("" for none)."""
        molecule = parsed(smiles)
        text, notes = smiles.strip(), []
        fragments = Chem.GetMolFrags(molecule, asMols=True) if "." in text else ()
        if len(fragments) > 1 and self.policy == "largest-fragment":
            molecule = max(fragments, key=lambda part: part.GetNumHeavyAtoms())
            notes.append(f"the largest of {len(fragments)} fragments of {text}")
            text = Chem.MolToSmiles(molecule)
        elif len(fragments) > 1:
            notes.append(f"{len(fragments)} fragments, kept together (policy largest-fragment takes the largest)")
        if molecule.GetNumHeavyAtoms() > self.largest:
            raise BadMolecule(
                f"{_short(smiles)} has {molecule.GetNumHeavyAtoms()} heavy atoms, more than {self.largest}; "
                "largest= sets the limit"
            )
        if molecule.GetNumAtoms() == 1:
            notes.append("a single atom: its graph has no bond")
        return (Chem.MolToSmiles(molecule) if self.canonical else text), "; ".join(notes)


def parsed(smiles: Any) -> Any:
    """The RDKit molecule of a SMILES.

    Raises:
        BadMolecule: not a text, empty, a reaction, with blanks inside, not a SMILES, or with a valence that cannot be.
    """
    if not isinstance(smiles, str):
        raise BadMolecule(f"{smiles!r} is not a text")
    text = smiles.strip()
    if not text:
        raise BadMolecule(f"{smiles!r} is empty")
    if ">" in text.replace("->", ""):  # dative bonds are written -> and belong to molecules
        raise BadMolecule(f"{_short(smiles)} is a reaction: give the molecules one by one")
    if len(text.split()) > 1 or "\0" in text:
        raise BadMolecule(f"{_short(smiles)} has blanks inside: a SMILES has none (is it a name?)")
    with rdBase.BlockLogs():
        rough: Any = Chem.MolFromSmiles(text, sanitize=False)
        if rough is None or not rough.GetNumAtoms():
            name = " (is it a name?)" if text.isalpha() else ""
            raise BadMolecule(f"{_short(smiles)} is not a SMILES{name}")
        molecule: Any = Chem.MolFromSmiles(text)  # None where it fails, which its types do not say
        if molecule is None:
            problems = "; ".join(problem.Message() for problem in Chem.DetectChemistryProblems(rough))
            raise BadMolecule(f"{_short(smiles)}: {problems or 'RDKit cannot make sense of it'}")
    return molecule


def canonical_smiles(smiles: Any) -> str:
    """RDKit's canonical SMILES, stereochemistry and isotopes included.

    Examples:
        >>> canonical_smiles("OCC")
        'CCO'
    """
    return str(Chem.MolToSmiles(parsed(smiles)))


def checked_target(task: PairTask, target: Any) -> Any:
    """A target as its task wants it: a finite number, the number of a class, or a text.

    Raises:
        BadMolecule: it is none.
    """
    if task.kind == "text":
        if not isinstance(target, str) or not target.strip():
            raise BadMolecule(f"target {target!r} is not a text")
        return target
    try:
        value = float(target)
    except (TypeError, ValueError):
        raise BadMolecule(f"target {target!r} is not a number") from None
    if value - value != 0:  # NaN and the infinities
        raise BadMolecule(f"target {target!r} is not finite")
    if task.kind == "value":
        return value
    if value != int(value) or not 0 <= value < len(task.answers):
        raise BadMolecule(f"target {target!r} is no class of {task.name!r}: 0 to {len(task.answers) - 1}")
    return int(value)


def _short(smiles: str) -> str:
    return repr(smiles if len(smiles) <= 80 else f"{smiles[:77]}...")
