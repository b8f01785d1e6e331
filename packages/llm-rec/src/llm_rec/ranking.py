"""Log-probabilities of answers given prompts: of a few candidates each, or of a whole catalogue.

Prompts and answers are token ids. An answer ends in EOS, so that a title which begins another has a probability of its
own (`predilect.tokenization.encode_answers`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from predilect.tokenization import SharedPrefixCollator, check_packable, completion_logps

Ids = Sequence[int]
Vectors = Mapping[str, Tensor | Sequence[Tensor]]

_SLICE = 64  # positions whose logits are normalised together: they stay in a processor's cache


@torch.no_grad()
def score_candidates(
    model: torch.nn.Module,
    prompts: Sequence[Ids],
    answers: Sequence[Sequence[Ids]],
    *,
    pad_token_id: int,
    vectors: Vectors | None = None,
    max_tokens: int = 2048,
) -> Tensor:
    """Log-probability of each candidate answer given its prompt: `sum_t log p(answer_t | prompt, answer_<t)`.

    A prompt is computed once for all of its candidates, by shared-prefix packing. Models that cannot be packed
    (`check_packable`) get one row per answer, with the same result. Results do not depend on what else is in the call.

    Args:
        model: a causal LM, also with PEFT adapters, or a `SoftTokenCausalLM`; in eval mode.
        prompts: B prompts of at least one token.
        answers: the candidates of each prompt, at least one token each; their numbers may differ.
        pad_token_id: what to pad with; never attended to.
        vectors: of a `SoftTokenCausalLM`: name -> vectors in the order of their placeholders, prompt after prompt, or
            a list with one tensor per prompt. The last token of a prompt is no placeholder.
        max_tokens: most positions of a forward pass, padding included; a prompt with a single answer may exceed it.

    Returns:
        (B, C) float32 on the CPU, in nats; -inf beyond the candidates of a prompt that has fewer than C.

    Raises:
        ValueError: an empty prompt or answer (names its row), or vectors that do not fit the prompts.
    """
    _check(prompts, answers)
    packable = is_packable(model)
    of_prompt = _vectors_of_prompts(model, prompts, vectors)
    score = partial(_packed_logps if packable else _separate_logps, model, pad_token_id=pad_token_id)
    pieces = [
        piece
        for row, (prompt, own) in enumerate(zip(prompts, answers, strict=True))
        for piece in _pieces(row, prompt, own, max_tokens if packable else 0)
    ]
    scores = torch.full((len(prompts), max(map(len, answers), default=0)), -torch.inf)
    for group in groups([piece.length for piece in pieces], max_tokens):
        batch = [pieces[i] for i in group]
        logps = score([(p.prompt, p.answers) for p in batch], **_vectors_of(of_prompt, [p.row for p in batch]))
        for piece, found in zip(batch, logps.cpu(), strict=True):
            scores[piece.row, piece.first : piece.first + len(piece.answers)] = found[: len(piece.answers)]
    return scores


@torch.no_grad()
def score_catalogue(
    model: torch.nn.Module,
    prompts: Sequence[Ids],
    answers: Sequence[Ids],
    *,
    pad_token_id: int,
    vectors: Vectors | None = None,
    tree: bool = True,
    max_tokens: int = 2048,
    chunk_size: int = 256,
) -> Tensor:
    """`score_candidates` for N answers that are common to all prompts, such as all titles of a catalogue.

    The keys and values of a prompt are computed once. The answers follow in chunks; under the mask of a chunk a token
    sees the prompt and the tokens before it in its own answer. No answer's last token is computed: nothing follows it.

    Args:
        model: see `score_candidates`.
        prompts: B prompts of at least one token.
        answers: N answers of at least one token; without placeholders of soft tokens.
        pad_token_id: see `score_candidates`.
        vectors: see `score_candidates`.
        tree: compute the tokens with which several answers of a chunk begin once, as nodes of a prefix tree.
        max_tokens: most positions of the prompts of one pass, padding included, and of one chunk for all of them.
        chunk_size: most tokens of a chunk (a longer answer has a chunk of its own). Every token of a chunk is compared
            with the whole chunk: small ones waste less, large ones fill a GPU.

    Returns:
        (B, N) float32 on the CPU, in nats.

    Raises:
        ValueError: an empty prompt or answer (names its row), or vectors that do not fit the prompts.
    """
    if not is_packable(model):
        return score_candidates(
            model, prompts, [answers] * len(prompts), pad_token_id=pad_token_id, vectors=vectors, max_tokens=max_tokens
        )
    _check(prompts, [answers] * len(prompts))
    of_prompt = _vectors_of_prompts(model, prompts, vectors)
    chunks = list(chunked(answers, chunk_size, shared=tree))
    scores = torch.empty(len(prompts), len(answers))
    for group in groups([max(len(prompt), chunk_size) for prompt in prompts], max_tokens):
        ids, mask = pad_left([prompts[i] for i in group], pad_token_id)
        scores[group] = _catalogue_logps(model, ids, mask, answers, chunks, **_vectors_of(of_prompt, group)).cpu()
    return scores


def is_packable(model: torch.nn.Module) -> bool:
    """Whether several answers may share the computation of a prompt; see `check_packable`."""
    try:
        check_packable(model)
    except ValueError:
        return False
    return True


def groups(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Rows of similar length, longest first, whose number times the longest is at most `max_tokens`.

    Examples:
        >>> list(groups([3, 9, 4, 2], max_tokens=8))
        [[1], [2, 0], [3]]
    """
    group: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if group and lengths[group[0]] * (len(group) + 1) > max_tokens:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def pad_left(rows: Sequence[Ids], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, (B, T) each, of rows padded on the left.

    Examples:
        >>> pad_left([[5], [6, 7]], 0)[0].tolist()
        [[0, 5], [6, 7]]
    """
    width = max(map(len, rows))
    ids = torch.tensor([[pad_token_id] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


class Chunk(NamedTuple):
    """Answers whose tokens, T nodes, are computed together; M predictions of tokens by nodes.

    Attributes:
        tokens: (T,) of each node.
        depths: (T,) nodes above it.
        visible: (T, T) whether row's node sees column's: its ancestors and itself.
        source: (M,) the node that predicts.
        target: (M,) the token that is predicted.
        owner: (M,) the answer to which this token belongs.
    """

    tokens: Tensor
    depths: Tensor
    visible: Tensor
    source: Tensor
    target: Tensor
    owner: Tensor


def chunked(answers: Sequence[Ids], size: int, *, shared: bool) -> Iterator[Chunk]:
    """Lay answers out in chunks of at most `size` nodes; what an answer needs is always inside its own chunk.

    Args:
        answers: token ids; the last of each is predicted, but is no node.
        size: most nodes of a chunk; an answer that is longer has a chunk of its own.
        shared: one node for the tokens with which several answers begin. Answers are sorted for it, so that those with
            a common beginning are neighbours; at the border of two chunks the common nodes are repeated.

    Examples:
        >>> [(chunk.tokens.tolist(), chunk.target.tolist()) for chunk in chunked([[1, 2, 9], [1, 9]], 4, shared=True)]
        [([1, 2], [2, 9, 9])]
        >>> [(chunk.tokens.tolist(), chunk.target.tolist()) for chunk in chunked([[1, 2, 9], [1, 9]], 4, shared=False)]
        [([1, 2, 1], [2, 9, 9])]
    """
    numbers = sorted(range(len(answers)), key=lambda n: list(answers[n])) if shared else range(len(answers))
    tokens: list[int] = []
    paths: list[tuple[int, list[int]]] = []  # an answer and its nodes, root first
    for number in numbers:
        inputs = list(answers[number][:-1])
        before = paths[-1][1] if shared and paths else []
        path = before[: _common([tokens[node] for node in before], inputs)]
        if tokens and len(tokens) + len(inputs) - len(path) > size:
            yield _chunk(answers, tokens, paths)
            tokens, paths, path = [], [], []
        fresh = inputs[len(path) :]
        paths.append((number, path + list(range(len(tokens), len(tokens) + len(fresh)))))
        tokens.extend(fresh)
    if tokens:
        yield _chunk(answers, tokens, paths)


def _chunk(answers: Sequence[Ids], tokens: list[int], paths: list[tuple[int, list[int]]]) -> Chunk:
    depths = np.zeros(len(tokens), dtype=np.int64)
    visible = np.zeros((len(tokens), len(tokens)), dtype=bool)
    for _, path in paths:
        depths[path] = range(len(path))
        visible[np.ix_(path, path)] |= np.tri(len(path), dtype=bool)
    return Chunk(
        torch.tensor(tokens),
        torch.from_numpy(depths),
        torch.from_numpy(visible),
        source=torch.tensor([node for _, path in paths for node in path]),
        target=torch.tensor([token for number, _ in paths for token in answers[number][1:]]),
        owner=torch.tensor([number for number, path in paths for _ in path]),
    )


def _common(a: Ids, b: Ids) -> int:
    """Length of the common beginning."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def _catalogue_logps(
    model: Any, ids: Tensor, mask: Tensor, answers: Sequence[Ids], chunks: Sequence[Chunk], **inputs: Any
) -> Tensor:
    """(B, N) log-probabilities of the answers behind left-padded prompts, on the model's device."""
    device = _device(model)
    ids, mask = ids.to(device), mask.to(device)
    cache, width = DynamicCache(), ids.shape[1]
    forward = partial(model, use_cache=True, **{_cache_name(model): cache})
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril() & mask[:, None, :].bool()
    causal |= torch.eye(width, dtype=torch.bool, device=device)  # no row of the softmax is empty, padding's neither
    logits = forward(
        input_ids=ids,
        attention_mask=_additive(model, causal),
        position_ids=positions,
        logits_to_keep=1,
        **inputs,
    ).logits[:, -1:]
    first = torch.tensor([answer[0] for answer in answers], device=device)
    scores = _logps(logits, torch.zeros_like(first), first)
    for chunk in chunks:
        tokens, depths, visible, source, target, owner = (part.to(device) for part in chunk)
        size = (len(ids), len(tokens))
        seen = torch.cat([mask[:, None, :].bool().expand(*size, -1), visible.expand(len(ids), -1, -1)], dim=2)
        logits = forward(
            input_ids=tokens.expand(size),
            attention_mask=_additive(model, seen),
            position_ids=mask.sum(1, keepdim=True) + depths,
        ).logits
        scores.index_add_(1, owner, _logps(logits, source, target))
        cache.crop(-len(tokens))
    return scores


