"""Ranking and generation of titles by a language model, against plain implementations of what the papers do.

    python -m benchmarks.speed.llm_rec [--quick] [--output FOLDER]

Candidates: one Last.fm prompt with 20 artists, against one row per candidate (rows padded, logits of all positions in
float32, 8 rows at a time) and against the published procedure: greedy generation and a search for the names of the
candidates in the text, which yields one name or none. That procedure writes up to 20 tokens. SmolLM2 that was not
tuned ends at once after these prompts, so the length is fixed: to 20 tokens, as of a model that does not end by
itself, and in a further row to the tokens of a name and its EOS, as of a tuned model.

Catalogue: all films of MovieTweetings with at least 5 ratings for one person, against one row per film, of which a
sample is timed and scaled; with and without sharing the tokens with which titles begin. Beams: 10, along the titles of
the catalogue against freely, as many steps; ours computes the prompt once, `generate` by itself once per beam.

Before anything is timed, both sides are compared in float32: log-probabilities with those of separate rows, titles
with those that `prefix_allowed_tokens_fn` gives, beams with the log-probabilities of their titles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmarks import _preferences as shared
from benchmarks.speed import _results

from predilect.data import load
from predilect.modeling.answer_scores import score_candidates, score_catalogue
from predilect.modeling.generation import generate_titles
from predilect.tokenization import PromptSet, TitleTrie, encode_answers

NEW_TOKENS = 20
NUM_BEAMS = 10
ROWS = 8  # of the baselines' batches
SAMPLE = 96  # films whose rows are timed
REPEATS = 3


class Choice(NamedTuple):
    """A prompt and the titles that are to be ranked after it."""

    prompt: list[int]
    titles: list[str]
    answers: list[list[int]]

    @classmethod
    def of(cls, tokenizer: Any, prompt: str, titles: Sequence[str]) -> Choice:
        return cls(tokenizer.encode(prompt), list(titles), encode_answers(tokenizer, titles))


def artists(tokenizer: Any, quick: bool) -> Choice:
    """The prompt of median length among the first ones."""
    rows = sorted(shared.artist_choices(quick=quick).select(range(15)), key=lambda row: len(row["prompt"]))
    row = rows[len(rows) // 2]
    return Choice.of(tokenizer, row["prompt"], sorted(name.strip() for name in (row["chosen"], *row["rejected"])))


def films(tokenizer: Any, quick: bool) -> Choice:
    """The prompt of the first test row with a full history, and all films."""
    if quick:
        titles = [f"{article} {a}{b}" for article in ("The", "A") for a in "abcdef" for b in "uvwxyz"]
        history = titles[:3]
    else:
        splits = load("movietweetings-100k").k_core(5).split("temporal")
        catalogue = splits.catalogue
        titles = [catalogue.title(item) for item in range(1, len(catalogue) + 1)]
        longest = splits.test.select([int(np.argmax(splits.test.position))])  # the first of the longest sequence
        history = [catalogue.title(item) for item in longest.to_dataset()[0]["history"]]
    return Choice.of(tokenizer, PromptSet.for_domain("movie", task="open")[0].render(history=history), titles)


@torch.no_grad()
def row_per_answer(model: Any, choice: Choice, answers: Sequence[list[int]]) -> torch.Tensor:
    sums = []
    for start in range(0, len(answers), ROWS):
        some = answers[start : start + ROWS]
        rows = [choice.prompt + answer for answer in some]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        tokens = logits.log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
        answer = mask[:, 1:].bool() & (torch.arange(1, width, device=model.device) >= len(choice.prompt))
        sums.append((tokens * answer).sum(1))
    return torch.cat(sums).cpu()


def published(model: Any, tokenizer: Any, choice: Choice, new_tokens: int) -> list[str]:
    """The names found in a text of `new_tokens` tokens."""
    ids = torch.tensor([choice.prompt], device=model.device)
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=new_tokens, max_new_tokens=new_tokens
    )
    text = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    return [title for title in choice.titles if title in text]


def free_beams(model: Any, prompt: list[int], steps: int) -> torch.Tensor:
    ids = torch.tensor([prompt], device=model.device)
    beams: torch.Tensor = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=NUM_BEAMS,
        num_return_sequences=NUM_BEAMS,
        length_penalty=0.0,
        min_new_tokens=steps,
        max_new_tokens=steps,
    )
    return beams


def steps_of(model: Any, function: Callable[[], object]) -> int:
    """Tokens that all beams are extended by during `function`: forward passes of as many rows as there are beams."""
    rows: list[int] = []
    handle = model.register_forward_hook(lambda _, __, output: rows.append(len(output.logits)))
    try:
        function()
    finally:
        handle.remove()
    return rows.count(NUM_BEAMS)


class Sides:
    """Both sides of every comparison, for one model."""

    def __init__(self, model: Any, tokenizer: Any, names: Choice, movies: Choice) -> None:
        self.model, self.tokenizer, self.names, self.movies = model.to(shared.DEVICE), tokenizer, names, movies
        self.names_trie = TitleTrie.from_titles(names.titles, tokenizer)
        self.movies_trie = TitleTrie.from_titles(movies.titles, tokenizer)
        self.pad = tokenizer.pad_token_id
        self.sample = list(range(0, len(movies.titles), max(1, len(movies.titles) // SAMPLE)))

    def candidates(self) -> torch.Tensor:
        return score_candidates(self.model, [self.names.prompt], [self.names.answers], pad_token_id=self.pad)[0]

    def candidate_rows(self) -> torch.Tensor:
        return row_per_answer(self.model, self.names, self.names.answers)

    def one_title(self) -> list[tuple[int, float]]:
        return generate_titles(self.model, self.names_trie, [self.names.prompt], num_beams=1, pad_token_id=self.pad)[0]

    def published(self, new_tokens: int = NEW_TOKENS) -> list[str]:
        return published(self.model, self.tokenizer, self.names, new_tokens)

    def catalogue(self, tree: bool) -> torch.Tensor:
        prompts = [self.movies.prompt]
        return score_catalogue(self.model, prompts, self.movies.answers, pad_token_id=self.pad, tree=tree)[0]

    def film_rows(self) -> torch.Tensor:
        return row_per_answer(self.model, self.movies, [self.movies.answers[i] for i in self.sample])

    def beams(self) -> list[tuple[int, float]]:
        return generate_titles(
            self.model, self.movies_trie, [self.movies.prompt], num_beams=NUM_BEAMS, pad_token_id=self.pad
        )[0]

    def check(self) -> None:
        """Stop where two sides do not give the same; in float32."""
        agree("candidates", self.candidates(), self.candidate_rows())
        rows = self.film_rows()
        for tree in (True, False):
            agree("films", self.catalogue(tree)[self.sample], rows)
        beams = self.beams()
        scores = score_candidates(
            self.model,
            [self.movies.prompt],
            [[self.movies.answers[item - 1] for item, _ in beams]],
            pad_token_id=self.pad,
        )
        agree("beams", torch.tensor([score for _, score in beams]), scores[0])
        ids = torch.tensor([self.names.prompt], device=self.model.device)
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=self.names_trie.max_length,
            prefix_allowed_tokens_fn=self.names_trie.prefix_allowed_tokens_fn(ids.shape[1]),
        )
        ours, other = [item for item, _ in self.one_title()], self.names_trie.decode(output[0, ids.shape[1] :])
        if ours != other:
            raise SystemExit(f"greedy title: items {ours} on our side, {other} on the other")


def agree(what: str, ours: torch.Tensor, other: torch.Tensor) -> None:
    if not torch.allclose(ours, other, atol=1e-3, rtol=1e-4):
        raise SystemExit(f"{what}: log-probabilities differ by {float((ours - other).abs().max()):.3g}")


def candidate_rows(sides: Sides, repeats: int) -> list[dict[str, Any]]:
    title_tokens = round(sum(map(len, sides.names.answers)) / len(sides.names.answers))
    seconds = _results.time_in_turns(
        {
            "ranking": sides.candidates,
            "one title": sides.one_title,
            "rows": sides.candidate_rows,
            "published": sides.published,
            "published, tuned": lambda: sides.published(title_tokens),
        },
        repeats=repeats,
    )
    ranking = f"{len(sides.names.titles)} candidates ranked, prompt of {len(sides.names.prompt)} tokens"
    tuned = f"published procedure, {title_tokens} tokens (a name and EOS)"
    greedy = "one title by greedy search"
    lines = [
        (ranking, "ranking", "rows", 8, "one row per candidate"),
        (ranking, "ranking", "published", 0.8, f"published procedure, {NEW_TOKENS} tokens"),
        (ranking, "ranking", "published, tuned", 0.8, tuned),
        (greedy, "one title", "published", 1.3, f"published procedure, {NEW_TOKENS} tokens"),
        (greedy, "one title", "published, tuned", 1.3, tuned),
    ]
    return [
        _results.row(
            case, ours=seconds[ours], baseline=seconds[baseline], unit="s", goal=goal, baseline_is=baseline_is
        )
        for case, ours, baseline, goal, baseline_is in lines
    ]


def catalogue_rows(sides: Sides, repeats: int) -> list[dict[str, Any]]:
    seconds = _results.time_in_turns(
        {
            "tree": lambda: sides.catalogue(tree=True),
            "chunks": lambda: sides.catalogue(tree=False),
            "rows": sides.film_rows,
        },
        repeats=repeats,
    )
    films, sample = len(sides.movies.titles), len(sides.sample)
    case = f"{films} films ranked for one person, prompt of {len(sides.movies.prompt)} tokens"
    rows, is_rows = seconds["rows"] * films / sample, f"one row per film ({sample} timed, scaled)"
    return [
        _results.row(case, ours=seconds["tree"], baseline=rows, unit="s", goal=10, baseline_is=is_rows),
        _results.row(
            f"{case}, no shared beginnings",
            ours=seconds["chunks"],
            baseline=rows,
            unit="s",
            goal=10,
            baseline_is=is_rows,
        ),
        _results.row(
            f"{films} films, shared beginnings",
            ours=seconds["tree"],
            baseline=seconds["chunks"],
            unit="s",
            goal=1,
            baseline_is="every title computed by itself",
        ),
    ]


def beam_rows(sides: Sides, repeats: int) -> list[dict[str, Any]]:
    steps = steps_of(sides.model, sides.beams)
    seconds = _results.time_in_turns(
        {"titles": sides.beams, "free": lambda: free_beams(sides.model, sides.movies.prompt, steps)}, repeats=repeats
    )
    return [
        _results.row(
            f"{NUM_BEAMS} beams along {len(sides.movies.titles)} titles, {steps} steps",
            ours=seconds["titles"],
            baseline=seconds["free"],
            unit="s",
            goal=round(1 / 1.3, 3),
            baseline_is="beams without constraint",
        )
    ]


def measure(given: _results.Options) -> list[dict[str, Any]]:
    with shared.float32():
        model, tokenizer = shared.language_model(quick=given.quick)
    sides = Sides(model, tokenizer, artists(tokenizer, given.quick), films(tokenizer, given.quick))
    sides.check()
    print("both sides agree in float32", flush=True)
    if shared.BF16 and not given.quick:
        sides.model = shared.language_model(quick=False)[0].to(shared.DEVICE)
    repeats = 1 if given.quick else REPEATS
    rows = []
    for part in (candidate_rows, catalogue_rows, beam_rows):
        rows += part(sides, repeats)
        print(f"{part.__name__} done", flush=True)
    return rows


def main() -> None:
    given = _results.options("Speed of ranking and generation by a language model.")
    torch.set_num_threads(1 if given.quick else 2)
    _results.write(
        "llm_rec",
        measure(given),
        data="a Last.fm candidate prompt of S-DPO's sample; MovieTweetings-100k's films with at least 5 ratings; "
        f"SmolLM2-135M-Instruct in {shared.DTYPE}; medians of calls in turns",
        given=given,
        packages=("transformers",),
    )


if __name__ == "__main__":
    main()
