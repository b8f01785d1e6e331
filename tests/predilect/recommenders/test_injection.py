from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from predilect.data import load
from predilect.evaluation import evaluate
from predilect.recommender import Recommender, RecommenderConfig
from predilect.recommenders import Injection, ItemKNN, Popularity, SASRecRecommender, held_apart
from predilect.recommenders.injection import ScoreWeights, fit_score_weights

NAMES = ("language", "popularity", "retriever")


def planted(weights: list[float], rows: int = 4000) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Targets drawn from the softmax of a weighted sum of random features."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(rows, 6, len(weights), generator=generator) * torch.tensor([3.0, 1.0, 0.2])
    chances = (features @ torch.tensor(weights)).softmax(dim=1)
    columns = torch.multinomial(chances, 1, generator=generator).squeeze(1)
    return dict(zip(NAMES, features.unbind(-1), strict=True)), columns


def test_planted_weights_are_found_in_the_scale_of_the_scores() -> None:
    found = fit_score_weights(*planted([0.5, 1.0, -4.0])).weights
    assert found["language"] == pytest.approx(0.5, rel=0.1)
    assert found["popularity"] == pytest.approx(1.0, rel=0.1)
    assert found["retriever"] == pytest.approx(-4.0, rel=0.15)


def test_scores_that_say_the_opposite_get_no_weight_where_that_is_asked_for() -> None:
    scores, targets = planted([-0.5, 1.0, 4.0])
    found = fit_score_weights(scores, targets, not_negative="language")
    others = fit_score_weights({name: scores[name] for name in NAMES[1:]}, targets)
    assert found.weights == {"language": 0.0, **others.weights}
    assert fit_score_weights(scores, targets).weights["language"] == pytest.approx(-0.5, rel=0.1)
    assert fit_score_weights({"language": scores["language"]}, targets, not_negative="language").weights == {
        "language": 0.0
    }


def test_a_constant_score_gets_no_weight_and_a_shift_of_rows_changes_nothing() -> None:
    scores, targets = planted([0.5, 1.0, 2.0])
    scores["popularity"] = torch.full_like(scores["popularity"], 7.0)
    found = fit_score_weights(scores, targets).weights
    assert found["popularity"] == 0
    generator = torch.Generator().manual_seed(1)
    shifted = {name: s + 100 * torch.randn(len(s), 1, generator=generator) for name, s in scores.items()}
    assert fit_score_weights(shifted, targets).weights["language"] == pytest.approx(found["language"], rel=1e-3)


def test_a_sample_of_the_items_gives_the_weights_of_all() -> None:
    """McFadden's theorem: 2,000 items, of which each row keeps its target and 30 drawn evenly."""
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.randn(3000, 2000, generator=generator) for name in NAMES[:2]}
    chances = (scores["language"] + 0.5 * scores["popularity"]).softmax(dim=1)
    targets = torch.multinomial(chances, 1, generator=generator)
    others = torch.rand(chances.shape, generator=generator).scatter_(1, targets, -1.0).topk(30, dim=1).indices
    few = torch.cat([targets, others], dim=1)
    found = fit_score_weights(
        {name: s.gather(1, few) for name, s in scores.items()}, torch.zeros(3000, dtype=torch.int64)
    ).weights
    assert found["language"] == pytest.approx(1.0, abs=0.06)
    assert found["popularity"] == pytest.approx(0.5, abs=0.06)


def test_the_sum_by_hand() -> None:
    weights = ScoreWeights({"a": 2.0, "b": 0.5, "c": 0.0})
    assert weights(a=torch.tensor([[-1.0]]), b=torch.tensor([[4.0]])).item() == 0.0
    with pytest.raises(ValueError, match="no scores of b"):
        weights(a=torch.tensor([[1.0]]))


def test_scores_that_are_not_finite_are_refused() -> None:
    scores, targets = planted([0.5, 1.0, 2.0])
    scores["language"][3, 2] = float("nan")
    with pytest.raises(ValueError, match="must be finite"):
        fit_score_weights(scores, targets)
    with pytest.raises(ValueError, match="at least one name"):
        fit_score_weights({}, targets)


def test_the_halves_share_nobody_and_together_are_all_rows(tiny_splits: Any) -> None:
    select, weigh = held_apart(tiny_splits, seed=3)
    first, second = set(select.validation.user), set(weigh.validation.user)
    assert first
    assert second
    assert not first & second
    rows = [place for half in (select, weigh) for place in half.validation.target_place]
    assert sorted(rows) == sorted(tiny_splits.validation.target_place)
    assert set(held_apart(tiny_splits, seed=4)[0].validation.user) != first


class Sees(Popularity):
    """Keeps what it was given."""

    name = "sees"
    seen: ClassVar[list[Any]] = []

    def _fit(self, data: Any, folder: Path) -> None:
        Sees.seen.append(data)
        super()._fit(data, folder)


