"""Small preference data in files, and options under which a tiny model trains in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset


@pytest.fixture(scope="session")
def letter_pairs() -> Dataset:
    """30 questions whose right answer repeats a letter of the prompt; no two prompts are equal."""
    rows: list[dict[str, Any]] = []
    for i in range(30):
        letter, other = "abcdefgh"[i % 8], "hgfedcba"[i % 8]
        rows.append({"prompt": f"{i} say {letter}:", "chosen": f" {letter}" + "!" * (i % 3), "rejected": f" {other}0"})
    return Dataset.from_list(rows)


@pytest.fixture(scope="session")
def pairs_file(letter_pairs: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "rows.jsonl"
    letter_pairs.to_json(file)
    return file


@pytest.fixture(scope="session")
def small(model_folder: Path, pairs_file: Path) -> list[str]:
    """Tiny model, 24 training and 6 test rows, float32, one process, no output while it trains."""
    options = f"""
        --model {model_folder} --dataset {pairs_file} --test-size 6 --per-device-train-batch-size 4
        --learning-rate 1e-2 --logging-steps 1 --use-cpu --bf16 false --gradient-checkpointing false
        --report-to none --disable-tqdm true
    """
    return options.split()
