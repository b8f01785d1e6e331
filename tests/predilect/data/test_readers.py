"""Each reader on small files in the exact original format, and on the real files that are at hand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predilect.data import READERS, DataError, RecDataset, load
from predilect.data.readers.text import read_delimited

DataDir = Callable[[str], Path]


def write(folder: Path, **files: str | bytes) -> Path:
    """Files by name (`__` stands for `.`, `_` stays), text as UTF-8; names with .gz are packed."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return folder


def events(data: RecDataset) -> list[tuple[Any, ...]]:
    """(raw item, time, rating) in the order of the rows."""
    rows = data.interactions
    return [
        (data.catalogue.raw_ids[i - 1], t, r)
        for i, t, r in zip(rows["item_id"], rows["timestamp"], rows["rating"], strict=True)
    ]


def broken(folder: Path, **options: Any) -> tuple[str, ...]:
    """What strict loading says about broken lines; skipping must load the rest."""
    with pytest.raises(DataError, match="broken line") as caught:
        load(folder, **options)
    problem = caught.value.report.find("broken line")
    assert load(folder, on_error="skip", **options).report.find("broken line") == problem
    return problem.examples


def test_every_reader_says_what_it_reads_and_where_it_is_found() -> None:
    for name, reader in READERS.items():
        assert reader.name == name
        assert reader.files
        assert len(reader.where) > 20
        assert reader.parse.__doc__


# MovieLens and MovieTweetings


def movielens_100k(folder: Path) -> Path:
    flags = {1: "0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0", 267: "1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0"}
    movies = (
        f"1|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Toy%20Story%20(1995)|{flags[1]}\n"
        f"2|Misérables, Les (1995)|01-Jan-1995||http://us.imdb.com/|{flags[1]}\n"
        f"267|unknown||||{flags[267]}\n"
    )
    log = "196\t2\t3\t881250949\n186\t1\t3\t891717742\n22\t267\t1\t878887116\n"
    return write(folder, u__data=log, u__item=movies.encode("latin-1"))


def test_movielens_100k(tmp_path: Path) -> None:
    data = load(movielens_100k(tmp_path))
    assert events(data) == [("2", 881250949, 3.0), ("1", 891717742, 3.0), ("267", 878887116, 1.0)]
    assert data.catalogue.titles == ("Toy Story (1995)", "Misérables, Les (1995)", "unknown")
    assert data.catalogue.categories[0] == ("Animation", "Children's", "Comedy")
    assert data.catalogue.categories[2] == ("unknown",)
    assert data.interactions["user_id"][:] == [2, 1, 0]


def test_movielens_1m_and_broken_lines(tmp_path: Path) -> None:
    movies = "1::Toy Story (1995)::Animation|Children's|Comedy\n73::Misérables, Les (1995)::Drama|Musical\n"
    log = "1::73::5::978300760\n1::1::3::978302109\n2::1::4\n\n2::1::four::978299000\n2::73::4::978299026\n"
    folder = write(tmp_path, ratings__dat=log, movies__dat=movies.encode("latin-1"))
    assert READERS["movielens-1m"].recognises(folder)
    assert not READERS["movietweetings"].recognises(folder)
    assert broken(folder) == (
        "ratings.dat line 3: 3 fields instead of 4: '2::1::4'",
        "ratings.dat line 5: rating is not a number",
    )
    data = load(folder, on_error="skip")
    assert events(data) == [("73", 978300760, 5.0), ("1", 978302109, 3.0), ("73", 978299026, 4.0)]
    assert data.catalogue.titles == ("Toy Story (1995)", "Misérables, Les (1995)")
    assert data.catalogue.categories[1] == ("Drama", "Musical")


def test_movietweetings_keeps_leading_zeros(tmp_path: Path) -> None:
    movies = "0002844::Fantômas (1913)::Crime|Drama\n1853728::Django: Unchained (2012)::\n"
    folder = write(tmp_path, ratings__dat="1::1853728::8::1366576639\n2::0002844::7::1365029107\n", movies__dat=movies)
    data = load(folder)
    assert data.catalogue.raw_ids == ("0002844", "1853728")
    assert data.catalogue.titles == ("Fantômas (1913)", "Django: Unchained (2012)")
    assert data.catalogue.categories == (("Crime", "Drama"), ())