def test_members_are_selected_on_other_people_than_the_weights_are_fitted_on(
    tiny_splits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from predilect.recommenders import injection

    monkeypatch.setattr(injection, "available_recommenders", lambda: ["sees"])
    monkeypatch.setattr(injection, "recommender_class", lambda name: Sees)
    weighed: list[Any] = []
    choices = Injection._choices
    monkeypatch.setattr(Injection, "_choices", lambda self, rows, n: weighed.append(rows) or choices(self, rows, n))
    Injection(members=["sees"]).fit(tiny_splits)
    assert not set(Sees.seen[0].validation.user) & set(weighed[0].user)


class Knows(Recommender[RecommenderConfig]):
    """Scores the item after the last one highest, or says the opposite."""

    name = "knows"
    sign = 1.0

    def _fit(self, data: Any, folder: Path) -> None:
        pass

    def _score(self, histories: torch.Tensor) -> torch.Tensor:
        num_items = len(self.catalogue)
        items = torch.arange(1, num_items + 1)
        return -self.sign * ((items[None] - histories[:, -1:] - 1) % num_items).float()

    def _save(self, folder: Path) -> None:
        pass

    def _load(self, folder: Path) -> None:
        pass


def test_weights_follow_who_is_right(tiny_splits: Any) -> None:
    knows, popular = Knows().fit(tiny_splits), Popularity().fit(tiny_splits)
    both = Injection.over({"knows": knows, "popular": popular}).fit(tiny_splits)
    assert both.weights.weights["knows"] > 0
    alone, together = (evaluate(r, tiny_splits, bootstrap=0).results["ndcg@5"] for r in (knows, both))
    assert together == pytest.approx(alone) == 1.0
    wrong = Knows().fit(tiny_splits)
    wrong.sign = -1.0
    turned = Injection.over({"wrong": wrong, "popular": popular}).fit(tiny_splits)
    assert turned.weights.weights["wrong"] < 0
    assert evaluate(turned, tiny_splits, bootstrap=0).results["ndcg@5"] == 1.0


def test_scores_are_the_weighted_sum_and_counts_enter_by_their_logarithm(tiny_splits: Any) -> None:
    both = Injection(members=("popularity", "item-knn")).fit(tiny_splits)
    history = torch.tensor([[0, 0, 0, 3, 4]])
    a, b = (both.weights.weights[name] for name in both.config.members)
    popular, near = Popularity().fit(tiny_splits), ItemKNN().fit(tiny_splits)
    expected = a * popular.score(history).log1p() + b * near.score(history)
    torch.testing.assert_close(both.score(history), expected)
    some = torch.tensor([[7, 2, 20]])
    torch.testing.assert_close(both.score(history, some), expected.gather(1, some - 1))


def test_candidates_of_the_rows_are_their_choices(tiny_splits: Any) -> None:
    splits = tiny_splits.with_candidates(5)
    both = Injection(members=("popularity",)).fit(splits)
    rows = held_apart(splits)[1].validation
    assert np.array_equal(both._choices(rows, 20), rows.candidates)
    drawn = both._choices(held_apart(tiny_splits)[1].validation, 20)
    for row, choices in enumerate(drawn):
        assert rows.target[row] in choices
        assert not (set(choices) - {rows.target[row]}) & set(rows.seen([row])[1])


def test_a_saved_sum_scores_as_before_and_folders_may_be_members(tiny_splits: Any, tmp_path: Path) -> None:
    SASRecRecommender(max_epochs=1, hidden_size=8).fit(tiny_splits).save_pretrained(tmp_path / "sasrec")
    both = Injection(members=(str(tmp_path / "sasrec"), "popularity")).fit(tiny_splits)
    both.save_pretrained(tmp_path / "both")
    loaded = Recommender.from_pretrained(tmp_path / "both")
    history = torch.tensor([[0, 0, 0, 3, 4]])
    assert torch.equal(loaded.score(history), both.score(history))
    assert loaded.num_parameters == both.num_parameters > 0
    (tmp_path / "both" / "weights.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"weights\.json"):
        Recommender.from_pretrained(tmp_path / "both")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": ()}, "at least one"),
        ({"members": ("popularity", "popularity")}, "different names"),
        ({"rows": 1}, "rows must be at least 2"),
        ({"choices": 1}, "choices must be at least 2"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Injection(**options)


def test_members_that_cannot_be_summed_are_refused(tiny_splits: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'nobody' is neither a folder nor a recommender; there are"):
        Injection(members=("nobody",)).fit(tiny_splits)
    other = Popularity().fit(load().k_core(20).split())
    with pytest.raises(ValueError, match="fitted on another catalogue"):
        Injection.over({"other": other}).fit(tiny_splits)
