"""A trie of item titles: generation that follows it always ends in a title of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor

from predilect.tokenization.prompts import encode_answers

_NONE = -1  # no such node; also fills token sequences up to one width
Candidates = Sequence[Sequence[int]]


class _Tree:
    """A prefix tree as flat arrays, nodes numbered breadth-first so that the children of a node are neighbours.

    Attributes:
        token: (nodes,) the token that leads to a node; -1 for the root, node 0.
        first: (nodes + 1,) node `n` has the children `first[n] .. first[n + 1] - 1`, by ascending token.
        keys: (nodes - 1,) parent * base + token of the nodes 1, 2, ...: ascending, so a child is found by bisection.
        base: larger than every token.
        ends: (sequences,) the node in which each sequence ends.
    """

    def __init__(self, sequences: np.ndarray) -> None:
        """Build from an int64 matrix of distinct rows in lexicographic order, filled up with -1 on the right."""
        count = len(sequences)
        node = np.zeros(count, dtype=np.int64)
        fresh = np.zeros(count, dtype=bool)  # whether a row has left the path of the row above
        fresh[:1] = True
        parents, tokens, size = [], [np.array([_NONE])], 1
        for column in sequences.T:
            fresh[1:] |= column[1:] != column[:-1]
            alive = column != _NONE
            new = fresh & alive
            parents.append(node[new])
            tokens.append(column[new])
            node = np.where(alive, size - 1 + np.cumsum(new), node)
            size += int(new.sum())
        parent = np.concatenate([*parents, np.empty(0, dtype=np.int64)])
        self.token = np.concatenate(tokens)
        self.first = 1 + np.concatenate([[0], np.cumsum(np.bincount(parent, minlength=size))])
        self.base = int(self.token.max(initial=0)) + 1
        self.keys = parent * self.base + self.token[1:]
        self.ends = node

    def child(self, node: int, token: int) -> int:
        """The child of `node` by `token`, or -1."""
        key = node * self.base + token
        place = int(np.searchsorted(self.keys, key))
        exists = node >= 0 and 0 <= token < self.base and place < len(self.keys) and self.keys[place] == key
        return place + 1 if exists else _NONE

    def children(self, node: int) -> np.ndarray:
        """Tokens that may follow `node`."""
        return self.token[self.first[node] : self.first[node + 1]]


class TitleTrie:
    """Token sequences of titles, each ended by EOS, and the items that carry them.

    Two items with one title share a sequence; a title that begins another is kept apart by its EOS. A step costs one
    bisection per generated token of the title, whatever the size of the catalogue. Build it with `from_titles`.

    Example:
        `trie.logits_processor` (vectorised) and `trie.prefix_allowed_tokens_fn` (one call per beam) put the same
        constraint on
        `generate`; prefer the first::

            processor = trie.logits_processor(prompt_width=input_ids.shape[1])
            out = model.generate(input_ids, logits_processor=[processor], max_new_tokens=trie.max_length)
            items = trie.decode(out[0, input_ids.shape[1]:])
    """

    def __init__(
        self, sequences: Sequence[Sequence[int]], item_ids: Sequence[int], *, eos_token_id: int, pad_token_id: int
    ) -> None:
        """Build from token sequences that end in EOS and hold it nowhere else, one for each item id."""
        lengths = np.array([len(s) for s in sequences])
        table = np.full((len(sequences), lengths.max()), _NONE, dtype=np.int64)
        table[np.arange(table.shape[1]) < lengths[:, None]] = np.concatenate([np.asarray(s) for s in sequences])
        self._sequences, place = np.unique(table, axis=0, return_inverse=True)  # lexicographic; -1 sorts first
        self._tree = _Tree(self._sequences)
        self._sequence_of = dict(zip(item_ids, place.ravel().tolist(), strict=True))
        items: list[list[int]] = [[] for _ in self._sequences]
        for item_id, sequence in self._sequence_of.items():
            items[sequence].append(item_id)
        self._items_at = dict(zip(self._tree.ends.tolist(), items, strict=True))
        self.eos_token_id, self.pad_token_id = eos_token_id, pad_token_id

    @classmethod
    def from_titles(
        cls,
        titles: Sequence[str],
        tokenizer: Any,
        *,
        item_ids: Sequence[int] | None = None,
        leading_space: bool = True,
    ) -> TitleTrie:
        """Build the trie of a catalogue.

        Args:
            titles: one title per item.
            tokenizer: the model's tokenizer.
            item_ids: one id per title, all different; None: 1, 2, ... as in a `Catalogue`.
            leading_space: as in `encode_answers`: False if the prompt went through a chat template.

        Raises:
            ValueError: no title; an empty title (names its item); ids that are not one per title, or not distinct.
        """
        ids = list(range(1, len(titles) + 1) if item_ids is None else item_ids)
        if not titles:
            raise ValueError("a trie needs at least one title (got none)")
        if len(ids) != len(titles) or len(set(ids)) != len(ids):
            raise ValueError(f"item_ids must be distinct, one per title (got {len(ids)} for {len(titles)} titles)")
        if empty := [i for i, title in zip(ids, titles, strict=True) if not title.strip()]:
            raise ValueError(f"items without a title cannot be generated: {_some(empty)}; leave them out")
        sequences = encode_answers(tokenizer, titles, leading_space=leading_space)
        eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        return cls(sequences, ids, eos_token_id=eos, pad_token_id=eos if pad is None else pad)

    def __len__(self) -> int:
        """Number of distinct sequences."""
        return len(self._sequences)

    @property
    def num_nodes(self) -> int:
        return len(self._tree.token)

    @property
    def max_length(self) -> int:
        """Tokens of the longest title, EOS included: with this `max_new_tokens` every title can be finished."""
        return int(self._sequences.shape[1])

    def sequence(self, item_id: int) -> list[int]:
        """The token sequence of an item's title, EOS included."""
        row = self._sequences[self._sequence(item_id)]
        return [int(t) for t in row[row != _NONE]]

    def allowed(self, generated: Sequence[int], candidates: Sequence[int] | None = None) -> list[int]:
        """Tokens that may come next: after a whole title EOS and padding; none where no title starts so."""
        tree, roots = self._forest([candidates] if candidates is not None else None)
        node = self._walk(tree, int(roots[0]), generated)
        if node == _NONE:
            return []
        return tree.children(node).tolist() or self._end_tokens

    def decode(self, generated: Sequence[int] | torch.Tensor) -> list[int]:
        """The items of a generated title (without its prompt; EOS and padding may follow it).

        Returns:
            Item ids: several for a title that several items carry; none if the tokens are not a whole title.
        """
        tokens = generated.tolist() if isinstance(generated, torch.Tensor) else list(generated)
        return list(self._items_at.get(self._walk(self._tree, 0, tokens), ()))

    def prefix_allowed_tokens_fn(
        self, prompt_width: int, *, candidates: Candidates | None = None
    ) -> Callable[[int, torch.Tensor], list[int]]:
        """The constraint in the form that `generate(prefix_allowed_tokens_fn=...)` takes.

        Args:
            prompt_width: columns of `input_ids` given to `generate`, padding included; 0 with `inputs_embeds`.
            candidates: per row of the batch the item ids that may be generated; None: all.

        Raises:
            ValueError: a row without candidates, or an id that the trie lacks.
        """
        tree, roots = self._forest(candidates)

        def allowed(batch_id: int, sequence: torch.Tensor) -> list[int]:
            root = int(roots[batch_id if candidates is not None else 0])
            node = self._walk(tree, root, sequence[prompt_width:].tolist())
            if node == _NONE:  # a beam that search fills up with: its score is -inf already
                return [self.eos_token_id]
            return tree.children(node).tolist() or self._end_tokens

        return allowed

    def logits_processor(self, prompt_width: int, *, candidates: Candidates | None = None) -> TrieLogitsProcessor:
        """The constraint as a vectorised logits processor; arguments and errors as for `prefix_allowed_tokens_fn`.

        Beam search with more beams than a row has titles fills up with hypotheses of score about -1e9 or -inf: they
        repeat a title or decode to nothing.
        """
        tree, roots = self._forest(candidates)
        return TrieLogitsProcessor(
            tree, roots, prompt_width, eos_token_id=self.eos_token_id, pad_token_id=self.pad_token_id
        )

    @property
    def _end_tokens(self) -> list[int]:
        return sorted({self.eos_token_id, self.pad_token_id})

    def _walk(self, tree: _Tree, node: int, tokens: Sequence[int]) -> int:
        """The node reached from `node`; -1 where the tokens leave the tree."""
        for token in tokens:
            if node == _NONE:
                return _NONE
            finished = tree.first[node] == tree.first[node + 1]
            if not (finished and token in self._end_tokens):
                node = tree.child(node, token)
        return node

    def _sequence(self, item_id: int) -> int:
        if item_id not in self._sequence_of:
            raise ValueError(f"item {item_id} is not in this trie of {len(self._sequence_of)} items")
        return self._sequence_of[item_id]

    def _forest(self, candidates: Candidates | None) -> tuple[_Tree, np.ndarray]:
        """A tree with one root per row: the first step of each sequence is the number of its row."""
        if candidates is None:
            return self._tree, np.zeros(1, dtype=np.int64)
        rows: list[int] = []
        picked: list[int] = []
        for row, items in enumerate(candidates):
            chosen = sorted({self._sequence(int(i)) for i in items})
            if not chosen:
                raise ValueError(f"row {row} has no candidates")
            rows.extend([row] * len(chosen))
            picked.extend(chosen)
        tree = _Tree(np.concatenate([np.array(rows)[:, None], self._sequences[picked]], axis=1))
        return tree, np.arange(1, len(candidates) + 1)


