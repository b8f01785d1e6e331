"""Everything of TRL and transformers that is not documented for subclasses, in one place; the contract tests name
each.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import trl
from accelerate.utils import broadcast_object_list
from peft import PeftModel
from torch import Tensor
from trl import DPOConfig
from trl.models.utils import disable_gradient_checkpointing, prepare_deepspeed
from trl.trainer import dpo_trainer
from trl.trainer.utils import get_config_model_id, use_adapter

from pref_losses import fingerprints
from pref_losses.objective import AnswerLogps

RELIED_UPON = {
    "DPOTrainer._prepare_dataset": "called by __init__ and evaluate for every data set",
    "DPOTrainer._set_signature_columns_if_needed": "names the columns that reach the collator",
    "DPOTrainer._precompute_ref_logps": "called by __init__ and evaluate where precompute_ref_log_probs is set",
    "DPOTrainer._precompute_model_hash": "of the reference before it is sharded, where log-probs are precomputed",
    "DPOTrainer.precompute_ref_logps": "tells evaluate whether new data needs reference log-probs",
    "DPOTrainer.compute_loss": "called by training_step and prediction_step",
    "DPOTrainer.loss_is_scaled_for_ga": "False: training_step divides the loss by the number of micro-batches",
    "DPOTrainer.aux_loss_enabled": "true where a mixture of experts would add its balancing loss",
    "DPOTrainer._metrics": "lists of numbers by mode and key, averaged and cleared by log",
    "DPOTrainer._total_train_tokens": "running count behind num_tokens",
    "DPOTrainer._tag_names": "tags of the model card; also _name and _paper",
    "DPOTrainer without ref_model": "loads none where log-probs are precomputed; an adapter is copied as 'ref'",
    "DPOTrainer._precompute_engine": "of DeepSpeed, kept from one data set to the next",
    "Trainer._signature_columns": "the columns that reach the collator",
    "Trainer._prepare_inputs": "moves a batch to the device, and leaves what is no tensor as it is",
    "Trainer._save": "writes the model, and its arguments as a pickle",
    "Trainer.get_batch_samples": "fetches the micro-batches of one optimizer step, before any is trained on",
    "Trainer.current_gradient_accumulation_steps": "how many they are, what training_step divides by",
    "TrainerState.stateful_callbacks": "the state of every ExportableState callback, also from a checkpoint",
    "trl.trainer.utils.use_adapter": "turns adapters off, or another one on",
    "trl.trainer.utils.add_fused_lm_head": "puts a forward on a model; called by DPOTrainer.__init__",
    "trl.models.utils.disable_gradient_checkpointing": "turns checkpointing off for a pass without gradient",
}


class _WithoutPickle:
    """Saves everything but the arguments, which `Trainer` would add as a pickle that nothing reads."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        folder = output_dir or self.args.output_dir  # type: ignore[attr-defined]
        Path(folder, "training_args.bin").unlink(missing_ok=True)


class DPOTrainer(_WithoutPickle, trl.DPOTrainer):
    """TRL's, in safe formats only."""


class SFTTrainer(_WithoutPickle, trl.SFTTrainer):
    """TRL's, in safe formats only."""


def model_id(model: Any) -> str:
    """Where a model's tokenizer can be loaded from."""
    return model if isinstance(model, str) else str(get_config_model_id(model.config))


def require_name(model: Any, purpose: str) -> None:
    """Refuse a model that was built in memory where it would be loaded again by its name."""
    if not model_id(model):
        raise ValueError(f"a {type(model).__name__} that was built in memory has no name to be loaded by {purpose}")


@contextmanager
def own_forwards(*models: Any) -> Iterator[None]:
    """`DPOTrainer` puts a forward on policy and reference, which this trainer does not need: not here, and what an
    earlier trainer left on `models` is taken off.

    That forward calls the one that it found on the model it was made for, also from a copy of that model: the copy,
    kept as a reference, would answer with the weights in training.
    """
    for model in models:
        if isinstance(model, torch.nn.Module):
            _restore_forward(model)
        if isinstance(model, PeftModel):
            _restore_forward(model.get_base_model())
    add = dpo_trainer.add_fused_lm_head
    dpo_trainer.add_fused_lm_head = lambda *_, **__: None
    try:
        yield
    finally:
        dpo_trainer.add_fused_lm_head = add


def _restore_forward(model: Any) -> None:
    """Undo TRL's `add_fused_lm_head`, and accelerate's mixed precision around it."""
    fused = next(filter(_is_fused, _layers(vars(model).get("forward"))), None)
    if fused is None:
        return
    del model.forward
    vars(model).pop("_original_forward", None)  # accelerate's note of what it wrapped
    if hasattr(model, "_hf_hook"):  # spread over devices: the forward that TRL found moves the inputs there
        while _is_fused(fused):
            fused = inspect.getclosurevars(fused).nonlocals["original_forward"]
        model.forward = functools.update_wrapper(functools.partial(fused.func, model), model._old_forward)


def _layers(function: Any) -> Iterator[Any]:
    """A function and what it wraps, layer by layer."""
    while function is not None:
        yield function
        function = getattr(function, "__wrapped__", None)


