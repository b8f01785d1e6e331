from __future__ import annotations

import numpy as np
import pytest
import torch

from llm_rec.interpreter.controls import LinearProbe, most_popular, of_others
from llm_rec.interpreter.rows import Cases
from predilect.data.catalogue import Catalogue


def cases(vectors: torch.Tensor, answers: list[list[int]], users: list[int] | None = None) -> Cases:
    numbers = np.arange(len(answers))
    return Cases(vectors, answers, numbers if users is None else np.array(users), numbers)


def test_shuffled_vectors_are_those_of_other_users() -> None:
    users = [0, 0, 0, 1, 2, 2]
    rows = cases(torch.tensor(users).float()[:, None, None], [[1]] * 6, users)
    found = of_others(rows, seed=3)[:, 0, 0]
    assert (found != torch.tensor(users)).all()
    assert torch.equal(found, of_others(rows, seed=3)[:, 0, 0])
    with pytest.raises(ValueError, match="needs rows of two users"):
        of_others(cases(rows.vectors[:3], [[1]] * 3, users[:3]), seed=0)


def test_popular_items_by_hand() -> None:
    items = Catalogue(("a", "b", "c"), ("A", "B", "C"), ((),) * 3, (5, 9, 5))
    assert most_popular(items, [1, 3]) == [[2], [2, 1, 3]]
    with pytest.raises(ValueError, match="counts no interactions"):
        most_popular(Catalogue(("a",), ("A",), ((),)), [1])


def test_the_probe_finds_what_is_there_linearly_and_nothing_where_nothing_is() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(30, 40, generator=generator)
    sets = [torch.randperm(30, generator=generator)[:4] for _ in range(1500)]
    answers = [(items + 1).tolist() for items in sets]
    bags = torch.stack([embeddings[items].sum(dim=0) for items in sets])[:, None]
    noise = torch.randn(1500, 1, 40, generator=generator)
    shares = {}
    for name, vectors in {"bags": bags, "noise": noise}.items():
        probe = LinearProbe(batch_size=64).fit(cases(vectors[:1200], answers[:1200]), 30)
        found = probe.answers(cases(vectors[1200:], answers[1200:]))
        shares[name] = np.mean([len(set(a) & set(b)) / 4 for a, b in zip(found, answers[1200:], strict=True)])
    assert shares["bags"] > 0.95
    assert shares["noise"] < 0.2  # 4 of 30 by chance: 0.13


def test_without_information_the_probe_falls_back_on_popularity() -> None:
    rows = cases(torch.zeros(40, 1, 3), [[2]] * 25 + [[3]] * 10 + [[1]] * 5)
    probe = LinearProbe().fit(rows, 4)
    assert probe.answers(cases(torch.zeros(1, 1, 3), [[1, 1, 1]])) == [[2, 3, 1]]


def test_the_probe_of_two_states_can_use_their_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings, before = torch.randn(8, 12, generator=generator), torch.randn(600, 12, generator=generator) * 3
    added = torch.randint(8, (600,), generator=generator)
    vectors = torch.stack([before, before + embeddings[added]], dim=1)
    answers = (added + 1)[:, None].tolist()
    probe = LinearProbe(epochs=60, batch_size=32).fit(cases(vectors[:500], answers[:500]), 8)
    found = probe.answers(cases(vectors[500:], answers[500:]))
    assert np.mean([a == b for a, b in zip(found, answers[500:], strict=True)]) > 0.9


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        LinearProbe(epochs=0)
