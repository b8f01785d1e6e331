from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.mol_llm.conftest import SMALL
from tests.mol_llm.test_moltc import classes, make
from transformers import TrainerCallback

from mol_llm import (
    DescriptionData,
    DescriptionRows,
    MoleculeAlignment,
    PairMean,
    evaluate_retrieval,
    molecule_graph,
    read_chebi20,
    side_by_side,
    split_descriptions,
)
from mol_llm.alignment_model import IGNORE
from mol_llm.molecules import BadMolecule, SmilesReader
from predilect.cli import app

SMILES = ["CCO", "O", "c1ccccc1", "CC(=O)O", "CCN", "CCCC", "CCCl", "C=O", "CS", "C#N"]
TEXTS = [
    "an alcohol", "water", "an aromatic ring", "an acid", "an amine", "an alkane", "a chloride", "an aldehyde",
    "a thiol", "a cyanide",
]  # fmt: skip
OPTIONS: dict[str, Any] = {
    **{name: value for name, value in SMALL.items() if name not in ("smiles_tokens", "dtype")},
    "vocabulary": 300, "text_tokens": 12, "width": 16,
}  # fmt: skip


def data() -> DescriptionData:
    return DescriptionData(DescriptionRows(SMILES, TEXTS))


def align(**options: Any) -> MoleculeAlignment:
    return MoleculeAlignment(**{**OPTIONS, "epochs": 1.0, **options})


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aligned")
    align().fit(data()).save_pretrained(folder)
    return folder


def test_each_graph_finds_its_text_after_training() -> None:
    method = align(epochs=60.0, learning_rate=5e-3, batch_size=10, query_width=32).fit(data())
    found = evaluate_retrieval(method.similarity(SMILES, TEXTS), SMILES, TEXTS, bootstrap=50).results
    assert found["text_by_graph_hit@1"] >= 0.7
    assert found["graph_by_text_mrr"] >= 0.8
    assert found["chance_text_by_graph_hit@1"] == pytest.approx(0.1)
    assert method.caption_loss(SMILES, TEXTS) < 0.7 * align().fit(data()).caption_loss(SMILES, TEXTS)


@pytest.mark.parametrize("part", ["contrast", "matching", "captioning"])
def test_each_loss_is_an_option_and_trains_by_itself(part: str) -> None:
    others = dict.fromkeys({"contrast", "matching", "captioning"} - {part}, 0.0)
    before, after = (align(**others, epochs=epochs).fit(data()).model for epochs in (1e-9, 4.0))
    assert not torch.equal(*(model.state_dict()["encoder.layers.0.nn.0.weight"] for model in (before, after)))
    with pytest.raises(ValueError, match="nothing would be trained"):
        align(contrast=0.0, matching=0.0, captioning=0.0)


def _inputs(method: MoleculeAlignment) -> tuple[Any, Any, Any, Any]:
    model = method.model
    states, there = model.atoms(side_by_side([molecule_graph(s) for s in SMILES[:2]]), 2)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 200, (2, 6), generator=generator)
    ids[:, 0] = 1
    return states, there, ids, torch.ones_like(ids)


def test_a_token_is_written_from_those_before_it_and_the_graph_only(aligned: Path) -> None:
    method = MoleculeAlignment.from_pretrained(aligned)
    states, there, ids, mask = _inputs(method)
    labels = torch.cat([ids[:, 1:], ids.new_full((2, 1), 3)], dim=1)
    with torch.no_grad():
        before = method.model.caption_losses(states, there, ids, mask, labels)
        changed = ids.clone()
        changed[:, 4] = 77
        after = method.model.caption_losses(states, there, changed, mask, labels)
        other = method.model.caption_losses(states.flip(0), there.flip(0), ids, mask, labels)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])
    assert not torch.equal(before, other)


