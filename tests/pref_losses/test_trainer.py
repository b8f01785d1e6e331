"""The trainer on a tiny model: equal to TRL's where it is plain DPO, and what it adds."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Trainer,
    TrainerCallback,
)
from trl import DPOConfig, DPOTrainer

from pref_losses import (
    AlphaDPOConfig,
    AlphaDPOTrainer,
    BetaDPOConfig,
    BetaDPOTrainer,
    DrDPOConfig,
    DrDPOTrainer,
    PreferenceConfig,
    PreferenceTrainer,
    SoftmaxDPOConfig,
    SoftmaxDPOTrainer,
    alpha_dpo_loss,
)
from pref_losses.data import prepare_preferences
from pref_losses.fingerprints import reference_fingerprint, tokens_fingerprint

Make = Callable[..., PreferenceTrainer]
Logged = Callable[..., list[float]]
METHODS = {
    AlphaDPOTrainer: AlphaDPOConfig,
    BetaDPOTrainer: BetaDPOConfig,
    DrDPOTrainer: DrDPOConfig,
    SoftmaxDPOTrainer: SoftmaxDPOConfig,
}
LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=True)
COUPLED = {"beta_alpha": 0.6, "reduction": "robust", "keep": 0.75, "link": "softmax"}
close = torch.testing.assert_close


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: w.detach().clone() for name, w in trainer.model.named_parameters() if w.requires_grad}


def same_training(mine: Any, theirs: Any, logged: Logged, tolerance: float = 1e-5) -> None:
    assert len(logged(theirs)) == theirs.args.max_steps
    close(logged(mine), logged(theirs), atol=tolerance, rtol=0)
    ours = weights(mine)
    for name, weight in weights(theirs).items():
        close(ours[name], weight, atol=1e-4, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


# --- equal to TRL ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharing", ["true", "false"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_accumulation_steps": 2},
        {"beta": 0.5},
        {"max_length": 12, "truncation_mode": "keep_start"},
        {"precompute_ref_log_probs": True},
        {"gradient_checkpointing": True},
        {"sync_ref_model": True, "ref_model_sync_steps": 2},
    ],
    ids=lambda o: "+".join(o) or "plain",
)
def test_plain_dpo_equals_trl(options: dict[str, Any], sharing: str, make_trainer: Make, logged: Logged) -> None:
    mine = make_trainer(prefix_sharing=sharing, **options)
    theirs = make_trainer(DPOConfig, trainer=DPOTrainer, **options)
    mine.train()
    theirs.train()
    same_training(mine, theirs, logged)
    keys = {key for entry in theirs.state.log_history for key in entry}
    assert keys <= {key for entry in mine.state.log_history for key in entry}
    timings = {k for k in keys if k.startswith(("train_", "total_"))}
    for key in keys - timings - {"num_tokens", "grad_norm"}:
        # While policy and reference are equal, which reward is larger is a matter of rounding.
        start = 1 if key == "rewards/accuracies" else 0
        found, expected = logged(mine, key)[start:], logged(theirs, key)[start:]
        close(found, expected, atol=1e-4, rtol=1e-4, msg=lambda m, key=key: f"{key}: {m}")
    if sharing == "false":
        assert logged(mine, "num_tokens") == logged(theirs, "num_tokens")
    else:
        assert logged(mine, "num_tokens")[-1] < logged(theirs, "num_tokens")[-1]


def test_flip_corrected_link_equals_trls_robust_loss(make_trainer: Make, logged: Logged) -> None:
    mine = make_trainer(link="flip_corrected", label_smoothing=0.2)
    theirs = make_trainer(DPOConfig, trainer=DPOTrainer, loss_type="robust", label_smoothing=0.2)
    mine.train()
    theirs.train()
    same_training(mine, theirs, logged)


def test_lora_equals_trl_with_the_adapter_off_as_reference(make_trainer: Make, logged: Logged) -> None:
    mine = make_trainer(peft_config=LORA)
    theirs = make_trainer(DPOConfig, trainer=DPOTrainer, peft_config=LORA)
    mine.train()
    theirs.train()
    assert mine.ref_model is None
    same_training(mine, theirs, logged)
    assert logged(mine)[0] == pytest.approx(0.693147, abs=1e-5)  # an untrained adapter is the reference


def test_continuing_one_lora_takes_its_copy_as_reference(
    model_folder: Path, make_trainer: Make, logged: Logged
) -> None:
    def adapted() -> Any:
        torch.manual_seed(3)
        lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        return get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder), lora)

    mine = make_trainer(model=adapted())
    theirs = make_trainer(DPOConfig, trainer=DPOTrainer, model=adapted())
    before = {n: w.clone() for n, w in mine.model.named_parameters() if ".ref." in n}
    mine.train()
    theirs.train()
    same_training(mine, theirs, logged)
    assert logged(mine)[0] == pytest.approx(0.693147, abs=1e-5)  # against the base it would differ
    assert before
    assert all(torch.equal(w, before[n]) for n, w in mine.model.named_parameters() if ".ref." in n)
    assert mine.model.active_adapter == "default"


def test_a_reference_model_of_its_own(model_folder: Path, make_trainer: Make, logged: Logged) -> None:
    def other() -> Any:
        model = AutoModelForCausalLM.from_pretrained(model_folder)
        with torch.no_grad():
            model.lm_head.weight.mul_(0.5)
        return model

    mine = make_trainer(ref_model=other())
    theirs = make_trainer(DPOConfig, trainer=DPOTrainer, ref_model=other())
    mine.train()
    theirs.train()
    same_training(mine, theirs, logged)
    assert abs(logged(mine)[0] - 0.693147) > 1e-3


def test_evaluation_equals_trl(make_trainer: Make, make_preferences: Callable[..., Dataset]) -> None:
    options = {"eval_dataset": make_preferences(7), "per_device_eval_batch_size": 4}
    mine, theirs = make_trainer(**options), make_trainer(DPOConfig, trainer=DPOTrainer, **options)
    with torch.no_grad():
        for trainer in (mine, theirs):
            trainer.model.lm_head.weight.mul_(0.7)
    found, expected = mine.evaluate(), theirs.evaluate()
    assert set(expected) <= set(found)
    for key in ("eval_loss", "eval_rewards/margins", "eval_rewards/accuracies", "eval_logps/rejected", "eval_entropy"):
        assert found[key] == pytest.approx(expected[key], abs=1e-4), key


# --- methods --------------------------------------------------------------------------------------------------

OWN_METRICS = {
    "beta",
    "margin/target",
    "margin/gap",
    "weights/max",
    "weights/effective",
    "kept_fraction",
    "rewards/accuracies_all",
}


@pytest.mark.parametrize("trainer", METHODS, ids=lambda t: t._name)
@pytest.mark.parametrize(("negatives", "accumulation"), [(None, 1), (3, 2)])
def test_every_method_trains_and_logs_all_metrics(
    trainer: type[PreferenceTrainer],
    negatives: int | None,
    accumulation: int,
    make_trainer: Make,
    make_preferences: Callable[..., Dataset],
) -> None:
    data = make_preferences(16, negatives, ragged=True) if negatives else make_preferences(16)
    data = data.add_column("flipped", [i % 5 == 0 for i in range(16)])
    made = make_trainer(
        METHODS[trainer],
        trainer=trainer,
        train_dataset=data,
        eval_dataset=data.select(range(6)),
        gradient_accumulation_steps=accumulation,
        per_device_train_batch_size=4,
        max_steps=4,
        eval_strategy="epoch",
    )
    made.train()
    logs = made.state.log_history
    keys = {key for entry in logs for key in entry}
    assert keys >= OWN_METRICS | {f"eval_{k}" for k in OWN_METRICS} | {"weights/clean", "weights/flipped", "eval_loss"}
    numbers = [v for entry in logs for v in entry.values() if isinstance(v, float)]
    assert torch.isfinite(torch.tensor(numbers)).all()
    assert set(made.example_weights) <= set(range(16))


def test_learning_separates_the_pairs(make_trainer: Make, logged: Logged) -> None:
    trainer = make_trainer(DrDPOConfig, max_steps=40, learning_rate=5e-3, per_device_train_batch_size=8)
    trainer.train()
    assert logged(trainer, "rewards/accuracies")[-1] == 1.0
    assert logged(trainer)[-1] < 0.5 * logged(trainer)[0]


def test_alpha_dpo_scores_per_token_and_keeps_running_moments(make_trainer: Make, logged: Logged) -> None:
    steps: list[dict[str, Any]] = []

    class Watched(AlphaDPOTrainer):
        def _plan(self, logps: Any, rows: Any) -> Any:
            plan = super()._plan(logps, rows)
            steps.append({"logps": logps.detach(), "moments": plan.moments})
            return plan

    trainer = make_trainer(AlphaDPOConfig, trainer=Watched, margin_alpha=0.2)
    trainer.train()
    means, stds = [], []
    for step, loss in zip(steps, logged(trainer), strict=True):
        logps = step["logps"]
        gaps = (logps.chosen - logps.ref_chosen) - (logps.rejected - logps.ref_rejected)[:, 0]
        means.append(float(gaps.mean()) if not means else 0.9 * means[-1] + 0.1 * float(gaps.mean()))
        stds.append(float(gaps.std()) if not stds else 0.9 * stds[-1] + 0.1 * float(gaps.std()))
        assert float(step["moments"].mean) == pytest.approx(means[-1], abs=1e-6)
        assert float(step["moments"].std) == pytest.approx(stds[-1], abs=1e-6)
        out = alpha_dpo_loss(
            logps.chosen,
            logps.rejected,
            logps.ref_chosen,
            logps.ref_rejected,
            beta=10.0,
            gamma_beta_ratio=0.4,
            alpha=0.2,
            moments=step["moments"],
        )
        assert loss == pytest.approx(float(out.loss), abs=1e-4)
        assert (logps.chosen > -8).all()  # per token: the vocabulary has 270 entries, log 270 = 5.6
    assert (trainer.moments.mean, trainer.moments.std) == pytest.approx((means[-1], stds[-1]), abs=1e-6)


def test_simpo_loads_and_runs_no_reference(make_trainer: Make, logged: Logged) -> None:
    trainer = make_trainer(score="mean_logp", gamma_beta_ratio=0.5, beta=2.0)
    trainer.train()
    assert trainer.ref_model is None
    assert not trainer.args.precompute_ref_log_probs
    assert not logged(trainer, "margin/gap")
    assert logged(trainer, "margin/target")[0] == pytest.approx(1.0)


def test_alpha_zero_equals_simpo_in_training(make_trainer: Make, logged: Logged) -> None:
    options = {"score": "mean_logp", "gamma_beta_ratio": 0.5, "beta": 2.0}
    losses = []
    for config, more in ((AlphaDPOConfig, {"margin_alpha": 0.0}), (PreferenceConfig, {})):
        trainer = make_trainer(config, **options, **more)
        trainer.train()
        losses.append(logged(trainer))
    assert losses[0] == losses[1]


def test_softmax_with_one_negative_equals_dpo_in_training(make_trainer: Make, logged: Logged) -> None:
    mine, plain = make_trainer(SoftmaxDPOConfig), make_trainer(beta=1.0)
    mine.train()
    plain.train()
    same_training(mine, plain, logged)


# --- the whole batch ------------------------------------------------------------------------------------------


def test_accumulation_gives_the_loss_of_one_large_batch(
    make_trainer: Make, make_preferences: Callable[..., Dataset], logged: Logged
) -> None:
    options = {"train_dataset": make_preferences(16, 3, ragged=True), **COUPLED}
    large = make_trainer(per_device_train_batch_size=8, **options)
    small = make_trainer(per_device_train_batch_size=2, gradient_accumulation_steps=4, **options)
    large.train()
    small.train()
    same_training(small, large, logged)
    assert small.moments.mean == pytest.approx(large.moments.mean, abs=1e-5)
    assert small.example_weights == pytest.approx(large.example_weights, abs=1e-4)


def test_micro_scope_couples_each_micro_batch_alone(make_trainer: Make, logged: Logged) -> None:
    options = {"reduction": "robust", "beta_prime": 0.05, "gradient_accumulation_steps": 2, "max_steps": 2}
    micro, whole = make_trainer(batch_scope="micro", **options), make_trainer(**options)
    micro.train()
    whole.train()
    assert abs(logged(micro)[-1] - logged(whole)[-1]) > 1e-4
    assert sum(micro.example_weights.values()) == pytest.approx(16, abs=1e-4)
    moved = make_trainer(BetaDPOConfig, batch_scope="micro", gradient_accumulation_steps=2, max_steps=1)
    updates: list[int] = []
    moved.moments.update = lambda gaps: updates.append(len(gaps)) or type(moved.moments).update(moved.moments, gaps)
    moved.train()
    assert updates == [4, 4]  # once a micro-batch; the global scope updates once a step


def test_moments_are_updated_once_per_step_in_training_only(
    make_trainer: Make, make_preferences: Callable[..., Dataset]
) -> None:
    trainer = make_trainer(
        AlphaDPOConfig, gradient_accumulation_steps=2, eval_dataset=make_preferences(8), max_steps=3
    )
    before = trainer.evaluate()
    assert trainer.moments.mean is None
    updates: list[int] = []
    trainer.moments.update = lambda gaps: (
        updates.append(len(gaps)) or type(trainer.moments).update(trainer.moments, gaps)
    )
    trainer.train()
    assert updates == [8, 8, 8]
    state = (trainer.moments.mean, trainer.moments.std)
    first, second = trainer.evaluate(), trainer.evaluate()
    assert (trainer.moments.mean, trainer.moments.std) == state
    assert first["eval_loss"] == second["eval_loss"] != before["eval_loss"]


def test_evaluation_loss_does_not_depend_on_the_batch_size(
    make_trainer: Make, make_preferences: Callable[..., Dataset]
) -> None:
    found = []
    for size, sharing in ((1, "true"), (3, "false"), (7, "true")):
        trainer = make_trainer(
            eval_dataset=make_preferences(7, 3, ragged=True),
            per_device_eval_batch_size=size,
            prefix_sharing=sharing,
            **COUPLED,
        )
        with torch.no_grad():
            trainer.model.lm_head.weight.mul_(0.7)
        found.append(trainer.evaluate()["eval_loss"])
    assert found == pytest.approx([found[0]] * 3, abs=1e-5)


# --- reference log-probs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("peft", [False, True])
def test_precomputed_reference_equals_the_one_computed_in_training(
    peft: bool, make_trainer: Make, make_preferences: Callable[..., Dataset], logged: Logged, tmp_path: Path
) -> None:
    options = {
        "train_dataset": make_preferences(16, 3, ragged=True),
        "eval_dataset": make_preferences(8, 3),
        "peft_config": LORA if peft else None,
        "link": "softmax",
    }
    file = tmp_path / "ref.parquet"
    direct = make_trainer(**options)
    stored = make_trainer(ref_log_probs_file=str(file), precompute_ref_batch_size=5, **options)
    assert stored.ref_model is None
    assert [p.name for p in sorted(tmp_path.glob("*.parquet"))] == ["ref-eval.parquet", "ref.parquet"]
    lengths = [[len(row[c]) for row in stored.train_dataset] for c in ("rejected_ids", "ref_rejected_logps")]
    assert lengths[0] == lengths[1]
    direct.train()
    stored.train()
    same_training(stored, direct, logged)
    assert stored.evaluate()["eval_loss"] == pytest.approx(direct.evaluate()["eval_loss"], abs=1e-5)


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    original = PreferenceTrainer.compute_ref_log_probs

    def counted(self: Any, model: Any, inputs: Any) -> Any:
        calls.append(len(inputs["row"]))
        return original(self, model, inputs)

    monkeypatch.setattr(PreferenceTrainer, "compute_ref_log_probs", counted)
    return calls


def test_reference_file_is_read_back_and_refused_for_other_data_or_model(
    make_trainer: Make,
    make_preferences: Callable[..., Dataset],
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, data = tmp_path / "ref.parquet", make_preferences(8, 3)
    calls = count_passes(monkeypatch)
    first = make_trainer(ref_log_probs_file=str(file), train_dataset=data)
    assert sum(calls) == 8
    again = make_trainer(ref_log_probs_file=str(file), train_dataset=data)
    assert sum(calls) == 8
    for column in ("ref_chosen_logps", "ref_rejected_logps"):
        assert again.train_dataset[column][:] == first.train_dataset[column][:]
    with pytest.raises(ValueError, match="reference log-probs of another data"):
        make_trainer(ref_log_probs_file=str(file), train_dataset=make_preferences(7, 3))
    other = AutoModelForCausalLM.from_pretrained(model_folder)
    with torch.no_grad():
        other.lm_head.weight[0, 0] += 1
    with pytest.raises(ValueError, match="reference log-probs of another model"):
        make_trainer(ref_log_probs_file=str(file), train_dataset=data, model=other)


def test_reference_cache_in_the_output_folder_knows_what_it_belongs_to(
    make_trainer: Make, make_preferences: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_passes(monkeypatch)
    for data in (make_preferences(8, 3), make_preferences(8, 3), make_preferences(8, 2)):
        make_trainer(precompute_ref_log_probs=True, train_dataset=data)
    assert sum(calls) == 16


def test_one_reference_file_serves_different_numbers_of_drawn_negatives(
    make_trainer: Make, make_preferences: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_passes(monkeypatch)
    for count in (1, 2):
        trainer = make_trainer(
            ref_log_probs_file=str(tmp_path / "ref.parquet"),
            train_dataset=make_preferences(8, 4),
            num_negatives=count,
            resample_negatives=True,
            max_steps=2,
        )
        trainer.train()
        assert len(trainer.train_dataset[0]["ref_rejected_logps"]) == count
    assert sum(calls) == 8


def test_data_passed_to_evaluate_gets_reference_log_probs(
    make_trainer: Make, make_preferences: Callable[..., Dataset]
) -> None:
    data = make_preferences(6, 2)
    stored = make_trainer(precompute_ref_log_probs=True, peft_config=LORA, train_dataset=data)
    direct = make_trainer(peft_config=LORA, train_dataset=data)
    for trainer in (stored, direct):
        trainer.train()
    found, expected = stored.evaluate({"held_out": data}), direct.evaluate({"held_out": data})
    assert found["eval_held_out_loss"] == pytest.approx(expected["eval_held_out_loss"], abs=1e-5)


def test_fingerprints_change_with_what_matters(
    tokenizer: Any, make_preferences: Callable[..., Dataset], model: Any
) -> None:
    data = prepare_preferences(make_preferences(6, 2), tokenizer)
    told = tokens_fingerprint(data)
    assert tokens_fingerprint(data.add_column("flipped", [False] * 6)) == told
    assert tokens_fingerprint(data.select([1, 0, 2, 3, 4, 5])) != told
    assert tokens_fingerprint(data.select(range(5))) != told
    joined = {"prompt_ids": [[1]], "chosen_ids": [[2]]}
    one, two = ({**joined, "rejected_ids": [ids]} for ids in ([[3, 4]], [[3], [4]]))
    assert tokens_fingerprint(Dataset.from_dict(one)) != tokens_fingerprint(Dataset.from_dict(two))
    base = reference_fingerprint(model)
    adapted = get_peft_model(model, LoraConfig(r=2))
    before = reference_fingerprint(adapted)
    with torch.no_grad():
        next(p for n, p in adapted.named_parameters() if "lora_B" in n).add_(1)
    assert reference_fingerprint(adapted) == before  # the reference is the base
    adapted.add_adapter("ref", LoraConfig(r=2))
    assert len({base, before, reference_fingerprint(adapted)}) == 3
    scalar = torch.nn.BatchNorm1d(2)  # holds a number without dimensions
    assert reference_fingerprint(scalar) == reference_fingerprint(torch.nn.BatchNorm1d(2))


# --- the model afterwards -------------------------------------------------------------------------------------


def test_the_models_are_left_with_the_forward_they_came_with(
    model: Any, model_folder: Path, make_trainer: Make
) -> None:
    reference = AutoModelForCausalLM.from_pretrained(model_folder)
    make_trainer(model=model, ref_model=reference).train()
    assert "forward" not in vars(model)
    assert "forward" not in vars(reference)
    adapted = make_trainer(model=AutoModelForCausalLM.from_pretrained(model_folder), peft_config=LORA)
    adapted.train()
    assert "forward" not in vars(adapted.model.get_base_model())


@pytest.mark.parametrize("options", [{}, {"bf16": True}, {"gradient_checkpointing": True}], ids="+".join)
@pytest.mark.parametrize("first", [PreferenceTrainer, DPOTrainer])
def test_a_copy_of_a_trained_model_is_a_reference_that_training_leaves_alone(
    first: type, options: dict[str, Any], model: Any, make_trainer: Make, logged: Logged
) -> None:
    config = DPOConfig if first is DPOTrainer else PreferenceConfig
    make_trainer(config, trainer=first, model=model, **options).train()
    reference = copy.deepcopy(model)
    second = make_trainer(model=model, ref_model=reference, **options)
    batch = next(iter(second.get_train_dataloader()))
    before = second.compute_ref_log_probs(reference, batch)
    policy = second.compute_ref_log_probs(model, batch)
    close(before, policy, atol=1e-5, rtol=0)
    second.train()
    assert logged(second)[0] == pytest.approx(0.693147, abs=1e-4)  # the copy is where the policy starts
    close(second.compute_ref_log_probs(reference, batch), before, atol=1e-5, rtol=0)
    assert (second.compute_ref_log_probs(model, batch)[0] - before[0]).abs().min() > 1e-2


def test_training_twice_equals_training_a_copy(model: Any, make_trainer: Make, logged: Logged) -> None:
    make_trainer(model=model).train()
    twin, reference = copy.deepcopy(model), copy.deepcopy(model)
    again = make_trainer(model=model, ref_model=reference)
    copied = make_trainer(model=twin, ref_model=reference)
    again.train()
    copied.train()
    same_training(copied, again, logged)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_model_spread_over_devices_keeps_moving_its_inputs(
    model: Any, make_trainer: Make, make_preferences: Callable[..., Dataset]
) -> None:
    moved = []

    class Witness(AlignDevicesHook):
        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            moved.append(module)
            return super().pre_forward(module, *args, **kwargs)

    add_hook_to_module(model, Witness(execution_device="cpu", io_same_device=True))
    make_trainer(DPOConfig, trainer=DPOTrainer, model=model)
    twin = copy.deepcopy(model)
    trainer = make_trainer(model=twin, ref_model=model)
    for one in (twin, model):
        moved.clear()
        trainer.compute_ref_log_probs(one, next(iter(trainer.get_train_dataloader())))
        assert moved == [one]


# --- precision, checkpointing, resuming -----------------------------------------------------------------------


@pytest.mark.parametrize("config", [PreferenceConfig, AlphaDPOConfig, BetaDPOConfig])
def test_bfloat16_on_the_cpu_follows_float32(
    config: type[PreferenceConfig], make_trainer: Make, logged: Logged
) -> None:
    options = {"max_steps": 4, "learning_rate": 1e-3, "gradient_accumulation_steps": 2}
    half, full = make_trainer(config, bf16=True, **options), make_trainer(config, **options)
    half.train()
    full.train()
    close(logged(half), logged(full), atol=0.08, rtol=0.1)
    assert next(half.model.parameters()).dtype == torch.float32


def test_gradient_checkpointing_changes_nothing(make_trainer: Make, logged: Logged) -> None:
    options = {"gradient_accumulation_steps": 2, "peft_config": LORA, **COUPLED}
    with_it, without = make_trainer(gradient_checkpointing=True, **options), make_trainer(**options)
    with_it.train()
    without.train()
    same_training(with_it, without, logged, 1e-6)


class StopAt(TrainerCallback):
    """Ends training after a step, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (AlphaDPOConfig, {"margin_alpha": 0.2}),
        (BetaDPOConfig, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}),
        (SoftmaxDPOConfig, {"num_negatives": 2, "resample_negatives": True, "reduction": "robust"}),
        (AlphaDPOConfig, {"restore_callback_states_from_checkpoint": True}),
    ],
    ids=["alpha", "beta", "resampled", "restored_callbacks"],
)
@pytest.mark.parametrize("stop", [2, 4], ids=["within_an_epoch", "between_epochs"])
def test_resuming_gives_the_losses_of_the_unbroken_run(
    config: type[PreferenceConfig],
    options: dict[str, Any],
    stop: int,
    make_trainer: Make,
    make_preferences: Callable[..., Dataset],
    logged: Logged,
    tmp_path: Path,
) -> None:
    options = {
        "train_dataset": make_preferences(16, 4, ragged=True),
        "max_steps": 10,
        "save_strategy": "steps",
        "save_steps": stop,
        **options,
    }
    unbroken = make_trainer(config, output_dir=str(tmp_path / "a"), **options)
    unbroken.train()
    killed = make_trainer(config, output_dir=str(tmp_path / "b"), **options)
    killed.add_callback(StopAt(stop))
    killed.train()
    saved = json.loads((tmp_path / "b" / f"checkpoint-{stop}" / "trainer_state.json").read_text())
    assert saved["stateful_callbacks"]["RunningMoments"]["args"]["mean"] == killed.moments.mean
    resumed = make_trainer(config, output_dir=str(tmp_path / "b"), **options)
    resumed.train(resume_from_checkpoint=True)
    assert len(logged(resumed)) == 10
    assert logged(resumed) == pytest.approx(logged(unbroken), abs=1e-6)
    assert (resumed.moments.mean, resumed.moments.std) == (
        pytest.approx(unbroken.moments.mean, abs=1e-6),
        pytest.approx(unbroken.moments.std, abs=1e-6),
    )


