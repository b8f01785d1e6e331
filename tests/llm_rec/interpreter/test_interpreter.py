from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from llm_rec.interpreter import RecInterpreter, RecInterpreterConfig, evaluate
from llm_rec.interpreter.tasks import TASKS
from llm_rec.interpreter.vectors import VectorSource
from predilect.data.catalogue import UnknownItemError
from predilect.modeling.packed import label_logps
from predilect.recommenders import SASRecRecommender
from predilect.tokenization.wording import DOMAINS
from predilect.training import AnswerCollator

ALL = ("recovery", "residual", "item")


@pytest.fixture(scope="module")
def options(listing_folder: Path) -> dict[str, Any]:
    return {"model": str(listing_folder), "dtype": "float32", "learning_rate": 1e-2, "batch_size": 8}


@pytest.fixture(scope="module")
def trained(options: dict[str, Any], letter_splits: Any, sasrec: SASRecRecommender) -> RecInterpreter:
    settings = {**options, "batch_size": 16, "steps": 250, "learning_rate": 2e-2, "tasks": ALL}
    return RecInterpreter(**settings).fit(letter_splits, backbone=sasrec)


@pytest.fixture(scope="module")
def small(options: dict[str, Any], letter_splits: Any, sasrec: SASRecRecommender) -> RecInterpreter:
    return RecInterpreter(**options, steps=2, tasks=ALL).fit(letter_splits, backbone=sasrec)


def adapter(interpreter: RecInterpreter) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in interpreter.model.projectors.state_dict().items()}


def states(interpreter: RecInterpreter) -> torch.Tensor:
    """Of the histories that end in item 5, 6, ..., 12."""
    return interpreter.source.states(torch.tensor([[i - 4, i - 3, i - 2, i - 1, i] for i in range(5, 13)]))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


# --- learning -------------------------------------------------------------------------------------------------


def test_recovery_beats_its_controls_on_planted_sequences(trained: RecInterpreter, letter_splits: Any) -> None:
    systems = ("trained", "random", "shuffled", "popularity", "probe")
    found = evaluate(trained, letter_splits, systems=systems, max_rows=40)
    share = {name: e.results["recovered_share"] for name, e in found.items()}
    assert share["trained"] > 0.6
    assert share["trained"] > 1.5 * max(share["random"], share["shuffled"], share["popularity"])
    assert share["probe"] > 0.8
    ours = found["trained"].results
    assert ours["recovered_share_low"] > found["shuffled"].results["recovered_share_high"]
    assert ours["order"] > 0.8
    assert ours["hallucinated"] < found["shuffled"].results["hallucinated"]
    assert sum(ours[f"recovered={n}"] for n in range(6)) == ours["rows"] == 40
    assert [e.rows["user_id"] for e in found.values()] == [found["trained"].rows["user_id"]] * 5
    assert [e.rows["answer"] for e in found.values()] == [found["trained"].rows["answer"]] * 5


@pytest.mark.parametrize("task", ["residual", "item"])
def test_one_title_is_named_better_than_by_the_controls(
    trained: RecInterpreter, letter_splits: Any, task: str
) -> None:
    found = evaluate(
        trained, letter_splits, task=task, systems=("trained", "random", "shuffled", "popularity"), max_rows=40
    )
    exact = {name: e.results["exact"] for name, e in found.items()}
    assert exact["trained"] > 0.6
    assert max(exact[name] for name in exact if name != "trained") < 0.3


def test_only_the_adapter_moves(small: RecInterpreter, options: dict[str, Any], listing_folder: Path) -> None:
    weights = load_file(listing_folder / "model.safetensors")
    kept = small.model.lm.state_dict()
    assert all(torch.equal(kept[name].cpu(), value) for name, value in weights.items())
    assert small.num_parameters == 2 * (16 * 32 + 32)


