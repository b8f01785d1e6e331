"""Rows of pairs from files: any CSV, and the layouts in which ChChMiner, FreeSolv and CombiSolv are published."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from mol_llm.molecules import BadMolecule, ReadPairs, Remark, SmilesReader
from mol_llm.pairs import INTERACTION, SOLVATION, PairTask


def read_pairs_csv(
    path: str | Path,
    task: PairTask,
    *,
    first: str = "first",
    second: str = "second",
    target: str = "target",
    reader: SmilesReader | None = None,
) -> ReadPairs:
    """Pairs from a CSV (or .csv.gz) with a header; row numbers in remarks count data rows from 0.

    Raises:
        ValueError: a column is missing (names those there are), or no row can be used.
        BadMolecule: a bad row, under the reader's policy "raise".
    """
    with opened(path) as file:
        rows = csv.DictReader(file)
        there = rows.fieldnames or []
        missing = [name for name in (first, second, target) if name not in there]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]!r}; it has {', '.join(there) or 'no header'}")
        columns = [(row[first], row[second], row[target]) for row in rows]
    return checked_rows(columns, task, reader, path)


def read_chchminer(folder: str | Path, *, reader: SmilesReader | None = None) -> ReadPairs:
    """ChChMiner in MIRACLE's files `ChChMiner_{train,valid,test}.csv(.gz)`; see `read_miracle`."""
    return read_miracle(folder, "ChChMiner", reader=reader)


def read_miracle(folder: str | Path, name: str, *, reader: SmilesReader | None = None) -> ReadPairs:
    """Drugs that interact or not, in MIRACLE's files `NAME_{train,valid,test}.csv(.gz)`: unordered pairs, each once.

    Columns `smiles_1`, `smiles_2` and `label` (0 or 1), in any order and among others.

    The published parts leak into one another and hold pairs as positive and as negative, because negatives were drawn
    without a look at the positives. As others do (CGIB), the parts are merged, and a pair that is a positive anywhere
    is one: such rows get a remark. Split again with `split_pairs`.

    Raises:
        FileNotFoundError: a part is missing.
        ValueError: a column is missing; names those there are.
    """
    columns: dict[tuple[str, str], tuple[str, str, str]] = {}
    contradicted: list[tuple[str, str]] = []
    for part in ("train", "valid", "test"):
        with opened(path := present(folder, f"{name}_{part}.csv")) as file:
            rows = csv.DictReader(file)
            there = rows.fieldnames or []
            if missing := [column for column in ("smiles_1", "smiles_2", "label") if column not in there]:
                raise ValueError(f"{path} has no column {missing[0]!r}; it has {', '.join(there) or 'no header'}")
            for row in rows:
                one, two = sorted((row["smiles_1"], row["smiles_2"]))
                label = row["label"]
                if (one, two) not in columns:
                    columns[one, two] = (one, two, label)
                elif float(columns[one, two][2]) != float(label):
                    contradicted.append((one, two))
                    columns[one, two] = (one, two, "1")
    read = checked_rows(list(columns.values()), INTERACTION, reader, folder)
    places = {pair: number for number, pair in enumerate(columns)}
    remarks = [
        Remark(places[pair], ", ".join(pair), "both classes in the files: taken as an interaction", kept=True)
        for pair in dict.fromkeys(contradicted)
    ]
    read.remarks = sorted([*read.remarks, *remarks], key=lambda remark: remark.row)
    return read


def read_freesolv(path: str | Path, *, reader: SmilesReader | None = None) -> ReadPairs:
    """FreeSolv's `database.txt(.gz)`: fields parted by semicolons; the measured hydration free energy in kcal/mol.

    The solvent of every row is water, `O`.
    """
    columns = []
    with opened(path) as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                fields = [part.strip() for part in line.split(";")]
                if len(fields) < 4:
                    raise ValueError(f"{path} is not FreeSolv's database.txt: {line[:60]!r} has {len(fields)} fields")
                columns.append((fields[1], "O", fields[3]))
    return checked_rows(columns, SOLVATION, reader, path)


def read_combisolv(path: str | Path, *, reader: SmilesReader | None = None) -> ReadPairs:
    """CombiSolv-Exp's CSV with `ssid` (solvent SMILES, a full stop, solute SMILES) and `dgsolv` in kcal/mol.

    Rows with more or fewer than one full stop are bad: which part is the solvent cannot be known.
    """
    columns: list[tuple[Any, Any, Any]] = []
    with opened(path) as file:
        rows = csv.DictReader(file)
        if not {"ssid", "dgsolv"} <= set(rows.fieldnames or []):
            raise ValueError(f"{path} has no columns ssid and dgsolv; use read_pairs_csv for other layouts")
        for row in rows:
            parts = row["ssid"].split(".")
            solvent, solute = parts if len(parts) == 2 else (row["ssid"], None)
            columns.append((solute, solvent, row["dgsolv"]))
    return checked_rows(columns, SOLVATION, reader, path)


def checked_rows(
    columns: Sequence[tuple[Any, Any, Any]], task: PairTask, reader: SmilesReader | None, source: str | Path
) -> ReadPairs:
    """Rows of first, second and target as `SmilesReader.read_pairs` takes them, with the source in messages."""
    if not columns:
        raise ValueError(f"{source} has no rows")
    first, second, targets = zip(*columns, strict=True)
    try:
        return (reader or SmilesReader(policy="skip")).read_pairs(first, second, targets, task=task)
    except BadMolecule as error:
        raise BadMolecule(f"{source}: {error}") from None


def present(folder: str | Path, name: str) -> Path:
    """A file of a folder, or the one compressed by gzip."""
    for path in (Path(folder) / name, Path(folder) / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder} has neither {name} nor {name}.gz")


@contextmanager
def opened(path: str | Path) -> Iterator[TextIO]:
    """A text file, plain or compressed by gzip, without the byte-order mark that spreadsheets write."""
    if str(path).endswith(".gz"):
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    else:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file
