from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predilect.data import Catalogue, UnknownItemError
from predilect.data.catalogue import normalise_title

TITLES = (
    "The Matrix (1999)",
    "Heat (1995)",
    "Heat (1986)",
    "Amélie (2001)",
    "300 (2006)",
    "Matrix Reloaded, The (2003)",
    "",
)
CATALOGUE = Catalogue(
    raw_ids=("0133093", "0113277", "0093164", "0211915", "0416449", "0234215", "300"),
    titles=TITLES,
    categories=((),) * 7,
    popularity=(90, 50, 2, 40, 30, 60, 1),
)


@pytest.mark.parametrize(
    ("typed", "item"),
    [
        ("The Matrix (1999)", 1),
        ("the matrix", 1),
        ("matrix, the", 1),
        ("Heat", 2),  # the more popular of two films with one title
        ("Heat (1986)", 3),  # an exact title decides
        ("amelie", 4),
        ("0093164", 3),
        ("300", 5),  # a title comes before a raw id
        ("the matrix reloaded", 6),
        (7, 7),
    ],
)
def test_finds_what_a_person_types(typed: int | str, item: int) -> None:
    assert CATALOGUE.resolve([typed]) == [item]


def test_unknown_entries_are_all_named_with_close_titles() -> None:
    with pytest.raises(UnknownItemError) as error:
        CATALOGUE.resolve(["The Matrixx", "Heat", "zzzz", 8])
    message = str(error.value)
    assert "'The Matrixx' (did you mean 'The Matrix (1999)'" in message
    assert "'zzzz'" in message
    assert "; 8" in message
    assert "'Heat'" not in message


def test_part_of_a_title_suggests_titles_that_hold_it() -> None:
    assert CATALOGUE.close_titles("matrix") == ["The Matrix (1999)", "Matrix Reloaded, The (2003)"]
    assert CATALOGUE.close_titles("") == []


@pytest.mark.parametrize("wrong", [0, -1, 8])
def test_padding_and_ids_outside_are_refused(wrong: int) -> None:
    with pytest.raises(UnknownItemError, match=str(wrong)):
        CATALOGUE.resolve([wrong])
    with pytest.raises(UnknownItemError, match=r"outside 1\.\.7"):
        CATALOGUE.title(wrong)


@pytest.mark.parametrize("wrong", [1.0, None, True])
def test_other_types_are_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="an item is"):
        CATALOGUE.resolve([wrong])  # type: ignore[list-item]


def test_an_item_without_title_is_named_by_its_raw_id() -> None:
    assert CATALOGUE.title(7) == "item 300"


def test_save_and_load(tmp_path: Path) -> None:
    CATALOGUE.save(tmp_path / "catalogue.parquet")
    loaded = Catalogue.load(tmp_path / "catalogue.parquet")
    assert loaded == CATALOGUE
    assert loaded.popularity == CATALOGUE.popularity
    with pytest.raises(FileNotFoundError, match="no catalogue"):
        Catalogue.load(tmp_path / "absent.parquet")


def test_subset_renumbers_in_the_given_order() -> None:
    part = CATALOGUE.subset([4, 1])
    assert part.titles == ("Amélie (2001)", "The Matrix (1999)")
    assert part.popularity == (40, 90)
    assert part.resolve(["0133093"]) == [2]


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        Catalogue(("1", "2"), ("A",), ((), ()))
    with pytest.raises(ValueError, match="one count per item"):
        Catalogue(("1",), ("A",), ((),), (1, 2))


@given(st.text(max_size=30))
def test_normalising_is_idempotent_up_to_what_it_strips(title: str) -> None:
    once = normalise_title(title)
    assert normalise_title(once.upper()) == normalise_title(normalise_title(once.upper()))


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=20))
def test_every_exact_title_is_found(titles: list[str]) -> None:
    catalogue = Catalogue(tuple(f"raw{i}" for i in range(len(titles))), tuple(titles), ((),) * len(titles))
    found = catalogue.resolve(titles)
    assert [catalogue.titles[i - 1] for i in found] == titles
