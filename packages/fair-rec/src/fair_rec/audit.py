"""An audit: lists from a file or a model, compared with what people consumed, as one self-contained page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import and_
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fair_rec.groups import ItemGroups, category_groups, popularity_groups, year_groups
from fair_rec.lists import Lists, as_lists, lists_of
from fair_rec.metrics import average_popularity, coverage, gini, unfairness_report
from fair_rec.reference import history_counts, item_counts, reference_proportions
from fair_rec.reranking import frontier
from fair_rec.tables import SUFFIXES, column_groups, read_table
from predilect.data import Catalogue, SequenceSplits
from predilect.evaluation import Evaluation
from predilect.recommender import Recommender
from predilect.runs import write_text

if TYPE_CHECKING:
    from fair_rec.cli import AuditConfig

REFERENCES = {
    "train": "training histories",
    "validation": "validation histories",
    "test": "test histories",
    "catalogue": "catalogue",
}
MOVED = 10  # items that gain and lose most, each


@dataclass(frozen=True)
class Grouping:
    """One grouping's part of an audit.

    Attributes:
        name: of the grouping.
        rows: a dict a group with `group, reference, share, unfairness, low, high`.
        mgu, dgu: at the audit's k.
        intervals: 95 % intervals of both, `(low, high)` by "MGU" and "DGU".
    """

    name: str
    rows: list[dict[str, Any]]
    mgu: float
    dgu: float
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        title: what was audited.
        data: the data in words.
        reference_name: what the shares are compared with.
        k: length of the lists.
        lists, users: how many.
        groupings: one or more.
        gaining, losing: items by the difference of their share of recommendations and of the reference, with `title`,
            `reference`, `share` and `change`, the largest first.
        summary: coverage, Gini coefficient and average popularity of the lists.
        frontier: rows of `frontier`, by the first grouping; empty where it was not asked for.
    """

    title: str
    data: str
    reference_name: str
    k: int
    lists: int
    users: int
    groupings: list[Grouping]
    gaining: list[dict[str, Any]]
    losing: list[dict[str, Any]]
    summary: dict[str, float]
    frontier: list[dict[str, Any]]


def run(config: AuditConfig, source: Path) -> Audit:
    """Read data and lists, and compare them.

    Raises:
        ValueError: lists, groups or k that do not fit; names the value and the way out.
        FileNotFoundError: there is neither a table nor a model at `source`.
    """
    from predilect.leaderboard.preparation import prepare

    recommender, table = _source(source)
    if config.frontier and recommender is None:
        raise ValueError(f"--frontier re-ranks a model, and {source} holds lists only: leave it out")
    splits = prepare(config)
    groupings = _groups(config, splits)
    if recommender is not None:
        from predilect.cli.evaluate import require_same_catalogue

        require_same_catalogue(recommender.catalogue, splits.catalogue)
        if config.k > splits.num_items:
            raise ValueError(f"k must be in 1..{splits.num_items}, the number of items (got {config.k})")
        most = config.test_rows or recommender.max_test_rows
        lists = lists_of(
            recommender, splits, "test", config.k, mask_seen=config.mask_seen, max_rows=most, seed=config.seed
        )
    else:
        lists = _table_lists(table, splits)
    points: list[dict[str, Any]] = []
    if config.frontier and recommender is not None:
        found = frontier(recommender, splits, groupings[0], k=config.k, max_rows=config.test_rows)
        points = found.to_dict("records")
    changed = _changes(lists, splits, config)
    return Audit(
        title=recommender.name if recommender is not None else source.name,
        data=config.data,
        reference_name=REFERENCES[config.reference],
        k=config.k,
        lists=len(lists),
        users=len(np.unique(lists.user)),
        groupings=[_compared(lists, groups, config, splits) for groups in groupings],
        gaining=changed[:MOVED],
        losing=changed[::-1][:MOVED],
        summary={
            f"coverage@{config.k}": coverage(lists, config.k),
            f"Gini coefficient@{config.k}": gini(lists, config.k),
            f"average popularity@{config.k}": average_popularity(lists, item_counts(splits), config.k),
        },
        frontier=points,
    )


def _source(source: Path) -> tuple[Recommender | None, Any]:
    """A fitted recommender, or a table of lists."""
    from predilect.cli.models import find_model

    if source.is_file():
        if source.suffix not in SUFFIXES:
            raise ValueError(f"{source} is not a table of lists: its name must end in {', '.join(SUFFIXES)}")
        return None, read_table(source)
    if (source / "evaluation.json").is_file() and not (source / "method.json").is_file():
        return None, Evaluation.load(source)
    return Recommender.from_pretrained(find_model(source)), None


def _table_lists(table: Any, splits: SequenceSplits) -> Lists:
    """Lists of an evaluation of these data, or of another system, whose items are the data's own ids or titles."""
    if isinstance(table, Evaluation):
        _require_same_rows(table, splits)
        return as_lists(table, catalogue=splits.catalogue)
    columns = {str(name): table[name].tolist() for name in table.columns}
    known = {raw: item for item, raw in enumerate(splits.catalogue.raw_ids, start=1)}
    for name in ("item_id", "item", "items", "top"):
        if name in columns:
            columns[name] = [_dense(value, known, splits.catalogue) for value in columns[name]]
    if "rank" in columns:
        columns["rank"] = [_rank(value) for value in columns["rank"]]
    return as_lists(columns, catalogue=splits.catalogue)


