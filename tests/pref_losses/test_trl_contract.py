"""What this package relies on beyond the documented interface of TRL and transformers, one test for each.

A failure here says that TRL moved; the module to adapt is `pref_losses._trl`.
"""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainerState
from trl import DPOConfig, DPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import add_fused_lm_head, use_adapter

import pref_losses
from pref_losses import _trl
from pref_losses.moments import RunningMoments

SOURCES = sorted(Path(pref_losses.__file__).parent.rglob("*.py"))
ADAPTER = "_trl.py"


def source(what: Any) -> str:
    return inspect.getsource(what)


def assigns(function: Any, attribute: str) -> bool:
    """Whether a method sets `self.<attribute>`."""
    tree = ast.parse(inspect.cleandoc("class _:\n") + "\n" + source(function))
    return any(
        isinstance(node, ast.Attribute) and node.attr == attribute and isinstance(node.ctx, ast.Store)
        for node in ast.walk(tree)
    )


@pytest.fixture
def theirs(make_trainer: Callable[..., Any]) -> Any:
    return make_trainer(DPOConfig, trainer=DPOTrainer)


# --- one module -----------------------------------------------------------------------------------------------


def test_every_name_relied_upon_has_a_test() -> None:
    tests = {name for name in globals() if name.startswith("test_relies_on_")}
    wanted = {
        "test_relies_on_"
        + name.replace("trl.trainer.utils.", "")
        .replace("trl.models.utils.", "")
        .replace(".", "_")
        .replace("__", "_")
        .replace(" ", "_")
        .lower()
        for name in _trl.RELIED_UPON
    }
    assert wanted <= tests, sorted(wanted - tests)


def test_only_one_module_imports_from_inside_trl() -> None:
    inner = {
        (path.name, node.module)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trl.")
    }
    assert {name for name, _ in inner} == {ADAPTER}


def test_only_one_module_touches_private_names_of_trl() -> None:
    private = {n for base in DPOTrainer.__mro__[:-1] for n in vars(base) if n.startswith("_") and not n.endswith("__")}
    private |= {
        node.attr
        for base in (DPOTrainer, Trainer)
        for node in ast.walk(ast.parse(source(base)))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__")
    }
    relied = {part.split(".")[-1] for part in _trl.RELIED_UPON} | {"_name", "_paper"}
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.name == ADAPTER:
            continue
        touched = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)} & private
        assert touched <= {"_name"}, f"{path.name} uses {sorted(touched)}"
        for base in (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)):
            overridden = {n.name for n in base.body if isinstance(n, ast.FunctionDef)} & private
            assert overridden <= relied, f"{path.name} overrides {sorted(overridden - relied)}"


# --- DPOTrainer -----------------------------------------------------------------------------------------------


def test_relies_on_dpotrainer_prepare_dataset() -> None:
    names = ["self", "dataset", "processing_class", "args", "dataset_name"]
    assert list(inspect.signature(DPOTrainer._prepare_dataset).parameters) == names
    for method in (DPOTrainer.__init__, DPOTrainer.evaluate):
        assert "self._prepare_dataset(" in source(method)


def test_relies_on_dpotrainer_set_signature_columns_if_needed(theirs: Any) -> None:
    theirs._signature_columns = None
    theirs._set_signature_columns_if_needed()
    assert {"prompt_ids", "chosen_ids", "rejected_ids"} <= set(theirs._signature_columns)


def test_relies_on_dpotrainer_precompute_ref_logps() -> None:
    names = ["self", "dataset", "name", "batch_size"]
    assert list(inspect.signature(DPOTrainer._precompute_ref_logps).parameters) == names
    for method in (DPOTrainer.__init__, DPOTrainer.evaluate):
        assert "self._precompute_ref_logps(" in source(method)


def test_relies_on_dpotrainer_precompute_model_hash(make_trainer: Callable[..., Any]) -> None:
    assert isinstance(
        make_trainer(DPOConfig, trainer=DPOTrainer, precompute_ref_log_probs=True)._precompute_model_hash, str
    )


def test_relies_on_dpotrainer_precompute_engine(theirs: Any) -> None:
    assert theirs._precompute_engine is None


def test_relies_on_dpotrainer_compute_loss(theirs: Any) -> None:
    names = ["self", "model", "inputs", "return_outputs", "num_items_in_batch"]
    assert list(inspect.signature(DPOTrainer.compute_loss).parameters) == names
    assert "self.compute_loss(" in source(Trainer.training_step)
    assert "self.compute_loss(model, inputs, return_outputs=False)" in source(DPOTrainer.prediction_step)


def test_relies_on_dpotrainer_loss_is_scaled_for_ga() -> None:
    assert DPOTrainer.loss_is_scaled_for_ga is False
    assert "loss = loss / self.current_gradient_accumulation_steps" in source(Trainer.training_step)


def test_relies_on_dpotrainer_aux_loss_enabled(theirs: Any) -> None:
    assert theirs.aux_loss_enabled is False
    assert assigns(DPOTrainer.__init__, "aux_loss_enabled")


def test_relies_on_dpotrainer_metrics(theirs: Any) -> None:
    assert set(theirs._metrics) == {"train", "eval"}
    assert isinstance(theirs._metrics["train"], defaultdict)
    theirs.model.train()
    theirs._metrics["train"]["mine"] += [1.0, 2.0]
    theirs.log({})
    assert theirs.state.log_history[-1]["mine"] == 1.5
    assert not theirs._metrics["train"]
    theirs.model.eval()
    theirs._metrics["eval"]["mine"].append(3.0)
    theirs.log({})
    assert theirs.state.log_history[-1]["eval_mine"] == 3.0


