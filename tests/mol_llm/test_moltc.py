from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.mol_llm.conftest import SMALL
from transformers import TrainerCallback

from mol_llm import INTERACTION, SOLVATION, MolTC, PairData, PairRows, PairTask

MOLECULES = ["CCO", "O", "c1ccccc1", "CC(=O)O", "CCN", "CCCC"]
A = [a for a in MOLECULES for _ in MOLECULES]
B = MOLECULES * len(MOLECULES)


def values() -> PairData:
    return PairData(SOLVATION, PairRows(A, B, [-0.4 * len(a) + 0.1 * len(b) for a, b in zip(A, B, strict=True)]))


def classes() -> PairData:
    return PairData(INTERACTION, PairRows(A, B, [int("N" in a or "N" in b) for a, b in zip(A, B, strict=True)]))


def make(model: str, **options: Any) -> MolTC:
    return MolTC(**{**SMALL, "model": model, "epochs": 0.5, **options})


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize(("tuning", "sharing"), [("frozen", "soft"), ("lora", "untied"), ("full", "tied")])
def test_the_folder_restores_exactly(
    language_models: dict[str, str], kind: str, tuning: Any, sharing: Any, tmp_path: Path
) -> None:
    method = make(language_models[kind], tuning=tuning, sharing=sharing).fit(classes())
    before = method.predict(MOLECULES[:3], MOLECULES[3:])
    method.save_pretrained(tmp_path)
    assert np.array_equal(MolTC.from_pretrained(tmp_path).predict(MOLECULES[:3], MOLECULES[3:]), before)
    np.testing.assert_allclose(before.sum(axis=1), 1)


def test_the_second_molecule_is_read_and_order_is_kept(language_models: dict[str, str]) -> None:
    """The published code trains on the first molecule's vectors twice."""
    method = make(language_models["llama"], reads="graph").fit(classes())
    ab, ba, aa = (method.log_probabilities([pair]) for pair in (("CCO", "O"), ("O", "CCO"), ("CCO", "CCO")))
    assert not torch.allclose(ab, aa, atol=1e-5)
    assert not torch.allclose(ab, ba, atol=1e-5)


def test_prompts_hold_both_halves_within_their_budgets(language_models: dict[str, str]) -> None:
    method = make(language_models["llama"], smiles_tokens=5).fit(classes())
    long, short = "C" * 40, "O"
    for pair in ((long, short), (short, long), (long, long)):
        (prompt,) = method.prompts([pair], INTERACTION)
        text = method.model.tokenizer.decode(prompt)
        slots = "<|molecule|>" * 2
        halves = [" " + "C" * 4 if s == long else " O" for s in pair]
        assert f"First molecule:{halves[0]}{slots}\nSecond molecule:{halves[1]}{slots}\nDo the" in text
    with pytest.raises(ValueError, match="row 0: 'ethanol' is not a SMILES"):
        method.predict("ethanol", "O")


def test_a_planted_rule_is_learned_from_graphs_alone(language_models: dict[str, str]) -> None:
    task = PairTask("nitrogen", "Is there nitrogen?", "class", ("no", "yes"))
    rows = classes().train
    options = {"reads": "graph", "tuning": "full", "epochs": 12, "learning_rate": 3e-3, "weight_decay": 0.0}
    method = make(language_models["llama"], **options).fit(PairData(task, rows))
    right = method.predict(A, B).argmax(axis=1) == np.asarray(rows.targets)
    assert right.mean() > 0.9


def test_the_value_is_the_mean_over_the_scored_grid(language_models: dict[str, str]) -> None:
    method = make(language_models["llama"], epochs=1).fit(values())
    np.testing.assert_allclose(method.values[[0, -1]], [-3.1, 0.4], atol=1e-9)
    scores = method.log_probabilities([("CCO", "O")])
    p = scores.double().softmax(dim=1).numpy()[0]
    assert method.predict("CCO", "O", task="solvation") == pytest.approx(float(p @ method.values), abs=1e-6)
    with pytest.raises(ValueError, match="fitted on 'solvation', not on 'interaction'"):
        method.predict("CCO", "O", task="interaction")