class TrieLogitsProcessor(LogitsProcessor):
    """Sets the score of every token that leads out of the trie to -inf; made by `TitleTrie.logits_processor`.

    It keeps no state between steps, so that beams may be reordered and the processor be used again. Works for greedy
    search, sampling and beams: `generate` expands row b of the batch to neighbouring rows.
    """

    def __init__(
        self, tree: _Tree, roots: np.ndarray, prompt_width: int, *, eos_token_id: int, pad_token_id: int
    ) -> None:
        self.prompt_width = prompt_width
        self._eos, self._pad, self._base = eos_token_id, pad_token_id, tree.base
        self._arrays = tuple(torch.from_numpy(a) for a in (tree.token, tree.first, tree.keys, roots))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._arrays = tuple(a.to(scores.device) for a in self._arrays)
        token, first, _, roots = self._arrays
        if len(input_ids) % len(roots):
            raise ValueError(
                f"generate runs {len(input_ids)} rows, not a multiple of the {len(roots)} rows of candidates"
            )
        nodes = roots.repeat_interleave(len(input_ids) // len(roots))
        for column in input_ids[:, self.prompt_width :].unbind(dim=1):
            nodes = self._step(nodes, column)
        begin = first[nodes.clamp(min=0)]
        count = (first[nodes.clamp(min=0) + 1] - begin).masked_fill(nodes == _NONE, 0)
        rows = torch.arange(len(nodes), device=scores.device).repeat_interleave(count)
        within = torch.arange(len(rows), device=scores.device) - (count.cumsum(0) - count)[rows]
        allowed = token[begin[rows] + within]
        result = torch.full_like(scores, -torch.inf)
        result[rows, allowed] = scores[rows, allowed]
        ended = count == 0
        for end in {self._eos, self._pad}:
            result[:, end] = torch.where(ended, scores[:, end], result[:, end])
        return result

    def _step(self, nodes: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Follow one token from each node; a finished title stays where it is under EOS and padding."""
        _, first, keys, _ = self._arrays
        inside = nodes.clamp(min=0)
        wanted = inside * self._base + tokens
        place = torch.searchsorted(keys, wanted)
        exists = (nodes != _NONE) & (tokens < self._base) & (keys[place.clamp(max=len(keys) - 1)] == wanted)
        finished = (nodes != _NONE) & (first[inside] == first[inside + 1])
        stays = finished & ((tokens == self._eos) | (tokens == self._pad))
        return torch.where(stays, nodes, torch.where(exists, place + 1, _NONE))


def _some(values: Sequence[int], limit: int = 5) -> str:
    shown = ", ".join(map(str, values[:limit]))
    return shown + (f" and {len(values) - limit} more" if len(values) > limit else "")
