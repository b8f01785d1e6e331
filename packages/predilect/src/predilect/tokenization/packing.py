"""One prompt and K completions as one row: the prompt is computed once, and every completion sees it and itself only.

Layout of a row for the prompt p_1..p_m and completions c_1..c_K (segments in brackets):

    p_1 .. p_{m-1} [0]   p_m c_1 [1]   p_m c_2 [2]   ...   p_m c_K [K]

The last prompt token opens every completion, so that each completion token is predicted by the position before it and
labels shifted by one, as every causal LM uses them, hold. Positions restart at m - 1 with each copy of p_m. A block
mask lets a completion attend to segment 0 and to itself. The log-probs are exactly those of K separate rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

IGNORE = -100
_PADDING = -1  # segment of a padding position
_MASK_ATTENTION = ("sdpa", "eager")


@dataclass(frozen=True)
class PackedRow:
    """One packed row, unpadded; all lists have one length.

    Attributes:
        input_ids: token ids.
        position_ids: place of each token in its own prompt + completion.
        segment_ids: 0 for the shared prompt, k for completion k = 1..K and the copy of the last prompt token that
            opens it.
        labels: completion tokens; -100 elsewhere.
    """

    input_ids: list[int]
    position_ids: list[int]
    segment_ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.input_ids)


def pack_shared_prefix(
    prompt_ids: Sequence[int], completions: Sequence[Sequence[int]], *, max_length: int | None = None
) -> PackedRow:
    """Pack one prompt and its completions.

    Args:
        prompt_ids: the prompt, at least one token.
        completions: K >= 1 completions of at least one token each (usually ending in EOS).
        max_length: longest prompt + completion, as in a row of its own. The prompt loses tokens on the left until its
            longest completion fits; completions are never cut. To drop whole items instead, see
            `PromptTemplate.encode`.

    Raises:
        ValueError: an empty prompt or completion, no completion, or a completion that leaves no room for a prompt
            token.

    Examples:
        >>> pack_shared_prefix([1, 2, 3], [[7], [8, 9]]).input_ids
        [1, 2, 3, 7, 3, 8, 9]
        >>> pack_shared_prefix([1, 2, 3], [[7], [8, 9]]).position_ids
        [0, 1, 2, 3, 2, 3, 4]
    """
    if not len(prompt_ids):
        raise ValueError("the prompt is empty: a completion needs at least one token before it, such as BOS")
    if not len(completions):
        raise ValueError("there is no completion to pack")
    for number, completion in enumerate(completions):
        if not len(completion):
            raise ValueError(f"completion {number} is empty: end it with EOS at least")
    prompt = list(prompt_ids)
    if max_length is not None:
        longest = max(len(c) for c in completions)
        if longest >= max_length:
            raise ValueError(
                f"a completion of {longest} tokens leaves no room for a prompt within max_length {max_length}"
            )
        prompt = prompt[-(max_length - longest) :]
    shared = len(prompt) - 1
    row = PackedRow(prompt[:-1], list(range(shared)), [0] * shared, [IGNORE] * shared)
    for number, completion in enumerate(completions, start=1):
        row.input_ids.extend([prompt[-1], *completion])
        row.position_ids.extend(range(shared, shared + 1 + len(completion)))
        row.segment_ids.extend([number] * (1 + len(completion)))
        row.labels.extend([IGNORE, *completion])
    return row


@dataclass
class SharedPrefixCollator:
    """Packs and pads rows of `prompt_ids` (list of ids) and `completions` (list of lists of ids); other columns are
    left out.

    The batch holds `input_ids`, `position_ids`, `segment_ids` (-1 at padding), `labels` (all (B, T)) and
    `completion_mask` (B, K), true where row b has a completion k: K may differ from row to row. It goes to
    `completion_logps`, or, with `shared_prefix_mask(segment_ids, dtype)` as `attention_mask`, straight into a causal
    LM.

    Args:
        pad_token_id: what to pad with; never attended to.
        padding_side: "left" or "right"; the results are the same.
        max_length: see `pack_shared_prefix`.
        pad_to_multiple_of: pad T up to a multiple of this.

    Raises:
        ValueError: an unknown padding side, or rows that cannot be packed (the message names the row of the batch).
    """

    pad_token_id: int
    padding_side: Literal["left", "right"] = "left"
    max_length: int | None = None
    pad_to_multiple_of: int = 1

    def __post_init__(self) -> None:
        if self.padding_side not in ("left", "right"):
            raise ValueError(f"padding_side is 'left' or 'right' (got {self.padding_side!r})")

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        rows = []
        for number, feature in enumerate(features):
            try:
                row = pack_shared_prefix(feature["prompt_ids"], feature["completions"], max_length=self.max_length)
            except ValueError as error:
                raise ValueError(f"row {number} of the batch: {error}") from error
            rows.append(row)
        length = -(-max(map(len, rows)) // self.pad_to_multiple_of) * self.pad_to_multiple_of
        fill = {"input_ids": self.pad_token_id, "position_ids": 0, "segment_ids": _PADDING, "labels": IGNORE}
        batch = {name: np.full((len(rows), length), value, dtype=np.int64) for name, value in fill.items()}
        for number, row in enumerate(rows):
            place = slice(length - len(row), length) if self.padding_side == "left" else slice(0, len(row))
            for name, array in batch.items():
                array[number, place] = getattr(row, name)
        counts = torch.tensor([row.segment_ids[-1] for row in rows])
        mask = torch.arange(int(counts.max())) < counts[:, None]
        return {**{name: torch.from_numpy(array) for name, array in batch.items()}, "completion_mask": mask}


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
    allowed = ((key == 0) | (key == query)) & (key != _PADDING) & (places[None, :] <= places[:, None])
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
    sums = torch.zeros(shape.numel(), device=labels.device).index_add(0, slots, predictions.logps)
    counts = torch.bincount(slots, minlength=shape.numel())
    return sums.view(shape), counts.view(shape)


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
