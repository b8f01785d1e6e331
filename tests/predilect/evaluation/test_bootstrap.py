from __future__ import annotations

import numpy as np
import pytest
import torch

from predilect.evaluation import bootstrap, bootstrap_interval, paired_bootstrap

SIMULATIONS = 600


def clustered(rng: np.random.Generator, users: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Rows of unequally active users around true mean 0; a user's rows share most of their deviation."""
    groups = np.repeat(np.arange(users), rng.integers(2, 12, users))
    return rng.normal(size=users)[groups] + 0.5 * rng.normal(size=len(groups)), groups


def test_covers_the_truth_of_independent_rows() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(SIMULATIONS):
        interval = bootstrap_interval(rng.exponential(size=150), resamples=500, seed=seed)
        covered += interval.low <= 1.0 <= interval.high
    assert 0.92 <= covered / SIMULATIONS <= 0.98


def test_covers_the_truth_of_clustered_rows_only_with_groups() -> None:
    rng = np.random.default_rng(2)
    with_groups = without = 0
    for seed in range(SIMULATIONS):
        values, groups = clustered(rng)
        interval = bootstrap_interval(values, groups=groups, resamples=400, seed=seed)
        with_groups += interval.low <= 0.0 <= interval.high
        interval = bootstrap_interval(values, resamples=400, seed=seed)
        without += interval.low <= 0.0 <= interval.high
    assert 0.92 <= with_groups / SIMULATIONS <= 0.98
    assert without / SIMULATIONS < 0.75


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_other_levels_cover_as_often_as_they_say(level: float) -> None:
    rng = np.random.default_rng(3)
    intervals = [bootstrap_interval(rng.normal(size=100), level=level, resamples=400, seed=s) for s in range(400)]
    covered = sum(i.low <= 0.0 <= i.high for i in intervals) / 400
    assert covered == pytest.approx(level, abs=0.08)


def test_p_values_are_uniform_without_a_difference() -> None:
    rng = np.random.default_rng(4)
    p_values = []
    for seed in range(SIMULATIONS):
        values, groups = clustered(rng)
        p_values.append(
            paired_bootstrap(values, np.zeros_like(values), groups=groups, resamples=400, seed=seed).p_value
        )
    for share in (0.05, 0.1, 0.25, 0.5, 0.75, 0.9):
        assert np.mean(np.array(p_values) <= share) == pytest.approx(share, abs=0.06)


def test_pairing_finds_a_difference_that_separate_intervals_hide() -> None:
    rng = np.random.default_rng(5)
    b = rng.normal(size=200) * 5
    a = b + 0.2 + 0.3 * rng.normal(size=200)
    result = paired_bootstrap(a, b)
    assert result.low > 0
    assert result.p_value == pytest.approx(1 / 1001)  # never 0
    assert bootstrap_interval(a).low < bootstrap_interval(b).high


def test_a_pair_of_equals_is_not_different() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert paired_bootstrap(values, values) == (0.0, 0.0, 0.0, 1.0)


def test_swapping_a_and_b_turns_the_sign() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=80), rng.normal(size=80)
    forth, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert (back.difference, back.low, back.high) == pytest.approx((-forth.difference, -forth.high, -forth.low))
    assert back.p_value == forth.p_value


def test_two_rows_by_hand() -> None:
    # The three resamples of (0, 1) have the means 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    interval = bootstrap_interval([0.0, 1.0], resamples=4000)
    assert interval == (0.5, 0.0, 1.0)
    # d = (0, 1), mean 1/2: |m* - 1/2| >= 1/2 in the first and the last, half of all.
    assert paired_bootstrap([0.0, 1.0], [0.0, 0.0], resamples=4000).p_value == pytest.approx(0.5, abs=0.03)


def test_groups_of_one_row_equal_no_groups() -> None:
    values = np.random.default_rng(7).normal(size=40)
    assert bootstrap_interval(values, groups=np.arange(40) * 3) == bootstrap_interval(values)


def test_a_group_is_drawn_whole() -> None:
    # Within each user values cancel out, so every resample of whole users has the mean 0.
    values = np.tile([-1.0, 1.0], 30)
    interval = bootstrap_interval(values, groups=np.repeat(np.arange(30), 2))
    assert interval == pytest.approx((0, 0, 0), abs=1e-12)


def test_reproducible_and_independent_of_the_global_state() -> None:
    values = np.random.default_rng(8).normal(size=60)
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first = bootstrap_interval(values, seed=3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert bootstrap_interval(torch.from_numpy(values), seed=3) == first
    assert bootstrap_interval(values, seed=4) != first


def test_weights_are_made_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = np.bincount

    def recording(x: np.ndarray, weights: object = None, minlength: int = 0) -> np.ndarray:
        sizes.append(minlength)
        return original(x, weights, minlength)

    monkeypatch.setattr(bootstrap, "_CELLS", 1000)
    monkeypatch.setattr(np, "bincount", recording)
    interval = bootstrap_interval(np.random.default_rng(9).normal(size=90), resamples=300)
    assert max(sizes) <= 1000
    assert interval.low < interval.mean < interval.high


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"finite .got nan in row 1"):
        bootstrap_interval([0.0, float("nan")])
    with pytest.raises(ValueError, match="needs rows"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match=r"same rows .got 2 and 3"):
        paired_bootstrap([0.0, 1.0], [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="finite"):
        paired_bootstrap([0.0, 1.0], [0.0, float("inf")])
    with pytest.raises(ValueError, match="needs rows"):
        paired_bootstrap([], [])
    with pytest.raises(ValueError, match="one entry per row"):
        bootstrap_interval([0.0, 1.0], groups=np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="at least two groups"):
        bootstrap_interval([0.0, 1.0], groups=np.array([1, 1]))
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval([0.0, 1.0], level=95)
    with pytest.raises(ValueError, match="resamples"):
        bootstrap_interval([0.0, 1.0], resamples=0)
    with pytest.raises(ValueError, match="shape"):
        bootstrap_interval(np.zeros((2, 2)))
