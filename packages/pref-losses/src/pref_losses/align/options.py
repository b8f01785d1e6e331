"""Options of `predilect align`: the methods by name, and dataclasses whose fields are flags and keys of YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from trl import ModelConfig

from pref_losses.config import AlphaDPOConfig, BetaDPOConfig, DrDPOConfig, PreferenceConfig, SoftmaxDPOConfig


@dataclass(frozen=True)
class Method:
    """A name on the command line: the defaults of a config class, with changes, and the trainer citing the paper."""

    config: type[PreferenceConfig]
    trainer: str = "PreferenceTrainer"
    changes: Mapping[str, Any] = field(default_factory=dict)

    def defaults(self) -> dict[str, Any]:
        """What differs from `PreferenceConfig`."""
        plain = {f.name: f.default for f in fields(PreferenceConfig)}
        own = {f.name: f.default for f in fields(self.config) if f.default is not MISSING}
        return {name: value for name, value in own.items() if value != plain[name]} | dict(self.changes)


METHODS = {
    "dpo": Method(PreferenceConfig),
    "cdpo": Method(PreferenceConfig, changes={"label_smoothing": 0.1}),
    "rdpo": Method(PreferenceConfig, changes={"link": "flip_corrected", "label_smoothing": 0.1}),
    "simpo": Method(AlphaDPOConfig, changes={"margin_alpha": 0.0}),
    "alpha-dpo": Method(AlphaDPOConfig, "AlphaDPOTrainer"),
    "beta-dpo": Method(BetaDPOConfig, "BetaDPOTrainer"),
    "dr-dpo": Method(DrDPOConfig, "DrDPOTrainer"),
    "softmax-dpo": Method(SoftmaxDPOConfig, "SoftmaxDPOTrainer"),
}


def _option(help: str, default: Any, *aliases: str) -> Any:
    metadata: dict[str, Any] = {"help": help} | ({"aliases": list(aliases)} if aliases else {})
    return field(default=default, metadata=metadata)


@dataclass
class DataOptions:
    """Which preferences, and which of them are held out."""

    dataset_name: str | None = _option(
        "Hub id, or a JSON, JSON lines or Parquet file (gzipped or not): prompt, chosen, rejected; HH dialogues too.",
        None,
        "--dataset",
    )
    dataset_train_split: str = _option("Split of a hub data set to read.", "train")
    test_dataset: str | None = _option("Test on this file or hub id; without it test_size is held out.", None)
    dataset_test_split: str = _option("Split of test_dataset, if that is a hub id.", "test")
    test_size: float = _option("Rows to hold out: below 1 a share, else a number; prompts stay together.", 0.1)
    max_rows: int | None = _option("Use this many rows, training and test together.", None)
    split_seed: int = _option("Seed of the choice of rows, the held-out ones and the flips.", 0)


@dataclass
class StageOptions(DataOptions):
    """What happens around the training: supervised fine-tuning before it, flipped pairs, evaluation after it."""

    flip_rate: float = _option(
        "Exchange chosen and rejected in this share of the training pairs and remember which, [0, 1].", 0.0
    )
    sft_epochs: float = _option("First train on the chosen answers for so many epochs, as the papers do.", 0.0)
    sft_steps: int = _option(
        "First train on the chosen answers for so many optimizer steps; takes the place of sft_epochs.", 0
    )
    sft_learning_rate: float = _option("Learning rate of the training on the chosen answers.", 2e-5)
    samples: int = _option("Test prompts to answer, for the KL divergence to the reference; 0: none.", 0)
    max_new_tokens: int = _option("Longest answer that is sampled, in tokens.", 128)
    resume: bool = _option("Go on with the run in output_dir, from its newest whole checkpoint.", False)
    overwrite: bool = _option("Throw away the run in output_dir.", False)

    def __post_init__(self) -> None:
        if not 0 <= self.flip_rate <= 1:
            raise ValueError(f"flip_rate is a share and lies in [0, 1] (got {self.flip_rate})")
        if self.resume and self.overwrite:
            raise ValueError("--resume keeps the run in the output folder and --overwrite throws it away: choose one")
        if self.test_size < 0:
            raise ValueError(f"test_size is a share or a number of rows (got {self.test_size})")
        if self.max_rows is not None and self.max_rows < 1:
            raise ValueError(f"max_rows must be at least 1 (got {self.max_rows})")


@dataclass
class AlignOptions(StageOptions):
    """Options of `predilect align`."""

    method: str | None = _option(f"The objective: {', '.join(METHODS)}. Its parts can be set one by one too.", None)
    preset: str | None = _option("Hyper-parameters of a paper by name; `predilect align presets` lists them.", None)


@dataclass
class CompareOptions(StageOptions):
    """Options of `predilect align compare`."""

    methods: list[str] = field(
        default_factory=lambda: ["dpo", "alpha-dpo", "beta-dpo", "dr-dpo"],
        metadata={
            "help": "Methods to compare. In YAML also a mapping from names to options of that method: "
            "{dpo: {beta: 0.1}, mixed: {method: softmax-dpo, reduction: robust}}."
        },
    )
    seeds: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "Train every method once with each of these seeds."}
    )


@dataclass
class EvaluateOptions(DataOptions):
    """Options of `predilect align evaluate`; the folder of a run brings its own reference and data."""

    model: str | None = _option("The aligned model: the folder of a run, or any model.", None)
    reference: str | None = _option("The model that the alignment started from, which it is measured against.", None)
    samples: int = _option("Test prompts to answer, for the KL divergence and the win rates; 0: none.", 64)
    max_new_tokens: int = _option("Longest answer that is sampled, in tokens.", 128)
    max_length: int = _option("Longest prompt and answer together, in tokens.", 1024)
    truncation_mode: str = _option(
        "What is cut beyond max_length: answers at their end ('keep_start'), or the prompt at its start ('keep_end').",
        "keep_start",
    )
    reward_model: str | None = _option("A sequence classifier with one output, as judge of the samples.", None)
    judge: str | None = _option("A causal LM, as judge of the samples.", None)
    against: str = _option(
        "Whose answers the samples are judged against: 'chosen' (the data's) or 'reference'.", "chosen"
    )
    batch_size: int = _option("Prompts computed at once.", 8)
    dtype: str | None = _option("Number format of the weights; without it as saved.", None)
    seed: int = _option("Seed of the sampled answers and of the intervals.", 0)
    output_dir: str | None = _option(
        "Where to write evaluation.json and samples.jsonl; without it the model's folder.", None
    )

    def __post_init__(self) -> None:
        if self.against not in ("chosen", "reference"):
            raise ValueError(f"against is 'chosen' or 'reference' (got {self.against!r})")
        if (self.judge or self.reward_model) and not self.samples:
            raise ValueError("a judge needs answers to judge: raise --samples")


@dataclass
class LanguageModelConfig(ModelConfig):
    """TRL's `ModelConfig`; adapters go on all linear layers."""

    model_name_or_path: str | None = _option(
        "Folder, hub id, or smollm2-135m (needs no network); the folder of a LoRA adapter goes on with that adapter.",
        None,
        "--model",
    )
    lora_target_modules: list[str] | None = field(
        default_factory=lambda: ["all-linear"], metadata={"help": "LoRA target modules."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model_name_or_path:
            raise ValueError("name a model: --model FOLDER, a hub id, or --model smollm2-135m")