def test_the_backbone_stays_as_it_is(options: dict[str, Any], letter_splits: Any, sasrec: SASRecRecommender) -> None:
    before = VectorSource(sasrec).fingerprint()
    fitted = RecInterpreter(**options, steps=1).fit(letter_splits, backbone=sasrec)
    assert before == VectorSource(sasrec).fingerprint() == fitted.source.fingerprint()
    assert not sasrec.model.training


def test_the_adapter_reads_vectors_of_scale_one(small: RecInterpreter, letter_splits: Any) -> None:
    history = letter_splits.train.histories()
    read = {
        "residual": torch.cat(  # residual rows hold states before and after; all of them set the scale
            [small.source.states(history), small.source.states(torch.cat([history, after(letter_splits)], dim=1))]
        ),
        "item": small.source.items[1:],
    }
    inputs = {task: small._inputs(task, vectors) for task, vectors in read.items()}
    torch.testing.assert_close(inputs["item"].mean(dim=0), torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs["item"].std(dim=0, correction=0), torch.ones(16), atol=1e-4, rtol=0)
    assert inputs["residual"].mean(dim=0).abs().max() < 0.3
    assert (inputs["residual"].std(dim=0) - 1).abs().max() < 0.3


def after(splits: Any) -> torch.Tensor:
    return splits.train.targets()[:, None]


# --- the vector of a row reaches that row ---------------------------------------------------------------------


def test_swapped_states_swap_texts(trained: RecInterpreter) -> None:
    vectors = states(trained)
    texts = trained.describe(vectors)
    assert len(set(texts)) > 4
    assert trained.describe(vectors.flip(0)) == texts[::-1]
    pairs = torch.stack([vectors[:-1], vectors[1:]], dim=1)
    named = trained.describe(pairs, task="residual")
    assert trained.describe(pairs.flip(0), task="residual") == named[::-1]
    assert trained.describe(pairs.flip(1), task="residual") != named  # before and after have places of their own


def test_swapped_vectors_swap_the_losses_of_a_training_batch(trained: RecInterpreter) -> None:
    prompt = trained._prompt("recovery")
    answer = trained._encode_answers(["a; b; c"])[0]
    inputs = [trained._inputs("recovery", some[None]) for some in states(trained)[:2]]

    def losses(order: tuple[int, int]) -> torch.Tensor:
        rows = [
            {"prompt_ids": prompt, "answer_ids": answer, "row": n, "vectors": {"state": inputs[i]}}
            for n, i in enumerate(order)
        ]
        batch = AnswerCollator(trained.model.tokenizer.pad_token_id)(rows)
        device = trained.model.device
        given = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
        vectors = {name: values.to(device) for name, values in batch["vectors"].items()}
        found = label_logps(trained.model, batch["labels"].to(device), vectors=vectors, **given)
        return torch.stack([found.logps[found.rows == n].sum() for n in range(2)]).detach()

    first = losses((0, 1))
    assert abs(float(first[0] - first[1])) > 0.1
    torch.testing.assert_close(losses((1, 0)), first.flip(0), rtol=1e-4, atol=1e-4)


def test_texts_do_not_depend_on_the_batch(trained: RecInterpreter) -> None:
    vectors = states(trained)
    texts = trained.describe(vectors)
    assert [trained.describe(vectors[i : i + 1])[0] for i in range(len(vectors))] == texts
    alone = RecInterpreter(trained.config)
    alone.__dict__.update({**trained.__dict__, "config": replace(trained.config, max_tokens=1)})
    assert alone.describe(vectors) == texts
    assert trained.describe(vectors[:0]) == []


def test_interpreting_titles_ids_and_longer_histories(trained: RecInterpreter) -> None:
    by_title = trained.interpret(["e", "f", "g", "h", "i"])
    assert by_title == trained.interpret([5, 6, 7, 8, 9])
    assert by_title == trained.interpret([1, 2, 3, 4, 5, 6, 7, 8, 9])  # the state looks at five
    assert trained.interpret_all([["a"], ["e", "f", "g", "h", "i"]])[1] == by_title
    named = trained.titles.read(by_title.text).items
    assert by_title.items == named
    assert sorted({*by_title.recovered, *by_title.invented}) == sorted(set(named))
    assert set(by_title.recovered) <= {5, 6, 7, 8, 9}
    with pytest.raises(UnknownItemError, match="'zz'"):
        trained.interpret(["zz"])
    with pytest.raises(ValueError, match="history 1 is empty"):
        trained.interpret_all([["a"], []])
    assert trained.interpret_all([]) == []


