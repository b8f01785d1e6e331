"""What an interpreter must beat: vectors of others, an untrained adapter, popular titles; and a linear probe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rec.interpreter.rows import Cases
from llm_rec.interpreter.vectors import Scale
from predilect.data.catalogue import Catalogue


def of_others(cases: Cases, seed: int) -> Tensor:
    """Vectors (R, slots, d) of a random row of another user in place of each row's own.

    Another row of the same user would not do: its history is nearly the same.

    Raises:
        ValueError: all rows are of one user.
    """
    rng = np.random.default_rng(seed)
    if len(np.unique(cases.users)) < 2:
        raise ValueError(f"the control shuffled needs rows of two users (got {len(cases)} rows of one): use more rows")
    donors = [int(rng.choice(np.flatnonzero(cases.users != user))) for user in cases.users]
    return cases.vectors[torch.tensor(donors)]


@contextmanager
def random_adapter(model: Any, seed: int) -> Iterator[None]:
    """Within this context the projectors are as before training, by another seed."""
    trained = {name: value.clone() for name, value in model.projectors.state_dict().items()}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in model.projectors.modules():
            if isinstance(module, torch.nn.Linear):
                module.reset_parameters()
    try:
        yield
    finally:
        model.projectors.load_state_dict(trained)


def most_popular(catalogue: Catalogue, lengths: Sequence[int]) -> list[list[int]]:
    """For each row as many of the most popular items of the training rows as its answer has, most popular first.

    Raises:
        ValueError: a catalogue without counts.
    """
    if not catalogue.popularity:
        raise ValueError(
            "the catalogue counts no interactions, so that nothing in it is popular: leave popularity out"
        )
    best = (np.argsort(-np.asarray(catalogue.popularity), kind="stable") + 1).tolist()
    return [best[:length] for length in lengths]


class LinearProbe:
    r"""How much of an answer a linear map finds in the vectors: an upper bound for readers that are not much deeper.

    A multinomial logistic regression, softmax(A x + b) over the N items, fitted on training rows by the mean
    cross-entropy of the answer's items (AdamW, 3e-2 falling linearly to 0, minibatches); ridge regression has a closed
    form, but finds far less. `x` holds the standardised vectors of all slots of a row, so that for residual the
    difference of the two states is one of the maps it can learn. The L items with the highest scores are its answer, L
    being the length of the true one, which it is told.

    Where the probe finds what the language model does not say, the information is in the vector and the adapter or the
    language model fails; where the probe fails too, it is not there, or not linearly.

    Args:
        epochs: passes over the training rows.
        batch_size: rows per step.
        seed: of the order of the rows.
    """

    def __init__(self, *, epochs: int = 20, batch_size: int = 256, seed: int = 0) -> None:
        if epochs < 1 or batch_size < 1:
            raise ValueError(f"epochs and batch_size must be at least 1 (got {epochs} and {batch_size})")
        self.epochs, self.batch_size, self.seed = epochs, batch_size, seed

    def fit(self, cases: Cases, num_items: int) -> Self:
        """Fit on training rows."""
        inputs = cases.vectors.flatten(1)
        self._scale = Scale.fitted(inputs)
        inputs, answers = self._scale(inputs), _padded(cases.answers)
        generator = torch.Generator().manual_seed(self.seed)
        self._weight = torch.zeros(num_items, inputs.shape[1], requires_grad=True)
        self._bias = _log_counts(answers, num_items).requires_grad_(True)
        optimizer = torch.optim.AdamW([self._weight, self._bias], lr=3e-2, weight_decay=0.0)
        total = self.epochs * -(-len(inputs) // self.batch_size)
        decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / total)
        for _ in range(self.epochs):
            for rows in torch.split(torch.randperm(len(inputs), generator=generator), self.batch_size):
                optimizer.zero_grad()
                torch.autograd.backward(self._loss(inputs[rows], answers[rows]))
                optimizer.step()
                decay.step()
        self._weight, self._bias = self._weight.detach(), self._bias.detach()
        return self

    def answers(self, cases: Cases) -> list[list[int]]:
        """For each row the items with the highest scores, as many as its answer has, best first."""
        scores = F.linear(self._scale(cases.vectors.flatten(1)), self._weight, self._bias)
        order = scores.argsort(dim=1, descending=True, stable=True)[:, : max(map(len, cases.answers), default=0)] + 1
        return [items[: len(answer)] for items, answer in zip(order.tolist(), cases.answers, strict=True)]

    def _loss(self, inputs: Tensor, answers: Tensor) -> Tensor:
        logps = F.linear(inputs, self._weight, self._bias).log_softmax(dim=1)
        there = answers > 0
        answer_logps = logps.gather(1, (answers - 1).clamp(min=0)) * there
        return -(answer_logps.sum(dim=1) / there.sum(dim=1)).mean()


def _padded(answers: Sequence[Sequence[int]]) -> Tensor:
    padded = torch.zeros(len(answers), max(map(len, answers)), dtype=torch.int64)
    for number, items in enumerate(answers):
        padded[number, : len(items)] = torch.tensor(items)
    return padded


def _log_counts(answers: Tensor, num_items: int) -> Tensor:
    """The start of the bias: the log share of each item, as if it had been seen once more."""
    counts = torch.bincount(answers.flatten(), minlength=num_items + 1)[1:].float() + 1
    return (counts / counts.sum()).log()
