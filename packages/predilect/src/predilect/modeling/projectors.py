"""What turns another modality into the vectors at soft tokens: linear, mlp, and registered modules of any kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from predilect.registry import PROJECTORS, registered


class Projector(nn.Module, ABC):
    """A module with inputs of its own behind a soft token: an encoder of images, of molecules, of anything.

    A subclass sets `kind`, takes the language model's width and options that JSON can hold, and is registered under
    the entry-point group `predilect.projectors`, or with `register_projector` in one process. `SoftTokenCausalLM`
    trains it, keeps its kind, options and weights in its folder, and builds it from there.

    Args:
        width: of the vectors, that of the language model.
        **options: of the subclass, kept as `options`.
    """

    kind: ClassVar[str]

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__()
        self.width, self.options = width, options

    @abstractmethod
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Vectors (n, size, width) for the n occurrences of the soft token, in reading order."""


ProjectorT = TypeVar("ProjectorT", bound=type[Projector])
_HERE: dict[str, type[Projector]] = {}


def register_projector(kind: ProjectorT) -> ProjectorT:
    """A decorator that makes a class known in this process by its `kind`.

    Raises:
        ValueError: another class has the name.
    """
    if _HERE.setdefault(kind.kind, kind).__qualname__ != kind.__qualname__:
        raise ValueError(f"a projector {kind.kind!r} is registered already ({_HERE[kind.kind].__qualname__})")
    _HERE[kind.kind] = kind
    return kind


def build_projector(kind: str, options: Mapping[str, Any], width: int) -> Projector:
    """The registered projector `kind`, with new weights.

    Raises:
        ValueError: no such projector is registered, or it does not take these options.
    """
    there: dict[str, Callable[[], type[Projector]]] = {name: e.load for name, e in registered(PROJECTORS).items()}
    there |= {name: (lambda own=own: own) for name, own in _HERE.items()}  # type: ignore[misc]
    if kind not in there:
        names = ", ".join(sorted(there)) or "none"
        raise ValueError(
            f"projector {kind!r} is not registered ({names} is): install or import the package it is from"
        )
    try:
        return there[kind]()(width, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"projector {kind!r} cannot be built from the options {dict(options)}: {error}") from error


def plain_projector(kind: str, size: int, hidden: int, table: Tensor) -> nn.Module:
    """ "linear", or "mlp" (Linear, GELU, Linear), from vectors of a width `size` to that of an embedding table.

    Float32 whatever the language model's dtype: the projector is what is trained.
    """
    width = table.shape[1]
    if kind == "linear":
        return nn.Linear(size, width, device="cpu", dtype=torch.float32).to(table.device)
    if kind == "mlp":
        between = hidden or width
        first = nn.Linear(size, between, device="cpu", dtype=torch.float32)
        second = nn.Linear(between, width, device="cpu", dtype=torch.float32)
        return nn.Sequential(first, nn.GELU(), second).to(table.device)
    raise ValueError(f"projector is 'linear' or 'mlp' (got {kind!r})")
