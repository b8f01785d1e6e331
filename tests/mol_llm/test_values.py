from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.mol_llm.test_moltc import MOLECULES, A, B, classes, make, values

from mol_llm import SOLVATION, MolTC, PairRows, value_of
from mol_llm.command import PairOptions
from mol_llm.evaluation import evaluate_pairs


@dataclass(kw_only=True)
class Options(PairOptions):
    """As the command has them."""

    test_rows: int | None = None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("at least -2.5 and below -2, so the value is -2.5.", -2.5),
        ("at least -2.5 and below -2, so the value is", math.nan),
        ("at least -2.5 and below -2, so", math.nan),
        ("The value is \u22123.", -3),
        ("value = +4 kcal/mol, or 5", 4),
        ("-7.", -7),
        ("3-5", 5),
        ("-.5", -0.5),
        ("about 1,234.5", 1234.5),
        ("1,234,567", 1234567),
        ("2,5", 2.5),
        ("1e-2", 0.01),
        ("1e999", math.nan),
        ("1.2.3", math.nan),
        ("none", math.nan),
        ("", math.nan),
    ],
)
def test_a_written_value_is_read_or_missing(text: str, value: float) -> None:
    assert value_of(text) == pytest.approx(value, nan_ok=True)


@given(st.text(max_size=40))
def test_no_text_stops_the_reading(text: str) -> None:
    value_of(text)


@given(st.floats(-50, 50), st.booleans())
def test_what_a_task_writes_is_read_back(target: float, chain_of_thought: bool) -> None:
    assert abs(value_of(SOLVATION.answer(target, chain_of_thought=chain_of_thought)) - target) <= 0.05 + 1e-9


def test_missing_values_are_counted_and_imputed() -> None:
    rows = PairRows(["C", "O", "CC", "N"], ["O"] * 4, [1.0, 2.0, 3.0, 5.0])
    found = evaluate_pairs(SOLVATION, rows, [1.5, math.nan, 3.0, math.nan], bootstrap=50, fallback=2.0).results
    assert (found["coverage"], found["mae"], found["mae_imputed"]) == (0.5, 0.25, 0.875)
    assert found["mae_low"] <= 0.25 <= found["mae_high"]
    none = evaluate_pairs(SOLVATION, rows, [math.nan] * 4, bootstrap=50, fallback=2.0).results
    assert none["coverage"] == 0
    assert math.isnan(none["mae"])
    assert math.isnan(none["mae_low"])
    assert none["mae_imputed_low"] <= none["mae_imputed"] <= none["mae_imputed_high"]


def test_intervals_are_quantiles_of_the_scored_values(language_models: dict[str, str]) -> None:
    method = make(language_models["llama"], epochs=1).fit(values())
    p = np.zeros((3, len(method.values)))
    p[0, 3] = 1
    p[1, [0, 10, -1]] = [0.04, 0.92, 0.04]
    p[2, [0, 1, 2, 3]] = [0.05, 0.45, 0.45, 0.05]
    ends = method._interval(p, 0.9)
    np.testing.assert_allclose(ends, method.values[[[3, 3], [10, 10], [0, 2]]])
    found = method.interval(A[:3], B[:3])
    assert found.shape == (3, 2)
    assert (found[:, 0] <= found[:, 1]).all()
    assert (method.interval(A[:3], B[:3], level=0.99)[:, 0] <= found[:, 0]).all()
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\) \(got 1\)"):
        method.interval("C", "O", level=1)
    with pytest.raises(ValueError, match="an interval is of a task of values, and 'interaction' is of the kind class"):
        make(language_models["llama"], epochs=0.1).fit(classes()).interval("C", "O")


def test_written_values_are_measured_beside_the_expected_ones(language_models: dict[str, str], tmp_path: Path) -> None:
    data = values()
    data.test = PairRows(A[:8], B[:8], data.train.targets[:8])
    method = make(language_models["llama"], epochs=1, generated=True).fit(data)
    method._texts = lambda pairs, max_new_tokens: ["the value is -1."] * (len(pairs) - 1) + ["none"]  # type: ignore[method-assign]
    found = method.measure(data, "test", Options(bootstrap=20))
    assert {*found} == {"", "text"}
    assert found["text"].results["coverage"] == 7 / 8
    assert found["text"].results["mae"] == pytest.approx(np.abs(-1 - np.asarray(data.test.targets[:7])).mean())
    assert 0 <= found[""].results["interval_coverage"] <= 1
    expected = method.predict(A[:8], B[:8])
    assert found[""].results["mae"] == pytest.approx(np.abs(expected - data.test.targets).mean())
    method.save_pretrained(tmp_path)
    assert MolTC.from_pretrained(tmp_path)._mean == method._mean == pytest.approx(np.mean(data.train.targets))


def test_a_model_that_learned_one_text_writes_it_whole(language_models: dict[str, str]) -> None:
    data = values()
    data.train = PairRows(A, B, [-2.5] * len(A))
    options = {"tuning": "full", "epochs": 8, "learning_rate": 1e-2, "reads": "graph", "chain_of_thought": False}
    found, texts = make(language_models["llama"], **options).fit(data).written_values(MOLECULES, MOLECULES)
    assert set(texts) == {"-2.5."}
    assert (found == -2.5).all()
