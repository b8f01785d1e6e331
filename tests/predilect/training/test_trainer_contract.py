"""The private names of `transformers.Trainer` that `predilect.training.trainer` and its subclasses stand on."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from transformers import TrainingArguments

from predilect.training import Trainer

USED = {
    "_save": ["self", "output_dir", "state_dict"],
    "_get_grad_norm": ["self", "model", "grad_norm"],
}


@pytest.mark.parametrize("name", USED)
def test_signatures_are_those_that_are_overridden(name: str) -> None:
    theirs = getattr(transformers.Trainer, name, None)
    assert theirs is not None, f"transformers.Trainer has no {name} any more: see predilect/training/trainer.py"
    assert list(inspect.signature(theirs).parameters) == USED[name], (
        f"transformers.Trainer.{name} takes other arguments"
    )


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.slope * x - y) ** 2).mean()}

    def save_pretrained(self, folder: str, state_dict: object = None) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "line.txt").write_text(str(float(self.slope)))


class Watched(Trainer):
    resumed = 0

    def on_resumed(self) -> None:
        self.resumed += 1


def make(folder: Path, **options: object) -> Watched:
    rows = [{"x": torch.tensor(1.0), "y": torch.tensor(2.0)}] * 8
    arguments = TrainingArguments(
        str(folder), max_steps=2, report_to=[], use_cpu=True, disable_tqdm=True, logging_steps=1, **options
    )  # type: ignore[arg-type]
    return Watched(Line(), arguments, train_dataset=rows)


def test_a_saved_model_brings_no_pickled_arguments(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["line.txt"]


def test_resuming_is_told(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.train()
    assert trainer.resumed == 1


def test_without_clipping_no_norm_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(transformers.Trainer, "_get_grad_norm", lambda self, model, grad_norm=None: calls.append(1))
    make(tmp_path / "none", max_grad_norm=0.0).train()
    assert not calls
    make(tmp_path / "clipped", max_grad_norm=1.0).train()
    assert len(calls) == 2


def test_nothing_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path).train()
    assert capsys.readouterr().out == ""


def test_no_operation_is_counted(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.train()
    assert trainer.state.total_flos == 0