def test_vectors_that_do_not_fit_are_refused(small: RecInterpreter) -> None:
    with pytest.raises(ValueError, match=r"must have the shape \(3, 16\) \(got \(3, 8\)\)"):
        small.describe(torch.ones(3, 8))
    with pytest.raises(ValueError, match=r"must have the shape \(3, 2, 16\)"):
        small.describe(torch.ones(3, 16), task="residual")
    with pytest.raises(ValueError, match="must be finite"):
        small.describe(torch.full((1, 16), float("nan")), task="item")
    with pytest.raises(RuntimeError, match="is not fitted"):
        RecInterpreter().describe(torch.ones(1, 16))


# --- options --------------------------------------------------------------------------------------------------


def test_a_table_of_item_vectors_is_enough_for_items(
    options: dict[str, Any], letter_splits: Any, tmp_path: Path
) -> None:
    table = torch.randn(21, 6, generator=torch.Generator().manual_seed(0))
    fitted = RecInterpreter(**options, steps=2, tasks=("item",)).fit(letter_splits, backbone=table)
    texts = fitted.describe(table[3:5] * 1.1, task="item")
    fitted.save_pretrained(tmp_path)
    assert RecInterpreter.from_pretrained(tmp_path).describe(table[3:5] * 1.1, task="item") == texts
    with pytest.raises(ValueError, match="'recovery' was not trained, only item"):
        fitted.interpret(["a"])
    with pytest.raises(ValueError, match="has no states of sequences"):
        RecInterpreter(**options, steps=2).fit(letter_splits, backbone=table)


@pytest.mark.parametrize(
    "changed",
    [
        {"num_tokens": 3, "projector": "mlp"},
        {"template": None, "gradient_accumulation": 2},
        {"gradient_checkpointing": True},
        {"domain": "game", "tasks": ("residual",)},
    ],
)
def test_other_options_train_and_are_kept(
    options: dict[str, Any], letter_splits: Any, sasrec: SASRecRecommender, tmp_path: Path, changed: dict[str, Any]
) -> None:
    fitted = RecInterpreter(**options, **changed, steps=2).fit(letter_splits, backbone=sasrec)
    start = RecInterpreter(**options, **changed, steps=0).fit(letter_splits, backbone=sasrec)
    assert not any(torch.equal(value, adapter(start)[name]) for name, value in adapter(fitted).items())
    fitted.save_pretrained(tmp_path)
    loaded = RecInterpreter.from_pretrained(tmp_path)
    assert loaded.config == fitted.config
    vectors = torch.stack([states(fitted)[:3], states(fitted)[1:4]], dim=1)
    assert loaded.describe(vectors, task="residual") == fitted.describe(vectors, task="residual")


def test_several_soft_tokens_stand_for_one_vector(
    options: dict[str, Any], letter_splits: Any, sasrec: SASRecRecommender
) -> None:
    fitted = RecInterpreter(**options, num_tokens=3, steps=0).fit(letter_splits, backbone=sasrec)
    soft = fitted.model.soft_tokens.ids["state"]
    assert fitted._prompt("recovery").count(soft) == 3
    assert fitted._prompt("residual").count(soft) == 6


