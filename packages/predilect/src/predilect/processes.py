"""The processes of a distributed run, as `accelerate launch` or `torch.distributed.run` start them; usually one."""

from __future__ import annotations

from typing import Any


def processes() -> Any:
    """Accelerate's `PartialState`: `num_processes`, `is_main_process`, `wait_for_everyone`, `main_process_first`.

    Without an accelerator they talk over gloo; accelerate has to be told so before it looks for devices.
    """
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.accelerator.is_available())
