"""Supervised fine-tuning on the chosen answers, which the papers put before their methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig, get_peft_config

from predilect.modeling.base_model import describe_base, write_base
from predilect.runs import write_json
from predilect.training import newest_checkpoint
from pref_losses import _trl
from pref_losses.align.console import show_headlines
from pref_losses.align.models import load_for_training
from pref_losses.align.options import LanguageModelConfig, StageOptions
from pref_losses.config import PreferenceConfig

# What both stages do alike.
_SHARED = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "bf16", "fp16",
    "max_length", "seed", "use_cpu", "logging_steps", "save_strategy", "save_steps", "save_total_limit", "report_to",
    "disable_tqdm", "dataset_num_proc",
)  # fmt: skip


def fine_tune(
    rows: Dataset, options: StageOptions, training: PreferenceConfig, model: LanguageModelConfig, folder: Path
) -> None:
    """Train on the chosen answers into `folder`; what is finished is kept, else its newest checkpoint goes on."""
    done = folder / "sft.json"
    if done.is_file():
        return
    assert model.model_name_or_path is not None
    network, tokenizer = load_for_training(model.model_name_or_path, model)
    about = describe_base(network, tokenizer)
    config = SFTConfig(
        str(folder),
        num_train_epochs=options.sft_epochs or 1,
        max_steps=options.sft_steps or -1,
        learning_rate=options.sft_learning_rate,
        **{name: getattr(training, name) for name in _SHARED},
    )
    trainer = _trl.SFTTrainer(
        network,
        config,
        train_dataset=rows.select_columns(["prompt", "chosen"]).rename_column("chosen", "completion"),
        processing_class=tokenizer,
        peft_config=new_adapter(network, model),
    )
    show_headlines(trainer)
    checkpoint = newest_checkpoint(folder)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.save_model()
    if trainer.is_world_process_zero():
        if (folder / "adapter_config.json").is_file():
            write_base(folder, about)
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        write_json(done, {"steps": trainer.state.global_step, "rows": len(rows), "losses": losses})
    trainer.accelerator.wait_for_everyone()


def new_adapter(network: Any, model: LanguageModelConfig) -> Any:
    """The config of a new adapter, unless the model brings one."""
    return None if hasattr(network, "peft_config") else get_peft_config(model)
