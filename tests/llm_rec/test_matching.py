from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from llm_rec.matching import Match, TitleMatcher
from predilect.data.catalogue import normalise_title
from predilect.modeling.generation import answer_text

FILMS = ["Alien (1979)", "Aliens (1986)", "Alien Resurrection (1997)", "Matrix, The (1999)", "Heat (1995)"]


@pytest.mark.parametrize(
    ("text", "item_id", "reason"),
    [
        ("Alien (1979)", 1, "exact"),
        ("alien", 1, "exact"),
        (' "ALIENS" ', 2, "exact"),
        ("Heat (1996)", 5, "exact"),  # no other Heat: the year need not be right
        ("The answer is Aliens.", 2, "contained"),  # a substring search finds Alien too
        ("Alien Resurrection, of course", 3, "contained"),
        ("Alien: Resurrection!", 3, "exact"),
        ("Alien, Alien (1979) and again ALIEN", 1, "contained"),
        ("The Matrix", 4, "exact"),
        ("Matrix, The", 4, "exact"),
        ("watch the matrix next", 4, "contained"),
        ("watch Matrix, The (1999) next", 4, "contained"),
        ("Alien Resurrection or Alien", None, "several"),
        ("Alien; Heat", None, "several"),
        ("Heated Aliensis Cheat", None, "none"),  # letters inside words
        ("Matrix", None, "none"),
        ("", None, "none"),
        (" \n ", None, "none"),
        ("...", None, "none"),
    ],
)
def test_films_by_hand(text: str, item_id: int | None, reason: str) -> None:
    assert TitleMatcher(FILMS).match(text) == (item_id, reason)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Twins (1988)", Match(1, "exact")),
        ("twins 2001", Match(2, "exact")),
        ("I mean Twins (2001).", Match(2, "contained")),
        ("Twins. That is: Twins (1988)", Match(1, "contained")),
        ("Twins", Match(None, "several")),
        ("Twins (1950)", Match(None, "several")),
        ("Twins (1988), Twins (2001)", Match(None, "several")),
    ],
)
def test_the_year_decides_where_only_it_differs(text: str, expected: Match) -> None:
    assert TitleMatcher(["Twins (1988)", "Twins (2001)", "Heat (1995)"]).match(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Heat (1995); Alien (1979); Matrix, The (1999)", [5, 1, 4]),
        ("the matrix, alien resurrection and then aliens", [4, 3, 2]),
        ("Alien Alien Heat alien", [1, 1, 5, 1]),
        ("Heated Aliensis Cheat", []),
        ("", []),
    ],
)
def test_all_titles_in_the_order_of_the_text(text: str, expected: list[int]) -> None:
    assert TitleMatcher(FILMS).find_all(text) == expected


def test_find_all_skips_titles_of_several_items_and_knows_years() -> None:
    matcher = TitleMatcher(["Twins (1988)", "Twins (2001)", "Heat (1995)"])
    assert matcher.find_all("Twins (2001), Heat, Twins, Twins (1988)") == [2, 3, 1]


def test_find_all_with_characters_of_a_regex() -> None:
    titles = ["(500) Days of Summer (2009)", "What? [sic] $9.99", "C++ a|b ^.*"]
    assert TitleMatcher(titles).find_all(f"{titles[2]} / {titles[0]} / {titles[1]}") == [3, 1, 2]


@given(st.lists(st.sampled_from(range(1, 6)), max_size=8))
def test_find_all_reads_any_list_of_titles(items: list[int]) -> None:
    text = " ... ".join(FILMS[i - 1] for i in items)
    assert TitleMatcher(FILMS).find_all(text) == items


def test_the_year_decides_behind_an_inverted_article_too() -> None:
    matcher = TitleMatcher(["Kid, The (1921)", "Kid, The (2000)"])
    for text in ("The Kid (2000)", "I say The Kid (2000) now", "I say Kid, The (2000) now"):
        assert matcher.match(text).item_id == 2


def test_item_ids_are_those_given() -> None:
    matcher = TitleMatcher(["Heat", "Ran"], item_ids=[70, 4])
    assert [matcher.match(text).item_id for text in ("Ran", "heat it up")] == [4, 70]


def test_the_first_of_items_with_one_title_stands_for_them() -> None:
    matcher = TitleMatcher(["Ran", "Heat (1995)", "Heat (1995)"], item_ids=[9, 8, 3])
    assert matcher.match("Heat (1995)") == (8, "exact")
    assert matcher.match("so, Heat!") == (8, "contained")


def test_titles_that_only_letter_for_letter_differ() -> None:
    matcher = TitleMatcher(["Alien!", "Alien?"])
    assert [matcher.match(text) for text in ("Alien!", "Alien?", "alien")] == [
        (1, "exact"),
        (2, "exact"),
        (None, "several"),
    ]


def test_an_item_may_have_several_titles() -> None:
    matcher = TitleMatcher(["Seven", "Se7en", "Heat"], item_ids=[1, 1, 2])
    assert matcher.match("Seven, also Se7en") == (1, "contained")


