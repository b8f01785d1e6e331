"""`predilect align compare` on a tiny model: one table, kept runs, resume, plots."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pref_losses.align.compare import _table, compare
from pref_losses.align.parsing import parse_compare
from pref_losses.objective import Objective


@pytest.fixture(scope="module")
def arguments(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("compare") / "out"
    more = "--max-steps 6 --flip-rate 0.4 --sft-steps 2 --methods dpo dr-dpo --output-dir"
    return [*small, *more.split(), str(folder)]


def run(arguments: list[str]) -> dict[str, Any]:
    return compare(*parse_compare(arguments), command="predilect align compare ...")


@pytest.fixture(scope="module")
def results(arguments: list[str]) -> dict[str, Any]:
    return run(arguments)


def folder_of(arguments: list[str]) -> Path:
    return Path(arguments[arguments.index("--output-dir") + 1])


def test_one_row_a_method(results: dict[str, Any], arguments: list[str]) -> None:
    assert json.loads((folder_of(arguments) / "results.json").read_text()) == results
    first, second = results["methods"]
    assert (first["name"], second["name"]) == ("dpo", "dr-dpo")
    assert "against_first" not in first
    assert second["against_first"]["difference"] == pytest.approx(second["accuracy"] - first["accuracy"])
    assert first["flipped_auc"] == 0.5  # plain DPO weighs all pairs alike
    assert second["flipped_auc"] != 0.5
    assert (results["train_rows"], results["test_rows"]) == (24, 6)


def test_table_markdown_and_plots(results: dict[str, Any], arguments: list[str]) -> None:
    folder = folder_of(arguments)
    told = (folder / "results.md").read_text()
    assert "| dr-dpo |" in told
    assert "AUC of flips" in told
    assert _table(results).row_count == 2
    names = {path.name for path in folder.glob("*.png")}
    with (folder / "results.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["name"], second["name"]) == ("dpo", "dr-dpo")
    assert float(second["accuracy"]) == results["methods"][1]["accuracy"]
    assert float(second["against_first_low"]) == results["methods"][1]["against_first"]["low"]
    assert first["against_first_low"] == ""
    assert names == {"margins.png", "accuracy.png", "beta.png", "weights.png", "weights_histogram.png"}


def test_all_start_from_one_fine_tuned_model(results: dict[str, Any], arguments: list[str]) -> None:
    folder = folder_of(arguments)
    assert (folder / "sft" / "model.safetensors").is_file()
    scores = [json.loads(p.read_text())["reference_logps"] for p in sorted(folder.glob("runs/*/test_scores.json"))]
    assert len(scores) == 2
    assert scores[0] == scores[1]


def test_resume_keeps_what_is_finished_and_adds_methods_and_seeds(
    results: dict[str, Any], arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pref_losses.align.compare as module

    trained: list[str] = []
    original = module.train_method

    def counted(method: str, task: Any, options: Any, training: Any, model: Any, **more: Any) -> Any:
        trained.append(Path(training.output_dir).name)
        return original(method, task, options, training, model, **more)

    monkeypatch.setattr(module, "train_method", counted)
    with pytest.raises(ValueError, match="--resume"):
        run(arguments)
    with pytest.raises(ValueError, match=r"flip_rate: 0\.4 before, 0\.2 now"):
        run([*arguments, "--resume", "--flip-rate", "0.2"])
    with pytest.raises(ValueError, match="learning_rate"):
        run([*arguments, "--resume", "--learning-rate", "0.1"])
    assert run([*arguments, "--resume"])["methods"] == results["methods"]
    assert trained == []
    more = run([*arguments, "--resume", "--methods", "dpo", "beta-dpo", "--seeds", "0", "1"])
    assert sorted(trained) == ["beta-dpo-seed0", "beta-dpo-seed1", "dpo-seed1"]
    assert [row["seeds"] for row in more["methods"]] == [[0, 1], [0, 1]]
    assert more["methods"][0]["accuracy"] == pytest.approx(sum(more["methods"][0]["accuracy_per_seed"]) / 2)


def test_test_rows_are_needed(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="held-out rows"):
        run([*arguments, "--test-size", "0", "--sft-steps", "0", "--output-dir", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_a_run_that_fails_leaves_the_others(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pref_losses.align.compare as module

    original = module.train_method
    trained: list[str] = []

    def fails_once(method: str, *given: Any, **more: Any) -> Any:
        trained.append(method)
        if trained == ["dpo", "dr-dpo"]:
            raise KeyboardInterrupt
        return original(method, *given, **more)

    monkeypatch.setattr(module, "train_method", fails_once)
    own = [*arguments, "--sft-steps", "0", "--max-steps", "2", "--output-dir", str(tmp_path / "new")]
    with pytest.raises(KeyboardInterrupt):
        run(own)
    results = run([*own, "--resume"])
    assert trained == ["dpo", "dr-dpo", "dr-dpo"]
    assert [row["name"] for row in results["methods"]] == ["dpo", "dr-dpo"]


def test_methods_differ_only_where_they_say(arguments: list[str]) -> None:
    _, methods, _ = parse_compare([*arguments, "--methods", "dpo", "dr-dpo", "softmax-dpo"])
    plain = methods["dpo"][1].to_dict()
    told = methods["dr-dpo"][1].to_dict()
    assert {name for name in plain if plain[name] != told[name]} == {"reduction"}
    assert methods["softmax-dpo"][1].objective() == Objective(link="softmax", beta=1.0)
