"""`Trainer`: that of transformers, whose checkpoints hold no pickled arguments.

Every private name of `transformers.Trainer` that this project overrides or calls stands here, with a contract test
each: when transformers moves one, a test fails with its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from torch import Tensor
from transformers import PrinterCallback


class Trainer(transformers.Trainer):
    """Silent, without pickles, and without work whose result nobody reads.

    A subclass that chooses among checkpoints overrides `on_resumed`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)

    def floating_point_ops(self, inputs: Any) -> int:
        """0: the count of transformers walks through all parameters at every step, and is wrong for these models."""
        return 0

    def on_resumed(self) -> None:
        """Called when the state of a checkpoint that is continued from is there."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """The model alone: transformers would add its arguments as a pickle.

        PEFT would ask the hub whether the vocabulary has grown; it has not.
        """
        options = {"save_embedding_layers": False} if hasattr(self.model, "peft_config") else {}
        self.model.save_pretrained(str(Path(output_dir or self.args.output_dir)), state_dict=state_dict, **options)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        position: tuple[int, int] = super()._init_training_state(*args, **kwargs)
        self.on_resumed()
        return position

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm that clipping computed; without clipping none is computed for the log alone."""
        return super()._get_grad_norm(model, grad_norm) if self.args.max_grad_norm else grad_norm
