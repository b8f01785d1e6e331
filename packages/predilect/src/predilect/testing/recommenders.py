"""A tester of recommenders: what every one of them promises, checked on a class of anybody's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from predilect.data import SequenceSplits
from predilect.data.catalogue import UnknownItemError
from predilect.evaluation import evaluate
from predilect.recommender import Recommender, available_recommenders
from predilect.testing.data import planted_splits


def check_recommender(
    kind: type[Recommender],
    splits: SequenceSplits | None = None,
    *,
    tolerance: float = 1e-5,
    reads_candidates: bool = False,
    **options: Any,
) -> Recommender:
    """Fit a recommender and check what all of them promise.

    - Scores have a column per item and none for padding, are finite, and those of candidates are those of the whole.
    - More padding on the left changes no score, nor does what else is in the batch.
    - Lists never hold padding nor the history, and come for an empty history too.
    - Saved and loaded it scores the same, as its own class and, if it is registered, through `Recommender`.
    - A finished run in an output folder is resumed to the same scores, and refused for other data or options.
    - An unknown item, an id beyond the catalogue, and asking before fitting are errors that say so.
    - It can be evaluated, in batches of any size with the same ranks.

    Args:
        kind: the class.
        splits: data to fit on, with titles; None: `planted_splits`.
        tolerance: by how much scores may differ that are to be equal.
        reads_candidates: the method looks at the candidates together, as a language model does whose prompt names
            them, so that their scores need not be those of the whole.
        **options: of the class; small ones, it is fitted three times.

    Returns:
        The fitted recommender.

    Raises:
        AssertionError: a promise that is not kept; says which.

    Examples:
        >>> from predilect.recommenders import Popularity
        >>> check_recommender(Popularity).name
        'popularity'
    """
    splits = splits or planted_splits()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _refuses(
            lambda: kind(**options).score(splits.test.histories(slice(0, 2))), RuntimeError, "before it is fitted"
        )
        recommender = kind(**options)
        recommender.fit(splits, output_dir=folder / "run")
        _check_scores(recommender, splits, tolerance)
        if not reads_candidates:
            _check_candidates(recommender, splits, tolerance)
        _check_lists(recommender, splits)
        _check_errors(recommender, splits)
        _check_folders(recommender, splits, folder / "saved", tolerance)
        _check_runs(kind, recommender, splits, folder / "run", tolerance, options)
        _check_evaluation(recommender, splits)
    return recommender


def _require(promise: bool, words: str, recommender: Recommender) -> None:
    if not promise:
        raise AssertionError(f"{recommender.name}: {words}")


def _refuses(call: Callable[[], Any], error: type[Exception], when: str) -> None:
    try:
        call()
    except error:
        return
    raise AssertionError(f"{error.__name__} is promised {when}")


def _same(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=tolerance, rtol=tolerance)


def _check_scores(recommender: Recommender, splits: SequenceSplits, tolerance: float) -> None:
    histories = splits.test.histories(slice(0, 6))
    scores = recommender.score(histories)
    whole = (len(histories), splits.num_items)
    _require(tuple(scores.shape) == whole, f"scores must be {whole}, without a column for padding", recommender)
    _require(bool(scores.isfinite().all()), "scores must be finite", recommender)
    one_by_one = torch.cat([recommender.score(row[None]) for row in histories])
    _require(_same(one_by_one, scores, tolerance), "scores must not depend on the batch", recommender)
    padded = torch.cat([torch.zeros(len(histories), 3, dtype=torch.int64), histories], dim=1)
    _require(_same(recommender.score(padded), scores, tolerance), "padding must change no score", recommender)
    empty = recommender.score(torch.zeros(1, histories.shape[1], dtype=torch.int64))
    _require(bool(empty.isfinite().all()), "an empty history must have finite scores", recommender)


def _check_candidates(recommender: Recommender, splits: SequenceSplits, tolerance: float) -> None:
    histories = splits.test.histories(slice(0, 6))
    scores, rng = recommender.score(histories), np.random.default_rng(0)
    candidates = torch.from_numpy(np.stack([rng.permutation(splits.num_items)[:5] + 1 for _ in histories]))
    of_candidates = recommender.score(histories, candidates)
    _require(
        _same(of_candidates, scores.gather(1, candidates - 1), tolerance),
        "scores of candidates must be those of the whole catalogue",
        recommender,
    )


def _check_lists(recommender: Recommender, splits: SequenceSplits) -> None:
    history = [i for i in splits.test.histories(slice(0, 1))[0].tolist() if i]
    listed = recommender.recommend(history, k=splits.num_items)
    ids = [r.item_id for r in listed]
    rest = splits.num_items - len(set(history))
    _require(len(ids) == len(set(ids)) == rest, "a list holds each item once, without the history", recommender)
    _require(0 not in ids and not set(ids) & set(history), "padding or the history was recommended", recommender)
    falling = all(a.score >= b.score for a, b in pairwise(listed))
    _require(falling, "a list must be in the order of the scores", recommender)
    _require(len(recommender.recommend([], k=3)) == 3, "an empty history must get a list", recommender)
    titled = recommender.recommend([splits.catalogue.title(i) for i in history], k=3)
    _require(titled == listed[:3], "titles must mean the same as ids", recommender)


def _check_errors(recommender: Recommender, splits: SequenceSplits) -> None:
    beyond = splits.num_items + 1
    _refuses(lambda: recommender.recommend(["no such title"]), UnknownItemError, "for an unknown title")
    _refuses(lambda: recommender.recommend([beyond]), UnknownItemError, "for an id beyond the catalogue")
    _refuses(lambda: recommender.score(torch.tensor([[beyond]])), ValueError, "for an id beyond the catalogue")
    _refuses(lambda: recommender.score(torch.tensor([[1, 0]])), ValueError, "for padding behind an item")


def _check_folders(recommender: Recommender, splits: SequenceSplits, folder: Path, tolerance: float) -> None:
    histories = splits.test.histories(slice(0, 6))
    scores = recommender.score(histories)
    recommender.save_pretrained(folder)
    registered = recommender.name in available_recommenders()
    for kind in (type(recommender), Recommender) if registered else (type(recommender),):
        loaded = kind.from_pretrained(folder)
        _require(type(loaded) is type(recommender), "another class came back", recommender)
        _require(loaded.config == recommender.config, "the options must come back as they were", recommender)
        _require(
            _same(loaded.score(histories), scores, tolerance), "saved and loaded it must score alike", recommender
        )
    (folder / "method.json").unlink()
    _refuses(lambda: type(recommender).from_pretrained(folder), FileNotFoundError, "for a folder that is not complete")


def _check_runs(
    kind: type[Recommender],
    recommender: Recommender,
    splits: SequenceSplits,
    folder: Path,
    tolerance: float,
    options: dict[str, Any],
) -> None:
    histories = splits.test.histories(slice(0, 6))
    again = kind(**options).fit(splits, output_dir=folder, resume=True)
    same = _same(again.score(histories), recommender.score(histories), tolerance)
    _require(same, "a finished run that is resumed must score alike", recommender)
    if all(path.name == "run.json" for path in folder.iterdir()):
        return  # counting leaves nothing that could be taken for something else
    _refuses(lambda: kind(**options).fit(splits, output_dir=folder), ValueError, "for an output folder in use")
    fewer = replace(splits, train=splits.train.select(slice(0, len(splits.train) - 1)))
    _refuses(
        lambda: kind(**options).fit(fewer, output_dir=folder, resume=True), ValueError, "on resuming with other data"
    )
    other = {**options, "seed": recommender.config.seed + 1}
    _refuses(
        lambda: kind(**other).fit(splits, output_dir=folder, resume=True), ValueError, "on resuming with other options"
    )


def _check_evaluation(recommender: Recommender, splits: SequenceSplits) -> None:
    ranks = [
        evaluate(recommender, splits, bootstrap=0, batch_size=size, max_rows=8).rows["rank"][:] for size in (3, 1024)
    ]
    _require(ranks[0] == ranks[1], "ranks must not depend on the batch size", recommender)
