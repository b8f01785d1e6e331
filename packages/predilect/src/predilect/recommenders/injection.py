"""`Injection`: the scores of several recommenders in one weighted sum, whose weights are fitted on held-out rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from predilect.configuration import option
from predilect.data.candidates import draw_candidates, row_keys
from predilect.data.rows import SequenceRows
from predilect.data.splits import SequenceSplits
from predilect.recommender import Recommender, RecommenderConfig, available_recommenders, recommender_class

RIDGE = 1e-3
_WEIGHTS, _MEMBERS = "weights.json", "members"


@dataclass(frozen=True)
class ScoreWeights:
    """A weighted sum of scores by name.

    BIGRec (Bao et al. 2023, arXiv 2308.08434) injects popularity and collaborative scores into its distances by a
    power that is tuned on validation rows; here the weights of a sum are fitted at once (`fit_score_weights`).

    Examples:
        >>> ScoreWeights({"language": 2.0, "popularity": 0.0})(language=torch.tensor([1.5]), popularity=torch.ones(1))
        tensor([3.])
    """

    weights: Mapping[str, float]

    def __call__(self, **scores: Tensor) -> Tensor:
        """The sum; of a weight of 0 the scores may be left out.

        Raises:
            ValueError: no scores of a name that has a weight.
        """
        if missing := [name for name, weight in self.weights.items() if weight and name not in scores]:
            raise ValueError(f"no scores of {', '.join(missing)}, which the sum needs (got {', '.join(scores)})")
        given = [self.weights.get(name, 0.0) * values for name, values in scores.items()]
        return torch.stack(given).sum(dim=0)


def fit_score_weights(
    scores: Mapping[str, Tensor], target_columns: Tensor, *, not_negative: str | None = None
) -> ScoreWeights:
    r"""Conditional logit: the weights under which a softmax over the items makes the targets most likely.

    .. math:: \max_w \; \frac{1}{R} \sum_r \log softmax(X_r w)_{t_r} - \lambda \lVert w \rVert^2

    with scores scaled to standard deviation 1 within rows, :math:`\lambda` = 0.001. Only differences within a row
    count. A uniform sample of the other items gives the same weights in expectation (McFadden 1978, Modelling the
    Choice of Residential Location).

    Args:
        scores: name -> (R, C) finite scores of the items of each row.
        target_columns: (R,) column of the target in each row.
        not_negative: a name whose order must not be turned around: where the fit would, its weight is 0 and the others
            are fitted without it.

    Raises:
        ValueError: no scores, or scores that are not finite.
    """
    if not scores:
        raise ValueError("weights need the scores of at least one name (got none)")
    x = torch.stack(list(scores.values()), dim=-1).double()
    if not bool(torch.isfinite(x).all()):
        raise ValueError("scores to be combined must be finite (got NaN or infinity)")
    x = x - x.mean(dim=1, keepdim=True)
    scale = x.square().mean(dim=(0, 1)).sqrt()
    scale[scale == 0] = 1
    fitted = dict(zip(scores, (_most_likely(x / scale, target_columns) / scale).tolist(), strict=True))
    if not_negative is not None and fitted[not_negative] < 0:
        others = {name: values for name, values in scores.items() if name != not_negative}
        rest = fit_score_weights(others, target_columns).weights if others else {}
        return ScoreWeights({not_negative: 0.0, **rest})
    return ScoreWeights(fitted)


def _most_likely(x: Tensor, target_columns: Tensor) -> Tensor:
    """(F,) float64 weights of the features (R, C, F)."""
    weights = torch.zeros(x.shape[-1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weights, target_columns) + RIDGE * weights.square().sum()
        torch.autograd.backward(loss)
        return loss

    with torch.enable_grad():
        optimizer.step(objective)  # type: ignore[no-untyped-call]
    return weights.detach()


def held_apart(splits: SequenceSplits, seed: int = 0) -> tuple[SequenceSplits, SequenceSplits]:
    """The splits twice, each with the validation rows of one half of the people: members of a sum are selected on the
    first, its weights fitted on the second.

    A member that stops early looks better on the rows that chose its epoch than on others, and would get too much
    weight from them.

    Raises:
        ValueError: validation rows of fewer than two people.
    """
    people = np.unique(splits.validation.user)
    if len(people) < 2:
        raise ValueError(
            f"the validation rows are of {len(people)} people: two are needed, to select members on the rows of the "
            "one and to fit weights on those of the other"
        )
    chosen = np.random.default_rng(seed).permutation(people)[: len(people) // 2]
    first = np.isin(splits.validation.user, chosen)
    select, weigh = (splits.validation.select(np.flatnonzero(half)) for half in (first, ~first))
    return replace(splits, validation=select), replace(splits, validation=weigh)


@dataclass
class InjectionConfig(RecommenderConfig):
    """Options of `Injection`."""

    members: tuple[str, ...] = option(
        "Whose scores are summed: names of recommenders, fitted with their defaults, or folders of saved ones.",
        default=("sasrec", "popularity"),
    )
    rows: int = option("Validation rows that the weights are fitted on, drawn at random.", default=1000)
    choices: int = option(
        "Items of each of these rows, the target and others drawn evenly; where rows have candidates, those.",
        default=200,
    )

    def __post_init__(self) -> None:
        self.members = tuple(self.members)  # JSON gives lists
        if len(set(self.members)) != len(self.members) or not self.members:
            raise ValueError(f"members must be different names or folders, at least one (got {self.members})")
        for name, least in (("rows", 2), ("choices", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least} (got {getattr(self, name)})")


class Injection(Recommender[InjectionConfig]):
    r"""Ranks by a weighted sum of other recommenders' scores, :math:`\sum_m w_m s_m(history, item)`.

    The weights are a conditional logit (`fit_score_weights`) on the validation rows of half of the people; members
    that are fitted here are selected on the rows of the other half (`held_apart`). Members that were fitted before are
    taken as they are: fit them on `held_apart(splits, seed)[0]`, or a member that stopped early gets too much weight.
    Scores that are counts enter as log(1 + count) (`Recommender.counts`).

    Examples:
        >>> from predilect.data import load
        >>> splits = load().k_core(20).split()
        >>> both = Injection(members=("popularity", "item-knn")).fit(splits)
        >>> sorted(both.weights.weights)
        ['item-knn', 'popularity']
    """

    name = "injection"
    config_class = InjectionConfig
    runs_in: ClassVar[Literal["quick", "default", "chosen"]] = "chosen"

    def __init__(self, config: InjectionConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._members: dict[str, Recommender] = {}
        self._given: dict[str, Recommender] = {}
        self._weights: ScoreWeights | None = None

    @classmethod
    def over(cls, members: Mapping[str, Recommender], **options: Any) -> Self:
        """A sum of fitted recommenders, by names of your own; `fit` fits its weights only."""
        summed = cls(members=tuple(members), **options)
        summed._given = dict(members)
        return summed

    @property
    def weights(self) -> ScoreWeights:
        """The fitted weights, by member."""
        return self._fitted(self._weights)

    @property
    def members(self) -> Mapping[str, Recommender]:
        """The recommenders whose scores are summed."""
        return self._fitted(self._members or None)

    @property
    def num_parameters(self) -> int:
        return sum(member.num_parameters for member in self.members.values())

    @property
    def max_test_rows(self) -> int | None:  # type: ignore[override]
        """The least of the members'."""
        return min((m.max_test_rows for m in self._members.values() if m.max_test_rows is not None), default=None)

    def require_ready(self) -> None:
        for name in self.config.members:
            if name not in self._given and name not in available_recommenders() and not Path(name).is_dir():
                raise ValueError(
                    f"member {name!r} is neither a folder nor a recommender; there are "
                    f"{', '.join(available_recommenders())}"
                )

    def _fit(self, data: SequenceSplits, folder: Path) -> None:
        self.require_ready()
        select, weigh = held_apart(data, self.config.seed)
        self._members = {
            name: self._member(name, select, folder / f"{number}") for number, name in enumerate(self.config.members)
        }
        rows = weigh.validation
        drawn = np.random.default_rng(self.config.seed).permutation(len(rows))[: self.config.rows]
        rows = rows.select(np.sort(drawn))
        choices = torch.from_numpy(self._choices(rows, data.num_items))
        columns = (choices == rows.targets()[:, None]).long().argmax(dim=1)
        self._weights = fit_score_weights(self._scores(rows.histories(), choices), columns)

    def _member(self, name: str, splits: SequenceSplits, folder: Path) -> Recommender:
        if name in self._given:
            member = self._given[name]
        elif name in available_recommenders():
            kind = recommender_class(name)
            member = kind(kind.config_class(seed=self.config.seed))
            member.callbacks = self.callbacks
            member.fit(splits, output_dir=folder, resume=True)
        else:
            member = Recommender.from_pretrained(name)
        if member.catalogue.raw_ids != splits.catalogue.raw_ids:
            raise ValueError(f"member {name!r} was fitted on another catalogue: fit it on these data")
        return member

    def _choices(self, rows: SequenceRows, num_items: int) -> np.ndarray:
        """(R, C) item ids, the target among them, none that was taken before."""
        if rows.candidates is not None:
            return rows.candidates.astype(np.int64)
        pairs = np.stack(rows.seen(), axis=1)
        pairs = np.unique(np.concatenate([pairs, np.stack([np.arange(len(rows)), rows.target], axis=1)]), axis=0)
        free = num_items - int(np.bincount(pairs[:, 0]).max())
        keys = row_keys(self.config.seed, rows.user, rows.position)
        return draw_candidates(rows, keys, np.ones(num_items), min(self.config.choices, free + 1), past=True)

    def _scores(self, histories: Tensor, candidates: Tensor | None) -> dict[str, Tensor]:
        found = {}
        for name, member in self._members.items():
            scores = member.score(histories, candidates)
            found[name] = scores.log1p() if member.counts else scores
        return found

    def _score(self, histories: Tensor) -> Tensor:
        return self.weights(**self._scores(histories, None))

    def _score_candidates(self, histories: Tensor, candidates: Tensor) -> Tensor:
        return self.weights(**self._scores(histories, candidates))

    def _save(self, folder: Path) -> None:
        for number, member in enumerate(self.members.values()):
            member.save_pretrained(folder / _MEMBERS / str(number))
        (folder / _WEIGHTS).write_text(json.dumps(dict(self.weights.weights), indent=2) + "\n")

    def _load(self, folder: Path) -> None:
        if not (folder / _WEIGHTS).is_file():
            raise FileNotFoundError(f"no {_WEIGHTS} in {folder}: it is incomplete, save the recommender again")
        self._members = {
            name: Recommender.from_pretrained(folder / _MEMBERS / str(number))
            for number, name in enumerate(self.config.members)
        }
        self._weights = ScoreWeights(json.loads((folder / _WEIGHTS).read_text()))
