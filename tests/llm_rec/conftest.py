"""A tiny causal LM that reads bytes, saved to a folder, and a small log whose next item follows from the last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from predilect.testing import tiny_language_model


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny_language_model()[1]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved as `load_causal_lm` reads it."""
    folder = tmp_path_factory.mktemp("lm")
    tiny_language_model(folder)
    return folder


@pytest.fixture(scope="session")
def letter_splits(tiny_splits: Any) -> Any:
    """`tiny_splits` with letters for titles: short prompts, on which a tiny model learns which film follows."""
    named = replace(tiny_splits.catalogue, titles=tuple("abcdefghijklmnopqrst"))
    return replace(tiny_splits, catalogue=named).with_candidates(5)
