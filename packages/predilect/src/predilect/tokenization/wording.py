"""The words of each domain and the sentences of the prompts: data, kept apart from the code that fills them in."""

from __future__ import annotations

DOMAINS: dict[str, dict[str, str]] = {
    "movie": {"item": "movie", "items": "movies", "took": "watched", "take": "watch", "person": "viewer"},
    "music": {"item": "artist", "items": "artists", "took": "listened to", "take": "listen to", "person": "listener"},
    "game": {"item": "game", "items": "games", "took": "played", "take": "play", "person": "player"},
    "book": {"item": "book", "items": "books", "took": "read", "take": "read", "person": "reader"},
}

TASKS: dict[str, tuple[str, ...]] = {
    # Choose the next item from a list of candidates.
    "candidates": (
        "A {person} {took} these {items}, oldest first: {history}. "
        "Which one of these {num_candidates} {items} comes next? {candidates}. Reply with its title alone.",
        "{items} in the order in which somebody {took} them: {history}. "
        "Exactly one of the {num_candidates} {items} below follows: {candidates}. Name the one to {take} next.",
        "So far this {person} {took} {history}. Pick the {item} to {take} next from {num_candidates}: {candidates}.",
        "History of a {person}: {history}. Options ({num_candidates}): {candidates}. "
        "Give the title of the option that fits the history best.",
        "You advise a {person} who {took} {num_history} {items}: {history}. "
        "There are {num_candidates} {items} on offer: {candidates}. Recommend a single one by its title.",
    ),
    # Name the next item without any list.
    "open": (
        "A {person} {took} these {items}, oldest first: {history}. Name the {item} that comes next.",
        "{items} in the order in which somebody {took} them: {history}. Continue with one title.",
        "So far this {person} {took} {history}. Which {item} would they {take} next? Reply with its title alone.",
    ),
}
