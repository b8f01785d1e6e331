"""Two processes with gloo against one: what couples the examples of a batch does not depend on how it is spread."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoTokenizer

import pref_losses

torch.set_num_threads(1)


def train(task, out):
    config = getattr(pref_losses, task["config"])(
        str(out), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", disable_tqdm=True,
        logging_steps=1, save_strategy="no", lr_scheduler_type="constant", learning_rate=3e-3,
        dataloader_pin_memory=False, per_device_eval_batch_size=2, **task["options"],
    )
    data = Dataset.from_list(task["rows"])
    trainer = pref_losses.PreferenceTrainer(
        task["model"], None, config, train_dataset=data, eval_dataset=data.select(range(8)),
        processing_class=AutoTokenizer.from_pretrained(task["model"]),
    )
    trainer.train()
    told = {"evaluation": trainer.evaluate(), "processes": trainer.accelerator.num_processes}
    parts = [trainer.example_weights]
    if told["processes"] > 1:
        parts *= told["processes"]
        torch.distributed.all_gather_object(parts, trainer.example_weights)
    if not trainer.accelerator.is_main_process:
        return
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(out)
    told["logs"] = trainer.state.log_history
    told["moments"] = [trainer.moments.mean, trainer.moments.std]
    told["weights"] = {row: weight for part in parts for row, weight in part.items()}
    if config.precompute_ref_log_probs:
        told["ref"] = trainer.train_dataset["ref_rejected_logps"][:]
    (out / "told.json").write_text(json.dumps(told))


for name, task in json.loads(Path(sys.argv[1]).read_text()).items():
    train(task, Path(sys.argv[2], name))
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""

ROBUST = {"reduction": "robust", "beta_prime": 0.05, "max_steps": 2}
# By case: configuration, rows, options, and, by processes, rows of a micro-batch and micro-batches of a step.
CASES: dict[str, tuple[str, int, dict[str, Any], dict[int, tuple[int, int]]]] = {
    "beta+robust+softmax": (
        "BetaDPOConfig",
        32,
        {"reduction": "robust", "beta_prime": 0.3, "keep": 0.75, "link": "softmax", "max_steps": 4},
        {1: (2, 4), 2: (2, 2)},
    ),
    "alpha+robust": (
        "AlphaDPOConfig",
        32,
        {"margin_alpha": 0.2, "beta": 2.0, "reduction": "robust", "max_steps": 4},
        {1: (2, 4), 2: (2, 2)},
    ),
    "micro_moments": ("AlphaDPOConfig", 16, {"batch_scope": "micro", "max_steps": 2}, {1: (4, 1), 2: (2, 1)}),
    "micro_robust": ("PreferenceConfig", 16, {"batch_scope": "micro", **ROBUST}, {1: (2, 2), 2: (2, 1)}),
    "global_robust": ("PreferenceConfig", 16, ROBUST, {1: (4, 1), 2: (2, 1)}),
    "own_file": ("PreferenceConfig", 11, {"max_steps": 1}, {1: (2, 1), 2: (2, 1)}),
    "one_file": ("PreferenceConfig", 11, {"max_steps": 1}, {1: (2, 1), 2: (2, 1)}),
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def launch(processes: int, tasks: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Trains every task in that many processes, and returns what they tell."""
    for name in tasks:
        (folder / name).mkdir(parents=True)
    (folder / "train.py").write_text(SCRIPT)
    (folder / "tasks.json").write_text(json.dumps(tasks))
    command = [str(folder / "train.py"), str(folder / "tasks.json"), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if processes > 1:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
        ranks = [environment | address | {"RANK": str(r), "LOCAL_RANK": str(r)} for r in range(processes)]
    else:
        ranks = [environment]
    logs = [folder / f"log-{rank}.txt" for rank in range(processes)]
    started = []
    try:
        for own, log in zip(ranks, logs, strict=True):
            with log.open("w") as file:
                started.append(forked.Process(command, env=own, stdout=file, stderr=subprocess.STDOUT))
        codes = [process.wait(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    assert codes == [0] * processes, "\n".join(log.read_text()[-3000:] for log in logs)
    told = {name: json.loads((folder / name / "told.json").read_text()) for name in tasks}
    for name, result in told.items():
        assert result["processes"] == processes
        result["model"] = load_file(folder / name / "model.safetensors")
    return told


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, make_preferences: Callable[..., Dataset]
) -> dict[int, dict[str, Any]]:
    """By number of processes and case: what training tells. The two processes go first."""
    folder = tmp_path_factory.mktemp("distributed")
    results = {}
    for processes in (2, 1):
        tasks = {}
        for name, (config, rows, options, sizes) in CASES.items():
            data = make_preferences(rows, 3, ragged=True).add_column("flipped", [i == 0 for i in range(rows)])
            batch, accumulation = sizes[processes]
            more = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
            if name.endswith("file"):
                more["ref_log_probs_file"] = str(
                    folder / (f"{processes}.parquet" if name == "own_file" else "one.parquet")
                )
            tasks[name] = {
                "config": config,
                "rows": list(data),
                "model": str(model_folder),
                "options": options | more,
            }
        results[processes] = launch(processes, tasks, folder / str(processes))
    return results


def numbers(told: dict[str, Any], key: str) -> list[float]:
    return [entry[key] for entry in told["logs"] if key in entry]


@pytest.mark.parametrize("case", ["beta+robust+softmax", "alpha+robust", "global_robust"])
def test_two_processes_equal_one_with_the_same_global_batch(case: str, told: dict[int, dict[str, Any]]) -> None:
    one, two = told[1][case], told[2][case]
    assert len(numbers(one, "loss")) == CASES[case][2]["max_steps"]
    for key in ("loss", "beta", "kept_fraction"):
        assert numbers(two, key) == pytest.approx(numbers(one, key), abs=1e-5), key
    if one["moments"] != [None, None]:
        assert two["moments"] == pytest.approx(one["moments"], abs=1e-5)
    assert two["weights"] == pytest.approx(one["weights"], abs=1e-4)
    for name, weight in one["model"].items():
        torch.testing.assert_close(two["model"][name], weight, atol=1e-5, rtol=0)
    assert two["evaluation"]["eval_loss"] == pytest.approx(one["evaluation"]["eval_loss"], abs=1e-5)


def test_micro_scope_shares_the_moments_of_all_processes(told: dict[int, dict[str, Any]]) -> None:
    assert told[2]["micro_moments"]["moments"] == pytest.approx(told[1]["micro_moments"]["moments"], abs=1e-5)


def test_micro_scope_couples_each_micro_batch_alone(told: dict[int, dict[str, Any]]) -> None:
    micro, also, whole = told[2]["micro_robust"], told[1]["micro_robust"], told[1]["global_robust"]
    assert numbers(micro, "loss") == pytest.approx(numbers(also, "loss"), abs=1e-5)  # two rows at a time, in both
    assert abs(numbers(micro, "loss")[-1] - numbers(whole, "loss")[-1]) > 1e-4
    assert max(micro["weights"].values()) <= 2 + 1e-5  # bounded by the two examples reduced together


def test_a_metric_that_only_some_processes_have_is_logged(told: dict[int, dict[str, Any]]) -> None:
    """One row is flipped: in every step one process at most has it."""
    assert len(numbers(told[2]["alpha+robust"], "weights/flipped")) == 1
    assert len(numbers(told[2]["alpha+robust"], "weights/clean")) == 4


def test_reference_log_probs_do_not_depend_on_the_processes(told: dict[int, dict[str, Any]]) -> None:
    """Eleven rows do not divide among two processes; the file of the two is read by the one."""
    assert told[1]["one_file"]["ref"] == told[2]["one_file"]["ref"]
    for mine, other in zip(told[2]["own_file"]["ref"], told[1]["own_file"]["ref"], strict=True):
        assert mine == pytest.approx(other, abs=1e-4)