def test_real_movielens_100k_and_movietweetings(data_dir: DataDir) -> None:
    movielens = load(data_dir("ml-100k"))
    assert movielens.counts[0].interactions == 100_000
    assert (movielens.counts[0].users, len(movielens.catalogue)) == (943, 1682)
    assert movielens.report.find("two items with one title").count == 36  # 18 titles
    assert movielens.report.errors == ()
    assert movielens.catalogue.titles[266] == "unknown"
    assert movielens.catalogue.categories[0] == ("Animation", "Children's", "Comedy")
    csv, packaged = load(data_dir("movietweetings-100k")), load()
    assert csv.interactions.to_dict() == packaged.interactions.to_dict()
    assert csv.catalogue == packaged.catalogue


# Music, games, books


def test_lastfm_takes_the_first_tag_of_each_artist(tmp_path: Path) -> None:
    tags = (
        "userID\tartistID\ttagID\ttimestamp\n2\t52\t13\t1238536800000\n2\t52\t15\t1230768000000\n"
        "2\t63\t14\t1238536800000\n3\t52\t13\t1272664800000\n"
    )
    artists = (
        "id\tname\turl\tpictureURL\n52\tMorcheeba\thttp://www.last.fm/music/Morcheeba\thttp://x/1.jpg\n"
        '63\tEnigma "live"\thttp://www.last.fm/music/Enigma\t\n'
    )
    folder = write(tmp_path)
    (folder / "user_taggedartists-timestamps.dat").write_text(tags)
    (folder / "artists.dat").write_text(artists)
    data = load(folder)
    assert events(data) == [("52", 1230768000, 1.0), ("63", 1238536800, 1.0), ("52", 1272664800, 1.0)]
    assert data.catalogue.titles == ("Morcheeba", 'Enigma "live"')


GAMES = (
    "{u'publisher': u'Valve', u'genres': [u'Action', u'Indie'], u'app_name': u'Killing Floor\\u2122', "
    "u'title': u'Killing Floor', u'tags': [u'FPS'], u'release_date': u'2009-05-14', u'id': u'1250'}\n"
    "{u'app_name': u'No id', u'price': 1.0}\n"
    "{u'app_name': u'Zeno Clash', u'id': u'22200'}\n"
)


def test_steam_reviews_are_python_literals_and_never_run(tmp_path: Path) -> None:
    reviews = (
        "{u'username': u'Chaos', u'hours': 0.1, u'product_id': u'1250', u'date': u'2017-12-17', u'text': u'it\\'s', "
        "u'early_access': False, u'page': 1}\n"
        "__import__('os').system('touch ran')\n"
        "[1, 2]\n"
        "{u'username': u'Chaos', u'product_id': u'22200', u'date': u'2017-13-17'}\n"
    )
    folder = write(tmp_path, **{"steam_reviews__json__gz": reviews, "steam_games__json__gz": GAMES})
    with pytest.raises(DataError) as caught:
        load(folder)
    lines = [p.examples for p in caught.value.report.errors if p.kind == "broken line"]
    assert lines[0][0].startswith("steam_reviews.json.gz line 2: cannot be parsed")
    assert lines[0][1] == "steam_reviews.json.gz line 3: not a record but list"
    assert lines[1] == ("steam_games.json.gz line 2: no id: title None",)
    assert caught.value.report.find("missing time").count == 1
    data = load(folder, on_error="skip")
    assert events(data) == [("1250", 1513468800, 1.0)]
    assert data.catalogue.titles == ("Killing Floor™",)
    assert data.catalogue.categories == (("Action", "Indie"),)
    assert not (Path.cwd() / "ran").exists()


