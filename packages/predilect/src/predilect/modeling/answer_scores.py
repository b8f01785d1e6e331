"""Log-probabilities of answers given prompts: of a few candidates each, or of a whole catalogue.

Prompts and answers are token ids. An answer ends in EOS, so that a title which begins another has a probability of its
own (`predilect.tokenization.encode_answers`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from predilect.modeling.packed import additive_mask, check_packable

Ids = Sequence[int]
Vectors = Mapping[str, Tensor | Sequence[Tensor] | Mapping[str, Tensor]]

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

    A prompt and all of its candidates are one row: the prompt is computed once, and so are the tokens with which
    several candidates begin; under the mask of the row a token sees the prompt and the tokens before it in its own
    answer. No answer's last token is computed: nothing follows it. (`SharedPrefixCollator`, made for training, repeats
    the last prompt token for every answer and computes each EOS.) Models that cannot be packed (`check_packable`) get
    one row per answer, with the same result. Results do not depend on what else is in the call.

    Args:
        model: a causal LM, also with PEFT adapters, or a `SoftTokenCausalLM`; in eval mode.
        prompts: B prompts of at least one token.
        answers: the candidates of each prompt, at least one token each; their numbers may differ.
        pad_token_id: what to pad with; never attended to.
        vectors: of a `SoftTokenCausalLM`: name -> vectors in the order of their placeholders, prompt after prompt,
            a list with one tensor per prompt, or what a registered projector reads. Answers hold no placeholders.
        max_tokens: most positions of a forward pass, padding included; a prompt with a single answer may exceed it.

    Returns:
        (B, C) float32 on the CPU, in nats; -inf beyond the candidates of a prompt that has fewer than C.

    Raises:
        ValueError: an empty prompt or answer (names its row), or vectors that do not fit the prompts.
    """
    check_prompts(prompts)
    _check_answers(prompts, answers)
    packable = is_packable(model)
    of_prompt = vectors_of_prompts(model, prompts, vectors)
    score = _packed_logps if packable else _separate_logps
    pieces = [
        piece
        for row, (prompt, own) in enumerate(zip(prompts, answers, strict=True))
        for piece in _pieces(row, prompt, own, max_tokens if packable else 0)
    ]
    scores = torch.full((len(prompts), max(map(len, answers), default=0)), -torch.inf)
    for group in groups([piece.length for piece in pieces], max_tokens):
        batch = [pieces[i] for i in group]
        logps = score(model, batch, pad_token_id, **vectors_of(of_prompt, [piece.row for piece in batch]))
        for piece, piece_logps in zip(batch, logps, strict=True):
            scores[piece.row, piece.first : piece.first + len(piece.answers)] = piece_logps.cpu()
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

    The keys and values of a prompt are computed once, and the answers follow in chunks.

    Args:
        model: see `score_candidates`.
        prompts: B prompts of at least one token.
        answers: N answers of at least one token.
        pad_token_id: see `score_candidates`.
        vectors: see `score_candidates`.
        tree: compute the tokens with which several answers of a chunk begin once.
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
    check_prompts(prompts)
    _check_answers(prompts, [answers] * len(prompts))
    of_prompt = vectors_of_prompts(model, prompts, vectors)
    chunks = list(chunked(answers, chunk_size, shared=tree))
    scores = torch.empty(len(prompts), len(answers))
    for group in groups([max(len(prompt), chunk_size) for prompt in prompts], max_tokens):
        ids, mask = pad_left([prompts[i] for i in group], pad_token_id)
        scores[group] = _catalogue_logps(model, ids, mask, len(answers), chunks, **vectors_of(of_prompt, group)).cpu()
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
    """Answers whose tokens, T nodes, are computed together, and their M tokens, each predicted by a place before it.

    Attributes:
        tokens: (T,) of each node.
        depths: (T,) nodes above it.
        visible: (T, T) whether row's node sees column's: its ancestors and itself.
        source: (M,) what predicts: 0 the last token of the prompt, n + 1 node n.
        target: (M,) the token that is predicted.
        owner: (M,) number of the answer to which this token belongs.
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
        [([1, 2], [1, 2, 9, 1, 9])]
        >>> [(chunk.tokens.tolist(), chunk.source.tolist()) for chunk in chunked([[1, 2, 9], [1, 9]], 4, shared=False)]
        [([1, 2, 1], [0, 1, 2, 0, 3])]
    """
    numbers = sorted(range(len(answers)), key=lambda n: list(answers[n])) if shared else range(len(answers))
    tokens: list[int] = []
    paths: list[tuple[int, list[int]]] = []  # an answer and its nodes, root first
    for number in numbers:
        inputs = list(answers[number][:-1])
        before = paths[-1][1] if shared and paths else []
        path = before[: _common([tokens[node] for node in before], inputs)]
        if paths and len(tokens) + len(inputs) - len(path) > size:
            yield _chunk(answers, tokens, paths)
            tokens, paths, path = [], [], []
        fresh = inputs[len(path) :]
        paths.append((number, path + list(range(len(tokens), len(tokens) + len(fresh)))))
        tokens.extend(fresh)
    if paths:
        yield _chunk(answers, tokens, paths)


