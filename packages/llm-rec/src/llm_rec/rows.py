"""Training rows: which histories are trained on, and which candidates stand beside the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from llm_rec.prompting import Prompter
from predilect.data.splits import SequenceSplits, sample_candidates
from predilect.recommender import Recommender


class Examples(NamedTuple):
    """Rows to be ranked or trained on.

    Attributes:
        history: (R, L) item ids, padded with 0 on the left.
        target: (R,) item ids.
        candidates: (R, C) item ids, the target among them.
        row: (R,) numbers that seed what is drawn for a row; different in every pass over the data.
        weight: (R,) of the rows' losses; None: all alike.
    """

    history: Tensor
    target: Tensor
    candidates: Tensor
    row: Tensor
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.target)


def training_examples(
    splits: SequenceSplits,
    count: int,
    *,
    size: int,
    negatives: str,
    retriever: Recommender,
    seed: int,
    skip: int = 0,
) -> Examples:
    """`count` training rows in random order; the rows come again, with other candidates, where there are too few.

    Candidates are those of the data where its training rows have a column `candidates` (as S-DPO's files do);
    otherwise `size - 1` negatives are drawn for each row and each pass by numbers that depend on seed, pass, user and
    position, never on the target: the code of S-DPO (arXiv 2406.09215) seeds them with the target's id, so that a
    target always brings the same negatives.

    Args:
        splits: the data.
        count: number of rows.
        size: candidates of a row, the target included; 0: none.
        negatives: "auto", "uniform", "popularity", or "retriever": its best items that the history lacks.
        retriever: fitted; used by "retriever".
        seed: of order and candidates.
        skip: rows to leave to an earlier stage.
    """
    total = len(splits.train)
    if negatives == "auto":
        negatives = splits.protocol.get("negatives") or "retriever"
    order = np.random.default_rng(seed).permutation(total)
    places = np.arange(skip, skip + count)
    parts, weights = [], []
    for number in np.unique(places // total):
        rows = order[places[places // total == number] % total]
        chosen = replace(splits, train=splits.train.select(rows))
        history, target = chosen.train.histories(), chosen.train.targets()
        sets = chosen.train.candidate_sets() if size else target.new_empty(len(target), 0)
        if sets is None:
            sets = _candidates(chosen, history, target, size, negatives, retriever, _pass_seed(seed, int(number)))
        parts.append((history, target, sets, torch.from_numpy(rows + number * total)))
        if chosen.train.weight is not None:
            weights.append(torch.from_numpy(chosen.train.weight))
    history, target, sets, row = (torch.cat(own) for own in zip(*parts, strict=True))
    return Examples(history, target, sets, row, torch.cat(weights) if weights else None)


def _pass_seed(seed: int, number: int) -> int:
    """A seed for each pass of each seed; with `seed + number` a second pass would draw another seed's first one."""
    return int(np.random.SeedSequence((number, seed)).generate_state(1, np.uint64)[0])


def _candidates(
    splits: SequenceSplits,
    history: Tensor,
    target: Tensor,
    size: int,
    negatives: str,
    retriever: Recommender,
    seed: int,
) -> Tensor:
    if negatives == "retriever":
        return shuffled(with_target(retriever_shortlist(retriever, history, size), target), seed)
    return torch.from_numpy(sample_candidates(splits, "train", size=size, seed=seed, negatives=negatives))


def retriever_shortlist(retriever: Recommender, history: Tensor, size: int) -> Tensor:
    """The `size` best items (B, size) for each history that it does not hold, best first."""
    total = len(retriever.catalogue)
    if total < size + history.shape[1]:
        raise ValueError(
            f"a shortlist of {size} besides a history of {history.shape[1]} needs more than the catalogue's "
            f"{total} items: lower shortlist (or num_candidates)"
        )
    items = ranked_items(retriever, history)
    taken = torch.zeros(len(history), total + 1, dtype=torch.bool).scatter_(1, history, True).gather(1, items)
    # taken items go behind all others, which keep their order
    return items.gather(1, taken.long().argsort(dim=1, stable=True))[:, :size]


def ranked_items(retriever: Recommender, history: Tensor) -> Tensor:
    """All item ids (B, N), best first; equal scores by popularity, then by id.

    A retriever that knows neighbours only gives an empty history nothing but equal scores.
    """
    scores = retriever.score(history)
    popularity = torch.tensor(retriever.catalogue.popularity or [0] * scores.shape[1])
    by_popularity = popularity.argsort(descending=True, stable=True)
    order = scores[:, by_popularity].argsort(dim=1, descending=True, stable=True)
    return by_popularity[order] + 1


def with_target(shortlist: Tensor, target: Tensor) -> Tensor:
    """The shortlist with the target in place of its last item where it lacks the target."""
    missing = (shortlist != target[:, None]).all(dim=1)
    shortlist = shortlist.clone()
    shortlist[missing, -1] = target[missing]
    return shortlist


def shuffled(candidates: Tensor, seed: int) -> Tensor:
    """Every row in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    return candidates.gather(1, torch.rand(candidates.shape, generator=generator).argsort(dim=1))


def encoded_rows(
    prompter: Prompter, answers: Sequence[list[int]], examples: Examples, *, num_negatives: int = 0, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Rows of token ids: `prompt_ids`, `answer_ids`, `item_ids` (at the soft tokens), `row`, `weight` where the
    examples have weights, and `rejected_ids` where `num_negatives` of the candidates are to be drawn.
    """
    columns = {name: column.tolist() for name, column in examples._asdict().items() if column is not None}
    for values in zip(*columns.values(), strict=True):
        history, target, candidates, row, *weight = values
        answer = answers[target - 1]
        rng = np.random.default_rng((seed, row))
        others = [i for i in candidates if i != target]
        rejected = [answers[i - 1] for i in rng.permutation(others)[:num_negatives].tolist()] if num_negatives else []
        reserve = max(map(len, [answer, *rejected]))
        prompt = prompter.encode(history, candidates, reserve=reserve, row=row)
        yield {
            "prompt_ids": prompt.ids,
            "answer_ids": answer,
            "item_ids": prompt.item_ids,
            "rejected_ids": rejected,
            "row": row,
            **({"weight": weight[0]} if weight else {}),
        }


def in_batches(rows: Sequence[dict[str, Any]], batch_size: int, seed: int) -> list[dict[str, Any]]:
    """The rows in batches of similar length, so that little is padded, in random order."""
    rng = np.random.default_rng(seed)
    order: list[int] = []
    block = 32 * batch_size  # sorted within blocks: a batch stays a random sample of its block
    for start in range(0, len(rows), block):
        some = sorted(range(start, min(start + block, len(rows))), key=lambda i: len(rows[i]["prompt_ids"]))
        batches = [some[first : first + batch_size] for first in range(0, len(some), batch_size)]
        order.extend(i for number in rng.permutation(len(batches)) for i in batches[number])
    return [rows[i] for i in order]