def _dense(value: Any, known: dict[str, int], catalogue: Catalogue) -> Any:
    """The item of a raw id or a title, raw ids first; lists item by item (in text tables spaces part raw ids)."""
    if isinstance(value, list | tuple | np.ndarray):
        return [_dense(one, known, catalogue) for one in value]
    text = str(value)
    if text in known:
        return known[text]
    parts = text.split()
    if len(parts) > 1 and all(part in known for part in parts):
        return [known[part] for part in parts]
    try:
        return catalogue.resolve([text])[0]
    except KeyError as error:
        raise ValueError(f"{error.args[0]!s}; the data may have lost it to --k-core (0 keeps every item)") from error


def _rank(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"the column rank holds {value!r}, which is no number") from None


def _require_same_rows(evaluation: Evaluation, splits: SequenceSplits) -> None:
    rows = splits.part(evaluation.setting["part"])
    row, target = (np.asarray(evaluation.rows[name]) for name in ("row", "target"))
    if row.max(initial=0) >= len(rows) or not np.array_equal(rows.target[row], target):
        raise ValueError(
            "the evaluation is of other rows than the prepared data has: give the data and the options (--data, "
            "--split, --k-core) that it was made with"
        )


def _groups(config: AuditConfig, splits: SequenceSplits) -> list[ItemGroups]:
    """The groupings that were asked for; those of a + are intersected."""
    names = config.groups or ("popularity", *(("category",) if any(splits.catalogue.categories) else ()))
    table = read_table(config.group_table) if config.group_table else None
    single: dict[str, ItemGroups] = {}
    for name in dict.fromkeys(part for whole in names for part in config.parts(whole)):
        single[name] = _grouping(name, table, config, splits)
    return [reduce(and_, (single[part] for part in config.parts(whole))) for whole in names]


def _grouping(name: str, table: Any, config: AuditConfig, splits: SequenceSplits) -> ItemGroups:
    if name == "popularity":
        return popularity_groups(item_counts(splits), config.num_groups)
    if name == "category":
        return category_groups(splits.catalogue, counting=config.counting)
    if name == "year":
        return year_groups(splits.catalogue)
    return column_groups(
        table,
        name,
        splits.catalogue,
        counting=config.counting,
        skip=config.on_error == "skip",
        elsewhere=lambda: _read_ids(config),
    )


def _read_ids(config: AuditConfig) -> tuple[str, ...]:
    """Ids of all items of the log, those that the k-core left out with them."""
    from predilect.leaderboard.preparation import read_data
    from predilect.registry import SPLITS, registered

    return () if config.format in registered(SPLITS) else read_data(config.data, config).catalogue.raw_ids


def _compared(lists: Lists, groups: ItemGroups, config: AuditConfig, splits: SequenceSplits) -> Grouping:
    reference = reference_proportions(groups, config.reference, splits)
    report = unfairness_report(lists, groups, reference, [config.k], bootstrap=config.bootstrap, seed=config.seed)
    records = report.to_dict("records")
    of_groups, (of_mgu, of_dgu) = records[:-2], records[-2:]
    return Grouping(
        name=groups.name,
        rows=of_groups,
        mgu=float(of_mgu["unfairness"]),
        dgu=float(of_dgu["unfairness"]),
        intervals={str(row["group"]): (row["low"], row["high"]) for row in (of_mgu, of_dgu)},
    )


def _changes(lists: Lists, splits: SequenceSplits, config: AuditConfig) -> list[dict[str, Any]]:
    """Every item's change of share, the largest gain first."""
    shown = np.bincount(lists.top(config.k).ravel(), minlength=splits.num_items + 1)[1:]
    if config.reference == "catalogue":
        before = np.ones(splits.num_items)
    else:
        before = history_counts(splits.part(config.reference), splits.num_items)[1:]
    share, reference = shown / shown.sum(), before / before.sum()
    order = np.argsort(reference - share, kind="stable")
    order = np.concatenate([order[:MOVED], order[-MOVED:]]) if len(order) > 2 * MOVED else order
    return [
        {
            "title": splits.catalogue.title(int(place) + 1),
            "reference": float(reference[place]),
            "share": float(share[place]),
            "change": float(share[place] - reference[place]),
        }
        for place in order
    ]


def write_page(audit: Audit, path: Path) -> None:
    """Render the page and write it: everything is in the one file, and it makes no request."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(audit))


def render(audit: Audit) -> str:
    """The page as text; all text from the data is escaped. Its style is that of the leaderboard's report."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("fair_rec", "."), PackageLoader("predilect.leaderboard", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("audit.html.j2").render(audit=audit, charts=[_bars(g) for g in audit.groupings])


def _bars(grouping: Grouping) -> dict[str, Any]:
    """Positions of a chart's bars in percent of its width; the interval is that of the recommended share."""
    most = max(max(row["share"], row["reference"], row["reference"] + row["high"]) for row in grouping.rows) or 1.0
    bars = [
        {
            **row,
            "before": 100 * row["reference"] / most,
            "now": 100 * row["share"] / most,
            "start": 100 * max(0.0, row["reference"] + row["low"]) / most,
            "end": 100 * (row["reference"] + row["high"]) / most,
        }
        for row in grouping.rows
    ]
    return {"grouping": grouping, "bars": bars}
