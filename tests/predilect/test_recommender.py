from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from predilect.data import Catalogue, UnknownItemError
from predilect.recommender import Recommender, RecommenderConfig, available_recommenders, recommender_class

CATALOGUE = Catalogue(tuple("abcde"), ("Alien", "Brazil", "Casablanca", "Dune", ""), ((),) * 5)
SPLITS: Any = SimpleNamespace(catalogue=CATALOGUE)


@dataclass
class FixedConfig(RecommenderConfig):
    scale: float = field(default=1.0, metadata={"help": "Factor of all scores."})


class Fixed(Recommender[FixedConfig]):
    """Item i scores scale * i, whatever the history."""

    name = "fixed"
    config_class = FixedConfig

    def _fit(self, data: object, folder: Path) -> None: ...

    def _score(self, histories: torch.Tensor) -> torch.Tensor:
        return self.config.scale * torch.arange(1.0, 6.0).expand(len(histories), -1)

    def _save(self, folder: Path) -> None:
        (folder / "weights.json").write_text("[]")

    def _load(self, folder: Path) -> None:
        assert (folder / "weights.json").is_file()


def test_recommends_the_best_without_the_history() -> None:
    model = Fixed(scale=2.0).fit(SPLITS)
    assert model.recommend(["Dune", 5], k=2) == [(3, "Casablanca", 6.0), (2, "Brazil", 4.0)]
    assert model.recommend(["e"], k=1, exclude_history=False) == [(5, "item e", 10.0)]


def test_a_person_without_history_and_a_k_beyond_the_catalogue() -> None:
    model = Fixed().fit(SPLITS)
    assert [r.item_id for r in model.recommend([], k=99)] == [5, 4, 3, 2, 1]
    assert model.recommend(["Alien", "Brazil", "Casablanca", "Dune", "e"]) == []


def test_bad_requests_name_the_value() -> None:
    model = Fixed().fit(SPLITS)
    with pytest.raises(UnknownItemError, match=r"Casablanka.*did you mean 'Casablanca'"):
        model.recommend(["Casablanka"])
    with pytest.raises(ValueError, match=r"at least 1 \(got 0\)"):
        model.recommend(["Dune"], k=0)
    with pytest.raises(RuntimeError, match="not fitted"):
        Fixed().recommend(["Dune"])


def test_options_are_the_config_s_fields() -> None:
    assert Fixed(scale=3.0, seed=4).config == FixedConfig(seed=4, scale=3.0)
    with pytest.raises(TypeError, match="no option scales; its options are scale, seed"):
        Fixed(scales=3.0)
    with pytest.raises(TypeError, match="either a config or options"):
        Fixed(FixedConfig(), scale=1.0)


def test_save_and_load(tmp_path: Path) -> None:
    Fixed(scale=2.5, seed=7).fit(SPLITS).save_pretrained(tmp_path)
    loaded = Fixed.from_pretrained(tmp_path)
    assert loaded.config == FixedConfig(seed=7, scale=2.5)
    assert loaded.catalogue == CATALOGUE


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no method\.json"):
        Recommender.from_pretrained(tmp_path)
    Fixed().fit(SPLITS).save_pretrained(tmp_path)
    (tmp_path / "catalogue.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="no catalogue"):
        Fixed.from_pretrained(tmp_path)
    description = json.loads((tmp_path / "method.json").read_text())
    (tmp_path / "method.json").write_text(json.dumps(description | {"method": "popularity"}))
    with pytest.raises(ValueError, match="holds 'popularity', not 'fixed'"):
        Fixed.from_pretrained(tmp_path)


def test_registry_lists_and_loads_what_is_installed() -> None:
    core = {"random", "popularity", "recent-popularity", "item-knn", "gru4rec", "caser", "nextitnet", "sasrec"}
    assert core <= set(available_recommenders())
    for name in core:
        assert recommender_class(name).name == name
    with pytest.raises(ValueError, match=r"no recommender 'sasrek' is installed; there are .*sasrec"):
        recommender_class("sasrek")