# --- negatives ------------------------------------------------------------------------------------------------


def negatives_seen(trainer: PreferenceTrainer) -> list[dict[int, Any]]:
    """By epoch and row, the negatives that reach the loss."""
    epochs: list[dict[int, Any]] = []
    collate = trainer.data_collator

    class Epochs(TrainerCallback):
        def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
            epochs.append({})

    def watched(features: Any) -> Any:
        epochs[-1] |= {f["row"]: f["rejected_ids"] for f in features}
        return collate(features)

    trainer.data_collator = watched
    trainer.add_callback(Epochs())
    trainer.train()
    return epochs


@pytest.mark.parametrize("resample", [True, False])
def test_negatives_are_drawn_anew_every_epoch_of_training(
    resample: bool, make_trainer: Make, make_preferences: Callable[..., Dataset]
) -> None:
    options = {
        "train_dataset": make_preferences(8, 6),
        "num_negatives": 2,
        "resample_negatives": resample,
        "max_steps": 6,
    }
    first = negatives_seen(make_trainer(SoftmaxDPOConfig, **options))
    assert len(first) == 3
    assert all(len(epoch) == 8 for epoch in first)
    assert (first[0] == first[1] == first[2]) is not resample
    assert negatives_seen(make_trainer(SoftmaxDPOConfig, **options)) == first
    assert negatives_seen(make_trainer(SoftmaxDPOConfig, seed=7, **options)) != first


