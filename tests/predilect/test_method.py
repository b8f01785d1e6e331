"""`Method`: folders, typed options, the hub, and runs that are known by content."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from predilect import Method, Recommender
from predilect.configuration import option
from predilect.method import METHOD_FILE, MethodConfig, available_methods, method_class
from predilect.recommenders import ItemKNN, Popularity, SASRecRecommender


@dataclass
class WordsConfig(MethodConfig):
    sizes: tuple[int, ...] = option("Sizes.", default=(1, 2))
    place: Path | None = option("A folder.", default=None)


class Words(Method[WordsConfig]):
    """Ranks nothing: keeps the words it was fitted on."""

    name = "words"
    config_class = WordsConfig

    def fingerprint(self, data: list[str]) -> str:
        return " ".join(data)

    def _fit(self, data: list[str], folder: Path) -> None:
        self.words = data
        (folder / "checkpoint").touch()

    def _save(self, folder: Path) -> None:
        (folder / "words.json").write_text(json.dumps(self.words))

    def _load(self, folder: Path) -> None:
        self.words = json.loads((folder / "words.json").read_text())


def test_options_come_back_as_what_they_were(tmp_path: Path) -> None:
    Words(sizes=(3, 4), place=Path("a/b"), seed=2).fit(["x"]).save_pretrained(tmp_path)
    loaded = Words.from_pretrained(tmp_path)
    assert loaded.config == WordsConfig(seed=2, sizes=(3, 4), place=Path("a/b"))
    assert loaded.words == ["x"]
    assert not (tmp_path / "config.json").exists()


def test_a_folder_without_its_last_file_is_not_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = Words().fit(["x"])
    fitted.save_pretrained(tmp_path)

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fitted, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        fitted.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"is not a saved method: it has no method\.json"):
        Words.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        Words.from_pretrained(tmp_path / "nowhere")


def test_a_run_is_known_by_method_options_and_data(tmp_path: Path) -> None:
    Words().fit(["a", "b"], output_dir=tmp_path)
    Words().fit(["a", "b"], output_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"another run \(data: a b before, a c now\)"):
        Words().fit(["a", "c"], output_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"sizes: \[1, 2\] before, \[9\] now"):
        Words(sizes=(9,)).fit(["a", "b"], output_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="is not empty"):
        Words().fit(["a", "b"], output_dir=tmp_path)
    assert Words().fit(["a", "c"], output_dir=tmp_path, overwrite=True).words == ["a", "c"]


def edited(splits: Any) -> Any:
    """The same users, items and rows; one of them took another item."""
    items = splits.train.sequences.items.copy()
    items[0] = items[0] % splits.num_items + 1
    sequences = dataclasses.replace(splits.train.sequences, items=items)
    parts = {
        name: dataclasses.replace(splits.part(name), sequences=sequences) for name in ("train", "validation", "test")
    }
    return dataclasses.replace(splits, **parts)


def test_an_edited_log_is_refused_on_resume(tiny_splits: Any, tmp_path: Path) -> None:
    options = {"hidden_size": 8, "max_epochs": 1}
    SASRecRecommender(**options).fit(tiny_splits, output_dir=tmp_path)
    with pytest.raises(ValueError, match=r"another run \(data: "):
        SASRecRecommender(**options).fit(edited(tiny_splits), output_dir=tmp_path, resume=True)


def test_every_method_is_found_by_name_those_that_rank_and_those_that_do_not() -> None:
    pytest.importorskip("llm_rec", reason="the method that ranks nothing is llm-rec's")
    assert {"popularity", "sasrec", "rec-interpreter"} <= set(available_methods())
    assert not issubclass(method_class("rec-interpreter"), Recommender)
    with pytest.raises(ValueError, match="no method 'sasrek' is installed"):
        method_class("sasrek")


# --- the hub ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A hub that is a folder: nothing asks the network."""
    root = tmp_path / "hub"

    class Api:
        def __init__(self, token: str | None = None) -> None: ...

        def create_repo(self, repo_id: str, **options: Any) -> Any:
            (root / repo_id).mkdir(parents=True)
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> str:
            shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)
            return f"https://hub/{repo_id}"

    def download(repo_id: str, **options: Any) -> str:
        if not (root / repo_id).is_dir():
            raise huggingface_hub.errors.LocalEntryNotFoundError("no such file")
        return str(root / repo_id)

    monkeypatch.setattr(huggingface_hub.hub_mixin, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return root


def test_a_method_goes_to_the_hub_and_comes_back(hub: Path, tiny_splits: Any) -> None:
    fitted = ItemKNN(num_neighbours=3).fit(tiny_splits)
    assert fitted.push_to_hub("someone/knn") == "https://hub/someone/knn"
    assert (hub / "someone" / "knn" / METHOD_FILE).is_file()
    assert "predilect.Method.from_pretrained" in (hub / "someone" / "knn" / "README.md").read_text()
    histories = torch.tensor([[0, 1, 2], [0, 0, 0]])
    for kind in (Method, Recommender, ItemKNN):
        again: Any = kind.from_pretrained("someone/knn", revision="main")
        assert again.config == fitted.config
        assert torch.equal(again.score(histories), fitted.score(histories))
    with pytest.raises(ValueError, match="holds 'item-knn', not 'popularity'"):
        Popularity.from_pretrained("someone/knn")
    with pytest.raises(FileNotFoundError, match="nor could a repository of that name be read"):
        Method.from_pretrained("someone/nothing")


# --- scoring and lists -----------------------------------------------------------------------------------------------


def test_lists_of_many_people_are_those_of_each(tiny_splits: Any) -> None:
    fitted = ItemKNN().fit(tiny_splits)
    people: list[list[int | str]] = [[], [1], [2, 3, 4], [tiny_splits.catalogue.title(5)], [6] * 7]
    alone = [fitted.recommend(person, k=4) for person in people]
    for size in (1, 2, 1000):
        lists = fitted.recommend_many(people, k=4, batch_size=size)
        assert [[r.item_id for r in found] for found in lists] == [[r.item_id for r in found] for found in alone]
    assert fitted.recommend_many([]) == []


@pytest.mark.parametrize(
    ("histories", "candidates", "message"),
    [
        (torch.tensor([[1.0]]), None, "integer ids"),
        (torch.tensor([1]), None, r"\(batch, length\)"),
        (torch.tensor([[99]]), None, r"ids in 0\.\.20 \(got 99\.\.99\)"),
        (torch.tensor([[0, 1], [2, 0]]), None, "row 1 has a 0 behind an item"),
        (torch.tensor([[1]]), torch.tensor([[0]]), r"candidates must hold ids in 1\.\.20"),
        (torch.tensor([[1]]), torch.tensor([[1], [2]]), "one row per history"),
    ],
)
def test_histories_and_candidates_are_checked_for_every_recommender(
    tiny_splits: Any, histories: torch.Tensor, candidates: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Popularity().fit(tiny_splits).score(histories, candidates)