@pytest.mark.parametrize("target", [-2.5, -2.53, -2.46, 0.0, -0.04, 0.5, 7.96])
def test_an_interval_holds_the_value_that_is_written(target: float) -> None:
    text = SOLVATION.answer(target, chain_of_thought=True)
    low, high, value = (float(part.split(" ")[0].strip(",.")) for part in _numbers(text))
    assert low <= value < high
    assert high - low == pytest.approx(0.5)
    assert abs(value - target) <= 0.05 + 1e-9


def _numbers(text: str) -> list[str]:
    return [text.split("at least ")[1], text.split("below ")[1], text.split("value is ")[1]]


class _Killed(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt


def test_a_killed_stage_resumes_to_the_same_numbers(language_models: dict[str, str], tmp_path: Path) -> None:
    options = {"save_steps": 2, "dropout": 0.1, "epochs": 0.6}
    whole = make(language_models["llama"], **options).fit(classes())
    killed = make(language_models["llama"], **options)
    killed.callbacks = [_Killed()]
    with pytest.raises(KeyboardInterrupt):
        killed.fit(classes(), output_dir=tmp_path)
    resumed = make(language_models["llama"], **options).fit(classes(), output_dir=tmp_path, resume=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_stage_starts_from_the_one_before(language_models: dict[str, str], tmp_path: Path) -> None:
    """Pair pre-training: describe both molecules with the language model frozen; then the task."""
    describe = PairTask("describe", "Describe both molecules.", "text")
    data = PairData(describe, PairRows(A, B, [f"{len(a)} and {len(b)}" for a, b in zip(A, B, strict=True)]))
    make(language_models["llama"], tuning="frozen").fit(data).save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model/model.safetensors")
    second = make(language_models["llama"], start=str(tmp_path), learning_rate=1e-12, weight_decay=0.0).fit(classes())
    for name, value in second.model.projectors.state_dict().items():
        if "running" not in name and "num_batches" not in name:  # statistics move with every batch
            torch.testing.assert_close(value, saved[f"projectors.{name}"], msg=name)
    with pytest.raises(ValueError, match="does not fit: graph_width is 16 there and 8 here"):
        make(language_models["llama"], start=str(tmp_path), graph_width=8).fit(classes())
    with pytest.raises(FileNotFoundError, match="is not a saved MolTC or MoleculeAlignment"):
        make(language_models["llama"], start=str(tmp_path / "no")).fit(classes())
    assert isinstance(MolTC.from_pretrained(tmp_path).predict("CCO", "O"), str)


def test_broken_folders_are_refused(language_models: dict[str, str], tmp_path: Path) -> None:
    make(language_models["llama"]).fit(classes()).save_pretrained(tmp_path)
    (tmp_path / "moltc.json").rename(tmp_path / "parts")
    with pytest.raises(FileNotFoundError, match=r"has no moltc\.json"):
        MolTC.from_pretrained(tmp_path)
    (tmp_path / "parts").rename(tmp_path / "moltc.json")
    path = tmp_path / "model/config.json"
    about = json.loads(path.read_text())
    about["projectors"]["molecule"]["options"]["sharing"] = "untied"
    path.write_text(json.dumps(about))
    with pytest.raises(ValueError, match="the projector of 'molecule' is missing"):
        MolTC.from_pretrained(tmp_path)


def test_data_that_cannot_be_learned_from_is_refused(language_models: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="row 1: 'water' is not a SMILES"):
        make(language_models["llama"]).fit(PairData(INTERACTION, PairRows(["O", "water"], ["O", "O"], [0, 1])))
    with pytest.raises(ValueError, match="row 0: target nan is not finite"):
        make(language_models["llama"]).fit(PairData(SOLVATION, PairRows(["O"], ["O"], [float("nan")])))
    with pytest.raises(ValueError, match="no pair"):
        make(language_models["llama"]).fit(PairData(SOLVATION, PairRows([], [], [])))
    with pytest.raises(ValueError, match="nothing would be trained"):
        MolTC(reads="smiles", tuning="frozen")