def test_evaluation_always_sees_the_same_negatives(
    make_trainer: Make, make_preferences: Callable[..., Dataset]
) -> None:
    data = make_preferences(8, 6)
    trainer = make_trainer(
        SoftmaxDPOConfig,
        train_dataset=data,
        eval_dataset={"a": data, "b": data.select(range(4))},
        num_negatives=2,
        resample_negatives=True,
        max_steps=3,
    )
    seen = []
    for epoch in (0, 2):
        trainer.train_dataset.set_epoch(epoch)
        (batch,) = trainer.get_eval_dataloader("a")
        seen.append(batch["labels"])
        assert batch["answer_mask"].shape == (8, 3)
    assert torch.equal(*seen)
    names = ("eval_a_loss", "eval_b_loss")
    first, second = trainer.evaluate(), trainer.evaluate()
    assert [first[name] for name in names] == [second[name] for name in names]
    for own in (trainer.eval_dataset, {"a": data, "b": data.select(range(4))}):
        third = trainer.evaluate(own)
        assert [first[name] for name in names] == [third[name] for name in names]


def test_workers_that_outlive_an_evaluation_keep_the_data_sets_apart(
    make_trainer: Make, make_preferences: Callable[..., Dataset]
) -> None:
    data = make_preferences(8, 6)
    sets = {"a": data.select([0, 1, 2, 3]), "b": data.select([4, 5, 6, 7])}
    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    found = []
    for options in ({}, workers):
        trainer = make_trainer(SoftmaxDPOConfig, eval_dataset=sets, num_negatives=2, **options)
        with torch.no_grad():
            trainer.model.lm_head.weight.mul_(0.7)
        told = trainer.evaluate()
        found.append((told["eval_a_loss"], told["eval_b_loss"]))
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


