"""Options of `predilect align`: what overrides what, mistakes, presets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pref_losses import AlphaDPOConfig, DrDPOConfig, PreferenceConfig
from pref_losses.align.options import METHODS
from pref_losses.align.parsing import OptionParser, parse_align, parse_compare, parse_evaluate
from pref_losses.align.presets import describe_presets, preset_names, read_preset
from pref_losses.objective import Objective

BASE = ["--model", "some-model", "--dataset", "rows.jsonl"]


def align(*arguments: str) -> tuple[object, PreferenceConfig, object]:
    return parse_align([*BASE, *arguments])


def test_a_method_brings_its_defaults() -> None:
    for method, config in (("alpha-dpo", AlphaDPOConfig("x", bf16=False)), ("dr-dpo", DrDPOConfig("x", bf16=False))):
        assert align("--method", method)[1].objective() == config.objective()


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("dpo", {}),
        ("cdpo", {"label_smoothing": 0.1}),
        ("rdpo", {"label_smoothing": 0.1, "link": "flip_corrected"}),
        ("simpo", {"score": "mean_logp", "beta": 10.0, "gamma_beta_ratio": 0.4}),
        ("beta-dpo", {"beta_alpha": 0.6, "keep": 0.8}),
        ("softmax-dpo", {"link": "softmax", "beta": 1.0}),
    ],
)
def test_methods_are_points_of_one_space(method: str, parts: dict[str, object]) -> None:
    assert align("--method", method)[1].objective() == Objective(**parts)  # type: ignore[arg-type]


def test_simpo_loads_no_reference() -> None:
    assert not align("--method", "simpo")[1].objective().needs_reference


def test_flags_go_over_yaml_over_preset_over_method(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("preset: alpha-dpo-llama3-8b-instruct\nmargin_alpha: 0.1\nlearning_rate: 3e-6\nmodel: from-yaml\n")
    options, training, model = parse_align(
        ["--config", str(file), "--dataset", "rows.jsonl", "--learning-rate", "2e-6", "--model", "from-flag"]
    )
    assert options.method == "alpha-dpo"
    assert (training.beta, training.margin_alpha, training.learning_rate) == (2.5, 0.1, 2e-6)
    assert model.model_name_or_path == "from-flag"
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (2, 16)


def test_names_of_trls_scripts_work(tmp_path: Path) -> None:
    file = tmp_path / "trl.yaml"
    file.write_text("model_name_or_path: m\ndataset_name: d\nuse_peft: true\nlora_r: 4\nbeta: 0.3\nbf16: false\n")
    options, training, model = parse_align(["--method", "dpo", "--config", str(file)])
    assert (options.dataset_name, training.beta, training.bf16) == ("d", 0.3, False)
    assert (model.use_peft, model.lora_r, model.lora_target_modules) == (True, 4, "all-linear")


def test_env_of_yaml_reaches_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREDILECT_TEST_ENV", raising=False)
    file = tmp_path / "env.yaml"
    file.write_text("env: {PREDILECT_TEST_ENV: 7}\n")
    align("--method", "dpo", "--config", str(file))
    assert os.environ.pop("PREDILECT_TEST_ENV") == "7"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--method", "alfa-dpo"], "did you mean alpha-dpo"),
        (["--preset", "beta-dpo-h"], "did you mean beta-dpo-hh"),
        (["--preset", "beta-dpo-hh", "--method", "dpo"], "belongs to --method beta-dpo"),
        (["--method", "dpo", "--beta-prim", "1"], "did you mean --beta-prime"),
        (["--method", "dpo", "--beta", "much"], "invalid float value"),
        (["--method", "dpo", "--flip-rate", "1.5"], r"flip_rate .* \(got 1.5\)"),
        (["--method", "dpo", "--resume", "--overwrite"], "choose one"),
        (["--method", "dpo", "--trust-remote-code", "true"], "not run"),
        (["--method", "dpo", "--link", "softmax", "--label-smoothing", "0.1"], "label_smoothing"),
        ([], "choose a --method"),
    ],
)
def test_mistakes_are_named(arguments: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        align(*arguments)


def test_unknown_yaml_key_names_file_and_close_matches(tmp_path: Path) -> None:
    file = tmp_path / "typo.yaml"
    file.write_text("beta_prim: 1.0\n")
    with pytest.raises(ValueError, match=r"typo.yaml has no option 'beta_prim'; did you mean beta_prime"):
        align("--method", "dpo", "--config", str(file))


def test_model_and_data_must_be_named() -> None:
    with pytest.raises(ValueError, match="--model"):
        parse_align(["--method", "dpo", "--dataset", "d"])
    with pytest.raises(ValueError, match="--dataset"):
        parse_align(["--method", "dpo", "--model", "m"])


def test_every_field_is_a_flag_with_help() -> None:
    from dataclasses import fields

    parser = OptionParser([PreferenceConfig])
    helps = {action.dest: action.help for action in parser._actions}
    own = {f.name for f in fields(PreferenceConfig)} - {f.name for f in fields(PreferenceConfig.__bases__[0])}
    assert {"beta_prime", "margin_alpha", "prefix_sharing"} <= own
    assert not [name for name in own if not helps.get(name)]
    assert "--beta-prime" in parser.format_help()


@pytest.mark.parametrize("name", preset_names())
def test_presets_parse_and_say_their_source(name: str) -> None:
    options, training, _ = align("--preset", name)
    preset = read_preset(name)
    assert options.method == preset["method"]
    assert [training.beta, training.learning_rate] == [preset["beta"], preset["learning_rate"]]
    assert "arXiv" in next(line for line in describe_presets().splitlines() if line.split()[0] == name)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("alpha-dpo-mistral-7b-instruct", (2.5, 0.15, 0.05, 6e-7)),
        ("alpha-dpo-llama3-8b-instruct", (2.5, 0.6, 0.2, 1e-6)),
        ("alpha-dpo-llama3-8b-instruct-v0.2", (10, 0.4, 0.2, 1e-6)),
        ("alpha-dpo-gemma2-9b-it", (10, 0.4, 0.05, 8e-7)),
    ],
)
def test_alpha_dpo_presets_hold_the_papers_table(name: str, values: tuple[float, ...]) -> None:
    preset = read_preset(name)
    assert tuple(preset[k] for k in ("beta", "gamma_beta_ratio", "margin_alpha", "learning_rate")) == values


def test_compare_takes_options_per_method(tmp_path: Path) -> None:
    file = tmp_path / "compare.yaml"
    file.write_text(
        "methods:\n  dpo: {beta: 0.3}\n  dr-dpo:\n  mixed: {method: softmax-dpo, reduction: robust, beta: 2.0}\n"
        "learning_rate: 1e-5\n"
    )
    options, runs, _ = parse_compare([*BASE, "--config", str(file), "--seeds", "1", "2", "--max-steps", "3"])
    assert (options.seeds, options.methods) == ([1, 2], ["dpo", "dr-dpo", "mixed"])
    assert {name: method for name, (method, _) in runs.items()} == {
        "dpo": "dpo",
        "dr-dpo": "dr-dpo",
        "mixed": "softmax-dpo",
    }
    betas = {name: training.beta for name, (_, training) in runs.items()}
    assert betas == {"dpo": 0.3, "dr-dpo": 0.1, "mixed": 2.0}
    assert (runs["mixed"][1].link, runs["mixed"][1].reduction) == ("softmax", "robust")
    assert {(t.learning_rate, t.max_steps) for _, t in runs.values()} == {(1e-5, 3)}


def test_compare_names_mistakes_of_a_method(tmp_path: Path) -> None:
    file = tmp_path / "compare.yaml"
    file.write_text("methods: {dpo: {bta: 0.3}}\n")
    with pytest.raises(ValueError, match=r"methods.dpo has no option 'bta'; did you mean beta"):
        parse_compare([*BASE, "--config", str(file)])
    with pytest.raises(ValueError, match="there is no method 'ppo'"):
        parse_compare([*BASE, "--methods", "ppo"])


def test_every_method_has_a_trainer() -> None:
    import pref_losses.trainer as trainers

    assert all(issubclass(getattr(trainers, m.trainer), trainers.PreferenceTrainer) for m in METHODS.values())


def test_a_foreign_model_needs_reference_and_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--reference"):
        parse_evaluate(["--model", str(tmp_path)])
    with pytest.raises(ValueError, match="--dataset"):
        parse_evaluate(["--model", str(tmp_path), "--reference", "x"])
    with pytest.raises(ValueError, match="raise --samples"):
        parse_evaluate(["--model", "m", "--reference", "x", "--dataset", "d", "--judge", "j", "--samples", "0"])
    with pytest.raises(ValueError, match="'chosen' or 'reference'"):
        parse_evaluate(["--model", "m", "--reference", "x", "--dataset", "d", "--against", "gpt"])