def _is_fused(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_name == "_fused_forward"


def pad_token_id(tokenizer: Any, args: DPOConfig) -> int:
    """The pad token as `DPOTrainer` chooses it: `args.pad_token`, the tokenizer's, or its EOS."""
    token = args.pad_token or tokenizer.pad_token or tokenizer.eos_token
    pad_id = tokenizer.get_vocab().get(token)
    if pad_id is None:
        raise ValueError(f"the pad token {token!r} is not in the tokenizer's vocabulary: set pad_token to one that is")
    return int(pad_id)


def keep_columns(trainer: Any, names: list[str]) -> None:
    """The columns of the data that reach the collator."""
    trainer._signature_columns = names


def on_device(trainer: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the batch where the model is."""
    return dict(trainer._prepare_inputs(batch))


@contextmanager
def without_reference_model(args: DPOConfig, *, unless: bool) -> Iterator[None]:
    """`DPOTrainer` loads a reference model unless log-probs are precomputed: an objective that needs none says so."""
    wanted = args.precompute_ref_log_probs
    args.precompute_ref_log_probs = wanted or not unless
    try:
        yield
    finally:
        args.precompute_ref_log_probs = wanted and unless


@contextmanager
def reference_mode(trainer: Any) -> Iterator[None]:
    """Make the policy act as the reference where there is no reference model: adapter off, or the adapter named
    "ref".
    """
    with ExitStack() as stack:
        stack.enter_context(disable_gradient_checkpointing(trainer.model, trainer.args.gradient_checkpointing_kwargs))
        policy = trainer.accelerator.unwrap_model(trainer.model)
        if trainer.ref_model is None and hasattr(policy, "peft_config"):
            stack.enter_context(use_adapter(policy, adapter_name="ref" if "ref" in policy.peft_config else None))
        yield


def refuse_unsupported(trainer: Any) -> None:
    """What the trainer's loss leaves out, refused rather than ignored."""
    if trainer.aux_loss_enabled:
        raise ValueError(
            "the balancing loss of a mixture of experts is not part of this trainer's loss: set "
            "router_aux_loss_coef=0, or use trl.DPOTrainer"
        )
    peft = getattr(trainer.model, "active_peft_config", None)
    if peft is not None and peft.is_prompt_learning:
        raise ValueError(
            f"a {peft.peft_type.value} adapter puts tokens of its own before the prompt, at which answers cannot be "
            "told apart here: use an adapter of weights such as LoRA"
        )


def reference_fingerprint(trainer: Any, model: Any) -> str:
    """Of the reference's weights; where they may lie in shards by now, TRL's hash from before, the first process's."""
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return fingerprints.reference_fingerprint(trainer.accelerator.unwrap_model(model))
    shared = [trainer._precompute_model_hash]
    broadcast_object_list(shared, from_process=0)
    return str(shared[0])


def reference_engine(trainer: Any) -> Any:
    """The model that gives reference log-probs before training; DeepSpeed has to place it first."""
    if trainer.ref_model is not None:
        return trainer.ref_model
    if trainer.is_deepspeed_enabled:
        if trainer._precompute_engine is None:
            trainer._precompute_engine = prepare_deepspeed(trainer.model, trainer.accelerator)
        return trainer._precompute_engine
    return trainer.model


def gather_logps(accelerator: Any, logps: AnswerLogps, rows: Tensor) -> tuple[AnswerLogps, Tensor, slice]:
    """The log-probs and row numbers of all processes, and which of them are this process's; B and K may differ."""
    if accelerator.num_processes == 1:
        return logps, rows, slice(0, len(rows))
    sizes = accelerator.gather(torch.tensor([len(rows), logps.mask.shape[1]], device=rows.device)).view(-1, 2)
    longest, width = (int(n) for n in sizes.amax(0))
    present = (torch.arange(longest, device=rows.device)[None, :] < sizes[:, :1]).flatten()

    def everywhere(part: Tensor) -> Tensor:
        grow = [0, longest - len(part)] if part.dim() == 1 else [0, width - part.shape[1], 0, longest - len(part)]
        gathered: Tensor = accelerator.gather(torch.nn.functional.pad(part, grow))
        return gathered[present]

    gathered = AnswerLogps(
        everywhere(logps.chosen),
        everywhere(logps.rejected),
        None if logps.ref_chosen is None else everywhere(logps.ref_chosen),
        None if logps.ref_rejected is None else everywhere(logps.ref_rejected),
        everywhere(logps.mask.to(torch.uint8)).bool(),
    )
    start = int(sizes[: accelerator.process_index, 0].sum())
    return gathered, everywhere(rows), slice(start, start + len(rows))


def log_metrics(trainer: Any, mode: str, values: Mapping[str, Tensor], inputs: Mapping[str, Any]) -> None:
    """Add the mean over all processes of every value, a scalar or one number per example or pair, to what the trainer
    logs next.
    """
    pairs = torch.stack(
        [
            torch.stack([value.float().sum(), value.new_tensor(value.numel(), dtype=torch.float32)])
            for value in values.values()
        ]
    )
    if trainer.accelerator.num_processes > 1:
        pairs = trainer.accelerator.reduce(pairs, "sum")
    for name, (total, count) in zip(values, pairs.tolist(), strict=True):
        if count:  # no process has a flipped pair, say
            trainer._metrics[mode][name].append(total / count)
    if mode == "train":
        tokens = (inputs["attention_mask"] > 0) if "attention_mask" in inputs else (inputs["segment_ids"] >= 0)
        trainer._total_train_tokens += int(trainer.accelerator.reduce(tokens.sum(), "sum"))
    trainer._metrics[mode]["num_tokens"] = [trainer._total_train_tokens]


def paper(title: str, arxiv: str, year: int) -> dict[str, str]:
    """What TRL's model card cites."""
    key = title.split(":")[0].lower().replace(" ", "-")
    citation = (
        f"@article{{{key},\n    title = {{{{{title}}}}},\n    year = {year},\n    eprint = {{arXiv:{arxiv}}},\n}}"
    )
    return {"title": title, "id": arxiv, "citation": citation}
