"""One prompt and K completions as one row: the prompt is computed once, and every completion sees it and itself only.

Layout of a row for the prompt p_1..p_m and completions c_1..c_K (segments in brackets):

    p_1 .. p_{m-1} [0]   p_m c_1 [1]   p_m c_2 [2]   ...   p_m c_K [K]

The last prompt token opens every completion, so that each completion token is predicted by the position before it and
labels shifted by one, as every causal LM uses them, hold. Positions restart at m - 1 with each copy of p_m. A block
mask lets a completion attend to segment 0 and to itself. The log-probs are exactly those of K separate rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

IGNORE = -100
PADDING = -1  # segment of a padding position


@dataclass(frozen=True)
class PackedRow:
    """One packed row, unpadded; all lists have one length.

    Attributes:
        input_ids: token ids.
        position_ids: place of each token in its own prompt + completion.
        segment_ids: 0 for the shared prompt, k for completion k = 1..K and the copy of the last prompt token that
            opens it.
        labels: completion tokens; -100 elsewhere.
    """

    input_ids: list[int]
    position_ids: list[int]
    segment_ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.input_ids)


def pack_shared_prefix(
    prompt_ids: Sequence[int], completions: Sequence[Sequence[int]], *, max_length: int | None = None
) -> PackedRow:
    """Pack one prompt and its completions.

    Args:
        prompt_ids: the prompt, at least one token.
        completions: K >= 1 completions of at least one token each (usually ending in EOS).
        max_length: longest prompt + completion, as in a row of its own. The prompt loses tokens on the left until its
            longest completion fits; completions are never cut. To drop whole items instead, see
            `PromptTemplate.encode`.

    Raises:
        ValueError: an empty prompt or completion, no completion, or a completion that leaves no room for a prompt
            token.

    Examples:
        >>> pack_shared_prefix([1, 2, 3], [[7], [8, 9]]).input_ids
        [1, 2, 3, 7, 3, 8, 9]
        >>> pack_shared_prefix([1, 2, 3], [[7], [8, 9]]).position_ids
        [0, 1, 2, 3, 2, 3, 4]
    """
    if not len(prompt_ids):
        raise ValueError("the prompt is empty: a completion needs at least one token before it, such as BOS")
    if not len(completions):
        raise ValueError("there is no completion to pack")
    for number, completion in enumerate(completions):
        if not len(completion):
            raise ValueError(f"completion {number} is empty: end it with EOS at least")
    prompt = list(prompt_ids)
    if max_length is not None:
        longest = max(len(c) for c in completions)
        if longest >= max_length:
            raise ValueError(
                f"a completion of {longest} tokens leaves no room for a prompt within max_length {max_length}"
            )
        prompt = prompt[-(max_length - longest) :]
    shared = len(prompt) - 1
    row = PackedRow(prompt[:-1], list(range(shared)), [0] * shared, [IGNORE] * shared)
    for number, completion in enumerate(completions, start=1):
        row.input_ids.extend([prompt[-1], *completion])
        row.position_ids.extend(range(shared, shared + 1 + len(completion)))
        row.segment_ids.extend([number] * (1 + len(completion)))
        row.labels.extend([IGNORE, *completion])
    return row


@dataclass
class SharedPrefixCollator:
    """Packs and pads rows of `prompt_ids` (list of ids) and `completions` (list of lists of ids); other columns are
    left out.

    The batch holds `input_ids`, `position_ids`, `segment_ids` (-1 at padding), `labels` (all (B, T)) and
    `completion_mask` (B, K), true where row b has a completion k: K may differ from row to row. It goes to
    `completion_logps`, or, with `shared_prefix_mask(segment_ids, dtype)` as `attention_mask`, straight into a causal
    LM.

    Args:
        pad_token_id: what to pad with; never attended to.
        padding_side: "left" or "right"; the results are the same.
        max_length: see `pack_shared_prefix`.
        pad_to_multiple_of: pad T up to a multiple of this.

    Raises:
        ValueError: an unknown padding side, or rows that cannot be packed (the message names the row of the batch).
    """

    pad_token_id: int
    padding_side: Literal["left", "right"] = "left"
    max_length: int | None = None
    pad_to_multiple_of: int = 1

    def __post_init__(self) -> None:
        if self.padding_side not in ("left", "right"):
            raise ValueError(f"padding_side is 'left' or 'right' (got {self.padding_side!r})")

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        rows = []
        for number, feature in enumerate(features):
            try:
                row = pack_shared_prefix(feature["prompt_ids"], feature["completions"], max_length=self.max_length)
            except ValueError as error:
                raise ValueError(f"row {number} of the batch: {error}") from error
            rows.append(row)
        length = -(-max(map(len, rows)) // self.pad_to_multiple_of) * self.pad_to_multiple_of
        fill = {"input_ids": self.pad_token_id, "position_ids": 0, "segment_ids": PADDING, "labels": IGNORE}
        batch = {name: np.full((len(rows), length), value, dtype=np.int64) for name, value in fill.items()}
        for number, row in enumerate(rows):
            place = slice(length - len(row), length) if self.padding_side == "left" else slice(0, len(row))
            for name, array in batch.items():
                array[number, place] = getattr(row, name)
        counts = torch.tensor([row.segment_ids[-1] for row in rows])
        mask = torch.arange(int(counts.max())) < counts[:, None]
        return {**{name: torch.from_numpy(array) for name, array in batch.items()}, "completion_mask": mask}
