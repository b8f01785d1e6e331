"""`predilect align` from preferences to a saved model, also after a kill and in two processes; `evaluate` on that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from safetensors.torch import load_file, save_file

from predilect.training import newest_checkpoint
from pref_losses.align.evaluate import evaluate_model
from pref_losses.align.parsing import parse_align, parse_evaluate
from pref_losses.align.run import align
from pref_losses.align.storage import METRICS_FILE, RUN
from pref_losses.align.weights import flipped_auc, read_weights

# A run with all stages: fine-tuning, flips, LoRA, samples.
STAGES = [
    "--method", "dr-dpo", "--use-peft", "--sft-steps", "3", "--flip-rate", "0.4", "--samples", "3",
    "--max-new-tokens", "4", "--num-train-epochs", "6",
]  # fmt: skip


def run(*arguments: str) -> dict[str, Any]:
    return align(*parse_align(arguments))


@pytest.fixture(scope="module")
def finished(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "dr-dpo"
    return folder, run(*small, *STAGES, "--output-dir", str(folder))


def test_a_run_learns_and_leaves_model_metrics_and_plots(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = finished
    assert metrics == json.loads((folder / METRICS_FILE).read_text())
    assert metrics["steps"] == 36  # 24 rows, batches of 4, 6 epochs
    assert metrics["test/margin"] > 0.5
    assert metrics["test/rows"] == 6
    assert metrics["test/kl"] is not None
    names = {path.name for path in folder.iterdir()}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    assert names >= {"flipped.json", "trainer_state.json"}
    assert names >= {"margins.png", "accuracy.png", "beta.png", "weights.png"}
    assert not list(folder.rglob("training_args.bin"))  # a pickle, of the supervised stage too
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


def test_finished_runs_are_kept(finished: tuple[Path, dict[str, Any]], small: list[str]) -> None:
    folder, metrics = finished
    again = [*small, *STAGES, "--output-dir", str(folder)]
    before = (folder / METRICS_FILE).stat().st_mtime_ns
    assert run(*again, "--resume") == metrics
    assert (folder / METRICS_FILE).stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"is not empty: continue that run with --resume"):
        run(*again)
    with pytest.raises(ValueError, match=r"beta_prime: 1\.0 before, 0\.5 now"):
        run(*again, "--resume", "--beta-prime", "0.5")


def test_other_data_under_the_same_name_is_refused(
    finished: tuple[Path, dict[str, Any]], small: list[str], pairs_file: Path
) -> None:
    folder, _ = finished
    text = pairs_file.read_text()
    try:
        pairs_file.write_text(text.replace("say b", "tell b"))
        with pytest.raises(ValueError, match=r"holds another run .data: "):
            run(*small, *STAGES, "--output-dir", str(folder), "--resume")
    finally:
        pairs_file.write_text(text)


@pytest.mark.parametrize(
    ("flag", "told"), [("--overwrite", "remove it yourself"), ("--resume", "nothing to --resume")]
)
def test_foreign_folders_are_left_alone(small: list[str], tmp_path: Path, flag: str, told: str) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=told):
        run(*small, "--method", "dpo", "--output-dir", str(tmp_path), flag)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_overwrite_throws_a_run_away(small: list[str], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"kind": RUN, "run": {}}))
    (tmp_path / "old.png").touch()
    arguments = [*small, "--method", "dpo", "--max-steps", "1", "--output-dir", str(tmp_path), "--overwrite"]
    assert run(*arguments)["steps"] == 1
    assert not (tmp_path / "old.png").exists()


@pytest.mark.parametrize(
    ("wrong", "kind", "told"),
    [
        (["--dataset", "./nowhere.jsonl"], FileNotFoundError, "nowhere.jsonl"),
        (["--model", "./nowhere"], FileNotFoundError, "there is no model folder ./nowhere"),
        (["--model", str(Path(__file__).parent)], FileNotFoundError, "holds no model"),
    ],
)
def test_a_run_that_never_began_does_not_block_its_folder(
    small: list[str], tmp_path: Path, wrong: list[str], kind: type[Exception], told: str
) -> None:
    arguments = [*small, "--method", "dpo", "--max-steps", "1", "--output-dir", str(tmp_path / "run")]
    with pytest.raises(kind, match=told):
        run(*arguments, *wrong)
    assert run(*arguments)["steps"] == 1


def test_evaluate_knows_the_run(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = finished
    asked = ["--model", str(folder), "--samples", "3", "--max-new-tokens", "4", "--against", "reference"]
    options = parse_evaluate(asked)
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


def test_full_training_without_test_rows(small: list[str], tmp_path: Path) -> None:
    alone = ["--method", "simpo", "--test-size", "0", "--max-steps", "2", "--output-dir", str(tmp_path / "run")]
    metrics = run(*small, *alone)
    assert (metrics["method"], metrics["steps"], metrics["train_rows"]) == ("simpo", 2, 30)
    assert not [name for name in metrics if name.startswith("test/")]
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_one_test_row_has_no_interval(small: list[str], tmp_path: Path) -> None:
    one = ["--method", "dpo", "--test-size", "1", "--max-steps", "1", "--output-dir", str(tmp_path / "run")]
    metrics = run(*small, *one)
    assert metrics["test/accuracy"] in (0, 1)
    assert metrics["test/accuracy_low"] is None


@pytest.mark.slow
def test_every_method_trains_on_real_dialogues(
    small: list[str], data_dir: Callable[[str], Path], tmp_path: Path
) -> None:
    file = data_dir("hh-helpful-base-test") / "helpful-base-test.jsonl.gz"
    for method in ("alpha-dpo", "beta-dpo", "dr-dpo", "softmax-dpo"):
        real = ["--dataset", str(file), "--max-rows", "20", "--max-steps", "2", "--max-length", "4096"]
        metrics = run(*small, *real, "--method", method, "--output-dir", str(tmp_path / method))
        assert (metrics["train_rows"], metrics["test/rows"]) == (14, 6)


def test_only_whole_checkpoints_are_continued(tmp_path: Path) -> None:
    for step, text in ((2, '{"global_step": 2}'), (10, '{"global_step": 10}'), (12, '{"global_st'), (14, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for part in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            (folder / part).touch()
        save_file({"weight": torch.zeros(1)}, folder / "adapter_model.safetensors")
        if text is not None:
            (folder / "trainer_state.json").write_text(text)
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert newest_checkpoint(tmp_path / "nothing") is None


def command(*given: str, launch: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return forked.run([*launch, "-m", "predilect", *given], env=environment)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_model(small: list[str], tmp_path: Path) -> None:
    """As a user would: killed hard after a checkpoint, and started again with --resume."""
    more = ["--method", "alpha-dpo", "--num-train-epochs", "20", "--save-steps", "7", "--learning-rate", "1e-3"]
    more += ["--flip-rate", "0.4"]
    whole = run(*small, *more, "--output-dir", str(tmp_path / "whole"))
    killed = ["align", *small, *more, "--output-dir", str(tmp_path / "killed")]
    process = forked.Process(
        ["-m", "predilect", *killed],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and newest_checkpoint(tmp_path / "killed") is None:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / METRICS_FILE).exists()
    refused = command(*killed)
    assert refused.returncode == 2
    assert refused.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "--resume" in refused.stderr
    done = command(*killed, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    resumed = json.loads((tmp_path / "killed" / METRICS_FILE).read_text())
    for name in ("steps", "test/accuracy", "test/margin", "eval_loss", "flipped_auc"):
        assert resumed[name] == pytest.approx(whole[name], abs=1e-4), name
    unbroken, continued = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    for name, weight in unbroken.items():
        torch.testing.assert_close(continued[name], weight, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_launchers_take_the_same_command(small: list[str], tmp_path: Path) -> None:
    """One process of `accelerate launch`, and two of the launcher that it calls on several GPUs, train one model.

    On CPUs `accelerate launch` starts one process, whatever `--num_processes` says.
    """
    accelerate = ["accelerate.commands.accelerate_cli", "launch", "--cpu", "--num_processes", "1"]
    accelerate += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    more = ["--method", "dr-dpo", "--flip-rate", "0.4", "--learning-rate", "1e-3", "--num-train-epochs", "2"]
    weights, metrics = [], []
    for name, launcher, batch in (("one", accelerate, "4"), ("two", torchrun, "2")):
        folder = tmp_path / name
        batches = ["--per-device-train-batch-size", batch, "--output-dir", str(folder)]
        done = command("align", *small, *more, *batches, launch=["-m", *launcher])
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("train_rows ") == 1  # the main process alone reports
        weights.append(load_file(folder / "model.safetensors"))
        metrics.append(json.loads((folder / METRICS_FILE).read_text()))
        assert set(read_weights(folder)) == set(range(24))
    assert [m["steps"] for m in metrics] == [12, 12]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, atol=1e-4, rtol=1e-3)
    assert metrics[1]["flipped_auc"] == pytest.approx(metrics[0]["flipped_auc"], abs=0.02)
    assert "test/accuracy" in metrics[0]
    assert "test/accuracy" not in metrics[1]
