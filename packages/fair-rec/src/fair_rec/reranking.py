"""`GroupReranker`: any recommender, re-weighted in training, re-ranked after it, or both; `IFairLRS` is its preset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typing_extensions import TypeVar

from fair_rec.groups import ItemGroups, category_groups, popularity_groups
from fair_rec.lists import as_lists, lists_of
from fair_rec.metrics import dgu, group_unfairness, mgu
from fair_rec.programme import Programme, item_prices, parted
from fair_rec.reference import item_counts, reference_proportions
from fair_rec.reweighting import GroupReweighting
from predilect.configuration import at_least, make_config, new_defaults, option
from predilect.data import SequenceSplits
from predilect.evaluation import evaluate
from predilect.evaluation.ranking import top_items
from predilect.recommender import Recommender, RecommenderConfig, available_recommenders, recommender_class

if TYPE_CHECKING:
    import pandas as pd

GROUPS, RERANKING = "Groups", "Re-ranking"
TIES = 0.005  # of the range of a row: equal scores come in an order that depends on the history
_PRICES, _BASE, _ABOUT = "prices.safetensors", "base", "groups.json"


@dataclass
class GroupRerankerConfig(RecommenderConfig):
    """Options of `GroupReranker`."""

    base: str = option(
        "The recommender: a name, fitted with its defaults, or the folder of a saved one.", default="sasrec"
    )
    base_options: dict[str, Any] = option(
        "Options of a base that is fitted here, such as {hidden_size: 32}.", default={}
    )
    groups: Literal["popularity", "category"] = option(
        "Of the items: equally large groups by popularity, or categories.", panel=GROUPS, default="popularity"
    )
    num_groups: int = option("Number of groups by popularity.", panel=GROUPS, default=5)
    counting: Literal["unit", "fractional"] = option(
        "An item of several categories counts once in each, or in parts that sum to one.", panel=GROUPS, default="unit"
    )
    reference: Literal["train", "validation", "catalogue"] = option(
        "Whose proportions the lists are to have: those of the histories of a part, or of the catalogue.",
        panel=GROUPS,
        default="train",
    )
    reweight: bool = option(
        "Fit the base on rows weighted by the groups of their targets (`GroupReweighting`).",
        panel=GROUPS,
        default=False,
    )
    smoothing: float = option("Counts added to every group before weights are taken.", panel=GROUPS, default=1.0)
    rule: Literal["none", "paper", "programme"] = option(
        "How lists are re-ranked: not at all, by the paper's rule, or by the prices of the linear programme.",
        panel=RERANKING,
        default="paper",
    )
    alpha: float = option("Strength of the paper's rule; it looks at 0 to 0.1.", panel=RERANKING, default=0.05)
    normalise: Literal["minmax", "none"] = option(
        "Distances are brought to 0..1 in every row first, or taken as they are (minus the score).",
        panel=RERANKING,
        default="minmax",
    )
    ks: tuple[int, ...] = option(
        "Lengths at which the paper's rule measures unfairness; longer ones weigh more.",
        panel=RERANKING,
        default=(1, 5, 10, 20),
    )
    k: int = option("Length of the lists that the programme balances.", panel=RERANKING, default=10)
    tolerance: float = option(
        "How far a group's share may be from its reference in the programme.", panel=RERANKING, default=0.01
    )
    candidates: int = option("Best items of a row that the programme chooses among.", panel=RERANKING, default=100)
    rows: int = option("Validation rows that unfairness or prices are taken from.", panel=RERANKING, default=2000)

    def __post_init__(self) -> None:
        self.ks = tuple(self.ks)  # JSON gives lists
        at_least(self, num_groups=2, k=1, candidates=1, rows=2)
        if not self.ks or min(self.ks) < 1 or len(set(self.ks)) < len(self.ks):
            raise ValueError(f"ks must be different lengths of at least 1 (got {self.ks})")
        for name in ("alpha", "tolerance", "smoothing"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0 (got {getattr(self, name)})")
        if self.rule == "programme" and self.candidates < self.k:
            raise ValueError(f"candidates must be at least k (got {self.candidates} and {self.k})")


def relative_unfairness(unfairness: Sequence[np.ndarray], ks: Sequence[int]) -> np.ndarray:
    r"""(G,) in -1..1: :math:`U_G / \max |U|` with :math:`U_G = \sum_K \frac{K}{\sum K'} GU(G)@K`.

    Source: IFairLRS (arXiv 2402.15215), section 4.2. All zero where nothing is unfair.
    """
    weighed = sum(k / sum(ks) * values for k, values in zip(ks, unfairness, strict=True))
    largest = float(np.abs(weighed).max())
    relative: np.ndarray = np.asarray(weighed) / (largest or 1.0)
    return relative


ConfigT = TypeVar("ConfigT", bound=GroupRerankerConfig, default=GroupRerankerConfig)


class GroupReranker(Recommender[ConfigT]):
    r"""A recommender whose lists give groups of items their share.

    Both rules take a price from every item's score, the same for all people:

    - "paper": :math:`\tilde D_i = D_i + \alpha \hat U_i`, D the distance, here (max - s) / (max - min) of the row's
      scores, or -s; :math:`\hat U_i` the mean over the item's groups of `relative_unfairness`, measured on the lists
      of validation rows. The last equation is missing from the copies of the paper, so that whether D is normalised is
      an option; with its alphas of at most 0.1 only distances in 0..1 make sense, which is the default.
    - "programme": the multipliers of the linear programme that gives the most score under shares within `tolerance` of
      the reference (`fair_rec.programme`), found on validation rows.

    Source: IFairLRS (Jiang et al. 2024, arXiv 2402.15215), section 4.2; the authors' code has no re-ranking.

    Examples:
        >>> from predilect.data import load
        >>> splits = load().k_core(20).split()
        >>> fair = GroupReranker(base="item-knn", rule="programme", rows=200).fit(splits)
        >>> len(fair.recommend(["Iron Man 3 (2013)"], k=3))
        3
    """

    name = "group-reranker"
    config_class: ClassVar[type[Any]] = GroupRerankerConfig
    runs_in: ClassVar[Literal["quick", "default", "chosen"]] = "chosen"

    def __init__(self, config: ConfigT | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._base: Recommender | None = None
        self._prices: Tensor | None = None
        self._given_base: Recommender | None = None
        self._given_groups: ItemGroups | None = None
        self.unfairness: dict[str, float] = {}

    @classmethod
    def over(cls, base: Recommender, groups: ItemGroups | None = None, **options: Any) -> Self:
        """Around a fitted recommender, with groups of your own; `fit` then only looks at validation rows.

        Raises:
            ValueError: `reweight`, which needs a base that is fitted here.
        """
        reranker = cls(base=base.name, **options)
        if reranker.config.reweight:
            raise ValueError("a fitted base cannot be re-weighted: name it, and it is fitted on weighted rows")
        reranker._given_base, reranker._given_groups = base, groups
        return reranker

    @property
    def base(self) -> Recommender:
        """The recommender that is re-ranked."""
        return self._fitted(self._base)

    @property
    def prices(self) -> Tensor:
        """(N + 1,) what each item's score loses; row 0 is padding."""
        return self._fitted(self._prices)

    @property
    def num_parameters(self) -> int:
        return self.base.num_parameters

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def max_test_rows(self) -> int | None:  # type: ignore[override]
        """The base's."""
        return None if self._base is None else self._base.max_test_rows

    def unsuited(self, splits: SequenceSplits) -> str | None:
        if self.config.groups == "category" and not any(splits.catalogue.categories):
            return "the items have no categories"
        known = self.config.base in available_recommenders()
        return recommender_class(self.config.base)().unsuited(splits) if known else None

    def require_ready(self) -> None:
        """Refuse a base that is not there, and what a base cannot take: weights where it only counts, options and
        weights where it is fitted already."""
        name = self.config.base
        if self._given_base is not None:
            return
        if name not in available_recommenders():
            if not Path(name).is_dir():
                raise ValueError(
                    f"base {name!r} is neither a folder nor a recommender; there are "
                    f"{', '.join(available_recommenders())}"
                )
            if self.config.reweight or self.config.base_options:
                raise ValueError(f"the saved base {name} is fitted already: leave reweight and base_options out")
            return
        kind = recommender_class(name)
        if self.config.reweight and kind.num_parameters is Recommender.num_parameters:  # none, whatever the data
            raise ValueError(f"{name} counts and has no loss for weights to act on: set reweight to false")
        self._new_base(kind).require_ready()

    def _new_base(self, kind: type[Recommender]) -> Recommender:
        return kind(
            make_config(
                kind.config_class, {"seed": self.config.seed, **self.config.base_options}, source="base_options"
            )
        )

    def _fit(self, data: SequenceSplits, folder: Path) -> None:
        self.require_ready()
        groups = self._given_groups or self._groups(data)
        if groups.num_items != data.num_items:
            raise ValueError(f"the groups are of {groups.num_items} items, the data has {data.num_items}")
        self._base = self._given_base or self._fitted_base(data, groups, folder)
        if self._base.catalogue.raw_ids != data.catalogue.raw_ids:
            raise ValueError("the base was fitted on another catalogue: fit it on these data")
        reference = reference_proportions(groups, self.config.reference, data)
        prices = np.zeros(data.num_items + 1)
        if self.config.rule == "paper":
            prices = self.config.alpha * self._relative_unfairness(data, groups, reference)
        elif self.config.rule == "programme":
            prices = item_prices(self._programme(data, groups, reference))
        self._prices = torch.from_numpy(prices).float()

    def _groups(self, data: SequenceSplits) -> ItemGroups:
        if self.config.groups == "category":
            return category_groups(data.catalogue, counting=self.config.counting)
        return popularity_groups(item_counts(data), self.config.num_groups)

    def _fitted_base(self, data: SequenceSplits, groups: ItemGroups, folder: Path) -> Recommender:
        name = self.config.base
        if name not in available_recommenders():
            return Recommender.from_pretrained(name)
        base = self._new_base(recommender_class(name))
        base.callbacks = self.callbacks
        if self.config.reweight:
            data = GroupReweighting(groups, self.config.smoothing).apply(data)
        return base.fit(data, output_dir=folder / _BASE, resume=True)

    def _relative_unfairness(self, data: SequenceSplits, groups: ItemGroups, reference: np.ndarray) -> np.ndarray:
        """(N + 1,) of each item, from the base's lists for validation rows."""
        longest, rows = max(self.config.ks), self.config.rows
        lists = lists_of(self.base, data, "validation", longest, max_rows=rows, seed=self.config.seed)
        ks = sorted({min(k, lists.length) for k in self.config.ks})  # people have seen the rest of a small catalogue
        found = [group_unfairness(lists, groups, reference, k) for k in ks]
        relative = relative_unfairness(found, ks)
        self.unfairness = dict(zip(groups.labels, relative.tolist(), strict=True))
        return groups.mean_over_groups(relative)

    def _programme(self, data: SequenceSplits, groups: ItemGroups, reference: np.ndarray) -> Programme:
        rows = data.validation
        drawn = np.random.default_rng(self.config.seed).permutation(len(rows))[: self.config.rows]
        width, k = min(self.config.candidates, data.num_items), min(self.config.k, data.num_items)
        scores, items = [], []
        for start in range(0, len(drawn), 1024):
            some = rows.select(np.sort(drawn[start : start + 1024]))
            values = self._balanced(some.histories())
            best = top_items(values, width, exclude=some.seen())
            enough = (best > 0).sum(dim=1) >= k  # a person who has seen almost everything is left out
            best, values = best[enough], values[enough]
            items.append(best)
            scores.append(values.gather(1, best.clamp(min=1) - 1))
        if not sum(map(len, items)):
            raise ValueError(f"no validation row has {k} items that its person has not seen: lower k")
        padding = torch.cat(items) == 0
        found = torch.cat(scores)
        found[padding] = float(found.min()) - 10 * float(found.max() - found.min())  # never chosen
        return Programme(found.double().numpy(), torch.cat(items).numpy(), groups, reference, k, self.config.tolerance)

    def _normalised(self, scores: Tensor) -> Tensor:
        """Minus the distances."""
        if self.config.normalise == "none":
            return scores
        low, high = scores.aminmax(dim=1, keepdim=True)
        return (scores - high) / torch.where(high > low, high - low, 1.0)

    def _score(self, histories: Tensor) -> Tensor:
        return self._balanced(histories) - self.prices[1:]

    def _balanced(self, histories: Tensor) -> Tensor:
        """What prices are taken from: normalised scores, ties parted where the programme needs it."""
        scores = self._normalised(self.base.score(histories))
        if self.config.rule != "programme":
            return scores
        keys = (histories.numpy() * (np.arange(histories.shape[1], 0, -1) * 2 + 1)).sum(axis=1)
        items = np.arange(1, scores.shape[1] + 1)[None, :]
        size = TIES * (1.0 if self.config.normalise == "minmax" else float(scores.std()) or 1.0)
        return torch.from_numpy(parted(scores.double().numpy(), items, keys, size)).float()

    def _save(self, folder: Path) -> None:
        self.base.save_pretrained(folder / _BASE)
        save_file({"prices": self.prices}, folder / _PRICES)
        (folder / _ABOUT).write_text(json.dumps(self.unfairness, indent=2) + "\n", encoding="utf-8")

    def _load(self, folder: Path) -> None:
        for name in (_PRICES, _BASE, _ABOUT):
            if not (folder / name).exists():
                raise FileNotFoundError(f"no {name} in {folder}: it is incomplete, save the recommender again")
        self._base = Recommender.from_pretrained(folder / _BASE)
        if self._base.catalogue.raw_ids != self.catalogue.raw_ids:
            raise ValueError(f"the base in {folder} knows another catalogue than the re-ranker")
        self._prices = load_file(folder / _PRICES)["prices"]
        self.unfairness = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))