def _chunk(answers: Sequence[Ids], tokens: list[int], paths: list[tuple[int, list[int]]]) -> Chunk:
    depths = np.zeros(len(tokens), dtype=np.int64)
    visible = np.zeros((len(tokens), len(tokens)), dtype=bool)
    for _, path in paths:
        depths[path] = range(len(path))
        visible[np.ix_(path, path)] |= np.tri(len(path), dtype=bool)
    return Chunk(
        torch.tensor(tokens, dtype=torch.long),
        torch.from_numpy(depths),
        torch.from_numpy(visible),
        source=torch.tensor([place for _, path in paths for place in (0, *(node + 1 for node in path))]),
        target=torch.tensor([token for number, _ in paths for token in answers[number]]),
        owner=torch.tensor([number for number, _ in paths for _ in answers[number]]),
    )


def _common(a: Ids, b: Ids) -> int:
    """Length of the common beginning."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def prompt_cache(model: Any, ids: Tensor, mask: Tensor, **inputs: Any) -> tuple[DynamicCache, Tensor]:
    """Keys and values of prompts (B, P) padded on the left, and the logits (B, 1, V) behind them.

    For a model that `is_packable`: its cache holds every position, and its mask and positions come from outside.
    """
    cache, none = DynamicCache(), mask.new_empty(len(ids), 0)
    output = model(
        input_ids=ids,
        attention_mask=_additive(model, _sight(mask, none[:, :, None])),
        position_ids=_positions(mask, none),
        logits_to_keep=1,
        use_cache=True,
        **{cache_name(model): cache},
        **inputs,
    )
    return cache, output.logits[:, -1:]


def _catalogue_logps(
    model: Any, ids: Tensor, mask: Tensor, count: int, chunks: Sequence[Chunk], **inputs: Any
) -> Tensor:
    """(B, count) log-probabilities of the answers of all chunks behind left-padded prompts, on the model's device."""
    device, width = _device(model), ids.shape[1]
    mask = mask.to(device)
    cache, first = prompt_cache(model, ids.to(device), mask, **inputs)
    scores = torch.zeros(len(ids), count, device=device)
    for chunk in chunks:
        tokens, depths, visible, source, target, owner = (part.to(device) for part in chunk)
        logits = first
        if len(tokens):
            rows = (len(ids), len(tokens))
            output = model(
                input_ids=tokens.expand(rows),
                attention_mask=_additive(model, _sight(mask, visible.expand(*rows, -1))[:, width:]),
                position_ids=_positions(mask, depths.expand(rows))[:, width:],
                use_cache=True,
                **{cache_name(model): cache},
            )
            logits = torch.cat([first, output.logits], dim=1)
            cache.crop(-len(tokens))
        scores.index_add_(1, owner, _logps(logits, source, target))
    return scores


def _sight(mask: Tensor, visible: Tensor) -> Tensor:
    """(B, P + T, P + T) whether row's position sees column's, for prompts (B, P) padded on the left and nodes behind.

    Every position sees itself, padding too, so that no row of the softmax is empty.
    """
    width, length = mask.shape[1], mask.shape[1] + visible.shape[1]
    seen = torch.ones(len(mask), length, length, dtype=torch.bool, device=mask.device).tril()
    seen[:, width:, width:] = visible
    seen[:, :, :width] &= mask[:, None, :].bool()
    return seen | torch.eye(length, dtype=torch.bool, device=mask.device)


def _positions(mask: Tensor, depths: Tensor) -> Tensor:
    """(B, P + T): counted along the prompt, and on from its end with the depths of the nodes."""
    return torch.cat([(mask.cumsum(1) - 1).clamp(min=0), mask.sum(1, keepdim=True) + depths], dim=1)


def _additive(model: Any, allowed: Tensor) -> Tensor:
    return additive_mask(allowed, model.get_input_embeddings().weight.dtype)


