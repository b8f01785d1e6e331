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