def test_empty_titles_never_match() -> None:
    matcher = TitleMatcher(["", "  ", "Heat"])
    assert [matcher.match(text) for text in ("", " ", "some words")] == [(None, "none")] * 3
    assert matcher.match("Heat") == (3, "exact")
    assert TitleMatcher([]).match("Heat") == (None, "none")
    assert TitleMatcher([""]).match("") == (None, "none")


def test_titles_of_symbols_only() -> None:
    matcher = TitleMatcher(["!!!", "???", "Heat"])
    assert [matcher.match(text) for text in ("!!!", " ??? ", "Heat!!!", "...")] == [
        (1, "exact"),
        (2, "exact"),
        (3, "exact"),
        (None, "none"),
    ]


@pytest.mark.parametrize(
    "title", ["(500) Days of Summer (2009)", "What? [sic] $9.99", "C++ a|b ^.*\\d{2}", "\"Q\" & 'A'", "1917 (2019)"]
)
def test_characters_that_mean_something_in_a_regex(title: str) -> None:
    matcher = TitleMatcher([title, "Heat", "Days of Summer"])
    assert matcher.match(title) == (1, "exact")
    assert matcher.match(f"Well: {title}!") == (1, "contained")


def test_a_title_that_is_only_a_year() -> None:
    matcher = TitleMatcher(["1984", "Brazil (1985)", "(1985)"])
    assert [matcher.match(text).item_id for text in ("1984", "I say Brazil (1985)", "(1985)")] == [1, 2, 3]


def test_longest_first_wherever_it_begins() -> None:
    matcher = TitleMatcher(["New York", "York Peppermint Patty", "New"])
    assert matcher.match("a new york peppermint patty") == (None, "several")  # "new" remains beside the longest
    assert TitleMatcher(["New York", "York Peppermint Patty"]).match("a new york peppermint patty") == (2, "contained")


def test_ids_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="got 1 for 2 titles"):
        TitleMatcher(["Heat", "Ran"], item_ids=[1])


title_texts = st.text(st.sampled_from("abAB éß.*+?()[]{}|^$\\'\":-&"), min_size=1, max_size=14).filter(
    lambda text: any(c.isalpha() for c in text)
)
noise = st.lists(st.sampled_from(["xx", "Xyz", "yx!", "\t", "«zz»", "..."]), max_size=4).map(" ".join)


@given(st.lists(title_texts, min_size=1, max_size=8), noise, noise, st.data())
def test_any_title_is_found_as_it_is_and_in_noise(
    titles: list[str], before: str, after: str, data: st.DataObject
) -> None:
    matcher = TitleMatcher(titles)
    target = data.draw(st.sampled_from(titles)).strip()
    distinct = [title.strip() for title in titles]
    assert matcher.match(target) == (distinct.index(target) + 1, "exact")
    item_id, reason = matcher.match(f"the {before} {target} {after}")
    if len({t for t in distinct if normalise_title(t) == normalise_title(target)}) == 1:
        assert (item_id, reason) == (distinct.index(target) + 1, "contained")
    else:
        assert (item_id, reason) == (None, "several")


@given(st.lists(title_texts, min_size=1, max_size=6), st.text(max_size=30))
def test_a_verdict_names_one_item_or_none(titles: list[str], text: str) -> None:
    item_id, reason = TitleMatcher(titles).match(text)
    assert (item_id is None) == (reason in ("none", "several"))
    assert item_id is None or TitleMatcher([titles[item_id - 1]]).match(text).item_id == 1


def test_a_whole_catalogue_as_a_plain_search_finds_it() -> None:
    """Independent oracle: every title alone, by substring on padded words."""
    words = ["red", "blue", "green", "old", "new"]
    titles = [f"{a} {b} {c}" for a in words for b in words for c in words] + [f"{a} {b}" for a in words for b in words]
    matcher = TitleMatcher(titles)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        chosen = [words[i] for i in torch.randint(len(words), (4,), generator=generator)]
        text = f"film {chosen[0]} {chosen[1]} film {chosen[2]} film {chosen[3]}"
        found = [i for i, title in enumerate(titles, start=1) if f" {title} " in f" {text} "]
        assert len(found) == 1
        assert matcher.match(text) == (found[0], "contained")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" Heat (1995)</s>", "Heat (1995)"),
        ("Heat\nRan", "Heat"),
        ("\n\n Heat \r\nRan", "Heat"),
        ("Heat</s>Ran</s>", "Heat"),
        ("<pad>Heat</s><pad><pad>", "Heat"),
        ("Amélie , oui", "Amélie , oui"),  # spaces are kept as generated
        ("</s>Heat", ""),
        ("\n", ""),
        ("", ""),
    ],
)
def test_answer_text(tokenizer: PreTrainedTokenizerFast, text: str, answer: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert answer_text(tokenizer, ids) == answer
    assert answer_text(tokenizer, torch.tensor(ids, dtype=torch.int64)) == answer
