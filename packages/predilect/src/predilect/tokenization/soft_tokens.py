"""Placeholder tokens in a prompt that stand for vectors of another modality: an item, a sequence, a molecule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class SoftTokens:
    """A named set of placeholder tokens and the number of vectors that one occurrence of each stands for.

    An occurrence of a name with size 8 is its token eight times in a row (`text(name)`), one for each vector.

    Args:
        sizes: name -> number of vectors of one occurrence, at least 1.

    Raises:
        ValueError: no name, a name that is no identifier, or a size below 1.

    Examples:
        >>> soft = SoftTokens({"item": 1, "molecule": 3})
        >>> soft.text("item"), soft.text("molecule")
        ('<|item|>', '<|molecule|><|molecule|><|molecule|>')
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        if not sizes:
            raise ValueError("soft tokens need at least one name")
        for name, size in sizes.items():
            if not name.isidentifier() or size < 1:
                raise ValueError(f"a soft token is a plain name with at least one vector (got {name!r}: {size})")
        self.sizes = dict(sizes)
        self.ids: dict[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.sizes)

    def token(self, name: str) -> str:
        """The placeholder token of `name`."""
        self._known(name)
        return f"<|{name}|>"

    def text(self, name: str) -> str:
        """What to write into a prompt for one occurrence."""
        return self.token(name) * self.sizes[name]

    def add_to(self, tokenizer: Any) -> list[int]:
        """Add the placeholders to the tokenizer (those that it lacks) and remember their ids, which are returned."""
        from tokenizers import AddedToken

        tokens = [self.token(name) for name in self.names]
        missing = [t for t in tokens if t not in tokenizer.get_vocab()]
        tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in missing], special_tokens=True)
        self.ids = dict(zip(self.names, tokenizer.convert_tokens_to_ids(tokens), strict=True))
        return list(self.ids.values())

    def locate(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Where each name's placeholders are: name -> bool mask of the shape of `input_ids`."""
        if not self.ids:
            raise RuntimeError("these soft tokens have no ids yet: call add_to(tokenizer) first")
        return {name: input_ids == token_id for name, token_id in self.ids.items()}

    def inject(
        self,
        inputs_embeds: torch.Tensor,
        input_ids: torch.Tensor,
        vectors: Mapping[str, torch.Tensor | Sequence[torch.Tensor]],
    ) -> torch.Tensor:
        """Replace the embeddings at the placeholders by vectors, in reading order; differentiable in both.

        Args:
            inputs_embeds: (B, T, d).
            input_ids: (B, T), padded on either side.
            vectors: name -> vectors in the order of the occurrences, row after row: (n, size, d), or (n, d) where the
                size is 1; or a list with one such tensor per row, whose counts are checked row by row. Any floating
                dtype: they are cast to that of `inputs_embeds`. A name that is absent must not occur in the prompt.

        Returns:
            (B, T, d), a new tensor.

        Raises:
            ValueError: the number of placeholders differs from the number of vectors (both are named), an occurrence
                is cut short, or the width differs.
        """
        for name in vectors:
            self._known(name)
        for name, mask in self.locate(input_ids).items():
            counts = mask.sum(dim=1)
            given = self._flatten(name, vectors.get(name), counts, inputs_embeds.shape[-1])
            if given is not None:
                source = given.to(device=inputs_embeds.device, dtype=inputs_embeds.dtype)
                inputs_embeds = inputs_embeds.masked_scatter(mask.unsqueeze(-1), source)
        return inputs_embeds

    def _flatten(
        self, name: str, vectors: torch.Tensor | Sequence[torch.Tensor] | None, counts: torch.Tensor, width: int
    ) -> torch.Tensor | None:
        """All vectors of one name as (placeholders, d), checked against the counts of placeholders per row."""
        import torch

        size, placeholders = self.sizes[name], counts.tolist()
        for row, count in enumerate(placeholders):
            if count % size:
                raise ValueError(
                    f"row {row} holds {count} {self.token(name)!r}, not a multiple of {size}: an occurrence was cut; "
                    "shorten the prompt by whole items"
                )
        if vectors is None:
            vectors = torch.empty(0, size, width)
        if not isinstance(vectors, torch.Tensor):
            if len(vectors) != len(placeholders):
                raise ValueError(f"{name!r} has {len(vectors)} lists of vectors for {len(placeholders)} rows")
            for row, (part, count) in enumerate(zip(vectors, placeholders, strict=True)):
                self._check_count(name, f"row {row}", count // size, len(part))
            vectors = torch.cat(list(vectors))
        self._check_count(name, "the batch", sum(placeholders) // size, len(vectors))
        expected = [(len(vectors), size, width)] + ([(len(vectors), width)] if size == 1 else [])
        if tuple(vectors.shape) not in expected:
            raise ValueError(f"vectors of {name!r} must have the shape {expected[0]} (got {tuple(vectors.shape)})")
        return vectors.reshape(-1, width) if len(vectors) else None

    def _check_count(self, name: str, where: str, occurrences: int, given: int) -> None:
        if occurrences != given:
            raise ValueError(
                f"{where} holds {occurrences} occurrences of {name!r} in the prompt, "
                f"but vectors for {given} were given"
            )

    def _known(self, name: str) -> None:
        if name not in self.sizes:
            raise ValueError(f"no soft token {name!r}; there are {', '.join(self.names)}")
