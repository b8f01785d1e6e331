from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from predilect.cli import app
from predilect.presets import Presets
from predilect.recommender import Recommender, recommender_class

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def run() -> Run:
    def start(*arguments: object) -> Result:
        """Training and options are commands of the core; the others are those of `predilect llm-rec`."""
        first = [] if arguments[0] in ("train", "options") else ["llm-rec"]
        return CliRunner().invoke(app, [*first, *map(str, arguments)], env={"COLUMNS": "200"})

    return start


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S-DPO's format: people who walk along the alphabet, five candidates."""
    records = []
    for start in range(12):
        walk = [chr(97 + (start + i) % 20) for i in range(8)]
        for place in range(3, 8):
            others = [c for c in "abcdefghijklmnopqrst" if c not in walk][:4]
            records.append(
                {
                    "historyList": "::".join(walk[:place]),
                    "itemList": [*others, walk[place]],
                    "trueSelection": walk[place],
                }
            )
    file = tmp_path_factory.mktemp("data") / "walks.json"
    file.write_text(json.dumps(records))
    return file


@pytest.fixture(scope="module")
def options(model_folder: Path, rows: Path) -> list[str]:
    settings = {
        "model": str(model_folder), "dtype": "float32", "batch_size": 4, "shortlist": 5, "inject_rows": 6,
        "retriever": "popularity", "max_length": 500, "domain": "music", "sft_steps": 2,
    }  # fmt: skip
    flags = [text for name, value in settings.items() for text in ("--set", f"{name}={value}")]
    return ["--data", str(rows), "--format", "sdpo", "--bootstrap", "20", "--ratios", "0.5,0.25,0.25", *flags]