def test_padding_changes_nothing(aligned: Path) -> None:
    method = MoleculeAlignment.from_pretrained(aligned)
    model = method.model
    states, there, ids, mask = _inputs(method)
    wide, wide_mask = (torch.nn.functional.pad(x, (0, 3)) for x in (ids, mask))
    labels = torch.cat([ids[:, 1:], ids.new_full((2, 1), 3)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(model.text_vectors(ids, mask), model.text_vectors(wide, wide_mask))
        torch.testing.assert_close(
            model.match_logits(states, there, ids, mask), model.match_logits(states, there, wide, wide_mask)
        )
        own = model.caption_losses(states, there, ids, mask, labels)
        padded = model.caption_losses(
            states, there, wide, wide_mask, torch.nn.functional.pad(labels, (0, 3), value=IGNORE)
        )
    torch.testing.assert_close(own, padded[:, :6])
    assert not padded[:, 6:].any()


def test_equal_rows_are_no_negatives() -> None:
    """A batch of one molecule four times has nothing to tell apart: contrast and matching learn nothing wrong."""
    rows = DescriptionRows(["CCO", "OCC", "CCO", "CCO"], ["an alcohol"] * 4)
    model = align().fit(DescriptionData(rows)).model
    graphs = side_by_side([molecule_graph("CCO")] * 4)
    ids, mask = torch.ones(4, 2, dtype=torch.long), torch.ones(4, 2, dtype=torch.long)
    found = model(graphs, ids, mask, ids, torch.ones(4, 4, dtype=torch.bool))
    assert found["contrast"].item() == 0
    assert torch.isfinite(found["loss"])


class _Killed(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 5:
            raise KeyboardInterrupt


def test_a_killed_alignment_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    options = {"save_steps": 2, "dropout": 0.1, "epochs": 3.0}
    whole = align(**options).fit(data())
    killed = align(**options)
    killed.callbacks = [_Killed()]
    with pytest.raises(KeyboardInterrupt):
        killed.fit(data(), output_dir=tmp_path)
    resumed = align(**options).fit(data(), output_dir=tmp_path, resume=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_the_folder_restores_exactly_and_broken_ones_are_refused(aligned: Path, tmp_path: Path) -> None:
    method = MoleculeAlignment.from_pretrained(aligned)
    method.save_pretrained(tmp_path)
    again = MoleculeAlignment.from_pretrained(tmp_path)
    assert np.array_equal(again.similarity(SMILES, TEXTS), method.similarity(SMILES, TEXTS))
    weights, tokenizer, about = (
        tmp_path / name for name in ("model/model.safetensors", "model/tokenizer.json", "method.json")
    )
    kept = weights.read_bytes()
    weights.write_bytes(kept[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        MoleculeAlignment.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        MoleculeAlignment.from_pretrained(tmp_path)
    weights.write_bytes(kept)
    options = json.loads(about.read_text())
    options["config"]["query_width"] = 8
    about.write_text(json.dumps(options))
    with pytest.raises(ValueError, match="does not fit the options it was saved with"):
        MoleculeAlignment.from_pretrained(tmp_path)
    tokenizer.write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json is damaged"):
        MoleculeAlignment.from_pretrained(tmp_path)
    tokenizer.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model/tokenizer\.json"):
        MoleculeAlignment.from_pretrained(tmp_path)


@pytest.mark.parametrize("sharing", ["tied", "untied", "soft"])
def test_moltc_starts_from_an_alignment(language_models: dict[str, str], aligned: Path, sharing: Any) -> None:
    options = {"start": str(aligned), "sharing": sharing, "learning_rate": 1e-12, "weight_decay": 0.0}
    method = make(language_models["llama"], **options).fit(classes())
    there = MoleculeAlignment.from_pretrained(aligned).model.state_dict()
    compared = 0
    for name, value in method.model.projectors["molecule"].state_dict().items():
        inner = name.split(".", 2)[-1]
        if name.startswith("branches.") and inner in there and "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(value, there[inner], msg=name)
            compared += 1
    assert compared > 30


def test_a_start_that_does_not_fit_is_refused(language_models: dict[str, str], aligned: Path, tmp_path: Path) -> None:
    model = language_models["llama"]
    for options, words in (
        ({"graph_width": 8}, "does not fit: graph_width is 16 there and 8 here"),
        ({"query_heads": 4}, "query_heads is 2 there and 4 here"),
        ({"queries": 3}, "queries is 2 there and 3 here"),
    ):
        method = make(model, start=str(aligned), **options)
        with pytest.raises(ValueError, match=words):
            method.require_ready()
        with pytest.raises(ValueError, match=words):
            method.fit(classes())
    PairMean().fit(classes()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds 'pair-mean': a stage starts from moltc or molecule-alignment"):
        make(model, start=str(tmp_path)).require_ready()
    (tmp_path / "method.json").write_text((aligned / "method.json").read_text())
    with pytest.raises(FileNotFoundError, match=r"cannot be started from: .*model has no model\.safetensors"):
        make(model, start=str(tmp_path)).fit(classes())


def test_ranks_and_chance_by_hand() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    found = evaluate_retrieval(scores, ["C", "CC", "CCC"], ["a", "b", "c"], bootstrap=0)
    assert found.rows["rank_of_text"] == [1, 2, 3]  # ties count against
    assert found.rows["rank_of_graph"] == [2, 2, 3]
    assert found.results["text_by_graph_mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert found.results["chance_text_by_graph_mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert found.results["chance_text_by_graph_hit@1"] == pytest.approx(1 / 3)
    twice = evaluate_retrieval(scores, ["C", "CC", "CCC"], ["a", "a", "c"], bootstrap=0)
    assert twice.rows["rank_of_text"] == [1, 1, 3]
    assert twice.results["chance_text_by_graph_hit@1"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)
    with pytest.raises(ValueError, match="n x n"):
        evaluate_retrieval(scores[:2], ["C", "CC", "CCC"], ["a", "b", "c"])


def test_chebi20_is_read_in_both_layouts(tmp_path: Path) -> None:
    path = tmp_path / "test.txt"
    path.write_text('CID\tSMILES\tdescription\n1\tF/C=C\\\\F\tIt is "cis", a fluoride.\n2\tname\tx\n3\tCC\t \n')
    read = read_chebi20(path)
    assert (read.rows.smiles, read.rows.texts) == (["F/C=C\\F"], ['It is "cis", a fluoride.'])
    assert [remark.row for remark in read.remarks] == [1, 2]
    with pytest.raises(BadMolecule, match=r"test\.txt: row 1: 'name' is not a SMILES"):
        read_chebi20(path, reader=SmilesReader())
    path.write_text('cid,smiles,description\n1,F/C=C\\F,"one, two"\n')
    assert read_chebi20(path).rows == DescriptionRows(["F/C=C\\F"], ["one, two"])
    path.write_text("cid,smiles\n1,C\n")
    with pytest.raises(ValueError, match="has no column 'description'; it has cid, smiles"):
        read_chebi20(path)


def test_parts_share_no_molecule() -> None:
    rows = DescriptionRows([*SMILES, "OCC", "CCO"], [*TEXTS, "ethanol", "spirit"])
    train, validation, test = split_descriptions(rows, fractions=(0.5, 0.25, 0.25))
    assert sorted([*train.texts, *validation.texts, *test.texts]) == sorted(rows.texts)
    homes = [{"CCO", "OCC"} & set(part.smiles) for part in (train, validation, test)]
    assert sum(map(bool, homes)) == 1


def test_the_command_trains_keeps_and_measures(run_command: Any, tmp_path: Path) -> None:
    file = tmp_path / "chebi.csv"
    lines = [f"{n},{s},{t}" for n, (s, t) in enumerate(zip(SMILES, TEXTS, strict=True))]
    file.write_text("\n".join(["cid,smiles,description", *lines]) + "\n")
    flags = [text for name, value in OPTIONS.items() for text in ("--set", f"{name}={value}")]
    command = ["train", "molecule-alignment", "--data", file, "--ratios", "0.6,0.1,0.3", "--quick", *flags]
    result = run_command(app, *command, "--output-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    kept = json.loads((tmp_path / "run/evaluation/evaluation.json").read_text())["results"]
    assert kept["rows"] == 3
    assert kept["chance_graph_by_text_hit@1"] == pytest.approx(1 / 3)
    assert kept["text_by_graph_mrr_low"] <= kept["text_by_graph_mrr"]
    refused = run_command(app, "train", "molecule-alignment", "--data", tmp_path / "none.csv")
    assert refused.exit_code == 2
    assert "there is no file" in refused.output


def test_rows_that_cannot_be_learned_from_are_refused() -> None:
    with pytest.raises(ValueError, match="row 1: 'water' is not a SMILES"):
        align().fit(DescriptionData(DescriptionRows(["O", "water"], ["a", "b"])))
    with pytest.raises(ValueError, match="row 1: the text ' ' is blank"):
        align().fit(DescriptionData(DescriptionRows(["O", "C"], ["a", " "])))
    with pytest.raises(ValueError, match="two rows are needed"):
        align().fit(DescriptionData(DescriptionRows(["O"], ["a"])))
    with pytest.raises(ValueError, match="one text"):
        DescriptionRows(["O"], [])
