"""`predilect align` from preferences to a saved model, also after a kill; `align evaluate` on what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from pref_losses.align import METRICS_FILE, align, flipped_auc, read_weights
from pref_losses.align_evaluate import evaluate_model, parse_evaluate
from pref_losses.align_options import parse_align
from pref_losses.align_storage import newest_checkpoint

from .conftest import preferences

# One process, one thread, float32: what the tiny model needs.
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
]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "rows.jsonl"
    distinct = [dict(row, prompt=f"{n} {row['prompt']}") for n, row in enumerate(preferences(30))]
    Dataset.from_list(distinct).to_json(file)
    return file


def arguments(model_folder: Path, dataset: Path, folder: Path, *more: str) -> list[str]:
    named = ["--model", str(model_folder), "--dataset", str(dataset), "--output-dir", str(folder)]
    return [*named, *SMALL, "--method", "dr-dpo", *more]


def run(*given: Any) -> dict[str, Any]:
    return align(*parse_align(arguments(*given)))


@pytest.fixture(scope="session")
def finished(
    model_folder: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A run with all stages: fine-tuning, flips, LoRA, samples."""
    folder = tmp_path_factory.mktemp("runs") / "dr-dpo"
    more = [
        "--use-peft",
        "--sft-steps",
        "3",
        "--flip-rate",
        "0.4",
        "--samples",
        "3",
        "--max-new-tokens",
        "4",
        "--num-train-epochs",
        "6",
    ]
    return folder, run(model_folder, dataset, folder, *more)


def test_a_run_learns_and_leaves_model_metrics_and_plots(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = finished
    assert metrics == json.loads((folder / METRICS_FILE).read_text())
    assert metrics["steps"] == 36  # 24 rows, batches of 4, 6 epochs
    assert metrics["test/margin"] > 0.5
    assert metrics["test/rows"] == 6
    assert metrics["test/kl"] is not None
    names = {path.name for path in folder.iterdir()}
    assert {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "flipped.json",
        "trainer_state.json",
    } <= names
    assert {"margins.png", "accuracy.png", "beta.png", "weights.png"} <= names
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    assert {"weights/clean", "weights/flipped", "beta", "rewards/margins"} <= {key for entry in log for key in entry}


def test_the_flips_are_stored_and_told_apart(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = finished
    flips = json.loads((folder / "flipped.json").read_text())
    assert flips["of"] == 24
    assert 0 < len(flips["rows"]) < 24
    weights = read_weights(folder)
    assert set(weights) == set(range(24))
    assert metrics["flipped_auc"] == flipped_auc(weights, [row in flips["rows"] for row in range(24)])


def test_auc_by_hand() -> None:
    weights = {0: 2.0, 1: 0.5, 2: 1.0, 3: 1.0}
    assert flipped_auc(weights, [False, True, False, True]) == 0.875  # of four comparisons three won, one tied
    assert flipped_auc(weights, [False] * 4) is None


def test_finished_runs_are_kept(finished: tuple[Path, dict[str, Any]], model_folder: Path, dataset: Path) -> None:
    folder, metrics = finished
    more = [
        "--use-peft",
        "--sft-steps",
        "3",
        "--flip-rate",
        "0.4",
        "--samples",
        "3",
        "--max-new-tokens",
        "4",
        "--num-train-epochs",
        "6",
    ]
    before = (folder / METRICS_FILE).stat().st_mtime_ns
    assert run(model_folder, dataset, folder, *more, "--resume") == metrics
    assert (folder / METRICS_FILE).stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="--resume"):
        run(model_folder, dataset, folder, *more)
    with pytest.raises(ValueError, match="beta_prime: 1.0 before, 0.5 now"):
        run(model_folder, dataset, folder, *more, "--resume", "--beta-prime", "0.5")


def test_overwrite_leaves_foreign_folders_alone(model_folder: Path, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="remove it yourself"):
        run(model_folder, dataset, tmp_path, "--overwrite")
    assert (tmp_path / "thesis.tex").exists()


def test_evaluate_knows_the_run(finished: tuple[Path, dict[str, Any]], model_folder: Path) -> None:
    folder, metrics = finished
    options = parse_evaluate(
        ["--model", str(folder), "--samples", "3", "--max-new-tokens", "4", "--against", "reference"]
    )
    assert options.reference == str(folder / "sft")
    found, samples = evaluate_model(options)
    for name in ("accuracy", "margin", "rows", "accuracy_mean_logp"):
        assert found[name] == pytest.approx(metrics[f"test/{name}"], abs=1e-3)
    assert len(samples) == 3
    assert set(samples[0]) == {"prompt", "answer", "reference"}


def test_evaluate_asks_a_judge(finished: tuple[Path, dict[str, Any]], model_folder: Path) -> None:
    folder, _ = finished
    judged = ["--model", str(folder), "--samples", "4", "--max-new-tokens", "4", "--judge", str(model_folder)]
    metrics, samples = evaluate_model(parse_evaluate(judged))
    assert 0 <= metrics["judge/win_rate"] <= 1  # type: ignore[operator]
    assert set(samples[0]) == {"prompt", "answer", "chosen"}


def test_full_training_without_test_rows(model_folder: Path, dataset: Path, tmp_path: Path) -> None:
    metrics = run(model_folder, dataset, tmp_path / "run", "--test-size", "0", "--max-steps", "2", "--method", "simpo")
    assert (metrics["method"], metrics["steps"], metrics["train_rows"]) == ("simpo", 2, 30)
    assert not [name for name in metrics if name.startswith("test/")]
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_only_whole_checkpoints_are_continued(tmp_path: Path) -> None:
    for step, text in ((2, '{"global_step": 2}'), (10, '{"global_step": 10}'), (12, '{"global_st'), (14, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if text is not None:
            (folder / "trainer_state.json").write_text(text)
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert newest_checkpoint(tmp_path / "nothing") is None


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_model(model_folder: Path, dataset: Path, tmp_path: Path) -> None:
    """As a user would: the module, killed hard after a checkpoint, and started again with --resume."""
    more = [
        "--method",
        "alpha-dpo",
        "--num-train-epochs",
        "20",
        "--save-steps",
        "7",
        "--flip-rate",
        "0.4",
        "--learning-rate",
        "1e-3",
    ]
    whole = run(model_folder, dataset, tmp_path / "whole", *more)
    command = [
        sys.executable,
        "-m",
        "pref_losses.align",
        *arguments(model_folder, dataset, tmp_path / "killed", *more),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and newest_checkpoint(tmp_path / "killed") is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / METRICS_FILE).exists()
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "--resume" in refused.stderr
    done = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    resumed = json.loads((tmp_path / "killed" / METRICS_FILE).read_text())
    for name in ("steps", "test/accuracy", "test/margin", "eval_loss", "flipped_auc"):
        assert resumed[name] == pytest.approx(whole[name], abs=1e-4), name
    unbroken, continued = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    for name, weight in unbroken.items():
        torch.testing.assert_close(continued[name], weight, atol=1e-4, rtol=1e-3)
