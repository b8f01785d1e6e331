"""Everything of TRL and transformers that is not documented for subclasses, in one place; `tests/pref_losses/test_trl_contract.py` names each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from trl import DPOConfig
from trl import DPOTrainer as DPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import get_config_model_id, use_adapter

from pref_losses.objective import AnswerLogps

RELIED_UPON = {
    "DPOTrainer._prepare_dataset": "called by __init__ and evaluate for every data set",
    "DPOTrainer._set_signature_columns_if_needed": "names the columns that reach the collator",
    "DPOTrainer._precompute_ref_logps": "called by __init__ and evaluate where precompute_ref_log_probs is set",
    "DPOTrainer.compute_loss": "called by training_step and prediction_step",
    "DPOTrainer._metrics": "lists of numbers by mode and key, averaged and cleared by log",
    "DPOTrainer._total_train_tokens": "running count behind num_tokens",
    "Trainer.get_batch_samples": "fetches the micro-batches of one optimizer step",
}


def model_id(model: Any) -> str:
    """Where a model's tokenizer can be loaded from."""
    return model if isinstance(model, str) else str(get_config_model_id(model.config))


def pad_token_id(tokenizer: Any, args: DPOConfig) -> int:
    """The pad token as `DPOTrainer` chooses it: `args.pad_token`, the tokenizer's, or its EOS."""
    token = args.pad_token or tokenizer.pad_token or tokenizer.eos_token
    found = tokenizer.get_vocab().get(token)
    if found is None:
        raise ValueError(f"the pad token {token!r} is not in the tokenizer's vocabulary: set pad_token to one that is")
    return int(found)


@contextmanager
def without_reference_model(args: DPOConfig, *, unless: bool) -> Iterator[None]:
    """`DPOTrainer` loads a reference model unless log-probs are precomputed; an objective that needs none says they are."""
    wanted = args.precompute_ref_log_probs
    args.precompute_ref_log_probs = wanted or not unless
    try:
        yield
    finally:
        args.precompute_ref_log_probs = wanted and unless


@contextmanager
def reference_mode(trainer: Any) -> Iterator[None]:
    """Make the policy act as the reference where there is no reference model: adapter off, or the adapter named "ref"."""
    with ExitStack() as stack:
        stack.enter_context(disable_gradient_checkpointing(trainer.model, trainer.args.gradient_checkpointing_kwargs))
        policy = trainer.accelerator.unwrap_model(trainer.model)
        if trainer.ref_model is None and hasattr(policy, "peft_config"):
            stack.enter_context(use_adapter(policy, adapter_name="ref" if "ref" in policy.peft_config else None))
        yield


def gather_logps(accelerator: Any, logps: AnswerLogps, rows: Tensor) -> tuple[AnswerLogps, Tensor, slice]:
    """The log-probs and row numbers of all processes, and which of them are this process's."""
    if accelerator.num_processes == 1:
        return logps, rows, slice(0, len(rows))
    sizes = accelerator.gather(torch.tensor([len(rows), logps.mask.shape[1]], device=rows.device)).view(-1, 2)
    longest, width = (int(n) for n in sizes.amax(0))
    present = torch.arange(longest, device=rows.device)[None, :] < sizes[:, :1]

    def everywhere(part: Tensor | None) -> Tensor | None:
        if part is None:
            return None
        grow = (0, longest - len(part)) if part.dim() == 1 else (0, width - part.shape[1], 0, longest - len(part))
        padded = torch.nn.functional.pad(part.to(torch.uint8) if part.dtype == torch.bool else part, grow)
        return accelerator.gather(padded)[present.flatten()].to(part.dtype)

    names = ("chosen", "rejected", "ref_chosen", "ref_rejected", "mask")
    gathered = AnswerLogps(*(everywhere(getattr(logps, name)) for name in names))
    start = int(sizes[: accelerator.process_index, 0].sum())
    all_rows = everywhere(rows)
    assert all_rows is not None
    return gathered, all_rows, slice(start, start + len(rows))


def log_metrics(trainer: Any, mode: str, values: Mapping[str, Tensor], inputs: Mapping[str, Any]) -> None:
    """Add the mean over all processes of every value, a scalar or one number per example or pair, to what the trainer logs next."""
    names = [name for name, value in values.items() if value.numel()]
    pairs = torch.stack(
        [
            torch.stack([values[n].float().sum(), values[n].new_tensor(values[n].numel(), dtype=torch.float32)])
            for n in names
        ]
    )
    if trainer.accelerator.num_processes > 1:
        pairs = trainer.accelerator.reduce(pairs, "sum")
    for name, (total, count) in zip(names, pairs.tolist(), strict=True):
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