def test_relies_on_dpotrainer_total_train_tokens(theirs: Any) -> None:
    theirs.train()
    assert theirs._total_train_tokens == theirs.state.log_history[-2]["num_tokens"] > 0


def test_relies_on_dpotrainer_tag_names() -> None:
    assert isinstance(DPOTrainer._tag_names, (list, tuple))
    assert isinstance(DPOTrainer._name, str)
    assert set(DPOTrainer._paper) == {"title", "id", "citation"}
    assert set(_trl.paper("A: b", "1", 2024)) == set(DPOTrainer._paper)


def test_relies_on_dpotrainer_precompute_ref_logps_flag(theirs: Any) -> None:
    assert theirs.precompute_ref_logps is False
    assert "self.precompute_ref_logps" in source(DPOTrainer.evaluate)


def test_relies_on_dpotrainer_without_ref_model(make_trainer: Callable[..., Any], model: Any) -> None:
    assert make_trainer(DPOConfig, trainer=DPOTrainer).ref_model is not None
    assert make_trainer(DPOConfig, trainer=DPOTrainer, precompute_ref_log_probs=True).ref_model is None
    adapted = get_peft_model(model, LoraConfig(r=2))
    assert make_trainer(DPOConfig, trainer=DPOTrainer, model=adapted).ref_model is None
    assert set(adapted.peft_config) == {"default", "ref"}


# --- transformers ---------------------------------------------------------------------------------------------


def test_relies_on_trainer_signature_columns() -> None:
    assert assigns(Trainer.__init__, "_signature_columns")


def test_relies_on_trainer_prepare_inputs(theirs: Any) -> None:
    plan = object()
    batch = {"input_ids": torch.zeros(1, 2), "plan": plan}
    assert theirs._prepare_inputs(batch)["plan"] is plan


def test_relies_on_trainer_save(theirs: Any, make_trainer: Callable[..., Any], tmp_path: Path) -> None:
    for trainer, folder in ((theirs, tmp_path / "theirs"), (make_trainer(), tmp_path / "ours")):
        trainer.save_model(str(folder))
    written = [{path.name for path in (tmp_path / name).iterdir()} for name in ("theirs", "ours")]
    assert written[0] - written[1] == {"training_args.bin"}
    assert not [path for path in (tmp_path / "ours").iterdir() if path.suffix in (".bin", ".pkl", ".pt")]


def test_relies_on_trainer_get_batch_samples(make_trainer: Callable[..., Any]) -> None:
    names = ["self", "epoch_iterator", "num_batches", "device"]
    assert list(inspect.signature(Trainer.get_batch_samples).parameters) == names
    calls: list[str] = []

    class Watched(DPOTrainer):
        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            batches, items = super().get_batch_samples(*args, **kwargs)
            calls.append(f"fetched {len(batches)}")
            return batches, items

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(f"trained of {self.current_gradient_accumulation_steps}")
            return super().training_step(*args, **kwargs)

    make_trainer(DPOConfig, trainer=Watched, gradient_accumulation_steps=3, max_steps=2).train()
    # 16 rows in batches of 4: an optimizer step of three batches, and the epoch's last of one
    assert calls == ["fetched 3", *["trained of 3"] * 3, "fetched 1", "trained of 1"]


def test_relies_on_trainer_current_gradient_accumulation_steps() -> None:
    assert "current_gradient_accumulation_steps" in source(Trainer.training_step)


def test_relies_on_trainerstate_stateful_callbacks(tmp_path: Path) -> None:
    moments = RunningMoments(0.9, 1.5, 0.5)
    state = TrainerState(stateful_callbacks=[moments])
    state.save_to_json(str(tmp_path / "state.json"))
    found = TrainerState.load_from_json(str(tmp_path / "state.json"))
    assert found.stateful_callbacks["RunningMoments"] == moments.state()


# --- helpers of TRL -------------------------------------------------------------------------------------------


def test_relies_on_use_adapter(model: Any) -> None:
    ids = torch.tensor([[5, 6, 7]])
    plain = model(ids).logits.detach()
    adapted = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False))
    with use_adapter(adapted, adapter_name=None):
        torch.testing.assert_close(adapted(ids).logits, plain)
    adapted.add_adapter("ref", LoraConfig(r=2, init_lora_weights=False))
    before = adapted(ids).logits
    with use_adapter(adapted, adapter_name="ref"):
        assert not torch.allclose(adapted(ids).logits, before)
    torch.testing.assert_close(adapted(ids).logits, before)


def test_relies_on_add_fused_lm_head(model: Any) -> None:
    own = model.forward
    add_fused_lm_head(model)
    assert model.forward.__code__.co_name == "_fused_forward"
    assert inspect.getclosurevars(model.forward).nonlocals["original_forward"] == own
    assert "add_fused_lm_head(self.ref_model)" in source(DPOTrainer.__init__)


def test_relies_on_disable_gradient_checkpointing(model_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    model.gradient_checkpointing_enable()
    with disable_gradient_checkpointing(model, None):
        assert not model.is_gradient_checkpointing
    assert model.is_gradient_checkpointing