def _logps(logits: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """(B, M) float32 log-probability of the tokens `target`, each by the logits (B, T, V) at its place `source`."""
    total = torch.cat([part.float().logsumexp(-1) for part in torch.split(logits, _SLICE, dim=1)], dim=1)
    return logits[:, source, target].float() - total[:, source]


def _additive(model: Any, allowed: Tensor) -> Tensor:
    """A bool mask (B, Q, K) as causal LMs take it: (B, 1, Q, K), 0 or a large negative number."""
    dtype = model.get_input_embeddings().weight.dtype
    blocked = max(torch.finfo(dtype).min, torch.finfo(torch.bfloat16).min)  # finite under autocast too
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, blocked).unsqueeze(1)


def _device(model: Any) -> torch.device:
    device: torch.device = model.get_input_embeddings().weight.device
    return device


def _cache_name(model: Any) -> str:
    """transformers renamed the argument `past_key_values` to `cache`."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "cache" if "cache" in inspect.signature(base.forward).parameters else "past_key_values"


class _Piece(NamedTuple):
    """Some candidates of one prompt that are computed in one row; `length` positions."""

    row: int
    first: int
    prompt: Ids
    answers: Sequence[Ids]
    length: int


def _pieces(row: int, prompt: Ids, answers: Sequence[Ids], max_tokens: int) -> Iterator[_Piece]:
    """Consecutive candidates packed to at most `max_tokens` positions, but at least one at a time."""
    first, length = 0, len(prompt) - 1
    for number, answer in enumerate(answers):
        if number > first and length + 1 + len(answer) > max_tokens:
            yield _Piece(row, first, prompt, answers[first:number], length)
            first, length = number, len(prompt) - 1
        length += 1 + len(answer)
    if answers:
        yield _Piece(row, first, prompt, answers[first:], length)


def _packed_logps(
    model: Any, rows: Sequence[tuple[Ids, Sequence[Ids]]], *, pad_token_id: int, **inputs: Any
) -> Tensor:
    features = [{"prompt_ids": prompt, "completions": answers} for prompt, answers in rows]
    batch = SharedPrefixCollator(pad_token_id)(features)
    device = _device(model)
    return completion_logps(model, {name: part.to(device) for name, part in batch.items()}, **inputs)[0]


def _separate_logps(
    model: Any, rows: Sequence[tuple[Ids, Sequence[Ids]]], *, pad_token_id: int, **inputs: Any
) -> Tensor:
    """One answer a row, padded on the right: what comes later changes nothing, whatever the layers and positions."""
    joined = [[*prompt, *answers[0]] for prompt, answers in rows]
    width = max(map(len, joined))
    device = _device(model)
    ids = torch.tensor([row + [pad_token_id] * (width - len(row)) for row in joined], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in joined], device=device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **inputs).logits
    logits = logits[:, -width:]  # an adapter may have put tokens of its own before the prompt
    sums = []
    for row, (prompt, answers) in enumerate(rows):
        places = torch.arange(len(prompt) - 1, len(prompt) - 1 + len(answers[0]), device=device)
        sums.append(_logps(logits[row : row + 1], places, ids[row, places + 1]).sum(1))
    return torch.stack(sums)


def _check(prompts: Sequence[Ids], answers: Sequence[Sequence[Ids]]) -> None:
    if len(prompts) != len(answers):
        raise ValueError(f"every prompt needs its answers (got {len(prompts)} prompts, answers for {len(answers)})")
    for row, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompt {row} is empty: an answer needs at least one token before it, such as BOS")
    for row, own in enumerate(answers):
        for number, answer in enumerate(own):
            if not len(answer):
                raise ValueError(f"answer {number} of row {row} is empty: end it with EOS at least")


def _vectors_of_prompts(model: Any, prompts: Sequence[Ids], vectors: Vectors | None) -> dict[str, Sequence[Tensor]]:
    """Name -> one tensor of vectors per prompt, so that prompts can be computed in any order."""
    if not vectors:
        return {}
    soft = getattr(model, "soft_tokens", None)
    if soft is None:
        raise ValueError(f"vectors are read by a SoftTokenCausalLM only (the model is a {type(model).__name__})")
    split: dict[str, Sequence[Tensor]] = {}
    for name, given in vectors.items():
        if isinstance(given, Tensor):
            soft.token(name)  # refuses an unknown name
            counts = [list(prompt).count(soft.ids[name]) // soft.sizes[name] for prompt in prompts]
            if sum(counts) != len(given):
                raise ValueError(f"the prompts hold {sum(counts)} {name!r}, but {len(given)} vectors were given")
            given = torch.split(given, counts)
        if len(given) != len(prompts):
            raise ValueError(f"{name!r} has {len(given)} lists of vectors for {len(prompts)} prompts")
        split[name] = given
    return split


def _vectors_of(split: Mapping[str, Sequence[Tensor]], rows: Sequence[int]) -> dict[str, Any]:
    """The argument `vectors` for some of the prompts; none where there are no vectors."""
    return {"vectors": {name: [parts[row] for row in rows] for name, parts in split.items()}} if split else {}