def test_steam_reviews_of_australian_users(tmp_path: Path) -> None:
    reviews = (
        "{'user_id': '7656', 'user_url': 'http://x', 'reviews': ["
        "{'funny': '', 'posted': 'Posted November 5, 2011.', 'item_id': '1250', 'recommend': True, 'review': 'a'}, "
        "{'funny': '', 'posted': 'Posted July 3.', 'item_id': '22200', 'recommend': False, 'review': 'b'}]}\n"
        "{'user_id': 'js41637', 'user_url': 'http://y', 'reviews': []}\n"
    )
    folder = write(tmp_path, australian_user_reviews__json=reviews)
    with pytest.raises(DataError) as caught:
        load(folder)
    assert caught.value.report.find("missing time").examples == (
        "row 2: user_id '7656', item_id '22200', timestamp None",
    )
    assert events(load(folder, undated_year=2016)) == [("1250", 1320451200, 1.0), ("22200", 1467504000, 0.0)]


def test_real_steam_reviews(data_dir: DataDir) -> None:
    with pytest.raises(DataError) as caught:
        load(data_dir("steam-reviews"), columns={"rating": "recommend"})
    found = {p.kind: p.count for p in caught.value.report.errors}
    assert found == {"duplicate row": 32, "missing time": 10_091, "item not in the item table": 59_161 - 53_858}
    data = load(data_dir("steam-reviews"), columns={"rating": "recommend"}, on_error="skip")
    assert [c.step for c in data.counts] == ["read", "without errors"]
    assert data.counts[0].interactions == 59_161
    assert data.counts[1].interactions == 44_631
    assert set(data.interactions["rating"]) == {0.0, 1.0}
    assert data.catalogue.categories[data.catalogue.raw_ids.index("730")] == ("Action",)


def goodreads_line(**fields: Any) -> str:
    line = {"user_id": "8842", "book_id": "402128", "review_id": "f", "is_read": True, "rating": 4}
    dates = {"date_added": "Fri Apr 19 08:15:15 -0700 2013", "date_updated": "", "read_at": "", "started_at": ""}
    return json.dumps({**line, "review_text_incomplete": "", **dates, **fields}) + "\n"


def test_goodreads_by_genre(tmp_path: Path) -> None:
    log = (
        goodreads_line()
        + goodreads_line(book_id="7", rating=0, date_added="Tue Jan 01 00:30:00 +0100 2013")
        + '{"user_id": "8842", "book\n'
        + '{"user_id": "8842"}\n'
    )
    books = '{"isbn": "", "book_id": "402128", "title": "Old Possum"}\n{"book_id": "7", "title": "Seven"}\n'
    names = {"goodreads_interactions_poetry__json__gz": log, "goodreads_books_poetry__json__gz": books}
    folder = write(tmp_path, **names)
    told = broken(folder)
    assert told[0].startswith("goodreads_interactions_poetry.json.gz line 3: cannot be parsed")
    assert told[1].endswith("line 4: no book_id, rating, date_added")
    data = load(folder, on_error="skip")
    assert events(data) == [("402128", 1366384515, 4.0), ("7", 1356996600, 0.0)]
    assert data.catalogue.titles == ("Seven", "Old Possum")


def test_goodreads_as_one_csv(tmp_path: Path) -> None:
    log = "user_id,book_id,is_read,rating,is_reviewed\n0,948,1,5,0\n0,947,1,4,1\n"
    folder = write(tmp_path, goodreads_interactions__csv=log)
    with pytest.raises(DataError, match=r"without book_id_map.csv"):
        load(folder)
    write(tmp_path, book_id_map__csv="book_id_csv,book_id\n947,34684622\n948,31\n")
    data = load(folder)
    assert events(data) == [("31", 0, 5.0), ("34684622", 1, 4.0)]
    assert data.report.find("no time") is not None


# Shops and videos


def test_yoochoose_clicks_and_buys(tmp_path: Path) -> None:
    clicks = (
        "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,7\n"
        "2,2014-04-07T13:56:37.614Z,214536502,S\n2,2014-04-07T13:56:37.914Z,214536500,12\n"
        "2,2014-04-07T13:56:37.814Z,214536502,2\n"
    )
    buys = "2,2014-04-07T13:57:00.000Z,214536502,12462,1\n"
    folder = write(tmp_path)
    (folder / "yoochoose-clicks.dat").write_text(clicks)
    (folder / "yoochoose-buys.dat").write_text(buys)
    data = load(folder)
    rows = list(zip(*(data.interactions[c][:] for c in ("user_id", "item_id", "timestamp", "event")), strict=True))
    assert rows == [
        (0, 2, 1396867869, "click"),
        (0, 1, 1396868049, "click"),
        (1, 2, 1396878997, "click"),
        (1, 2, 1396878997, "click"),  # by milliseconds before the row above it in the file
        (1, 1, 1396878997, "click"),
        (1, 2, 1396879020, "buy"),
    ]
    assert [sorted(c) for c in data.catalogue.categories] == [["12", "7"], ["2"]]
    assert set(load(folder, buys=False).interactions["event"]) == {"click"}
    (folder / "yoochoose-buys.dat").write_text(buys + "2,yesterday,214536502,12462,1\n")
    assert broken(folder) == ("yoochoose-buys.dat line 2: time is not a time",)