def test_chat_models_get_their_template(
    options: dict[str, Any], letter_splits: Any, sasrec: SASRecRecommender, tmp_path: Path, listing_folder: Path
) -> None:
    folder = tmp_path / "lm"
    shutil.copytree(listing_folder, folder)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[reply]"
    )
    fitted = RecInterpreter(**{**options, "model": str(folder)}, chat=True, steps=1).fit(
        letter_splits, backbone=sasrec
    )
    text = fitted.model.tokenizer.decode(fitted._prompt("residual"))
    assert text.startswith("[user] <|state|> stands for the movies that a viewer watched, <|state|> for the same")
    assert text.endswith("[reply]")
    assert len(fitted.describe(states(fitted))) == 8


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("task", TASKS)
def test_every_template_has_its_slots_in_order_in_every_domain(domain: str, task: str) -> None:
    prompts = TASKS[task].prompts(domain)
    assert prompts.slots == set(TASKS[task].slots)
    for number in range(len(prompts)):
        text = prompts[number].render(**{slot: f"<{slot}>" for slot in TASKS[task].slots})
        places = [text.index(f"<{slot}>") for slot in TASKS[task].slots]
        assert places == sorted(places)
        assert not {"{", "}"} & set(text)
    assert DOMAINS[domain]["items"] in prompts[0].text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tasks": ()}, "tasks must be some of recovery, residual, item"),
        ({"tasks": ("recovery", "repair")}, "each once"),
        ({"tasks": ("item", "item")}, "each once"),
        ({"template": 2}, r"template must be in 0\.\.1 for these tasks \(got 2\)"),
        ({"num_tokens": 0}, "num_tokens must be at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be a positive number"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"gradient_accumulation": 3}, "multiple of gradient_accumulation"),
    ],
)
def test_bad_options_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecInterpreterConfig(**changed)
    with pytest.raises(TypeError, match="has no option stepz"):
        RecInterpreter(stepz=3)


# --- whole answers --------------------------------------------------------------------------------------------


def test_rows_that_do_not_fit_are_left_out_whole_and_counted(
    options: dict[str, Any], letter_splits: Any, sasrec: SASRecRecommender
) -> None:
    whole = RecInterpreter(**options, steps=20, tasks=("recovery",)).fit(letter_splits, backbone=sasrec)
    assert whole.dropped == {"recovery": 0}
    prompt = len(whole._prompt("recovery"))
    assert whole._recovery_tokens == 5 * 3  # " a" or "; a", and EOS in place of the first semicolon
    early = [row for row, position in enumerate(letter_splits.train.position) if position <= 5]
    equal = replace(letter_splits, train=letter_splits.train.select(early))  # a fifth of them have five items
    with pytest.warns(UserWarning, match="are left out of training"):
        cut = RecInterpreter(**options, steps=20, tasks=("recovery",), max_length=prompt + 12).fit(
            equal, backbone=sasrec
        )
    assert 20 < cut.dropped["recovery"] < 70
    message = f"most rows of recovery do not fit max_length {prompt + 2}.*raise it to {prompt + 15}"
    with pytest.raises(ValueError, match=message):
        RecInterpreter(**options, steps=20, tasks=("recovery",), max_length=prompt + 2).fit(
            letter_splits, backbone=sasrec
        )
    with pytest.raises(ValueError, match="most rows of residual do not fit"):  # no other task takes their place
        RecInterpreter(**options, steps=20, tasks=("item", "residual"), max_length=100).fit(
            letter_splits, backbone=sasrec
        )


def test_every_training_answer_is_the_whole_list(small: RecInterpreter, letter_splits: Any) -> None:
    from llm_rec.interpreter.rows import Row

    row = Row("recovery", torch.zeros(1, 16), [20, 1, 2, 3, 4], 0)
    ids = small._encode(row)["answer_ids"]
    assert small.model.tokenizer.decode(ids) == " t; a; b; c; d</s>"


# --- kill and resume ------------------------------------------------------------------------------------------


