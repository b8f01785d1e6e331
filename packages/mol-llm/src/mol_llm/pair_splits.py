"""`split_pairs`: parts of rows that share no pair, no solute, no drug or no scaffold; `leak_report` counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds import MurckoScaffold

from mol_llm.molecules import canonical_smiles
from mol_llm.pairs import PairRows

Split = Literal["random", "pair", "first", "second", "cold-one", "cold-both", "scaffold"]


@dataclass(frozen=True)
class PairSplits:
    """Three parts of rows, and how many rows belong to none (pairs of a known with an unknown drug)."""

    train: PairRows
    validation: PairRows
    test: PairRows
    left_out: int


def split_pairs(
    rows: PairRows, by: Split, *, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0
) -> PairSplits:
    """Divide rows into training, validation and test.

    Args:
        rows: the rows.
        by: "random": rows. "pair": unordered pairs of canonical SMILES, so that (a, b) and (b, a) stay together.
            "first", "second": molecules of one role (a solute, a solvent). "scaffold": Murcko scaffolds of the first.
            "cold-one": drugs are divided; a pair of two training drugs is for training, one of a training drug and a
            test drug is for testing (so for validation), the rest is left out. "cold-both": both drugs of a part.
        fractions: of the rows, or of the drugs for the two cold kinds; their sum is 1. Groups are drawn in random
            order until a part is full, so that parts of few large groups may be larger.
        seed: of the draw; the parts depend on the molecules and not on the order of the rows.

    Raises:
        ValueError: an unknown kind, fractions that do not add up, or a part without rows.
    """
    if by not in get_args(Split):
        raise ValueError(f"by must be one of {', '.join(get_args(Split))} (got {by!r})")
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions must be three shares with sum 1 (got {fractions})")
    names = _canonical(rows)
    generator = np.random.default_rng(seed)
    if by in ("cold-one", "cold-both"):
        parts = _cold_parts(names, fractions, generator, both=by == "cold-both")
    else:
        parts = _parts_of_groups(_groups(names, by), fractions, generator)
    for name, part, fraction in zip(("training", "validation", "test"), range(3), fractions, strict=True):
        if fraction > 0 and not (parts == part).any():
            raise ValueError(f"the {name} part by {by!r} has no rows: there are too few groups for {fractions}")
    train, validation, test = (take(rows, np.flatnonzero(parts == part)) for part in range(3))
    return PairSplits(train, validation, test, int((parts < 0).sum()))


def leak_report(train: PairRows, test: PairRows) -> dict[str, float]:
    """Which shares of the test rows have their unordered pair, first, second, either or both molecules in training.

    Examples:
        >>> leak_report(PairRows(["CCO"], ["O"], [0]), PairRows(["O", "C"], ["OCC", "O"], [0, 0]))
        {'pair': 0.5, 'first': 0.0, 'second': 0.5, 'either': 1.0, 'both': 0.5}
    """
    known, asked = _canonical(train), _canonical(test)
    if not asked:
        raise ValueError("a leak report needs test rows (got none)")
    pairs = {tuple(sorted(pair)) for pair in known}
    firsts, seconds = {a for a, _ in known}, {b for _, b in known}
    drugs = firsts | seconds
    return {
        "pair": float(np.mean([tuple(sorted(pair)) in pairs for pair in asked])),
        "first": float(np.mean([a in firsts for a, _ in asked])),
        "second": float(np.mean([b in seconds for _, b in asked])),
        "either": float(np.mean([a in drugs or b in drugs for a, b in asked])),
        "both": float(np.mean([a in drugs and b in drugs for a, b in asked])),
    }


def take(rows: PairRows, numbers: Sequence[int] | np.ndarray) -> PairRows:
    """Rows by their numbers."""
    first, second, targets = ([column[n] for n in numbers] for column in (rows.first, rows.second, rows.targets))
    return PairRows(first, second, targets)


def _canonical(rows: PairRows) -> list[tuple[str, str]]:
    names = {smiles: canonical_smiles(smiles) for smiles in {*rows.first, *rows.second}}
    return [(names[a], names[b]) for a, b in rows.pairs]


def _groups(names: list[tuple[str, str]], by: Split) -> list[object]:
    if by == "random":
        counts: dict[tuple[str, str], int] = {}
        groups: list[object] = []
        for pair in names:  # a repeated pair is a row of its own, without regard to the order of the others
            counts[pair] = counts.get(pair, 0) + 1
            groups.append((*pair, counts[pair]))
        return groups
    if by == "pair":
        return [tuple(sorted(pair)) for pair in names]
    if by == "scaffold":
        scaffolds = {a: _scaffold(a) for a, _ in names}
        return [scaffolds[a] for a, _ in names]
    return [pair[by == "second"] for pair in names]


def _scaffold(smiles: str) -> str:
    """The Murcko scaffold; a molecule without rings is its own."""
    with rdBase.BlockLogs():
        scaffold = MurckoScaffold.GetScaffoldForMol(Chem.MolFromSmiles(smiles))  # type: ignore[no-untyped-call]
    return str(Chem.MolToSmiles(scaffold)) if scaffold.GetNumAtoms() else smiles


def _parts_of_groups(
    groups: list[object], fractions: tuple[float, float, float], generator: np.random.Generator
) -> np.ndarray:
    sizes: dict[object, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    order = sorted(sizes, key=repr)
    order = [order[n] for n in generator.permutation(len(order))]
    before = np.cumsum([0, *(sizes[group] for group in order)])[:-1] / len(groups)
    part_of = dict(zip(order, _part(before, fractions), strict=True))
    return np.array([part_of[group] for group in groups])


def _part(places: np.ndarray, fractions: tuple[float, float, float]) -> np.ndarray:
    """The part of each place in [0, 1), training first; the small number absorbs what sums of fractions lose."""
    return np.searchsorted(np.cumsum(fractions)[:2] - 1e-12, places, side="right")


def _cold_parts(
    names: list[tuple[str, str]], fractions: tuple[float, float, float], generator: np.random.Generator, *, both: bool
) -> np.ndarray:
    drugs = sorted({drug for pair in names for drug in pair})
    places = generator.permutation(len(drugs)) / len(drugs)
    part_of = dict(zip(drugs, _part(places, fractions), strict=True))
    parts = []
    for pair in names:
        low, high = sorted(part_of[drug] for drug in pair)
        cold = low == high if both or high == 0 else low == 0
        parts.append(high if cold else -1)
    return np.array(parts)
