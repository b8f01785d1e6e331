from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score
from typer.testing import CliRunner

from mol_llm import PairRows, PairTask, published
from mol_llm.command import PairOptions
from mol_llm.evaluation import evaluate_pairs
from predilect.cli import app

MOLECULES = ["CCO", "O", "CCN", "CC(=O)O", "CCCC", "CCl"]
SENTENCES = ["#Drug1 may increase the effect of #Drug2.", "#Drug1 may lower the effect of #Drug2.", "None, or other."]


def drugbank(folder: Path) -> Path:
    """The layout of MolTC's data/ddi_data, by place."""
    (folder / "DDI_data").mkdir()
    types = [f'{n},"{text}",x,DDI type {n + 1}' for n, text in enumerate(SENTENCES)]
    (folder / "Interaction_information.csv").write_text("\n".join(["a,b,c,d", *types]) + "\n")
    pairs = [(a, b) for a in MOLECULES for b in MOLECULES]
    rows = [f"{n},d1,d2,t,{('N' in a) + ('N' in b)},x,{a},{b}" for n, (a, b) in enumerate(pairs)]
    for part, own in (("training", rows[:24]), ("validation", rows[24:30]), ("test", [*rows[30:], rows[0]])):
        (folder / "DDI_data" / f"ddi_{part}.csv").write_text("\n".join(["i,a,b,c,y,e,f,g", *own]) + "\n")
    return folder


def test_miracles_other_sets_are_read_whatever_the_order_of_their_columns(tmp_path: Path) -> None:
    head = "drugbank_id_1,drugbank_id_2,smiles_2,smiles_1,cid_1,cid_2,label\n"  # ZhangDDI's own
    for part, row in (("train", "CCO,CN,C1,C2,0"), ("valid", "CN,CCO,C2,C1,1"), ("test", "CC,CCO,C3,C2,0")):
        for name in ("ZhangDDI", "DeepDDI"):
            (tmp_path / f"{name}_{part}.csv").write_text(f"{head}DB1,DB2,{row}\n")
    for layout in ("zhangddi", "deepddi"):
        read = getattr(published, f"read_{layout}")(tmp_path)
        assert dict(zip(read.rows.pairs, read.rows.targets, strict=True)) == {("CCO", "CN"): 1, ("CC", "CCO"): 0}
        assert (
            PairOptions(data=tmp_path, layout=layout, task="interaction", ratios=(1, 0, 0)).read().task.kind == "class"
        )
    (tmp_path / "DeepDDI_valid.csv").write_text("smiles_1,label\nC,0\n")
    with pytest.raises(ValueError, match=r"DeepDDI_valid\.csv has no column 'smiles_2'; it has smiles_1, label"):
        published.read_deepddi(tmp_path)


def test_drugbanks_types_are_classes_with_their_sentences(tmp_path: Path) -> None:
    task, read = published.read_drugbank(drugbank(tmp_path))
    assert (task.name, task.answers) == ("interaction-type", tuple(SENTENCES))
    assert len(read.rows) == 36  # the repeated row once
    assert dict(zip(read.rows.pairs, read.rows.targets, strict=True))["CCN", "O"] == 1
    (tmp_path / "Interaction_information.csv").write_text("a,b,c,d\n0,A.,x,DDI type 1\n1,B.,x,DDI type 3\n")
    with pytest.raises(ValueError, match="has no 'DDI type 2'"):
        published.read_drugbank(tmp_path)
    (tmp_path / "Interaction_information.csv").write_text("a,b,c,d\n0,A.,x,DDI type 1\n1,A.,x,DDI type 2\n")
    with pytest.raises(ValueError, match=r"two types have the sentence 'A\.'"):
        published.read_drugbank(tmp_path)
    (tmp_path / "Interaction_information.csv").write_text("a,b\n0,A.\n")
    with pytest.raises(ValueError, match=r"row 0: 4 columns are needed \(got 2\)"):
        published.read_drugbank(tmp_path)


def test_the_command_trains_on_types_and_measures_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    options = ["--data", drugbank(tmp_path / "data"), "--layout", "drugbank", "--task", "interaction-type"]
    more = ["--split", "random", "--bootstrap", 20, "--output-dir", tmp_path / "run"]
    result = CliRunner().invoke(app, [*map(str, ["train", "pair-mean", *options, *more])])
    assert result.exit_code == 0, result.output
    kept = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())["results"]
    assert {"accuracy", "accuracy_low", "f1_macro", "kappa", "brier"} <= kept.keys()


def test_one_side_effect_of_twosides_is_a_question(tmp_path: Path) -> None:
    path = tmp_path / "twosides_full_train.csv"
    path.write_text("a,b,c,d\nCCO,O,1,nausea\nCCO,CCN,-1,nausea\nO,CCN,1,fever\nC,O,1,nausea\nC,CC,x,nausea\n")
    task, read = published.read_twosides(path, "nausea")
    assert task.question == "Do the two drugs together cause nausea?"
    assert (read.rows.pairs, read.rows.targets) == ([("CCO", "O"), ("CCO", "CCN"), ("C", "O")], [1, 0, 1])
    assert [remark.row for remark in read.remarks if not remark.kept] == [4 - 1]  # of the effect's own rows
    with pytest.raises(ValueError, match=r"which side effect.* there are 2, the most frequent are nausea, fever"):
        published.read_twosides(path, None)
    with pytest.raises(ValueError, match="has no side effect 'cold'"):
        PairOptions(data=path, layout="twosides", task="interaction", side_effect="cold").read()
    with pytest.raises(ValueError, match="side_effect is of the layout twosides"):
        PairOptions(data=path, side_effect="nausea")