@dataclass
@new_defaults(base="bigrec", reweight=True)
class IFairLRSConfig(GroupRerankerConfig):
    """Both stages of IFairLRS, by default on a language model grounded in the catalogue (BIGRec)."""


class IFairLRS(GroupReranker[IFairLRSConfig]):
    """IFairLRS (Jiang et al. 2024, arXiv 2402.15215): re-weighting in training, then re-ranking, of BIGRec or another.

    The distance is BIGRec's, min-max normalised per row; weights act on each row of the fine-tuning (`AnswerTrainer`).
    """

    name = "ifairlrs"
    config_class = IFairLRSConfig


def frontier(
    base: Recommender,
    splits: SequenceSplits,
    groups: ItemGroups,
    *,
    part: str = "validation",
    alphas: Sequence[float] = (0.0, 0.01, 0.02, 0.05, 0.1),
    tolerances: Sequence[float] = (0.05, 0.02, 0.01, 0.0),
    k: int = 10,
    max_rows: int | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Accuracy against fairness of both rules over their strengths.

    Args:
        base: a fitted recommender.
        splits: the data; the rules look at its validation rows.
        groups: of the items.
        part: rows that are ranked.
        alphas: of the paper's rule.
        tolerances: of the programme.
        k: length of the lists.
        max_rows: rank this many rows only.
        **options: further ones of `GroupReranker`.

    Returns:
        A row per setting: `rule, strength, ndcg, hr, mgu, dgu` at k.
    """
    import pandas as pd

    settings = [("paper", "alpha", a) for a in alphas] + [("programme", "tolerance", t) for t in tolerances]
    reference = reference_proportions(groups, options.get("reference", "train"), splits)
    rows = []
    for rule, name, strength in settings:
        reranker = GroupReranker.over(base, groups, rule=rule, k=k, **{**options, name: strength}).fit(splits)
        result = evaluate(reranker, splits, part, ks=(k,), top=k, bootstrap=0, max_rows=max_rows)
        lists = as_lists(result, catalogue=splits.catalogue)
        unfairness = group_unfairness(lists, groups, reference, k)
        row = {
            "rule": rule,
            "strength": strength,
            "ndcg": result.results[f"ndcg@{k}"],
            "hr": result.results[f"hr@{k}"],
        }
        rows.append({**row, "mgu": mgu(unfairness), "dgu": dgu(unfairness)})
    return pd.DataFrame(rows)