class Kill(TrainerCallback):
    """Dies after a checkpoint."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            raise KeyboardInterrupt


def test_killed_and_resumed_equals_unbroken(
    options: dict[str, Any], letter_splits: Any, sasrec: SASRecRecommender, tmp_path: Path
) -> None:
    settings = {**options, "steps": 8, "save_steps": 2}
    unbroken = RecInterpreter(**settings).fit(letter_splits, backbone=sasrec)
    killed = RecInterpreter(**settings)
    killed.callbacks = [Kill()]
    with pytest.raises(KeyboardInterrupt):
        killed.fit(letter_splits, backbone=sasrec, output_dir=tmp_path)
    resumed = RecInterpreter(**settings)
    seen: list[int] = []

    class Steps(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(state.global_step)

    resumed.callbacks = [Steps()]
    resumed.fit(letter_splits, backbone=sasrec, output_dir=tmp_path, resume=True)
    assert seen == [5, 6, 7, 8]
    assert same(adapter(resumed), adapter(unbroken))
    finished = RecInterpreter(**settings).fit(letter_splits, backbone=sasrec, output_dir=tmp_path, resume=True)
    assert same(adapter(finished), adapter(unbroken))
    other = SASRecRecommender(hidden_size=16, max_epochs=1, seed=1).fit(letter_splits)
    with pytest.raises(ValueError, match=r"another run \(backbone: .*overwrite=True"):
        RecInterpreter(**settings).fit(letter_splits, backbone=other, output_dir=tmp_path, resume=True)
    items = letter_splits.train.sequences.items.copy()
    items[0] = items[0] % letter_splits.num_items + 1  # the same users, items and rows; one took another item
    sequences = replace(letter_splits.train.sequences, items=items)
    edited = replace(letter_splits, train=replace(letter_splits.train, sequences=sequences))
    with pytest.raises(ValueError, match=r"another run \(data: "):
        RecInterpreter(**settings).fit(edited, backbone=sasrec, output_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"another run \(steps: 8 before, 9 now\)"):
        RecInterpreter(**{**settings, "steps": 9}).fit(
            letter_splits, backbone=sasrec, output_dir=tmp_path, resume=True
        )
    anew = RecInterpreter(**{**settings, "steps": 2}).fit(
        letter_splits, backbone=sasrec, output_dir=tmp_path, overwrite=True
    )
    assert not same(adapter(anew), adapter(unbroken))


def test_the_backbone_can_be_fitted_in_the_same_call_or_loaded(
    options: dict[str, Any], letter_splits: Any, sasrec: SASRecRecommender, tmp_path: Path
) -> None:
    fitted = RecInterpreter(**options, steps=1, backbone="gru4rec").fit(letter_splits, output_dir=tmp_path / "run")
    assert fitted.source.model is not None
    assert fitted.source.model.config.model_type == "predilect_gru4rec"
    sasrec.save_pretrained(tmp_path / "sasrec")
    loaded = RecInterpreter(**options, steps=1, backbone_folder=str(tmp_path / "sasrec")).fit(letter_splits)
    assert loaded.source.fingerprint() == VectorSource(sasrec).fingerprint()
    with pytest.raises(ValueError, match="not both"):
        RecInterpreter(**options, backbone_folder="somewhere").fit(letter_splits, backbone=sasrec)
    with pytest.raises(ValueError, match="popularity has no states to read"):
        RecInterpreter(**options, backbone="popularity").fit(letter_splits)


def test_data_that_do_not_fit_are_refused(
    small: RecInterpreter, options: dict[str, Any], letter_splits: Any, sasrec: SASRecRecommender
) -> None:
    nameless = replace(letter_splits, catalogue=replace(letter_splits.catalogue, titles=("",) * 20))
    with pytest.raises(ValueError, match="none of the 20 items has one"):
        RecInterpreter(**options).fit(nameless, backbone=sasrec)
    renamed = replace(letter_splits.catalogue, raw_ids=tuple(f"x{i}" for i in range(20)))
    with pytest.raises(ValueError, match="fitted on another catalogue"):
        RecInterpreter(**options).fit(replace(letter_splits, catalogue=renamed), backbone=sasrec)
    with pytest.raises(ValueError, match="trained on another catalogue"):
        evaluate(small, replace(letter_splits, catalogue=renamed))


# --- folders --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(small: RecInterpreter, tmp_path: Path) -> Path:
    small.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_saved_and_loaded_it_says_the_same(trained: RecInterpreter, tmp_path: Path, letter_splits: Any) -> None:
    trained.save_pretrained(tmp_path)
    loaded = RecInterpreter.from_pretrained(tmp_path)
    assert same(adapter(loaded), adapter(trained))
    assert loaded.config == trained.config
    assert loaded.interpret(["c", "d", "e"]) == trained.interpret(["c", "d", "e"])
    for task in ("recovery", "residual"):
        before, after = (evaluate(r, letter_splits, task=task, max_rows=10)["trained"] for r in (trained, loaded))
        assert before.metrics == after.metrics
        assert repr(before.rows[:]) == repr(after.rows[:])  # as words, in which nan is nan
    loaded.save_pretrained(tmp_path)  # over what it was loaded from
    assert same(adapter(RecInterpreter.from_pretrained(tmp_path)), adapter(trained))
    assert not list(tmp_path.rglob("*.bin")) + list(tmp_path.rglob("*.pt")) + list(tmp_path.rglob("*.pkl"))


@pytest.mark.parametrize(
    "part",
    [
        "method.json",
        "catalogue.parquet",
        "scales.safetensors",
        "prompts-residual.json",
        "backbone",
        "backbone/model.safetensors",
        "model/model.safetensors",
        "model/base.json",
        "model/tokenizer_config.json",
    ],
)
def test_a_folder_without_a_part_is_refused_by_name(folder: Path, part: str) -> None:
    path = folder / part
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        RecInterpreter.from_pretrained(folder)


def test_a_folder_without_its_projector_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model" / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("projectors.item")}
    save_file(kept, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="the projector of 'item' is missing"):
        RecInterpreter.from_pretrained(folder)


def test_a_folder_with_another_backbone_is_refused(folder: Path, letter_splits: Any) -> None:
    shutil.rmtree(folder / "backbone")
    VectorSource(SASRecRecommender(hidden_size=16, max_epochs=1, seed=1).fit(letter_splits)).save(folder / "backbone")
    with pytest.raises(ValueError, match="is not the one whose vectors this adapter was trained on"):
        RecInterpreter.from_pretrained(folder)


def test_a_folder_with_another_catalogue_is_refused(folder: Path, letter_splits: Any) -> None:
    replace(letter_splits.catalogue, titles=tuple("ABCDEFGHIJKLMNOPQRST")).save(folder / "catalogue.parquet")
    with pytest.raises(ValueError, match=r"the catalogue in .* is not the one"):
        RecInterpreter.from_pretrained(folder)


def test_a_folder_with_another_language_model_is_refused(folder: Path, model_folder: Path) -> None:
    about = json.loads((folder / "method.json").read_text())
    about["config"]["model"] = str(model_folder)
    (folder / "method.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="has not the weights of"):
        RecInterpreter.from_pretrained(folder)


# --- evaluation -----------------------------------------------------------------------------------------------


def test_what_cannot_be_evaluated_is_refused(small: RecInterpreter, letter_splits: Any) -> None:
    with pytest.raises(ValueError, match=r"systems are .* \(got guess\)"):
        evaluate(small, letter_splits, systems=("trained", "guess"))
    with pytest.raises(ValueError, match="the task item has no probe"):
        evaluate(small, letter_splits, task="item", systems=("probe",))
    with pytest.raises(ValueError, match="has no rows for recovery"):
        evaluate(small, replace(letter_splits, test=letter_splits.test.select([])))
    with pytest.raises(ValueError, match="at least two groups"):
        evaluate(small, letter_splits, max_rows=1)


def test_controls_leave_the_interpreter_as_it_is(small: RecInterpreter, letter_splits: Any) -> None:
    before = adapter(small)
    first = evaluate(small, letter_splits, systems=("random", "trained"), max_rows=6, bootstrap=0)
    assert same(adapter(small), before)
    second = evaluate(small, letter_splits, systems=("trained", "random"), max_rows=6, bootstrap=0)
    for system in ("trained", "random"):
        assert first[system].rows["text"] == second[system].rows["text"]


def test_an_evaluation_is_flat_and_can_be_kept(small: RecInterpreter, letter_splits: Any, tmp_path: Path) -> None:
    found = evaluate(small, letter_splits, systems=("popularity",), max_rows=12)["popularity"]
    assert found.metrics["system"] == "popularity"
    assert found.metrics["task"] == "recovery"
    assert found.metrics["data"] == "planted"
    assert all(isinstance(found.results[name], int | float) for name in found.results)
    popular = sorted(range(1, 21), key=lambda i: (-letter_splits.catalogue.popularity[i - 1], i))
    assert found.rows["items"] == [popular[: len(answer)] for answer in found.rows["answer"]]
    hits = [
        len(set(named) & set(answer)) for named, answer in zip(found.rows["items"], found.rows["answer"], strict=True)
    ]
    assert found.results["recovered"] == pytest.approx(sum(hits) / 12)
    found.save(tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text())["results"].keys() == found.results.keys()


def test_titles_with_characters_of_a_regex_are_counted(
    options: dict[str, Any], letter_splits: Any, sasrec: SASRecRecommender
) -> None:
    odd = ("(500) Days", "What?", "C++", 'Say "Hi"', "[Rec]", "$9.99", "a|b", "M*A*S*H", "Sin; Again", "It's {x}")
    titles = (*odd, *(f"Film {i}." for i in range(10)))
    renamed = replace(letter_splits, catalogue=replace(letter_splits.catalogue, titles=titles))
    fitted = RecInterpreter(**options, steps=1).fit(renamed, backbone=sasrec)
    assert fitted.titles.read(fitted.titles.write(range(1, 21))).items == list(range(1, 21))
    found = evaluate(fitted, renamed, systems=("popularity",), max_rows=12)["popularity"]
    assert found.results["unknown"] == 0
    assert all(
        len(named) == len(answer) for named, answer in zip(found.rows["items"], found.rows["answer"], strict=True)
    )


def test_reads_the_items_that_a_diffusion_model_imagines(options: dict[str, Any], letter_splits: Any) -> None:
    """DreamRec generates the letter that follows; the reader, which saw items only, often names it."""
    diffusion = pytest.importorskip("seqrec_diffusion", reason="the oracle items are those of seqrec-diffusion")
    small = {"hidden_size": 32, "timesteps": 50, "schedule": "exp", "guidance": 0.0, "draws": 20, "dropout": 0.0}
    dreamrec = diffusion.DreamRec(**small, encoder="sasrec", max_epochs=80, batch_size=32, learning_rate=0.01)
    vectors = dreamrec.fit(letter_splits).model.item_vectors.detach().cpu()
    table = torch.cat((torch.zeros(1, 32), vectors))
    settings = {"batch_size": 16, "steps": 150, "learning_rate": 2e-2, "tasks": ("item",), "num_tokens": 8}
    reader = RecInterpreter(**{**options, **settings}).fit(letter_splits, backbone=table)
    last = [i for i in range(5, 17) for _ in range(3)]  # three lengths of history each
    histories = torch.tensor([[i - 4, i - 3, i - 2, i - 1, i] for i in last])
    histories[1::3, 0] = histories[2::3, :2] = 0
    oracles = dreamrec.oracle_embeddings(histories).cpu()
    assert not any((oracle == vectors).all(1).any() for oracle in oracles)
    named = [reader.titles.read(text).items for text in reader.describe(oracles, task="item")]
    assert np.mean([items == [i + 1] for items, i in zip(named, last, strict=True)]) > 0.4  # chance: 0.05
    mixed_up = [reader.titles.read(text).items for text in reader.describe(oracles.flip(0), task="item")]
    assert np.mean([items == [i + 1] for items, i in zip(mixed_up, last, strict=True)]) < 0.2
