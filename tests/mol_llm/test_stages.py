"""Graphs and descriptions, pairs and descriptions, the task: each stage from the folder of the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.mol_llm.test_alignment import SMILES, TEXTS, align, data
from tests.mol_llm.test_moltc import _Killed, classes, make

from mol_llm import DESCRIPTION, DescriptionRows, MolTC, PairData, describe_pairs
from mol_llm.command import PairOptions

STILL: dict[str, Any] = {"learning_rate": 1e-12, "weight_decay": 0.0}


def described() -> PairData:
    return PairData(DESCRIPTION, describe_pairs(DescriptionRows(SMILES, TEXTS), 20))


def test_three_stages_each_from_the_one_before(language_models: dict[str, str], tmp_path: Path) -> None:
    model = language_models["llama"]
    align().fit(data()).save_pretrained(tmp_path / "a")
    options = {"start": str(tmp_path / "a"), "tuning": "frozen", "save_steps": 2}
    pairs = make(model, **options, epochs=1.0).fit(described())
    killed = make(model, **options, epochs=1.0)
    killed.callbacks = [_Killed()]
    with pytest.raises(KeyboardInterrupt):
        killed.fit(described(), output_dir=tmp_path / "fit")
    resumed = make(model, **options, epochs=1.0).fit(described(), output_dir=tmp_path / "fit", resume=True)
    for name, value in pairs.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    pairs.save_pretrained(tmp_path / "b")
    assert isinstance(MolTC.from_pretrained(tmp_path / "b").predict("CCO", "O"), str)
    task = make(model, start=str(tmp_path / "b")).fit(classes())
    task.save_pretrained(tmp_path / "c")
    again = make(model, start=str(tmp_path / "c"), **STILL).fit(classes())
    for name, value in again.model.state_dict().items():  # the adapter too goes on
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(value, task.model.state_dict()[name], msg=name)
    for changed, words in (
        ({"tuning": "frozen"}, "tuning is lora there and frozen here"),
        ({"lora_rank": 4}, "lora_rank is 8 there and 4 here"),
    ):
        with pytest.raises(ValueError, match=words):
            make(model, start=str(tmp_path / "c"), **changed).require_ready()
    with pytest.raises(ValueError, match=r"start=.* does not fit: the base model has another shape"):
        make(language_models["opt"], start=str(tmp_path / "b")).fit(classes())


def test_pairs_of_descriptions_are_of_two_molecules_and_cut() -> None:
    rows = describe_pairs(DescriptionRows(SMILES, TEXTS), 200, words=1)
    assert len(rows) == 200
    for (a, b), target in zip(rows.pairs, rows.targets, strict=True):
        assert a != b
        texts = [TEXTS[SMILES.index(smiles)].split()[0] for smiles in (a, b)]
        assert target == f"First: {texts[0]} Second: {texts[1]}"
    assert describe_pairs(DescriptionRows(SMILES, TEXTS), 200, words=1).pairs == rows.pairs
    with pytest.raises(ValueError, match="two molecules or more"):
        describe_pairs(DescriptionRows(["C"], ["x"]), 1)


def test_parts_of_drawn_pairs_share_no_molecule(tmp_path: Path) -> None:
    file = tmp_path / "chebi.csv"
    lines = [f"{n},{s},{t}" for n, (s, t) in enumerate(zip(SMILES, TEXTS, strict=True))]
    file.write_text("\n".join(["cid,smiles,description", *lines]) + "\n")
    options: dict[str, Any] = {"data": file, "task": "description", "layout": "chebi20", "ratios": (0.4, 0.3, 0.3)}
    read = PairOptions(**options, drawn=50).read()
    parts = [{s for pair in read.part(name).pairs for s in pair} for name in ("train", "validation", "test")]
    assert [len(read.part(name)) for name in ("train", "validation", "test")] == [20, 15, 15]
    assert sum(map(len, parts)) == len(set().union(*parts))
    with pytest.raises(ValueError, match="drawn is of the layout chebi20"):
        PairOptions(data=file, drawn=5)
    with pytest.raises(ValueError, match="got --split cold-one"):
        PairOptions(**options, split="cold-one")
