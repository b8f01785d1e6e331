from __future__ import annotations

import numpy as np
import pytest

from mol_llm.molecules import canonical_smiles
from mol_llm.pair_splits import leak_report, split_pairs
from mol_llm.pairs import PairRows

DRUGS = ["C" * n + end for n in range(1, 11) for end in ("O", "N", "c1ccccc1")]


def rows(seed: int = 0, count: int = 600) -> PairRows:
    generator = np.random.default_rng(seed)
    first, second = generator.integers(len(DRUGS), size=(2, count))
    return PairRows([DRUGS[n] for n in first], [DRUGS[n] for n in second], list(range(count)))


@pytest.mark.parametrize("by", ["random", "pair", "first", "second", "scaffold"])
def test_each_row_is_in_one_part(by: str) -> None:
    parts = split_pairs(rows(), by, fractions=(0.6, 0.2, 0.2), seed=3)  # type: ignore[arg-type]
    held = [*parts.train.targets, *parts.validation.targets, *parts.test.targets]
    assert sorted(held) == list(range(600))
    assert parts.left_out == 0


def test_parts_share_nothing_of_what_they_are_split_by() -> None:
    assert leak_report(*_train_and_test("random"))["pair"] > 0
    assert leak_report(*_train_and_test("pair"))["pair"] == 0
    assert leak_report(*_train_and_test("first"))["first"] == 0
    assert leak_report(*_train_and_test("second"))["second"] == 0
    assert leak_report(*_train_and_test("cold-both"))["either"] == 0
    one = leak_report(*_train_and_test("cold-one"))
    assert one["both"] == 0
    assert one["either"] == 1


def _train_and_test(by: str) -> tuple[PairRows, PairRows]:
    parts = split_pairs(rows(), by, fractions=(0.6, 0.2, 0.2))  # type: ignore[arg-type]
    assert len(parts.train) + len(parts.validation) + len(parts.test) + parts.left_out == 600
    return parts.train, parts.test


def test_scaffolds_stay_together_and_chains_are_their_own() -> None:
    parts = split_pairs(rows(), "scaffold", fractions=(0.5, 0.0, 0.5))
    homes = [{bool("c1" in a) for a in part.first} for part in (parts.train, parts.validation, parts.test)]
    assert sum(True in home for home in homes) == 1  # benzene is the scaffold of every ring here
    assert leak_report(parts.train, parts.test)["first"] == 0


def test_the_same_molecule_in_other_letters_does_not_leak() -> None:
    data = PairRows(["CCO", "OCC"] * 5 + ["C"] * 10, ["O"] * 10 + [f"{'C' * n}N" for n in range(1, 11)], [0.0] * 20)
    parts = split_pairs(data, "pair", fractions=(0.5, 0.0, 0.5))
    homes = [any(canonical_smiles(a) == "CCO" for a in part.first) for part in (parts.train, parts.test)]
    assert sum(homes) == 1


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does() -> None:
    data = rows()
    backwards = PairRows(data.first[::-1], data.second[::-1], data.targets[::-1])
    test = sorted(split_pairs(data, "pair").test.targets)
    assert test == sorted(split_pairs(backwards, "pair").test.targets)
    assert test != sorted(split_pairs(data, "pair", seed=1).test.targets)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="by must be one of"):
        split_pairs(rows(), "drug")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sum 1"):
        split_pairs(rows(), "pair", fractions=(0.5, 0.1, 0.1))
    with pytest.raises(ValueError, match="validation part by 'second' has no rows"):
        split_pairs(PairRows(["C", "CC"], ["O", "O"], [0, 0]), "second")
