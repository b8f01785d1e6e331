"""Rows of pairs from further published files: ZhangDDI, DeepDDI, Drugbank, TWOSIDES, solvation, chromophores."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mol_llm.molecules import ReadPairs, SmilesReader
from mol_llm.pairs import ABSORPTION, EMISSION, LIFETIME, SOLVATION, PairTask
from mol_llm.readers import checked_rows, opened, present, read_miracle

_CHROMOPHORE = {"absorption": "Absorption max (nm)", "emission": "Emission max (nm)", "lifetime": "Lifetime (ns)"}
_CHROMOPHORE_TASKS = {task.name: task for task in (ABSORPTION, EMISSION, LIFETIME)}
_POSITIONS = (0, 1, 4)  # of MolTC's CompSol.csv and Abraham.csv
_NAMED_EFFECTS = 5


def read_zhangddi(folder: str | Path, *, reader: SmilesReader | None = None) -> ReadPairs:
    """ZhangDDI in MIRACLE's files `ZhangDDI_{train,valid,test}.csv(.gz)`; see `read_miracle`."""
    return read_miracle(folder, "ZhangDDI", reader=reader)


def read_deepddi(folder: str | Path, *, reader: SmilesReader | None = None) -> ReadPairs:
    """DeepDDI in MIRACLE's files `DeepDDI_{train,valid,test}.csv(.gz)`; see `read_miracle`.

    These files could not be looked at: that they have the columns `smiles_1`, `smiles_2` and `label` of the other two
    sets of their authors is what is declared here, and a file without them is refused by name.
    """
    return read_miracle(folder, "DeepDDI", reader=reader)


def read_drugbank(folder: str | Path, *, reader: SmilesReader | None = None) -> tuple[PairTask, ReadPairs]:
    """Drugbank's types of interaction, in the folder that MolTC's code reads: which of 86 sentences holds.

    `Interaction_information.csv` has a type's sentence in its second column and its name, "DDI type N", in its fourth.
    `DDI_data/ddi_{training,validation,test}.csv(.gz)` have the type's number less one in the fifth column and the
    SMILES in the seventh and eighth. Headers are passed over: the code reads places and no names. The three parts are
    merged, a repeated row once; split again with `split_pairs`. The order of the drugs counts: a sentence says what
    #Drug1 does to #Drug2.

    Returns:
        The task "interaction-type", whose answers are the sentences in the order of the numbers, and the rows.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file with fewer columns, a type without a sentence, or two with the same.
    """
    folder = Path(folder)
    sentences: dict[int, str] = {}
    for row in _rows(present(folder, "Interaction_information.csv"), columns=4):
        number = row[3].removeprefix("DDI type ").strip()
        if not number.isdigit():
            raise ValueError(f"{folder}: Interaction_information.csv names the type {row[3]!r}, not 'DDI type N'")
        sentences[int(number) - 1] = row[1].strip()
    if missing := [n + 1 for n in range(len(sentences)) if n not in sentences]:
        raise ValueError(f"{folder}: Interaction_information.csv has no 'DDI type {missing[0]}'")
    answers = tuple(sentences[n] for n in range(len(sentences)))
    if repeated := [text for text, count in Counter(answers).items() if count > 1]:
        raise ValueError(f"{folder}: two types have the sentence {repeated[0]!r}: they could not be told apart")
    task = PairTask("interaction-type", "What does #Drug1 do to #Drug2?", "class", answers)
    columns: dict[tuple[str, str, str], None] = {}
    for part in ("training", "validation", "test"):
        for row in _rows(present(folder / "DDI_data", f"ddi_{part}.csv"), columns=8):
            columns[row[6], row[7], row[4]] = None
    return task, checked_rows(list(columns), task, reader, folder)


def read_twosides(
    path: str | Path, side_effect: str | None, *, reader: SmilesReader | None = None
) -> tuple[PairTask, ReadPairs]:
    """One side effect of TWOSIDES, in the file `twosides_full_{train,test}.csv` that MolTC's code reads.

    Its columns are, by place, two SMILES, a label (positive: the two drugs together cause the effect; negative or 0:
    they do not) and the name of the side effect; the header is passed over. A pair has many effects, so that the
    question is about one of them.

    Returns:
        The task "interaction" with the effect in its question, and the rows.

    Raises:
        ValueError: no or an unknown side effect (names the most frequent), or a label that is no number.
    """
    rows = list(_rows(path, columns=4))
    there = Counter(row[3].strip() for row in rows)
    if side_effect not in there:
        common = ", ".join(name for name, _ in there.most_common(_NAMED_EFFECTS))
        given = "which side effect?" if side_effect is None else f"{path} has no side effect {side_effect!r};"
        raise ValueError(f"{given} there are {len(there)}, the most frequent are {common}: --side-effect NAME")
    own = [row for row in rows if row[3].strip() == side_effect]
    columns = [(row[0], row[1], _sign(row[2])) for row in own]
    question = f"Do the two drugs together cause {side_effect}?"
    task = PairTask("interaction", question, "class", ("No, they do not.", "Yes, they do."))
    return task, checked_rows(columns, task, reader, path)


def read_compsol(path: str | Path, *, reader: SmilesReader | None = None) -> ReadPairs:
    """CompSol's free energies of solvation, as MolTC's `CompSol.csv`, whose layout is that of `read_abraham`."""
    return checked_rows(list(_solvation(path, _POSITIONS)), SOLVATION, reader, path)


