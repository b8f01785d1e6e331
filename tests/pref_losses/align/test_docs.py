"""What the pages say: accelerate configs that parse, links that lead somewhere, options and presets that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
DOCS = REPOSITORY / "docs" / "pref-losses"
METHOD_PAGES = ("alpha-dpo", "beta-dpo", "dr-dpo", "softmax-dpo")


@pytest.mark.parametrize("file", sorted((DOCS / "accelerate").glob("*.yaml")), ids=lambda f: f.stem)
def test_accelerate_reads_the_configs(file: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    config = load_config_from_file(str(file))  # refuses unknown keys
    assert config.num_processes == 4
    typed = ["--config_file", str(file), "-m", "predilect", "align", "--method", "dpo"]
    args, *_ = _validate_launch_command(launch_command_parser().parse_args(typed))
    assert args.use_fsdp if file.stem == "fsdp" else args.use_deepspeed
    assert args.mixed_precision == "bf16"
    assert [args.training_script, *args.training_script_args] == ["predilect", "align", "--method", "dpo"]


@pytest.mark.parametrize("page", [*DOCS.glob("*.md"), REPOSITORY / "docs" / "paper-index.md"], ids=lambda p: p.stem)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [t for t in targets if not t.startswith("http") and not (page.parent / t).is_file()] == []


@pytest.mark.parametrize("name", METHOD_PAGES)
def test_method_pages_have_what_they_promise(name: str) -> None:
    from pref_losses import PreferenceConfig

    text = (DOCS / f"{name}.md").read_text()
    for part in (
        "| raise | and |",
        "## The paper's settings",
        "## What the authors' code does differently",
        "arxiv.org/abs/",
    ):
        assert part in text
    raised = re.search(r"\| raise \| and \|\n\|---\|---\|\n((?:\|.*\n)+)", text)
    assert raised is not None
    names = re.findall(r"^\| `(\w+)", raised.group(1), flags=re.MULTILINE)
    assert names
    assert [n for n in names if n not in PreferenceConfig.__dataclass_fields__] == []


def test_flags_on_the_pages_exist() -> None:
    from pref_losses.align.options import AlignOptions, CompareOptions, EvaluateOptions, LanguageModelConfig
    from pref_losses.align.parsing import OptionParser
    from pref_losses.config import PreferenceConfig

    kinds: list[list[type[Any]]] = [
        [AlignOptions, PreferenceConfig, LanguageModelConfig],
        [CompareOptions],
        [EvaluateOptions],
    ]
    known = {flag for k in kinds for action in OptionParser(k)._actions for flag in action.option_strings}
    pages = [*DOCS.glob("*.md"), REPOSITORY / "packages" / "pref-losses" / "README.md"]
    text = "\n".join(p.read_text() for p in pages)
    commands = re.findall(r"predilect align[^\n`]*(?:\\\n[^\n`]*)*", text)
    assert len(commands) > 8
    flags = {flag for command in commands for flag in re.findall(r"--[a-z][a-z-]+", command)}
    assert flags - known == set()


def test_every_preset_is_on_a_page() -> None:
    from pref_losses.align.presets import preset_names

    text = "\n".join(p.read_text() for p in DOCS.glob("*.md"))
    assert [name for name in preset_names() if f"`{name}`" not in text] == []


def test_paper_index_agrees_with_the_presets(tmp_path: Path) -> None:
    import pref_losses
    from pref_losses.align.presets import read_preset

    blocks = re.findall(r"```py\n(.*?)```", (REPOSITORY / "docs" / "paper-index.md").read_text(), flags=re.DOTALL)
    presets = ("alpha-dpo-llama3-8b-instruct", "beta-dpo-hh", "dr-dpo-hh", "softmax-dpo-lastfm")
    for block, name in zip(blocks, presets, strict=True):
        call = re.search(r"^(\w+)\((.*)\)", block, flags=re.MULTILINE | re.DOTALL)
        assert call is not None
        # No precision is asked for on the page: TRL's default needs an accelerator.
        config = eval(
            f"{call.group(1)}({call.group(2).rstrip().rstrip(',')}, bf16=False)", vars(pref_losses) | _configs()
        )
        preset = read_preset(name)
        typed = re.findall(r"(\w+)=", call.group(2))
        assert len(typed) > 8
        for option in typed:
            assert getattr(config, option) == preset.get(option, getattr(config, option)), option


def _configs() -> dict[str, Any]:
    import pref_losses

    return {n: getattr(pref_losses, n) for n in ("AlphaDPOConfig", "BetaDPOConfig", "DrDPOConfig", "SoftmaxDPOConfig")}


def test_readme_examples_are_offline_python() -> None:
    """They are run from the built wheel by the tests of the workspace."""
    readme = (REPOSITORY / "packages" / "pref-losses" / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "README.md", "exec")
        assert "from_pretrained(" not in block