@pytest.mark.parametrize("layout", ["compsol", "abraham", "combisolv-qm"])
def test_solvation_tables_are_read_by_the_names_of_their_columns(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text("solvent_inchi\tSolvent SMILES\tdGsolv (kcal/mol)\tSolute SMILES\nx\tO\t-5.01\tCCO\n")
    read = getattr(published, f"read_{layout.replace('-', '_')}")(path)
    assert (read.rows.pairs, read.rows.targets) == ([("CCO", "O")], [-5.01])
    assert len(PairOptions(data=path, layout=layout, ratios=(1, 0, 0)).read().train) == 1  # type: ignore[arg-type]
    path.write_text("a,b,c\nC,O,1\n")
    with pytest.raises(ValueError, match=r"has no columns of solute SMILES, .* it has a, b, c: name them with"):
        getattr(published, f"read_{layout.replace('-', '_')}")(path)


def test_moltcs_solvation_files_are_read_by_place(tmp_path: Path) -> None:
    path = tmp_path / "CompSol.csv"
    path.write_text("a,b,c,d,e\nCCO,O,x,y,-5.0\nethanol,O,x,y,-5.0\nCC,O,x,y\n")
    for read in (published.read_compsol(path), published.read_abraham(path)):
        assert (read.rows.pairs, read.rows.targets) == ([("CCO", "O")], [-5.0])
        assert [remark.row for remark in read.remarks if not remark.kept] == [1, 2]
    with pytest.raises(ValueError, match="no columns of solute SMILES"):
        published.read_combisolv_qm(path)


def test_chromophores_have_three_tasks(tmp_path: Path) -> None:
    path = tmp_path / "DB for chromophore.csv"
    head = "Tag,Chromophore,Solvent,Absorption max (nm),Emission max (nm),Lifetime (ns),Quantum yield"
    path.write_text(f"{head}\n1,c1ccccc1,O,255,NaN,2,0.1\n2,CCO,gas,300,,,\n3,C=C,CCO,,410.5,-1,\n")
    absorption = published.read_chromophore(path, "absorption")
    assert (absorption.rows.pairs, absorption.rows.targets) == ([("c1ccccc1", "O")], [255.0])
    assert "'gas'" in str(absorption.remarks[-1])
    assert published.read_chromophore(path, "emission").rows.targets == [410.5]
    lifetime = published.read_chromophore(path, "lifetime")
    assert lifetime.rows.targets == [pytest.approx(math.log(2))]
    assert "-1 ns, whose logarithm cannot be had," in str(lifetime.remarks[-1])
    data = PairOptions(data=path, layout="chromophore", task="absorption", policy="skip", ratios=(1, 0, 0)).read()
    assert data.task.answer(255, chain_of_thought=True) == "at least 250 and below 260, so the value is 255."
    with pytest.raises(ValueError, match="of the task absorption or emission or lifetime"):
        PairOptions(data=path, layout="chromophore")
    with pytest.raises(ValueError, match="one of absorption, emission, lifetime"):
        published.read_chromophore(path, "colour")
    path.write_text("Chromophore,Solvent\nC,O\n")
    with pytest.raises(ValueError, match=r"has no column 'Lifetime \(ns\)'; it has Chromophore, Solvent"):
        published.read_chromophore(path, "lifetime")


def test_more_classes_are_measured_as_by_hand() -> None:
    task = PairTask("levels", "Which?", "class", ("a", "b", "c"))
    rows = PairRows(["C", "O", "N", "CC"], ["O", "N", "C", "CC"], [0, 1, 2, 2])
    p = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.6, 0.2, 0.2], [0.0, 0.0, 1.0]])
    found = evaluate_pairs(task, rows, p, bootstrap=50).results
    assert found["accuracy"] == 0.75
    assert found["brier"] == pytest.approx((0.06 + 0.38 + (0.36 + 0.04 + 0.64) + 0) / 4)
    assert (
        found["f1_macro"]
        == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)
        == f1_score([0, 1, 2, 2], [0, 1, 0, 2], average="macro")
    )
    assert (
        found["kappa"]
        == pytest.approx((0.75 - 5 / 16) / (1 - 5 / 16))
        == cohen_kappa_score([0, 1, 2, 2], [0, 1, 0, 2])
    )
    assert found["accuracy_low"] <= 0.75 <= found["accuracy_high"]
    with pytest.raises(ValueError, match=r"probabilities must be 4 x 3 \(got \(4, 2\)\)"):
        evaluate_pairs(task, rows, p[:, :2])