def test_retailrocket(tmp_path: Path) -> None:
    log = (
        "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n"
        "1433221332017,257597,addtocart,15,\n1433224214164,992329,transaction,355908,4000\n"
    )
    properties = (
        "timestamp,itemid,property,value\n1435460400000,355908,categoryid,1338\n1436460400000,355908,categoryid,7\n"
        "1435460400000,355908,888,1116713 960601 n277.200\n"
    )
    folder = write(tmp_path, events__csv=log, item_properties_part1__csv=properties)
    data = load(folder)
    assert events(data) == [("15", 1433221332, 1.0), ("355908", 1433221332, 1.0), ("355908", 1433224214, 1.0)]
    assert data.interactions["event"][:] == ["addtocart", "view", "transaction"]
    assert data.catalogue.categories == ((), ("7",))
    assert load(folder, categories=False).catalogue.categories == ((), ())


def test_kuairec(tmp_path: Path) -> None:
    log = (
        "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
        "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.2733965215790926\n"
        "0,9598,13665,10984,2020-07-05 00:13:41.297,20200705,1593879221.297,0.25\n"
    )
    captions = (
        "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,first_level_category_name,"
        "second_level_category_id,second_level_category_name,third_level_category_id,third_level_category_name\n"
        '3649,UNKNOWN,"饭, 好吃",[],27,美食,124,甜点,-124,UNKNOWN\n9598,UNKNOWN,,[],8,颜值,673,颜值,-124,UNKNOWN\n'
    )
    numbers = 'video_id,feat\n3649,"[27, 9]"\n9598,[8]\n'
    folder = write(tmp_path, big_matrix__csv=log, kuairec_caption_category__csv=captions, item_categories__csv=numbers)
    with pytest.raises(DataError) as caught:
        load(folder)
    assert [p.kind for p in caught.value.report.errors] == ["item without a title"]
    data = load(folder, min_watch_ratio=0.5)
    assert data.catalogue.titles == ("饭, 好吃",)
    assert data.catalogue.categories == (("美食", "甜点"),)
    untitled = load(folder, titles=False)
    assert untitled.catalogue.categories == (("27", "9"), ("8",))
    assert events(untitled) == [
        ("3649", 1593878903, pytest.approx(1.2733965)),
        ("9598", 1593879221, pytest.approx(0.25)),
    ]
    with pytest.raises(ValueError, match=r"got 'medium'"):
        load(folder, matrix="medium")
    with pytest.raises(DataError, match=r"lacks small_matrix.csv"):
        load(folder, matrix="small")


# Zhihu


def test_zhihurec_keeps_clicks(tmp_path: Path) -> None:
    folder = write(
        tmp_path, inter_impression__csv="0,7,1525219200,1525219300\n0,8,1525219200,0\n1,7,1525219400,1525219500\n"
    )
    data = load(folder)
    assert events(data) == [("7", 1525219300, 1.0), ("7", 1525219500, 1.0)]


def dreamrec(folder: Path, train: list[tuple[list[int], int]]) -> Path:
    rows = {"train": train, "val": [([9, 9, 9], 0), ([0, 9, 9], 1)], "test": [([9, 9, 9], 2), ([2, 9, 9], 3)]}
    for name, part in rows.items():
        table = {"seq": [r[0] for r in part], "len_seq": [1] * len(part), "next": [r[1] for r in part]}
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    (folder / "statistics.json").write_text('{"seq_size": 3, "item_num": 9}')
    return folder


