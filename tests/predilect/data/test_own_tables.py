"""Tables as people write them: separators, headers, encodings, titles in the log, JSON; the values that are read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predilect.data import DataError, RecDataset, load
from predilect.data.readers.text import open_text

HEADER = "user_id,item_id,rating,timestamp\n"
LOG = HEADER + "1,10,4.5,100\n1,11,3.0,101\n2,10,2.5,102\n"
ROWS = [(0, "10", 4.5, 100), (0, "11", 3.0, 101), (1, "10", 2.5, 102)]


def rows(data: RecDataset) -> list[tuple[Any, ...]]:
    log = data.interactions
    raw = [data.catalogue.raw_ids[i - 1] for i in log["item_id"]]
    return list(zip(log["user_id"], raw, log["rating"], log["timestamp"], strict=True))


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """`own(content, ...)`: the data set of a file of this content."""

    def read(content: str | bytes, name: str = "log.csv", **options: Any) -> RecDataset:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return load(tmp_path / name, **options)

    return read


@pytest.mark.parametrize("name", ["log.csv", "log.tsv", "log.txt", "log.csv.gz"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "::", " "])
def test_the_separator_is_found_whatever_the_name(own: Any, separator: str, name: str) -> None:
    assert rows(own(LOG.replace(",", separator), name)) == ROWS


@pytest.mark.parametrize(("given", "stands"), [("tab", "\t"), (r"\t", "\t"), ("space", " "), ("#", "#"), ("::", "::")])
def test_a_separator_that_is_given(own: Any, given: str, stands: str) -> None:
    assert rows(own(LOG.replace(",", stands), separator=given)) == ROWS


@pytest.mark.parametrize("separator", ["", "ab", '"', "\n"])
def test_a_separator_that_is_none(own: Any, separator: str) -> None:
    with pytest.raises(DataError, match="the separator is one character, tab, space or ::"):
        own(LOG, separator=separator)


def test_commas_in_texts_are_no_separators(own: Any) -> None:
    data = own("user_id;item_id;title\n1;10;One, two, three\n1;11;Four, five, six\n2;10;One, two, three\n")
    assert data.catalogue.titles == ("One, two, three", "Four, five, six")
    quoted = own('user_id,item_id,title\n1,10,"One; two; three"\n1,11,"A ""b"" c"\n')
    assert quoted.catalogue.titles == ("One; two; three", 'A "b" c')


def test_decimal_commas(own: Any) -> None:
    text = LOG.replace(",", ";").replace(".", ",").replace("101", "101,5")
    data = own(text)
    assert rows(data) == ROWS
    told = data.report.find("decimal comma")
    assert (told.count, told.examples) == (1, ("row 2: timestamp '101,5' is read as 101.5",)) or told.count == 3
    assert data.report.errors == ()


def test_numbers_with_commas_for_thousands_are_not_numbers_with_decimal_commas(own: Any) -> None:
    with pytest.raises(DataError, match="unreadable rating"):
        own("user_id;item_id;rating\n1;2;1,234.5\n1;3;2\n")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_says_the_encoding(own: Any, encoding: str, end: str) -> None:
    text = "user_id,item_id,title\n1,10,Amélie\n1,11,七人の侍\n".replace("\n", end)
    assert own(text.encode(encoding)).catalogue.titles == ("Amélie", "七人の侍")
    assert own(gzip.compress(text.encode(encoding)), "log.csv.gz").catalogue.titles == ("Amélie", "七人の侍")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le"])
def test_an_encoding_that_is_given(own: Any, encoding: str) -> None:
    content = "user_id,item_id,title\n1,10,Amélie\n".encode(encoding)
    with pytest.raises(DataError, match="--encoding"):
        own(content)
    assert own(content, encoding=encoding).catalogue.titles == ("Amélie",)
    lines = '{"user_id": 1, "item_id": 10, "title": "Amélie"}\n'.encode(encoding)
    assert own(lines, "log.jsonl", encoding=encoding).catalogue.titles == ("Amélie",)


def test_text_that_the_given_encoding_does_not_have(own: Any) -> None:
    with pytest.raises(DataError, match=r"log.csv is not ascii text \(line 3: byte 0xc3\)"):
        own("user_id,item_id\n1,2\n1,é\n", encoding="ascii")


@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=300))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-32", "cp1251"])
def test_text_comes_through_any_encoding(tmp_path_factory: pytest.TempPathFactory, encoding: str, text: str) -> None:
    text = "x" + text.replace("\0", "").encode(encoding, "ignore").decode(encoding)
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(text.encode(encoding))
    with open_text(path, encoding) as file:
        assert file.read().decode() == text


def test_a_table_without_a_header(own: Any) -> None:
    body = LOG.removeprefix(HEADER)
    with pytest.raises(DataError, match=r"the first line of log.csv looks like data \(1, 10, 4.5, 100\).*user_id=1"):
        own(body)
    columns = {"user_id": "1", "item_id": "2", "rating": "3", "timestamp": "4"}
    assert rows(own(body, columns=columns)) == ROWS
    assert rows(own(body.replace(",", "::"), "log.txt", columns=columns)) == ROWS
    with pytest.raises(DataError, match=r"has the columns 1 to 4 \(got 9\)"):
        own(body, columns={**columns, "rating": "9"})


def test_numbers_of_columns_where_there_is_a_header(own: Any) -> None:
    columns = {"user_id": "1", "item_id": "2", "rating": "3", "timestamp": "4"}
    assert rows(own(LOG, columns=columns)) == ROWS
    named = "0,1,2,3\n" + LOG.removeprefix(HEADER)  # as pandas writes columns without names
    assert rows(own(named, columns={"user_id": "0", "item_id": "1", "rating": "2", "timestamp": "3"})) == ROWS


def test_the_first_column_may_have_no_name(own: Any) -> None:
    lines = LOG.splitlines()
    numbered = "\n".join(["," + lines[0], *(f"{i},{line}" for i, line in enumerate(lines[1:]))])
    assert rows(own(numbered)) == ROWS


@pytest.mark.parametrize("header", [HEADER, HEADER.replace("\n", ",\n")])
def test_a_separator_at_the_end_of_every_line(own: Any, header: str) -> None:
    body = LOG.removeprefix(HEADER).replace("\n", ",\n")
    data = own(header + body)
    assert rows(data) == ROWS
    assert data.report.errors == ()


def test_a_value_behind_the_last_column_is_no_trailing_separator(own: Any) -> None:
    body = LOG.removeprefix(HEADER).replace("\n", ",\n")
    more = "".join(f"3,{i},1,{i},\n" for i in range(40_000)) + "4,12,1,1,x\n5,12,1,1\n"
    with pytest.raises(DataError) as caught:
        own(HEADER + body + more)
    assert caught.value.report.find("broken line").examples == (
        "log.csv line 40005: 5 fields instead of 4",
        "log.csv line 40006: no ',' at the end, which all lines before it have: '5,12,1,1'",
    )


def test_a_fault_of_every_line_is_not_to_be_skipped(own: Any) -> None:
    lines = HEADER + "1,2,3\n" * 5
    with pytest.raises(DataError) as caught:
        own(lines)
    assert "all 5 rows have the error 'broken line'" in str(caught.value)
    assert "skip" not in str(caught.value)
    with pytest.raises(DataError, match="--on-error skip"):
        own(lines + "1,2,3,4\n")


@pytest.mark.parametrize(("column", "name"), [("rating", "rating"), ("timestamp", "timestamp")])
def test_a_column_that_is_empty_throughout(own: Any, column: str, name: str) -> None:
    text = "user_id,item_id,rating,timestamp\n1,2,,\n1,3,,\n".replace(",,", ",5," if column == "timestamp" else ",,7")
    with pytest.raises(DataError, match=rf"'{column}' of log.csv, read as {name}, is empty throughout.*{name}="):
        own(text)
    assert len(own(text, columns={column: ""}).interactions) == 2


def test_two_columns_of_one_name(own: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 columns named 'rating' \(columns 3 and 5\): rename one"):
        own("user_id,item_id,rating,timestamp,rating\n1,2,3,4,5\n")
    table = pa.Table.from_arrays([pa.array([1])] * 3, names=["user_id", "item_id", "item_id"])
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"2 columns named 'item_id' \(columns 2 and 3\)"):
        load(tmp_path / "log.parquet")


def test_titles_and_categories_in_the_log(own: Any) -> None:
    data = own(
        "user_id,item_id,title,genres,timestamp\n1,10,,Drama|War,1\n1,11,Eleven,,2\n2,10,Ten,Comedy,3\n2,11,11,War,4\n"
    )
    assert data.catalogue.titles == ("Ten", "Eleven")
    assert data.catalogue.categories == (("Drama", "War"), ("War",))
    told = data.report.find("several titles of one item")
    assert (told.severity, told.count) == ("warning", 1)
    assert told.examples == ("item '11' has 2 titles: the first is kept, 'Eleven'",)


def test_an_item_table_comes_before_titles_in_the_log(own: Any, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("item_id,title\n10,Ten\n")
    data = own("user_id,item_id,title\n1,10,10\n", items="names.csv")
    assert data.catalogue.titles == ("Ten",)


def test_ids_that_are_titles(own: Any) -> None:
    text = "user,game,hours\n1,Half-Life 2,5\n1,Portal,3\n"
    columns = {"item_id": "game", "rating": "hours"}
    untitled = own(text, columns=columns)
    assert "--column title=game" in untitled.report.find("no titles").examples[0]
    assert len(untitled.report.problems) == 2  # and that there is no time
    titled = own(text, columns={**columns, "title": "game"})
    assert titled.catalogue.titles == titled.catalogue.raw_ids == ("Half-Life 2", "Portal")
    assert "no titles" not in str(titled.report)
    numbers = own(LOG)
    assert numbers.report.find("no titles").examples == ("there is no item table",)


def test_json_as_an_array_of_objects(own: Any) -> None:
    records = [
        {"user_id": 1, "item_id": 10, "rating": 4.5, "timestamp": 100},
        {"user_id": 1, "item_id": 11, "rating": 3, "timestamp": 101, "title": "Eleven"},
        {"user_id": 2, "item_id": 10, "rating": 2.5, "timestamp": 102},
    ]
    for indent in (None, 2):
        assert rows(own(json.dumps(records, indent=indent), "log.json", on_error="skip"))[0] == (0, "11", 3.0, 101)
    del records[1]["title"]
    assert rows(own(json.dumps(records), "log.json")) == ROWS
    assert rows(own("\n".join(map(json.dumps, records)), "log.json")) == ROWS
    assert rows(own(gzip.compress(json.dumps(records).encode()), "log.json.gz")) == ROWS


def test_json_ids_of_several_kinds_are_texts(own: Any) -> None:
    lines = ['{"user_id": 1, "item_id": "a"}', '{"user_id": "u", "item_id": 2}']
    assert own("\n".join(lines), "log.jsonl").catalogue.raw_ids == ("2", "a")


def test_half_of_a_character(own: Any) -> None:
    lines = ['{"user_id": 1, "item_id": 2, "title": "ok \\ud83d\\ude00"}']
    assert own(lines[0], "log.jsonl").catalogue.titles == ("ok 😀",)
    lines.append('{"user_id": 1, "item_id": 3, "title": "half \\ud83d"}')
    with pytest.raises(DataError, match=r"log.jsonl line 2: the column 'title' holds the lone surrogate \\ud83d"):
        own("\n".join(lines), "log.jsonl")
    with pytest.raises(DataError, match=r"log.json record 2: the column 'title' holds the lone surrogate \\ud83d"):
        own(f"[{','.join(lines)}]", "log.json")


def test_ids_that_became_floats_are_whole_numbers(tmp_path: Path) -> None:
    log = pa.table({"user_id": [1.0, 2.0, None], "item_id": [7.0, 8.0, 7.0]})
    pq.write_table(log, tmp_path / "log.parquet")
    assert load(tmp_path / "log.parquet", on_error="skip").catalogue.raw_ids == ("7", "8")


def test_a_packed_file_that_breaks_off_says_where(own: Any) -> None:
    text = HEADER + "".join(f"{i},{i * 7919 % 1013},5,{i * 104729}\n" for i in range(50_000))
    whole = gzip.compress(text.encode(), mtime=0)
    for share in (0.02, 0.5, 0.99):
        with pytest.raises(DataError, match=r"log.csv.gz is damaged: .* up to line ") as caught:
            own(whole[: int(len(whole) * share)], "log.csv.gz")
        line = int(str(caught.value).partition("up to line ")[2].partition(" ")[0].replace(",", ""))
        assert abs(line / 50_000 - share) < 0.03
    assert len(own(gzip.compress(text[:1000].encode()) + gzip.compress(text[1000:].encode()), "log.csv.gz").items)


def test_packed_or_not_is_known_by_the_content(own: Any) -> None:
    assert rows(own(gzip.compress(LOG.encode()))) == ROWS
    assert rows(own(LOG, "log.csv.gz")) == ROWS


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04rest", "a ZIP archive or a spreadsheet"),
        (b"PAR1rest", "a Parquet file"),
        (b"user_id,item_id\n\0\1\2", "is not a text file: byte 17 is 0"),
    ],
)
def test_what_is_no_text(own: Any, content: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        own(content)


@pytest.mark.parametrize("line", ['3,10,1,103,"Open\n', '3,"10,1,103,Open\n'])
def test_a_quotation_mark_that_stays_open_loses_no_line_silently(own: Any, line: str) -> None:
    header, body = HEADER.replace("\n", ",title\n"), LOG.removeprefix(HEADER).replace("\n", ",T\n")
    with pytest.raises(DataError, match=r"log.csv: a quotation mark in line 5 is never closed"):
        own(header + body + line + body)
    closed = own(header + body + '3,12,1,103,"Two\nlines"\n')
    assert "Two\nlines" in closed.catalogue.titles