def _logps(logits: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """(..., M) float32 log-probabilities of the tokens `target`, each by logits (..., T, V) at its place `source`."""
    total = torch.cat([part.float().logsumexp(-1) for part in torch.split(logits, _SLICE, dim=-2)], dim=-1)
    return logits[..., source, target].float() - total[..., source]


def _device(model: Any) -> torch.device:
    device: torch.device = model.get_input_embeddings().weight.device
    return device


def cache_name(model: Any) -> str:
    """transformers renamed the argument `past_key_values` to `cache`."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "cache" if "cache" in inspect.signature(base.forward).parameters else "past_key_values"


class _Piece(NamedTuple):
    """Consecutive candidates of one prompt that are computed in one row of at most `length` positions."""

    row: int
    first: int
    prompt: Ids
    answers: Sequence[Ids]
    length: int


def _pieces(row: int, prompt: Ids, answers: Sequence[Ids], max_tokens: int) -> Iterator[_Piece]:
    """As many candidates in a piece as `max_tokens` positions hold, but at least one."""
    first, length = 0, len(prompt)
    for number, answer in enumerate(answers):
        nodes = len(answer) - 1
        if number > first and length + nodes > max_tokens:
            yield _Piece(row, first, prompt, answers[first:number], length)
            first, length = number, len(prompt)
        length += nodes
    if answers:
        yield _Piece(row, first, prompt, answers[first:], length)


def _packed_logps(model: Any, pieces: Sequence[_Piece], pad_token_id: int, **inputs: Any) -> list[Tensor]:
    """Log-probabilities of each piece's answers: [prompt | nodes of all answers], the prompts padded on the left."""
    device = _device(model)
    chunks = [next(chunked(piece.answers, piece.length, shared=True)) for piece in pieces]
    ids, mask = pad_left([piece.prompt for piece in pieces], pad_token_id)
    nodes = max(len(chunk.tokens) for chunk in chunks)
    tokens = torch.full((len(pieces), nodes), pad_token_id)
    depths = torch.zeros(len(pieces), nodes, dtype=torch.long)
    visible = torch.zeros(len(pieces), nodes, nodes, dtype=torch.bool)
    for row, chunk in enumerate(chunks):
        own = len(chunk.tokens)
        tokens[row, :own], depths[row, :own], visible[row, :own, :own] = chunk.tokens, chunk.depths, chunk.visible
    logits = model(
        input_ids=torch.cat([ids, tokens], dim=1).to(device),
        attention_mask=_additive(model, _sight(mask, visible).to(device)),
        position_ids=_positions(mask, depths).to(device),
        logits_to_keep=1 + nodes,
        use_cache=False,
        **inputs,
    ).logits[:, -(1 + nodes) :]
    sums = []
    for row, (piece, chunk) in enumerate(zip(pieces, chunks, strict=True)):
        logps = _logps(logits[row], chunk.source.to(device), chunk.target.to(device))
        sums.append(logps.new_zeros(len(piece.answers)).index_add_(0, chunk.owner.to(device), logps))
    return sums


def _separate_logps(model: Any, pieces: Sequence[_Piece], pad_token_id: int, **inputs: Any) -> list[Tensor]:
    """One answer a row, padded on the right: what comes later changes nothing, whatever the layers and positions."""
    joined = [[*piece.prompt, *piece.answers[0]] for piece in pieces]
    width = max(map(len, joined))
    ids = torch.tensor([row + [pad_token_id] * (width - len(row)) for row in joined], device=_device(model))
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in joined], device=ids.device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **inputs).logits
    logits = logits[:, -width:]  # an adapter may have put tokens of its own before the prompt
    sums = []
    for row, piece in enumerate(pieces):
        places = torch.arange(len(piece.prompt), len(joined[row]), device=ids.device)
        sums.append(_logps(logits[row], places - 1, ids[row, places]).sum(dim=0, keepdim=True))
    return sums


def check_prompts(prompts: Sequence[Ids]) -> None:
    """Refuse an empty prompt.

    Raises:
        ValueError: names its row.
    """
    for row, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompt {row} is empty: an answer needs at least one token before it, such as BOS")


def _check_answers(prompts: Sequence[Ids], answers: Sequence[Sequence[Ids]]) -> None:
    if len(prompts) != len(answers):
        raise ValueError(f"every prompt needs its answers (got {len(prompts)} prompts, answers for {len(answers)})")
    for row, own in enumerate(answers):
        for number, answer in enumerate(own):
            if not len(answer):
                raise ValueError(f"answer {number} of row {row} is empty: end it with EOS at least")


def vectors_of_prompts(model: Any, prompts: Sequence[Ids], vectors: Vectors | None) -> dict[str, Sequence[Tensor]]:
    """Name -> one tensor of vectors per prompt, so that prompts can be computed in any order.

    Raises:
        ValueError: the model reads no vectors, an unknown name, or numbers that do not fit the prompts.
    """
    if not vectors:
        return {}
    soft = getattr(model, "soft_tokens", None)
    if soft is None:
        raise ValueError(f"vectors are read by a SoftTokenCausalLM only (the model is a {type(model).__name__})")
    split: dict[str, Sequence[Tensor]] = {}
    for name, given in model.project(vectors).items():
        soft.token(name)  # refuses an unknown name
        if isinstance(given, Tensor):
            counts = [list(prompt).count(soft.ids[name]) // soft.sizes[name] for prompt in prompts]
            if sum(counts) != len(given):
                raise ValueError(f"the prompts hold {sum(counts)} {name!r}, but {len(given)} vectors were given")
            given = torch.split(given, counts)
        if len(given) != len(prompts):
            raise ValueError(f"{name!r} has {len(given)} lists of vectors for {len(prompts)} prompts")
        split[name] = given
    return split


def vectors_of(split: Mapping[str, Sequence[Tensor]], rows: Sequence[int]) -> dict[str, Any]:
    """The argument `vectors` for some of the prompts; none where there are no vectors."""
    return {"vectors": {name: [parts[row] for row in rows] for name, parts in split.items()}} if split else {}