def test_dreamrec_rows_become_sequences(tmp_path: Path) -> None:
    train = [
        ([9, 9, 9], 4),
        ([4, 9, 9], 5),
        ([4, 5, 9], 6),
        ([4, 5, 6], 7),
        ([5, 6, 7], 8),
        ([9, 9, 9], 1),
        ([1, 9, 9], 1),
    ]
    data = load(dreamrec(tmp_path, train))
    assert [e[0] for e in events(data)] == ["4", "5", "6", "7", "8", "1", "1", "0", "1", "2", "3"]
    assert data.interactions["user_id"][:] == [0] * 5 + [1] * 2 + [2] * 2 + [3] * 2
    assert data.interactions["timestamp"][:] == list(range(11))
    assert set(data.interactions["split"][:7]) == {"train"}
    dreamrec(tmp_path, [*train[:4], ([4, 6, 7], 8)])
    with pytest.raises(DataError, match=r"train.parquet row 5: seq \[4, 6, 7\] is not what"):
        load(tmp_path)


def test_real_zhihu_rows_come_back(data_dir: DataDir) -> None:
    folder = data_dir("dreamrec-zhihu")
    splits = load(folder).split("official", max_history=10, min_history=0)
    assert len(splits.sequences.offsets) - 1 == 11_714
    raw = np.array([int(i) for i in splits.catalogue.raw_ids])
    for part, name, count in (("train", "train", 61_641), ("validation", "val", 8_160), ("test", "test", 7_911)):
        table = pq.read_table(folder / f"{name}.parquet")
        assert len(splits.part(part)) == count == len(table)
        assert raw[splits.part(part).target - 1].tolist() == table["next"].to_pylist()
        published = np.array(table["seq"].to_pylist())
        ours = splits.part(part).histories().numpy()
        for row in range(0, count, 97):
            assert raw[ours[row][ours[row] > 0] - 1].tolist() == published[row][published[row] < 4838].tolist()


# RecBole


def test_recbole_atomic_files(tmp_path: Path) -> None:
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    log = head + "196\t242\t3\t881250949\n186\t302\t3.5\t891717742\n"
    items = (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "242\tKolya\t1996\tComedy\n302\tL.A. Confidential\t1997\tCrime Film-Noir\n"
    )
    folder = write(tmp_path, **{"small__inter": log, "small__item": items})
    data = load(folder)
    assert events(data) == [("242", 881250949, 3.0), ("302", 891717742, 3.5)]
    assert data.catalogue.titles == ("Kolya", "L.A. Confidential")
    assert data.catalogue.categories == (("Comedy",), ("Crime", "Film-Noir"))
    assert data.items[0]["release_year"] == "1996"
    by_year = load(folder / "small.inter", title="release_year")
    assert by_year.catalogue.titles == ("1996", "1997")
    assert by_year.name == "small"
    with pytest.raises(DataError, match="item file lacks the field plot"):
        load(folder, title="plot")
    write(tmp_path, other__inter=log)
    with pytest.raises(DataError, match=r"2 logs \(other.inter, small.inter\)"):
        load(folder)


def test_recbole_benchmark_split_and_refusals(tmp_path: Path) -> None:
    head = "user_id:token\titem_id:token\ttimestamp:float\n"
    parts = {"b__train__inter": head + "1\t1\t1\n1\t2\t2\n", "b__valid__inter": head + "1\t3\t3\n"}
    folder = write(tmp_path, **parts, b__test__inter=head + "1\t4\t4\n")
    splits = load(folder).split("official")
    assert [splits.part(p).target.tolist() for p in ("train", "validation", "test")] == [[2], [3], [4]]
    sequences = write(tmp_path / "s", s__inter="user_id:token\titem_id_list:token_seq\n1\t1 2 3\n")
    with pytest.raises(DataError, match="lacks the field item_id"):
        load(sequences)
    untyped = write(tmp_path / "u", u__inter="user_id\titem_id:token\n1\t1\n")
    with pytest.raises(DataError, match=r"fields without a type .* \(got user_id\)"):
        load(untyped)


# A person's own tables


