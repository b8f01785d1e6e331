"""A package of somebody else: a recommender in twenty lines, trained, compared, tested and asked like ours."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import forked
import pytest
from support import run

pytestmark = pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not on the PATH: pip install uv")

PROJECT = """
[project]
name = "stranger"
version = "1.0"
dependencies = ["predilect>=0.1,<0.2"]

[project.entry-points."predilect.recommenders"]
last-seen = "stranger:LastSeen"

[build-system]
requires = ["uv-build>=0.13,<0.14"]
build-backend = "uv_build"
"""
MODULE = '''
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from predilect import Recommender


class LastSeen(Recommender):
    """What followed the last item most often."""

    name = "last-seen"

    def _fit(self, data, folder):
        rows, size = data.train, data.num_items + 1
        before = rows.histories()[:, -1].numpy()
        pairs = np.bincount(before * size + rows.target, minlength=size * size).reshape(size, size)
        self.counts_after = torch.from_numpy(pairs).float()

    def _score(self, histories):
        return self.counts_after[histories[:, -1], 1:]

    def _save(self, folder):
        save_file({"counts": self.counts_after}, folder / "counts.safetensors")

    def _load(self, folder):
        self.counts_after = load_file(folder / "counts.safetensors")["counts"]
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to put on the path in which the package is installed."""
    source = tmp_path_factory.mktemp("stranger")
    (source / "src" / "stranger").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "src" / "stranger" / "__init__.py").write_text(MODULE)
    target = tmp_path_factory.mktemp("site")
    run("uv", "pip", "install", "--quiet", "--no-deps", "--target", target, source, cwd=source)
    return target


def predilect(site: Path, *arguments: object) -> str:
    return forked.run(["-m", "predilect", *arguments], env={**os.environ, "PYTHONPATH": str(site)}, check=True).stdout


def test_it_is_trained_and_asked_by_the_command_line(site: Path, tmp_path: Path) -> None:
    flags = ["--k-core", 20, "--bootstrap", 20, "--output-dir", tmp_path / "run"]
    predilect(site, "train", "last-seen", *flags)
    kept = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())
    assert kept["recommender"] == "last-seen"
    assert kept["results"]["rows"] > 100
    told = json.loads(predilect(site, "recommend", "Iron Man 3", "--model", tmp_path / "run", "--json"))
    assert len(told["recommendations"]) == 10
    assert "seed = 0" in predilect(site, "options", "last-seen")


def test_it_is_a_line_of_the_leaderboard(site: Path, tmp_path: Path) -> None:
    models = ["--models", "popularity,last-seen", "--k-core", 20, "--bootstrap", 20]
    predilect(site, "leaderboard", *models, "--output-dir", tmp_path / "board")
    board = json.loads((tmp_path / "board" / "results.json").read_text())
    assert {model["name"] for model in board["models"]} == {"popularity", "last-seen"}
    assert all(model["error"] is None for model in board["models"])


def test_it_keeps_the_promises_of_a_recommender(site: Path) -> None:
    line = (
        "from predilect.testing import check_recommender; from stranger import LastSeen; check_recommender(LastSeen)"
    )
    forked.run(["-c", line], env={**os.environ, "PYTHONPATH": str(site)}, check=True)
