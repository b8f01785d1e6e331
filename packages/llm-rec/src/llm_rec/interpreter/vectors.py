"""Where vectors come from, their scale, and how one vector becomes several soft tokens."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from predilect.data.catalogue import Catalogue
from predilect.modeling import SequentialModel
from predilect.recommenders import SequentialRecommender
from predilect.runs import weights_fingerprint
from predilect.training import quiet

_ITEMS = "items.safetensors"

Backbone = SequentialRecommender | SequentialModel | Tensor


class VectorSource:
    """A frozen sequential model, or a table of item vectors alone.

    Args:
        backbone: a fitted recommender, its model, or vectors (N + 1, d) whose row 0 belongs to padding. It is copied.

    Raises:
        ValueError: a table of another shape, or with NaN or infinite values.
    """

    def __init__(self, backbone: Backbone) -> None:
        model = backbone.model if isinstance(backbone, SequentialRecommender) else backbone
        self.model: SequentialModel | None = None
        if isinstance(model, Tensor):
            if model.dim() != 2 or len(model) < 2 or not bool(model.isfinite().all()):
                raise ValueError(f"item vectors must be finite and (N + 1, d) (got the shape {tuple(model.shape)})")
            self.items = model.detach().float().cpu().clone()
        else:
            self.model = copy.deepcopy(model).eval().requires_grad_(False)
            self.items = self.model.item_embeddings.detach().float().cpu().clone()

    @classmethod
    def of(cls, backbone: Backbone, catalogue: Catalogue) -> Self:
        """The source, if it knows the items of `catalogue`."""
        if isinstance(backbone, SequentialRecommender) and backbone.catalogue.raw_ids != catalogue.raw_ids:
            raise ValueError(f"the {backbone.name} given was fitted on another catalogue: fit it on these data")
        source = cls(backbone)
        if len(source.items) != len(catalogue) + 1:
            raise ValueError(
                f"the backbone has {len(source.items) - 1} items, the catalogue {len(catalogue)}: they do not belong "
                "together"
            )
        return source

    @property
    def width(self) -> int:
        """d, of states and of item vectors."""
        return self.items.shape[1]

    @property
    def max_history(self) -> int:
        """Number of items that a state looks at."""
        return int(self._sequential.config.max_history)

    @property
    def _sequential(self) -> SequentialModel:
        if self.model is None:
            raise ValueError("a table of item vectors has no states of sequences: train and read the task item only")
        return self.model

    @torch.no_grad()
    def states(self, histories: Tensor, *, batch_size: int = 1024) -> Tensor:
        """States (B, d), float32 on the CPU, of histories (B, L) padded with 0 on the left; zero for an empty one."""
        model = self._sequential
        if not len(histories):
            return torch.empty(0, self.width)
        parts = [model.last_state(some.to(model.device)).float().cpu() for some in torch.split(histories, batch_size)]
        return torch.cat(parts)

    def fingerprint(self) -> str:
        """Changes with any weight."""
        return weights_fingerprint({"items": self.items} if self.model is None else self.model.state_dict())

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.model is None:
            save_file({"items": self.items}, folder / _ITEMS)
        else:
            with quiet():
                self.model.save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder of `save`.

        Raises:
            FileNotFoundError: it holds neither a sequential model nor a table.
            ValueError: a kind of model that is not known.
        """
        if (folder / _ITEMS).is_file():
            return cls(load_file(folder / _ITEMS)["items"])
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"no {name} in {folder}: it is incomplete, save the interpreter again")
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        kinds = {kind.config_class.model_type: kind for kind in _kinds(SequentialModel)}
        if model_type not in kinds:
            raise ValueError(
                f"{folder} holds a {model_type!r}: import the SequentialModel of that type before loading"
            )
        with quiet():
            return cls(kinds[model_type].from_pretrained(folder))


def _kinds(kind: type[Any]) -> list[type[Any]]:
    return [descendant for below in kind.__subclasses__() for descendant in (below, *_kinds(below))]


class Scale(NamedTuple):
    """Mean and standard deviation per dimension, both (d,): what an adapter reads has the scale 1.

    States of some backbones are a hundred times as large as those of others; the adapter's start and its learning rate
    fit all of them only on one scale.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def fitted(cls, vectors: Tensor) -> Self:
        """Of vectors (n, d); a dimension that does not vary is only centred."""
        std = vectors.std(dim=0, correction=0)
        return cls(vectors.mean(dim=0), torch.where(std > 1e-6, std, 1.0))

    def __call__(self, vectors: Tensor) -> Tensor:
        return (vectors - self.mean) / self.std


def save_scales(scales: Mapping[str, Scale], path: Path) -> None:
    """Write the scale of each space."""
    save_file({f"{space}.{key}": value for space, s in scales.items() for key, value in s._asdict().items()}, path)


def load_scales(path: Path, *, width: int) -> dict[str, Scale]:
    """Read what `save_scales` wrote.

    Raises:
        ValueError: vectors of another width.
    """
    tensors = load_file(path)
    scales = {s: Scale(tensors[f"{s}.mean"], tensors[f"{s}.std"]) for s in {key.partition(".")[0] for key in tensors}}
    for space, scale in scales.items():
        if scale.mean.shape != (width,) or scale.std.shape != (width,):
            raise ValueError(f"{path} holds the scale of another space {space!r}: its width is not {width}")
    return scales


def repeated(vectors: Tensor, num_tokens: int) -> Tensor:
    """What the projector reads for vectors (n, d): (n, d), or (n, k, k d) where one vector stands at k soft tokens.

    The j-th of the k holds the vector in its j-th block and zeros elsewhere. One linear map of k d inputs is so k maps
    of d inputs, one for each soft token.

    Examples:
        >>> repeated(torch.tensor([[1.0, 2.0]]), 2).tolist()
        [[[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0]]]
    """
    if num_tokens == 1:
        return vectors
    return (torch.eye(num_tokens)[None, :, :, None] * vectors[:, None, None, :]).flatten(2)