@pytest.fixture(scope="module")
def trained(run: Run, options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "language"
    result = run("train", "language", *options, "--output-dir", folder)
    assert result.exit_code == 0, result.output
    return folder


def test_train_keeps_a_recommender_and_its_results(trained: Path) -> None:
    ranked = json.loads((trained / "evaluation" / "evaluation.json").read_text())
    assert ranked["setting"]["protocol"] == "candidates"
    assert ranked["setting"]["candidates"] == 5
    assert ranked["setting"]["negatives"] == "uniform"
    assert not (trained / "fit").exists()
    assert len(Recommender.from_pretrained(trained).recommend(["a", "b"], k=3)) == 3


def test_a_new_process_recommends_the_same_for_a_typed_history(trained: Path) -> None:
    command = ["-m", "predilect", "recommend", "a", "b", "--model", trained, "-k", "5", "--json"]
    told = json.loads(forked.run(command, check=True).stdout)["recommendations"]
    here = Recommender.from_pretrained(trained).recommend(["a", "b"], k=5)
    assert [r["title"] for r in told] == [r.title for r in here]
    assert [r["score"] for r in told] == pytest.approx([r.score for r in here], abs=1e-5)


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(run: Run, options: list[str], tmp_path: Path) -> None:
    """Batches are spread over processes: the same rows in every optimizer step, and one folder at the end.

    (The retriever is trained by two processes as well, with other dropout masks than by one: in text mode the language
    model does not depend on it.)
    """
    options = [o.replace("retriever=popularity", "retriever=gru4rec") for o in options]
    command = ["train", "llara", *options, "--set", "inject=none", "--set", "mode=text"]
    assert run(*command, "--output-dir", tmp_path / "one").exit_code == 0
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "predilect"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    forked.run([*launch, *command, "--output-dir", tmp_path / "two"], env=environment, check=True)
    assert not (tmp_path / "two" / "fit").exists()
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(one[key], two[key], atol=1e-5, rtol=1e-3)
    assert len(Recommender.from_pretrained(tmp_path / "two").recommend(["a", "b"], k=3)) == 3


def test_evaluate_gives_the_same_numbers(run: Run, trained: Path, options: list[str], tmp_path: Path) -> None:
    data = options[: options.index("--set")]
    result = run("evaluate", "--model", trained, *data, "--output-dir", tmp_path / "again", "--generate")
    assert result.exit_code == 0, result.output
    again, first = (
        json.loads((folder / "evaluation.json").read_text()) for folder in (tmp_path / "again", trained / "evaluation")
    )
    assert again == first
    written = json.loads((tmp_path / "again" / "generate" / "evaluation.json").read_text())["results"]
    assert {"hr@1", "valid_ratio"} <= set(written)


def test_a_folder_in_use(run: Run, trained: Path, options: list[str]) -> None:
    command = ["train", "language", *options, "--output-dir", trained]
    assert "--resume" in run(*command).output
    other = run(*command, "--set", "sft_steps=3", "--resume")
    assert "sft_steps: 2 before, 3 now" in other.output
    assert run(*command, "--resume").exit_code == 0  # finished: ranked again


def test_mistakes_are_named(run: Run, options: list[str], tmp_path: Path) -> None:
    out = ["--output-dir", tmp_path / "x"]
    assert "there is no method 'lara'; did you mean llara" in run("train", "lara", *options, *out).output
    assert "did you mean sft_steps" in run("train", "llara", "--set", "sft_step=3", *out).output
    assert "must be a whole number (got 'many')" in run("train", "llara", "--set", "sft_steps=many", *out).output
    assert "did you mean llara-laptop" in run("train", "llara", "--preset", "lara-laptop", *out).output
    assert "is for llara" in run("train", "bigrec", "--preset", "llara-laptop", *out).output
    assert "there is no method 'lara'" in run("options", "lara").output
    assert "there is no preset 'x': sasrec has none" in run("train", "sasrec", "--preset", "x", *out).output
    assert not (tmp_path / "x").exists()


def test_an_interpreter_is_trained_measured_beside_its_controls_and_asked(
    run: Run, options: list[str], model_folder: Path, tmp_path: Path
) -> None:
    data = options[: options.index("--set")]
    flags = ["--set", f"model={model_folder}", "--set", "dtype=float32", "--set", "steps=2", "--set", "domain=music"]
    folder = tmp_path / "reader"
    result = run("train", "rec-interpreter", *data, *flags, "--test-rows", 8, "--output-dir", folder)
    assert result.exit_code == 0, result.output
    told = {p.name: json.loads((p / "evaluation.json").read_text()) for p in (folder / "evaluation").iterdir()}
    systems = ("trained", "random", "shuffled", "popularity", "probe")
    assert set(told) == {f"{task}-{s}" for task in ("recovery", "residual") for s in systems}
    assert all(result["results"]["rows"] == 8 for result in told.values())
    asked = run("interpret", "a", "b", "c", "--model", folder, "--json")
    assert json.loads(asked.stdout)["history"] == ["a", "b", "c"]
    again = run("evaluate", "--model", folder, *data, "--test-rows", 8, "--output-dir", tmp_path / "again")
    assert again.exit_code == 0, again.output
    one = json.loads((tmp_path / "again" / "recovery-trained" / "evaluation.json").read_text())
    assert one == told["recovery-trained"]
    assert "'zz'" in run("interpret", "zz", "--model", folder).output


@pytest.mark.parametrize("method", ["language", "softmax-dpo", "llara", "bigrec", "rec-interpreter"])
def test_options_are_listed_with_their_defaults(run: Run, method: str) -> None:
    lines = run("options", method).output.splitlines()
    assert 'model = "smollm2-135m"' in lines
    size = 16 if method == "rec-interpreter" else 8
    assert lines[lines.index(f"batch_size = {size}") + 1].strip() == "Rows per optimizer step."


def test_every_preset_makes_a_config() -> None:
    presets = Presets("llm_rec.presets")
    assert {"sdpo-llama2-7b", "llara-movielens", "llara-steam", "llara-lastfm", "bigrec"} <= set(presets.names())
    for name in presets.names():
        preset = presets.read(name)
        assert set(preset) == {"method", "set"}
        recommender_class(preset["method"])(**preset["set"])


def test_quick_and_a_file_of_options(run: Run, options: list[str], tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"set": {"preference_steps": 50, "num_negatives": 2}}))
    result = run(
        "train",
        "softmax-dpo",
        "--config",
        file,
        *options,
        "--quick",
        "--output-dir",
        tmp_path / "out",
        "--test-rows",
        6,
    )
    assert result.exit_code == 0, result.output
    config: Any = Recommender.from_pretrained(tmp_path / "out").config
    assert (config.sft_steps, config.preference_steps, config.num_negatives) == (2, 2, 2)
    results = json.loads((tmp_path / "out" / "evaluation" / "evaluation.json").read_text())["results"]
    assert results["rows"] == 6


@pytest.mark.parametrize("name", ["sdpo", "llara"])
def test_formats_as_published_take_no_options_of_tables(run: Run, tmp_path: Path, name: str) -> None:
    flags = ["--format", name, "--separator", ";", "--time-unit", "ms"]
    result = run("train", "popularity", "--data", tmp_path, *flags, "--output-dir", tmp_path / "run")
    assert result.exit_code == 2
    words = f"the format {name} is read as published and takes no --separator, --time-unit: leave that out"
    assert words in " ".join(result.output.split())
