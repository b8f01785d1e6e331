from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.mol_llm.test_alignment import TEXTS
from tests.mol_llm.test_moltc import MOLECULES, classes, make, values

from mol_llm import DESCRIPTION, INTERACTION, MolTC, PairData, PairRows
from mol_llm.pairs import read_reasoning, reasoned


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Five of the six molecules, one of them written otherwise."""
    smiles = ["OCC", *MOLECULES[1:5]]
    rows = [f"{n},{s},{t}" for n, (s, t) in enumerate(zip(smiles, TEXTS, strict=False))]
    file = tmp_path / "descriptions.csv"
    file.write_text("\n".join(["cid,smiles,description", *rows]) + "\n")
    return str(file)


def test_rows_describe_what_is_known_and_then_answer(language_models: dict[str, str], table: str) -> None:
    method = make(language_models["llama"], descriptions=table, description_words=2, epochs=1e-9).fit(classes())
    pairs = PairRows(["CCO", "CCCC", "CCCC"], ["c1ccccc1", "O", "CCCC"], [0, 1, 0])
    method.config.epochs = 3.0
    rows = {row["pair"]: row for row in method._training_rows(PairData(INTERACTION, pairs))}
    decoded = {pair: method.model.tokenizer.decode(row["answer_ids"]) for pair, row in rows.items()}
    no, yes = INTERACTION.answers
    assert decoded == {
        ("CCO", "c1ccccc1"): f" First: an alcohol Second: an aromatic Answer: {no}</s>",
        ("CCCC", "O"): f" Second: water Answer: {yes}</s>",
        ("CCCC", "CCCC"): f" Answer: {no}</s>",
    }
    method.config.descriptions = None  # the ablation: the same rows without
    plain = method._training_rows(PairData(INTERACTION, pairs))
    assert {method.model.tokenizer.decode(row["answer_ids"]) for row in plain} == {f" {no}</s>", f" {yes}</s>"}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("First: a b Second: c Answer: Yes.", "First: a b Second: c Answer:"),
        ("Answer: Yes. Answer: No.", "Answer:"),
        ("First: a a a", "First: a a a Answer:"),
        ("", "Answer:"),
    ],
)
def test_what_was_written_is_read_up_to_the_answer(written: str, read: str) -> None:
    assert read_reasoning(written) == read


def test_a_description_cannot_hold_the_mark_of_the_answer() -> None:
    assert reasoned("The Answer: is no", "x", words=9).count("Answer:") == 1


@pytest.mark.parametrize("kind", [classes, values])
@pytest.mark.parametrize("interval", [True, False])
def test_predictions_with_and_without(
    language_models: dict[str, str], table: str, tmp_path: Path, kind: Any, interval: bool
) -> None:
    options: dict[str, Any] = {"description_words": 2, "chain_of_thought": interval}
    method = make(language_models["llama"], descriptions=table, **options).fit(kind())
    before = method.predict(MOLECULES[:2], MOLECULES[2:4])
    assert np.isfinite(before).all()
    assert all(text.endswith("Answer:") for text in method.reasoning(MOLECULES[:2], MOLECULES[2:4]))
    method.save_pretrained(tmp_path / "kept")
    Path(table).unlink()  # it is read in training only
    assert np.array_equal(MolTC.from_pretrained(tmp_path / "kept").predict(MOLECULES[:2], MOLECULES[2:4]), before)


def test_what_cannot_be_said_is_refused(language_models: dict[str, str], table: str) -> None:
    model = language_models["llama"]
    with pytest.raises(FileNotFoundError, match=r"there is no file none\.csv of descriptions"):
        make(model, descriptions="none.csv").require_ready()
    with pytest.raises(ValueError, match="describes none of the training pairs' molecules"):
        make(model, descriptions=table).fit(PairData(INTERACTION, PairRows(["CCCC"], ["CCCC"], [0])))
    with pytest.raises(ValueError, match="leave descriptions out"):
        make(model, descriptions=table).fit(PairData(DESCRIPTION, PairRows(["C"], ["O"], ["text"])))
    with pytest.raises(ValueError, match="fitted without descriptions"):
        make(model).reasoning(["C"], ["O"])
