"""Per-row weights of answers, on a language model that is one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from predilect.training import AnswerCollator, AnswerRows, AnswerTrainer, answer_arguments

ROWS = [
    {"prompt_ids": [1, 2, 3], "answer_ids": [4, 5], "row": 0},
    {"prompt_ids": [1, 6], "answer_ids": [7, 8, 9], "row": 1},
]


def trainer(folder: Path) -> AnswerTrainer:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=12, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    arguments = answer_arguments(output_dir=str(folder), max_steps=1, report_to="none", use_cpu=True)
    return AnswerTrainer(model, arguments, data_collator=AnswerCollator(0), train_dataset=AnswerRows(ROWS))


def gradient(folder: Path, rows: list[dict[str, Any]]) -> tuple[float, torch.Tensor]:
    made = trainer(folder)
    loss = made.compute_loss(made.model, AnswerCollator(0)(rows))
    loss.backward()
    return float(loss.detach()), torch.cat([p.grad.flatten() for p in made.model.parameters()])


def test_weights_1_and_0_give_the_gradient_of_the_first_row_alone(tmp_path: Path) -> None:
    weighted = [{**ROWS[0], "weight": 1.0}, {**ROWS[1], "weight": 0.0}]
    both, alone = gradient(tmp_path, weighted), gradient(tmp_path, ROWS[:1])
    assert both[0] == pytest.approx(alone[0])
    assert torch.allclose(both[1], alone[1], atol=1e-7)


def test_equal_weights_change_nothing(tmp_path: Path) -> None:
    weighted = [{**row, "weight": 3.0} for row in ROWS]
    first, second = gradient(tmp_path, weighted), gradient(tmp_path, ROWS)
    assert first[0] == pytest.approx(second[0])
    assert torch.allclose(first[1], second[1], atol=1e-7)


def test_a_batch_of_weight_0_has_no_gradient(tmp_path: Path) -> None:
    loss, slope = gradient(tmp_path, [{**row, "weight": 0.0} for row in ROWS])
    assert loss == 0
    assert not slope.any()