# --- what is refused ------------------------------------------------------------------------------------------


def test_what_the_trainer_cannot_do_is_refused(
    make_trainer: Make, make_preferences: Callable[..., Dataset], model_folder: Path, tokenizer: Any
) -> None:
    with pytest.raises(TypeError, match=r"args is a PreferenceConfig.*\(got DPOConfig\)"):
        make_trainer(DPOConfig)
    with pytest.raises(TypeError, match="collect a stream"):
        make_trainer(train_dataset=make_preferences().to_iterable_dataset())
    args = PreferenceConfig(use_cpu=True, bf16=False, report_to="none")
    options = {"train_dataset": make_preferences(), "processing_class": tokenizer}
    with pytest.raises(ValueError, match="no logits to return"):
        PreferenceTrainer(str(model_folder), None, args, compute_metrics=lambda _: {}, **options)
    with pytest.raises(ValueError, match=r"pass a tokenizer as processing_class \(got object\)"):
        PreferenceTrainer(str(model_folder), None, args, **options | {"processing_class": object()})
    trainer = make_trainer()
    with pytest.raises(ValueError, match="use evaluate, not predict"):
        trainer.compute_loss(trainer.model, {}, return_outputs=True)


def test_a_mixture_of_experts_with_a_balancing_loss_is_refused(make_trainer: Make, tokenizer: Any) -> None:
    torch.manual_seed(0)
    model = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, num_local_experts=2, pad_token_id=0,
        )
    )  # fmt: skip
    with pytest.raises(ValueError, match="router_aux_loss_coef=0"):
        make_trainer(model=model, score="mean_logp", router_aux_loss_coef=0.1)


