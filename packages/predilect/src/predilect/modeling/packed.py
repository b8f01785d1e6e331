"""Causal LMs on packed rows (`predilect.tokenization.packing`): masks, log-probabilities, and which models fit."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from predilect.tokenization.packing import IGNORE, PADDING

_MASK_ATTENTION = ("sdpa", "eager")


def shared_prefix_mask(segment_ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The additive attention mask of packed rows: 0 where a position may look, a large negative number elsewhere.

    Position i sees j <= i in the shared prompt or in its own segment. Every position sees itself, padding too, so that
    no row of the softmax is empty.

    Args:
        segment_ids: (B, T) as `SharedPrefixCollator` makes them.
        dtype: of the model's activations.

    Returns:
        (B, 1, T, T) on the device of `segment_ids`.
    """
    length = segment_ids.shape[1]
    query, key = segment_ids[:, :, None], segment_ids[:, None, :]
    places = torch.arange(length, device=segment_ids.device)
    allowed = ((key == 0) | (key == query)) & (key != PADDING) & (places[None, :] <= places[:, None])
    allowed |= torch.eye(length, dtype=torch.bool, device=segment_ids.device)
    return additive_mask(allowed, dtype)


def additive_mask(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Which position may look where, (B, Q, K) bool, as causal LMs take it: (B, 1, Q, K), 0 or very negative.

    The number is finite in bfloat16 too, to which autocast may convert a float32 mask.
    """
    blocked = max(torch.finfo(dtype).min, torch.finfo(torch.bfloat16).min)
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, blocked).unsqueeze(1)


def completion_logps(
    model: torch.nn.Module, batch: Mapping[str, torch.Tensor], **inputs: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of every completion given its prompt.

    The model runs through its own forward (adapters, parallel wrappers, scaling and capping of logits included), but
    its head is applied to the positions that predict a completion token only; log-softmax in float32. Differentiable.

    Args:
        model: a causal LM, also with PEFT adapters, a `SoftTokenCausalLM`, or either of them wrapped for training.
        batch: from `SharedPrefixCollator`, on the model's device.
        **inputs: further arguments of the model's forward, such as `vectors`.

    Returns:
        sums (B, K) float32 in nats, and counts (B, K) int64 of completion tokens; 0 where there is no completion.

    Raises:
        ValueError: the model cannot be packed; see `check_packable`.
    """
    check_packable(model)
    labels, shape = batch["labels"], batch["completion_mask"].shape
    predictions = label_logps(model, labels, **packed_inputs(model, batch), **inputs)
    slots = predictions.rows * shape[1] + batch["segment_ids"][predictions.rows, predictions.columns] - 1
    return sums_by_slot(predictions.logps, slots, shape)


def sums_by_slot(logps: torch.Tensor, slots: torch.Tensor, shape: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums (B, K) and counts (B, K) of log-probabilities (N,) whose answer is `slots`, b * K + k; differentiable."""
    total = math.prod(shape)
    sums = torch.zeros(total, device=logps.device).index_add(0, slots, logps)
    return sums.view(*shape), torch.bincount(slots, minlength=total).view(*shape)


def packed_inputs(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a causal LM's forward takes of a batch of packed rows: ids, positions and the block mask."""
    dtype = _core(model).get_input_embeddings().weight.dtype
    mask = shared_prefix_mask(batch["segment_ids"], dtype)
    return {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "attention_mask": mask}


class LabelLogps(NamedTuple):
    """The N tokens of a batch that have a label: `labels[rows, columns]`.

    Attributes:
        rows: (N,).
        columns: (N,).
        logps: (N,) float32 log-probability of each, in nats.
        logits: (N, vocabulary) that predict them, in the model's dtype.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    logps: torch.Tensor
    logits: torch.Tensor


def label_logps(model: torch.nn.Module, labels: torch.Tensor, **inputs: Any) -> LabelLogps:
    """Log-probability of every token that has a label, each given what its position may see.

    The output head, for small models half of the work, is applied only to the positions that predict a label. Works
    for rows of any layout, packed or not.

    Args:
        model: a causal LM, wrapped or not.
        labels: (B, T) token ids, -100 elsewhere; shifted by one inside, as causal LMs do.
        **inputs: of the model's forward: `input_ids`, `attention_mask`, ...

    Raises:
        ValueError: the model does not apply its output head once per forward pass, or carries an adapter of virtual
            tokens, which shift all positions.
    """
    peft = getattr(_core(model), "active_peft_config", None)
    if peft is not None and peft.is_prompt_learning:
        raise ValueError(
            f"a {peft.peft_type.value} adapter puts tokens of its own before the prompt, which shifts the positions "
            "of all labels: use an adapter of weights such as LoRA"
        )
    rows, columns = (labels[:, 1:] != IGNORE).nonzero(as_tuple=True)  # column t predicts the token at t + 1
    with _head_only_at(_core(model), rows, columns):
        logits = model(**inputs, use_cache=False).logits[0]
    logps = -F.cross_entropy(logits.float(), labels[rows, columns + 1], reduction="none")
    return LabelLogps(rows, columns + 1, logps, logits)


@contextmanager
def _head_only_at(core: Any, rows: torch.Tensor, columns: torch.Tensor) -> Iterator[None]:
    """Within this context the LM head sees the hidden states of the given positions only, as one row (1, N, d)."""
    calls = 0

    def select(_: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal calls
        calls += 1
        return (args[0][rows, columns].unsqueeze(0), *args[1:])

    handle = core.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
    if calls != 1:
        raise ValueError(
            f"{core.config.model_type} applied its output head {calls} times in one forward pass, not once: its "
            "log-probs cannot be read at chosen positions; use one row per completion"
        )


def check_packable(model: torch.nn.Module) -> None:
    """Refuse a model for which a packed row would not equal separate rows.

    Packing needs attention that takes a 4-D mask (sdpa or eager), full attention in every layer, and positions that
    are given from outside.

    Raises:
        ValueError: names the model type, the reason and the way out.
    """
    core = _core(model)
    config = core.get_decoder().config
    kind, attention = config.model_type, config._attn_implementation
    if isinstance(model, torch.nn.DataParallel):
        raise ValueError(
            "DataParallel splits a batch behind our back: use DistributedDataParallel (accelerate launch)"
        )
    if attention not in _MASK_ATTENTION:
        raise ValueError(
            f"attention {attention!r} takes no 4-D mask, which packed completions need: "
            'load the model with attn_implementation="sdpa", or use one row per completion'
        )
    if reason := _unfit(core, config):
        raise ValueError(f"{kind} {reason}: use one row per completion")


def _unfit(core: Any, config: Any) -> str | None:
    """Why packed rows would differ from separate rows for this model; None where they do not."""
    layers = set(getattr(config, "layer_types", None) or getattr(config, "attention_layers", None) or ())
    base = core.get_base_model() if hasattr(core, "get_base_model") else core
    peft = getattr(core, "active_peft_config", None)
    if config.is_encoder_decoder:
        return "is an encoder-decoder, not a causal LM"
    if getattr(base, "_is_stateful", False):
        return "has recurrent layers, whose state runs from one completion into the next"
    if other := sorted(layers - {"full_attention", "global"}):
        return f"has layers of the kind {', '.join(other)}, which would see across completions or ignore the mask"
    if not layers and getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return (
            f"has a sliding window of {config.sliding_window} tokens, which a 4-D mask overrides (where all rows are "
            "shorter than the window, load the model with sliding_window=None)"
        )
    if getattr(config, "alibi", False) or "position_ids" not in inspect.signature(base.forward).parameters:
        return "takes its positions from the place in the row, not from position_ids"
    if peft is not None and peft.is_prompt_learning:
        return f"carries a {peft.peft_type.value} adapter, which puts tokens of its own before the prompt"
    return None


def _core(model: Any) -> Any:
    """The model inside the wrappers of distributed training and compilation."""
    from accelerate.utils import extract_model_from_parallel

    return extract_model_from_parallel(model, keep_fp32_wrapper=True)
