from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from fair_rec import coverage, group_unfairness, item_counts, lists_of, mgu, popularity_groups, reference_proportions
from fair_rec.audit import Audit, run
from fair_rec.cli import AuditConfig
from predilect.cli import app
from predilect.data import SequenceSplits, load
from predilect.evaluation import evaluate
from predilect.recommenders import ItemKNN

K_CORE = 20
Ask = Callable[..., Result]


@pytest.fixture(scope="module")
def splits() -> SequenceSplits:
    return load().k_core(K_CORE).split()


@pytest.fixture(scope="module")
def recommender(splits: SequenceSplits) -> ItemKNN:
    return ItemKNN().fit(splits)


@pytest.fixture(scope="module")
def saved(recommender: ItemKNN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("item-knn")
    recommender.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def table(recommender: ItemKNN, splits: SequenceSplits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same lists as another system would write them: the data's own ids, an item a line."""
    lists = lists_of(recommender, splits, "test", 10)
    path = tmp_path_factory.mktemp("table") / "lists.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["user_id", "item_id", "rank"])
        for number, row in enumerate(lists.items):
            for rank, item in reversed(list(enumerate(row[row > 0], start=1))):
                out.writerow([number, splits.catalogue.raw_ids[item - 1], rank])
    return path


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    def ask(source: Path, *options: str) -> Result:
        page = str(tmp_path / "page.html")
        words = ["fair", "audit", str(source), "--k-core", str(K_CORE), "--bootstrap", "20", "--output", page]
        return CliRunner().invoke(app, [*words, *options])

    return ask


def _run(source: Path, **options: object) -> Audit:
    return run(AuditConfig(k_core=K_CORE, bootstrap=20, **options), source)  # type: ignore[arg-type]


def test_the_audit_is_of_the_models_own_lists(saved: Path, recommender: ItemKNN, splits: SequenceSplits) -> None:
    groups = popularity_groups(item_counts(splits))
    lists = lists_of(recommender, splits, "test", 10)
    unfairness = group_unfairness(lists, groups, reference_proportions(groups, "train", splits), 10)
    found = _run(saved)
    assert [g.name for g in found.groupings] == ["popularity", "category"]
    assert found.groupings[0].mgu == pytest.approx(mgu(unfairness))
    assert [row["unfairness"] for row in found.groupings[0].rows] == pytest.approx(unfairness.tolist())
    assert found.summary["coverage@10"] == coverage(lists, 10)
    changes = [item["change"] for item in found.gaining]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > 0 > found.losing[0]["change"]


def test_a_csv_of_the_same_lists_and_a_saved_evaluation_say_the_same(
    saved: Path, table: Path, recommender: ItemKNN, splits: SequenceSplits, tmp_path: Path
) -> None:
    evaluate(recommender, splits, bootstrap=0, top=10).save(tmp_path)
    model, *others = (_run(source) for source in (saved, table, tmp_path))
    for other in others:
        assert [g.mgu for g in other.groupings] == pytest.approx([g.mgu for g in model.groupings])
        assert other.gaining == model.gaining
        assert other.losing == model.losing


def test_the_page_is_whole_and_escapes_what_it_shows(table: Path, ask: Ask, tmp_path: Path) -> None:
    strange = tmp_path / "<b>lists.csv"
    strange.write_bytes(table.read_bytes())
    result = ask(strange)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "page.html").read_text()
    assert "default-src 'none'" in page
    assert "light-dark(" in page
    assert "&lt;b&gt;lists.csv" in page
    assert "<b>lists" not in page
    assert "src=" not in page
    assert "By category" in page
    assert "training histories" in page


def test_the_gate_ends_with_1_after_the_page_is_written(table: Path, ask: Ask, tmp_path: Path) -> None:
    assert ask(table, "--max-mgu", "1").exit_code == 0
    (tmp_path / "page.html").unlink()
    result = ask(table, "--max-mgu", "0")
    assert result.exit_code == 1
    assert "above --max-mgu 0" in result.output
    assert (tmp_path / "page.html").exists()


def test_a_model_has_a_frontier_and_lists_have_none(saved: Path, table: Path, ask: Ask, tmp_path: Path) -> None:
    result = ask(saved, "--frontier", "--test-rows", "100", "--groups", "popularity")
    assert result.exit_code == 0, result.output
    assert "What fairness costs" in (tmp_path / "page.html").read_text()
    assert ask(table, "--frontier").exit_code == 2


@pytest.fixture(scope="module")
def own_groups(splits: SequenceSplits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Providers of all items of the log, those that the k-core leaves out too: a, b, both, or none."""
    path = tmp_path_factory.mktemp("groups") / "items.csv"
    kept = {raw: number for number, raw in enumerate(splits.catalogue.raw_ids)}
    cells = ("a", "b", "a|b", "")
    rows = [(raw, cells[kept.get(raw, 0) % 4]) for raw in load().catalogue.raw_ids]
    path.write_text("\n".join(["item_id,provider", *(f"{raw},{cell}" for raw, cell in rows)]) + "\n")
    return path


def test_groups_by_a_column_of_ones_own_and_their_intersection(saved: Path, own_groups: Path) -> None:
    found = _run(saved, groups=("provider", "popularity+provider"), group_table=own_groups, num_groups=2)
    provider, both = found.groupings
    assert [row["group"] for row in provider.rows] == ["a", "b"]
    assert both.name == "popularity & provider"
    labels = [f"{n} {end} popular & {name}" for n, end in ((1, "least"), (2, "most")) for name in "ab"]
    assert [row["group"] for row in both.rows] == labels
    for name in "ab":  # an item counts in the intersections as often as in the provider
        mine = [row for row in both.rows if row["group"].endswith(f"& {name}")]
        whole = next(row for row in provider.rows if row["group"] == name)
        for side in ("reference", "share"):
            assert sum(row[side] for row in mine) == pytest.approx(whole[side])


def test_a_table_of_groups_that_does_not_fit_can_be_read_all_the_same(
    saved: Path, own_groups: Path, ask: Ask, tmp_path: Path
) -> None:
    short = tmp_path / "items.csv"
    short.write_text("\n".join(["item_id,provider", "nobody,a", *own_groups.read_text().split("\n")[5000:]]))
    options = ("--groups", "provider", "--group-table", str(short))
    assert ask(saved, *options).exit_code == 2
    result = ask(saved, *options, "--on-error", "skip")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (("{all}", "nobody,a"), ("--groups", "provider"), "'nobody', which is no item of the data (1 such rows)"),
        (("{0},a",), ("--groups", "provider"), "lacks the item '{1}'"),
        (("{all}",), ("--groups", "provider"), "no item has a group in provider"),
        (("{all}",), ("--groups", "colour"), "lacks a column 'colour' (got item_id, provider)"),
        (("{all}",), ("--groups", "popularity"), "is not used"),
        (("{all}",), ("--groups", "provider+provider"), "'provider+provider'"),
        (("{all}",), (), "is not used"),
    ],
)
def test_a_bad_table_of_groups_is_one_line_that_names_the_value(
    rows: tuple[str, ...],
    options: tuple[str, ...],
    said: str,
    saved: Path,
    splits: SequenceSplits,
    ask: Ask,
    tmp_path: Path,
) -> None:
    raw = splits.catalogue.raw_ids
    empty = "\n".join(f"{one}," for one in raw)
    table = tmp_path / "items.csv"
    table.write_text("\n".join(["item_id,provider", *(row.format(*raw, all=empty) for row in rows)]) + "\n")
    result = ask(saved, "--group-table", str(table), *options)
    assert result.exit_code == 2, result.output
    assert said.format(*raw) in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "page.html").exists()


def test_a_table_of_groups_that_is_not_there_or_is_none(saved: Path, ask: Ask, tmp_path: Path) -> None:
    for name, said in (("missing.csv", "there is no file"), ("items.json", "is not a table")):
        (tmp_path / "items.json").write_text("{}")
        result = ask(saved, "--groups", "provider", "--group-table", str(tmp_path / name))
        assert result.exit_code == 2
        assert said in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("lines", "options", "said"),
    [
        (["user_id,item_id", "1,no such film", "2,x"], (), "no such film"),
        (["user_id,film", "1,2", "2,3"], (), "lacks a column"),
        (["user_id,item_id"], (), "no rows"),
        (["user_id,item_id,rank", "1,{0},first", "2,{0},1"], (), "'first'"),
        (["user_id,item_id", "1,{0}", "1,{0}", "2,{1}"], ("--k", "1"), "twice"),
        (["user_id,item_id", "1,{0}", "2,{1}"], ("--k", "3"), "k must be in 1..1"),
        (["user_id,item_id", "1,{0}", "1,{1}"], ("--k", "1"), "two users"),
        (["user_id,item_id", "1,{0}", "2,{1}"], ("--groups", "colour"), "colour"),
        (["user_id,item_id", "1,{0}", "2,{1}"], ("--max-mgu", "5"), "max_mgu"),
    ],
)
def test_bad_input_is_one_line_that_names_the_value(
    lines: list[str], options: tuple[str, ...], said: str, ask: Ask, splits: SequenceSplits, tmp_path: Path
) -> None:
    path = tmp_path / "lists.csv"
    path.write_text("\n".join(line.format(*splits.catalogue.raw_ids) for line in lines) + "\n")
    result = ask(path, *options)
    assert result.exit_code == 2, result.output
    assert said in result.output.replace("\n", " ")
    assert not (tmp_path / "page.html").exists()


def test_an_evaluation_of_other_data_is_refused(
    recommender: ItemKNN, splits: SequenceSplits, ask: Ask, tmp_path: Path
) -> None:
    result = evaluate(recommender, splits, bootstrap=0, top=10)
    rows = result.rows.to_dict()
    rows["target"] = (np.asarray(rows["target"]) % splits.num_items + 1).tolist()
    changed = type(result)(result.recommender, result.setting, result.results, type(result.rows).from_dict(rows), {})
    changed.save(tmp_path / "other")
    said = ask(tmp_path / "other")
    assert said.exit_code == 2
    assert "other rows" in said.output