def read_abraham(path: str | Path, *, reader: SmilesReader | None = None) -> ReadPairs:
    """Abraham's free energies of solvation, as MolTC's `Abraham.csv`, kcal/mol.

    A column each whose name holds "solute" and "smiles", "solvent" and "smiles", and that begins with "dgsolv" is
    taken where there is one. MolTC's file could not be looked at, and its code reads places: two SMILES in the first
    and second column and the value in the fifth, without saying which is the solute. A file without such names is
    read so, with the first as the solute; where that is wrong, `read_pairs_csv` takes columns by name.

    Raises:
        ValueError: neither such names nor five columns.
    """
    return checked_rows(list(_solvation(path, _POSITIONS)), SOLVATION, reader, path)


def read_combisolv_qm(path: str | Path, *, reader: SmilesReader | None = None) -> ReadPairs:
    """CombiSolv-QM, a million computed free energies of solvation, kcal/mol, as its authors publish it: a text file.

    Fields are parted by tabs, semicolons or commas. Its description names what it holds (solvent and solute as SMILES
    and InChI, dGsolv at 298 K) and not its columns: they are declared here to have "solute" and "smiles", and
    "solvent" and "smiles" in their names, and to begin with "dgsolv".

    Raises:
        ValueError: other columns; names them.
    """
    return checked_rows(list(_solvation(path, None)), SOLVATION, reader, path)


def read_chromophore(path: str | Path, task: str, *, reader: SmilesReader | None = None) -> ReadPairs:
    """Optical properties of chromophores in solvents: the CSV of Joung et al. (Scientific Data 7, 295, 2020).

    Columns `Chromophore`, `Solvent`, and by the task "absorption" `Absorption max (nm)`, "emission" `Emission max
    (nm)`, or "lifetime" `Lifetime (ns)`, whose natural logarithm is the target, as in CGIB and MolTC. Rows without
    the value are no rows of the task; solids and gases, whose `Solvent` is no SMILES, are bad rows.

    Raises:
        ValueError: an unknown task, a column is missing, or a lifetime that is not positive.
    """
    if task not in _CHROMOPHORE:
        raise ValueError(f"the task of chromophores is one of {', '.join(_CHROMOPHORE)} (got {task!r})")
    columns: list[tuple[Any, Any, Any]] = []
    with opened(path) as file:
        rows = csv.DictReader(file)
        needed = ("Chromophore", "Solvent", _CHROMOPHORE[task])
        if missing := [name for name in needed if name not in (rows.fieldnames or [])]:
            raise ValueError(
                f"{path} has no column {missing[0]!r}; it has {', '.join(rows.fieldnames or ['no header'])}"
            )
        for row in rows:
            value: Any = (row[needed[2]] or "").strip()
            if value.lower() in ("", "nan"):
                continue
            if task == "lifetime":
                try:
                    value = math.log(float(value))
                except ValueError:
                    value = f"{value} ns, whose logarithm cannot be had,"  # a bad row, by its target
            columns.append((row["Chromophore"], row["Solvent"], value))
    return checked_rows(columns, _CHROMOPHORE_TASKS[task], reader, path)


def _sign(label: str) -> Any:
    """1 above zero, 0 at and below it; what is no number stays, and is a bad row."""
    try:
        return int(float(label) > 0)
    except ValueError:
        return label


def _rows(path: str | Path, *, columns: int) -> Iterator[list[str]]:
    """The rows below the header.

    Raises:
        ValueError: one of them has fewer columns.
    """
    with opened(path) as file:
        rows = csv.reader(file)
        next(rows, None)
        for number, row in enumerate(rows):
            if row and len(row) < columns:
                raise ValueError(f"{path}, row {number}: {columns} columns are needed (got {len(row)})")
            if row:
                yield row


def _solvation(path: str | Path, positions: tuple[int, int, int] | None) -> Iterator[tuple[Any, Any, Any]]:
    """Solute, solvent and value of each row, by the names of the columns, or else by places."""
    with opened(path) as file:
        start = file.readline()
        file.seek(0)
        delimiter = max("\t;,", key=start.count)
        rows = csv.reader(file, delimiter=delimiter)
        header = next(rows, [])
        places = _named(header) or positions
        if places is None or (header and len(header) <= max(places)):
            raise ValueError(
                f"{path} has no columns of solute SMILES, solvent SMILES and dGsolv; it has {', '.join(header)}: "
                "name them with the layout csv (read_pairs_csv)"
            )
        for row in rows:
            if row:
                yield tuple(row[place] if place < len(row) else None for place in places)  # type: ignore[misc]


def _named(header: Sequence[str]) -> tuple[int, int, int] | None:
    """Places of the solute's and the solvent's SMILES and of the value, where one column each is named so."""
    names = [name.strip().lower() for name in header]
    solutes = [n for n, name in enumerate(names) if "solute" in name and "smiles" in name]
    solvents = [n for n, name in enumerate(names) if "solvent" in name and "smiles" in name]
    values = [n for n, name in enumerate(names) if name.startswith("dgsolv")]
    if not len(solutes) == len(solvents) == len(values) == 1:
        return None
    return solutes[0], solvents[0], values[0]