def test_own_csv_with_a_column_mapping(tmp_path: Path) -> None:
    log = 'customer,sku,when,stars\nann,"01",2024-05-01,5\nbob,2,2024-05-01T12:00:00+02:00,4\n'
    items = 'sku,label,kinds\n01,"A ""big"" film, really",Drama;War\n2,Two,\n'
    folder = write(tmp_path, ratings__csv=log, items__csv=items)
    with pytest.raises(DataError, match=r"lacks the column user_id, item_id \(got customer, sku, when, stars\)"):
        load(folder)
    columns = {"user_id": "customer", "item_id": "sku", "timestamp": "when", "rating": "stars", "title": "label"}
    data = load(folder, columns={**columns, "categories": "kinds"}, list_separator=";")
    assert events(data) == [("01", 1714521600, 5.0), ("2", 1714557600, 4.0)]
    assert data.catalogue.titles == ('A "big" film, really', "Two")
    assert data.catalogue.categories == (("Drama", "War"), ())
    with pytest.raises(DataError, match=r"no column 'price' for rating \(got customer, sku, when, stars\)"):
        load(folder, columns={**columns, "rating": "price"})
    with pytest.raises(DataError, match=r"columns maps user_id.*\(got colour\)"):
        load(folder, columns={"colour": "sku"})


def test_own_csv_reports_what_it_cannot_read(tmp_path: Path) -> None:
    log = "user_id,item_id,rating,timestamp\n1,2,5,100\n1,3,five,101\n1,4,5,soon\n1,5\n1,6,5,102\n"
    path = write(tmp_path, mine__csv=log) / "mine.csv"
    with pytest.raises(DataError) as caught:
        load(path)
    told = {p.kind: p.examples for p in caught.value.report.errors}
    assert told["unreadable rating"] == ("row 2: rating 'five'",)
    assert told["unreadable timestamp"] == ("row 3: timestamp 'soon'",)
    assert told["broken line"] == ("mine.csv line 5: 2 fields instead of 4: '1,5'",)
    assert [e[0] for e in events(load(path, on_error="skip"))] == ["2", "6"]


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_own_times_of_any_unit(tmp_path: Path, unit: str, factor: int) -> None:
    lines = [f"1,{i},{time * factor}\n" for i, time in enumerate((1433221332, 1433221330))]
    path = write(tmp_path, mine__csv="userId,itemId,time\n" + "".join(lines)) / "mine.csv"
    assert load(path, time_unit=unit).interactions["timestamp"][:] == [1433221332, 1433221330]
    data = load(path)
    assert data.interactions["timestamp"][:] == [1433221332, 1433221330]
    told = data.report.find("time unit")
    assert (told is None) == (unit == "s")
    assert told is None or {"ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}[unit] in told.examples[0]
    with pytest.raises(ValueError, match=r"got 'minutes'"):
        load(path, time_unit="minutes")


def test_times_of_several_units_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, mine__csv="user_id,item_id,time\n1,2,1433221332\n1,3,1433221332000\n") / "mine.csv"
    with pytest.raises(DataError, match=r"time beyond the year 5000 (.|\n)*these have several"):
        load(path)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_own_parquet_and_json_lines(tmp_path: Path, kind: str) -> None:
    log = {"user": [1, 1], "item": [7, 8], "timestamp": [5, 6], "split": ["train", "val"]}
    items = {"item_id": [7, 8], "title": ["A", "B"], "genres": [["x"], ["y", "z"]]}
    for name, table in (("interactions", log), ("items", items)):
        path = tmp_path / f"{name}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.table(table), path)
        else:
            path.write_text("".join(json.dumps(r) + "\n" for r in pa.table(table).to_pylist()))
    data = load(tmp_path)
    assert events(data) == [("7", 5, 1.0), ("8", 6, 1.0)]
    assert data.interactions["split"][:] == ["train", "validation"]
    assert data.catalogue.categories == (("x",), ("y", "z"))


def test_own_item_table_by_name(tmp_path: Path) -> None:
    write(tmp_path, log1__csv="user_id,item_id\n1,2\n", names__csv="item_id,title\n2,Two\n")
    assert load(tmp_path / "log1.csv", items="names.csv").catalogue.titles == ("Two",)
    with pytest.raises(DataError, match="there is no file"):
        load(tmp_path / "log1.csv", items="nowhere.csv")


