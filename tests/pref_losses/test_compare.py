"""`predilect align compare` on a tiny model: one table, kept runs, resume, plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pref_losses.align_options import parse_compare
from pref_losses.compare import _table, compare
from pref_losses.objective import Objective

from .conftest import preferences

SMALL = [
    "--bf16",
    "false",
    "--use-cpu",
    "--gradient-checkpointing",
    "false",
    "--report-to",
    "none",
    "--disable-tqdm",
    "true",
    "--test-size",
    "6",
    "--per-device-train-batch-size",
    "4",
    "--logging-steps",
    "1",
    "--learning-rate",
    "1e-2",
    "--max-steps",
    "6",
    "--flip-rate",
    "0.4",
    "--sft-steps",
    "2",
]


@pytest.fixture(scope="module")
def arguments(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    from datasets import Dataset

    base = tmp_path_factory.mktemp("compare")
    rows = [dict(row, prompt=f"{n} {row['prompt']}") for n, row in enumerate(preferences(30))]
    Dataset.from_list(rows).to_json(base / "rows.jsonl")
    named = ["--model", str(model_folder), "--dataset", str(base / "rows.jsonl"), "--output-dir", str(base / "out")]
    return [*named, *SMALL, "--methods", "dpo", "dr-dpo"]


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
    import pref_losses.compare as module

    trained: list[str] = []
    original = module.train_method

    def counted(method: str, task: Any, options: Any, training: Any, model: Any, **more: Any) -> Any:
        trained.append(Path(training.output_dir).name)
        return original(method, task, options, training, model, **more)

    monkeypatch.setattr(module, "train_method", counted)
    with pytest.raises(ValueError, match="--resume"):
        run(arguments)
    with pytest.raises(ValueError, match="flip_rate: 0.4 before, 0.2 now"):
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


def test_methods_differ_only_where_they_say(arguments: list[str]) -> None:
    _, methods, _ = parse_compare([*arguments, "--methods", "dpo", "dr-dpo", "softmax-dpo"])
    plain = methods["dpo"][1].to_dict()
    told = methods["dr-dpo"][1].to_dict()
    assert {name for name in plain if plain[name] != told[name]} == {"reduction"}
    assert methods["softmax-dpo"][1].objective() == Objective(link="softmax", beta=1.0)
