from __future__ import annotations

import pytest

from llm_rec.interpreter.titles import Reading, TitleList
from predilect.data.catalogue import Catalogue


def titles(*names: str) -> TitleList:
    return TitleList(Catalogue(tuple(f"r{i}" for i in range(len(names))), names, ((),) * len(names)))


FILMS = ("(500) Days of Summer (2009)", "What? (1972)", "It (1990)", "New (2001)", "York", "New York", "Sin; Again")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(500) Days of Summer (2009); What? (1972); It (1990)", Reading([1, 2, 3], 3, 0)),
        ("It; what?; 500 days of summer", Reading([3, 2, 1], 3, 0)),
        ("New (2001); York; New York", Reading([4, 5, 6], 3, 0)),  # no title across the semicolon
        ("Sin; Again; It", Reading([7, 3], 2, 0)),  # one with a semicolon stays whole
        ("Sin; It", Reading([3], 2, 1)),
        ("It; It;; It", Reading([3, 3, 3], 3, 0)),
        ("He watched It and What?", Reading([3, 2], 1, 0)),
        ("Bitter; Quitting", Reading([], 2, 2)),  # "it" inside words
        ("", Reading([], 0, 0)),
        (" ; ", Reading([], 0, 0)),
    ],
)
def test_texts_by_hand(text: str, expected: Reading) -> None:
    assert titles(*FILMS).read(text) == expected


def test_what_is_written_is_read() -> None:
    films = titles(*FILMS)
    for items in ([7, 1, 4, 5], [6, 6, 2], [3]):
        assert films.read(films.write(items)).items == items


def test_items_with_one_title_are_one_to_a_reader() -> None:
    films = titles("Heat", "Ran", "Heat")
    assert films.same([3, 2, 1]) == [1, 2, 1]
    assert films.read(films.write([3, 2])).items == [1, 2]


def test_films_that_differ_in_their_year_need_it() -> None:
    films = titles("Twins (1988)", "Twins (2001)")
    assert films.read("Twins (2001); Twins; Twins (1988)") == Reading([2, 1], 3, 1)
    assert [films.only(text) for text in ("Twins (2001)", "Twins", "I say Twins (2001)")] == [2, None, None]


def test_titles_with_line_breaks_are_written_in_one_line_and_nameless_items_by_their_id() -> None:
    films = titles("Heat\nand Dust", "")
    assert films.write([1, 2]) == "Heat and Dust; item r1"
    assert films.read(films.write([2, 1])).items == [2, 1]