def test_ambiguous_folders_and_columns_are_refused(tmp_path: Path) -> None:
    write(tmp_path, ratings__csv="user_id,item_id\n1,2\n", reviews__csv="user_id,item_id\n1,2\n")
    with pytest.raises(DataError, match=r"ratings.csv and reviews.csv: pass the path of one"):
        load(tmp_path)
    path = write(tmp_path / "two", own__csv="user_id,item_id,time,date\n1,2,3,2020-01-01\n") / "own.csv"
    with pytest.raises(DataError, match="time and date: say which is timestamp"):
        load(path)
    with pytest.raises(DataError, match=r"does not hold the format table \(ratings.csv"):
        load(write(tmp_path / "empty"), columns={"user_id": "u"})


def test_other_encodings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes("user_id,item_id\n1,a\n2,é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"mine.csv is not UTF-8 text \(line 3: byte 0xe9\): .* --encoding"):
        load(path)
    assert load(path, encoding="latin-1").catalogue.raw_ids == ("a", "é")


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mine.csv is empty"):
        load(write(tmp_path, mine__csv="") / "mine.csv")
    with pytest.raises(DataError, match=r"u.data is empty"):
        load(write(movielens_100k(tmp_path / "m"), u__data=""))


def test_real_sessions_with_an_official_split(data_dir: DataDir) -> None:
    data = load(data_dir("rc15-sample"), columns={"user_id": "session_id", "timestamp": "event_index"})
    assert (data.counts[0].interactions, data.counts[0].users, data.counts[0].items) == (7451, 1082, 890)
    assert data.interactions["event"][:].count("buy") == 2063
    splits = data.split("official")
    assert [len(set(splits.part(p).user.tolist())) for p in ("train", "validation", "test")] == [541, 270, 271]


# load itself


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"name_or_path": "movietweeting-100k"}, r"did you mean movietweetings-100k"),
        ({"name_or_path": "zzz"}, r"packaged are movietweetings-100k; files are read as movielens-100k"),
        ({"name_or_path": "kuairec"}, r"no file or folder .kuairec.: pass the folder that holds it, from https"),
        ({"format": "table"}, "packaged data set"),
        ({"columns": {"user_id": "u"}}, "packaged data set"),
    ],
)
def test_load_refuses(call: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(**call)


def test_load_names_formats_and_options(tmp_path: Path) -> None:
    folder = movielens_100k(tmp_path)
    with pytest.raises(DataError, match=r"format must be one of movielens-100k.*\(got 'ml'\)"):
        load(folder, format="ml")
    with pytest.raises(DataError, match=r"does not hold the format lastfm \(user_tagged.*hetrec"):
        load(folder, format="lastfm")
    with pytest.raises(DataError, match="reader movielens-100k has no option titles; it has no options"):
        load(folder, titles=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"no format known here(.|\n)*  movielens-100k: u.data, u.item"):
        load(empty)


def test_a_table_with_typed_columns_reports_lines_past_broken_ones(tmp_path: Path) -> None:
    """Lines of both kinds of fault keep their own numbers, blank lines count but are no fault."""
    path = write(tmp_path, x__csv="a,b\n1,1\n2\n\n3,x\n4,4\n5,5,5\ny,6\n") / "x.csv"
    table, problems = read_delimited(path, {"a": pa.int32(), "b": pa.int32()}, delimiter=",", header=True)
    assert table.to_pylist() == [{"a": 1, "b": 1}, {"a": 4, "b": 4}]
    assert [e.split(":")[0] for e in problems[0].examples] == [f"x.csv line {n}" for n in (3, 5, 7, 8)]
    with pytest.raises(DataError, match=r"x.csv lacks the column c \(got a, b\)"):
        read_delimited(path, {"c": pa.int32()}, delimiter=",", header=True)


def test_a_first_line_of_data_with_equal_values_is_known_as_data(tmp_path: Path) -> None:
    """Two equal values are no two columns of one name."""
    file = tmp_path / "log.csv"
    file.write_text("7,7,1600000000\n7,8,1600000100\n")
    with pytest.raises(DataError, match="looks like data \\(7, 7, 1600000000\\)"):
        load(file)
    assert len(load(file, columns={"user_id": "1", "item_id": "2", "timestamp": "3"}).interactions) == 2
