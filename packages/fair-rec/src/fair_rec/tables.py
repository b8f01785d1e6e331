"""Tables that people keep beside their log: lists of recommendations, and columns that group items."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fair_rec.groups import Counting, ItemGroups, groups_of
from predilect.data import Catalogue

SUFFIXES = (".csv", ".tsv", ".parquet")
ITEM = "item_id"


def read_table(path: Path) -> Any:
    """A data frame; the cells of text tables are text, so that ids keep their zeros.

    Raises:
        ValueError: another kind of file.
        FileNotFoundError: there is none.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} is not a table: its name must end in {', '.join(SUFFIXES)}")
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str)


def column_groups(
    table: Any,
    column: str,
    catalogue: Catalogue,
    *,
    separator: str = "|",
    counting: Counting = "unit",
    skip: bool = False,
    elsewhere: Callable[[], Iterable[str]] = tuple,
) -> ItemGroups:
    """Groups by a column of a table with a row per item, or several rows of an item that is in several groups.

    An empty cell is an item without a group.

    Args:
        table: a data frame with `item_id`, the data's own ids, and the column.
        column: its name: provider, country, ...
        catalogue: of the items.
        separator: between the groups of one cell; cells that hold lists need none.
        counting: of an item in several groups (`ItemGroups`).
        skip: leave out rows of unknown items, and let items without a row be without a group.
        elsewhere: gives ids that are known but not in the catalogue, such as those that a k-core left out; asked only
            where there are such rows.

    Raises:
        ValueError: no such column (names those that there are), an item of the table that is unknown, an item of the
            catalogue without a row, or a column without any group.
    """
    names = [str(name) for name in table.columns]
    for wanted in (ITEM, column):
        if wanted not in names:
            raise ValueError(f"the table of groups lacks a column {wanted!r} (got {', '.join(names)})")
    place = {raw: number for number, raw in enumerate(catalogue.raw_ids)}
    labels: list[list[str]] = [[] for _ in catalogue.raw_ids]
    rows = [(str(raw).strip(), cell) for raw, cell in zip(table[ITEM], table[column], strict=True)]
    if not skip:
        _require_known(rows, place, elsewhere)
        _require_all(rows, catalogue, column)
    for raw, cell in rows:
        if raw in place:
            labels[place[raw]] += [one for one in _cell(cell, separator) if one not in labels[place[raw]]]
    return groups_of(labels, column, counting=counting)


def _require_known(rows: list[tuple[str, Any]], place: dict[str, int], elsewhere: Callable[[], Iterable[str]]) -> None:
    unknown = [raw for raw, _ in rows if raw not in place]
    if unknown:
        known = set(elsewhere())
        unknown = [raw for raw in unknown if raw not in known]
    if unknown:
        raise ValueError(
            f"the table of groups has {unknown[0]!r}, which is no item of the data ({len(unknown)} such rows): remove "
            "them, or pass --on-error skip"
        )


def _require_all(rows: list[tuple[str, Any]], catalogue: Catalogue, column: str) -> None:
    there = {raw for raw, _ in rows}
    if missing := [raw for raw in catalogue.raw_ids if raw not in there]:
        raise ValueError(
            f"the table of groups lacks the item {missing[0]!r} ({len(missing)} in all): add rows with an empty "
            f"{column}, or pass --on-error skip"
        )


def _cell(cell: Any, separator: str) -> list[str]:
    """The groups in a cell."""
    if cell is None or (isinstance(cell, float) and cell != cell):
        return []
    parts = cell.split(separator) if isinstance(cell, str) else cell if hasattr(cell, "__iter__") else [cell]
    return [text for part in parts if (text := str(part).strip())]