def test_a_model_without_a_name_is_refused_where_it_would_be_loaded_by_it(
    model: Any, make_trainer: Make, make_preferences: Callable[..., Dataset], tokenizer: Any
) -> None:
    built = LlamaForCausalLM(model.config.__class__(**model.config.to_diff_dict() | {"_name_or_path": ""}))
    with pytest.raises(ValueError, match=r"LlamaForCausalLM that was built in memory has no name .* pass ref_model"):
        make_trainer(model=built)
    with pytest.raises(ValueError, match="with its tokenizer: pass processing_class"):
        PreferenceTrainer(built, args=PreferenceConfig(use_cpu=True, bf16=False), train_dataset=make_preferences())
    make_trainer(model=built, ref_model=copy.deepcopy(built)).train()
    make_trainer(model=copy.deepcopy(built), peft_config=LORA)  # the adapter off is the reference
    make_trainer(model=copy.deepcopy(built), score="mean_logp")  # needs none


def test_an_adapter_of_virtual_tokens_is_refused(make_trainer: Make) -> None:
    with pytest.raises(ValueError, match="PROMPT_TUNING adapter puts tokens of its own"):
        make_trainer(peft_config=PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))


def test_the_tokenizer_is_loaded_with_the_model(
    model_folder: Path, make_preferences: Callable[..., Dataset], tmp_path: Path
) -> None:
    args = DrDPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    trainer = DrDPOTrainer(str(model_folder), args=args, train_dataset=make_preferences(4))
    assert trainer.processing_class.eos_token == "</s>"
    assert trainer.data_collator.pad_token_id == trainer.processing_class.pad_token_id


def test_defaults_of_the_methods_trainers() -> None:
    for trainer, config in METHODS.items():
        assert trainer._config is config
        assert issubclass(trainer, Trainer)
        assert trainer._paper["id"] in (config.__doc__ or "")


def test_model_card_names_the_method(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer(DrDPOConfig, trainer=DrDPOTrainer, max_steps=1)
    trainer.create_model_card(model_name="tiny")
    card = Path(trainer.args.output_dir, "README.md").read_text()
    assert "Dr. DPO" in card
    assert "2407.07880" in card
    assert "dr-dpo" in card
