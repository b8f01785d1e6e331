"""Every option of the configuration reaches the objective, and options that cannot work together are refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from trl import DPOConfig, TrlParser

from pref_losses import AlphaDPOConfig, BetaDPOConfig, DrDPOConfig, Objective, PreferenceConfig, SoftmaxDPOConfig

CONFIGS = (PreferenceConfig, AlphaDPOConfig, BetaDPOConfig, DrDPOConfig, SoftmaxDPOConfig)
CPU = {"use_cpu": True}  # TRL's default precision, bfloat16, has to be told that there may be no GPU
OWN = {f.name for f in fields(PreferenceConfig)} - {f.name for f in fields(DPOConfig)}


def test_defaults_are_plain_dpo() -> None:
    assert PreferenceConfig(**CPU).objective() == Objective()
    assert Objective().beta == DPOConfig(**CPU).beta


@pytest.mark.parametrize(
    ("config", "objective"),
    [
        (AlphaDPOConfig, Objective(score="mean_logp", beta=10, gamma_beta_ratio=0.4, margin_alpha=0.05)),
        (BetaDPOConfig, Objective(beta=0.1, beta_alpha=0.6, keep=0.8)),
        (DrDPOConfig, Objective(beta=0.1, reduction="robust", beta_prime=1.0)),
        (SoftmaxDPOConfig, Objective(beta=1.0, link="softmax")),
    ],
)
def test_methods_are_presets_of_the_parts(config: type[PreferenceConfig], objective: Objective) -> None:
    assert config(**CPU).objective() == objective


def test_any_sensible_combination_is_reachable() -> None:
    parts = {"link": "softmax", "reduction": "robust", "beta_prime": 0.5, "beta_alpha": 0.6, "keep": 0.8, "beta": 0.3}
    assert SoftmaxDPOConfig(**parts, **CPU).objective() == Objective(**parts)
    assert BetaDPOConfig(link="softmax", reduction="robust", **CPU).objective().couples_examples


@pytest.mark.parametrize("name", sorted(f.name for f in fields(Objective)))
def test_every_part_is_an_option_of_the_config(name: str) -> None:
    values = {str: {"score": "mean_logp", "link": "softmax", "reduction": "robust"}.get(name, "paper"), bool: False}
    default = getattr(Objective(), name)
    value = values.get(type(default), 0.25)
    # An adaptive margin goes with every other part.
    parts = {"margin_alpha": 0.1} | {name: value}
    assert getattr(PreferenceConfig(**parts, **CPU).objective(), name) == value


@pytest.mark.parametrize("config", CONFIGS)
def test_every_option_explains_itself(config: type[PreferenceConfig]) -> None:
    for option in fields(config):
        if option.name in OWN:
            assert option.metadata["help"].endswith("."), option.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": "ipo"}, "use trl.DPOTrainer"),
        ({"loss_type": ["sigmoid", "sft"]}, "composes its loss from parts"),
        ({"loss_weights": [0.5]}, "loss_weights"),
        ({"f_divergence_type": "js_divergence"}, "f_divergence_type"),
        ({"ld_alpha": 0.5}, "ld_alpha"),
        ({"use_weighting": True}, "use_weighting"),
        ({"padding_free": True}, "padding_free"),
        ({"prefix_sharing": "maybe"}, "'auto', 'true' or 'false' .got 'maybe'"),
        ({"batch_scope": "process"}, "'global' or 'micro' .got 'process'"),
        ({"num_negatives": 0}, "at least 1"),
        ({"resample_negatives": True}, "set num_negatives too"),
        ({"moments_decay": 1.0}, r"\[0, 1\)"),
        ({"score": "mean_logp", "sync_ref_model": True}, "sync_ref_model needs a reference"),
        ({"link": "softmax", "label_smoothing": 0.1}, "softmax link has K"),
        ({"keep": 0.0}, "fraction kept"),
    ],
)
def test_senseless_options_are_refused_with_the_reason(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PreferenceConfig(**options, **CPU)


@pytest.mark.parametrize(("given", "kept"), [(True, "true"), (False, "false"), ("True", "true"), ("auto", "auto")])
def test_prefix_sharing_is_spelled_as_in_python_or_yaml(given: object, kept: str) -> None:
    assert PreferenceConfig(prefix_sharing=given, **CPU).prefix_sharing == kept


def test_a_file_of_reference_log_probs_asks_for_them(tmp_path: Path) -> None:
    assert PreferenceConfig(ref_log_probs_file=str(tmp_path / "ref.parquet"), **CPU).precompute_ref_log_probs


def test_command_line_and_yaml_are_the_same_class(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("beta_alpha: 0.3\nprefix_sharing: true\nnum_negatives: 3\nmargin_normalise: false\n")
    (config,) = TrlParser(BetaDPOConfig).parse_args_and_config(["--config", str(file), "--keep", "0.5", "--use_cpu"])
    assert (config.beta_alpha, config.keep, config.prefix_sharing) == (0.3, 0.5, "true")
    assert (config.num_negatives, config.margin_normalise) == (3, False)
