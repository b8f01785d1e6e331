"""Files that people have and options that they type: what the command line says, and that it leaves nothing behind.

To extend it, add a row to the table of its area: what lies in the folder, the command that is run in it, the exit
status, and words of the message. Every row is checked for one message, no traceback, and no file but those that it
names.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from predilect.cli import app

LOG = "user_id,item_id,timestamp\n" + "".join(
    f"u{u},i{(u + s) % 7},{1000 * s + u + 1}\n" for u in range(9) for s in range(5)
)
BAD_OPTION = "--k-core 0 --output-dir out"


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        name: what is special about the input.
        files: path -> content; `.gz` is packed, unless it is bytes already.
        command: words after `predilect`, run in the folder of the files; `{board}` is a finished leaderboard on `LOG`,
            `{model}` a language model that nobody trained.
        status: exit status; 0: it is read, 2: refused with one message.
        says: words of the output, in any order.
        leaves: files that are there afterwards besides those of `files`; one that ends in / may hold anything.
        env: of the process; with any the command runs in one of its own.
    """

    name: str
    files: Mapping[str, str | bytes]
    command: str
    status: int
    says: tuple[str, ...]
    leaves: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def json_lines() -> str:
    """JSON lines of the log `LOG`."""
    header, *lines = LOG.splitlines()
    return "".join(json.dumps(dict(zip(header.split(","), line.split(","), strict=True))) + "\n" for line in lines)


MAPPED = "--column user_id=1 --column item_id=2 --column timestamp=3"
BODY = LOG.partition("\n")[2]
TITLED = "user_id,game\n" + "".join(f"u{u},Game {(u + s) % 7}\n" for u in range(9) for s in range(5))
TRUNCATED = gzip.compress(LOG.encode() * 50, mtime=0)[:150]


def with_column(name: str, value: str) -> str:
    """The log with a column more."""
    header, *lines = LOG.splitlines()
    return "\n".join([f"{header},{name}", *(f"{line},{value}" for line in lines)]) + "\n"


def with_times(factor: int) -> str:
    """The log with times since 2014 in another unit."""
    header, *lines = LOG.splitlines()
    told = (line.rpartition(",") for line in lines)
    return "\n".join([header, *(f"{ids},{(1_400_000_000 + int(time)) * factor}" for ids, _, time in told)]) + "\n"


def ends_in(mark: str) -> str:
    """The log with something at the end of every line but the first."""
    return LOG.splitlines()[0] + "\n" + BODY.replace("\n", mark + "\n")


def inspected(name: str, content: str | bytes, *says: str, file: str = "log.csv", options: str = "") -> Case:
    """A log that is read."""
    return Case(name, {file: content}, f"data inspect {file} {options}", 0, ("45", "0 errors", *says))


def refused(name: str, content: str | bytes, *says: str, file: str = "log.csv", options: str = "") -> Case:
    """A log that is not."""
    return Case(name, {file: content}, f"data inspect {file} {options}", 2, says)


READERS = [
    inspected("a log as it should be", LOG),
    inspected("tabs in .tsv", LOG.replace(",", "\t"), file="log.tsv"),
    inspected("packed", LOG, file="log.csv.gz"),
    inspected("packed under another name", gzip.compress(LOG.encode())),
    inspected("JSON lines", json_lines(), file="log.jsonl"),
    inspected("a JSON array", f"[{','.join(json_lines().splitlines())}]", file="log.json"),
    inspected("JSON lines in .json", json_lines(), file="log.json"),
    inspected("semicolons", LOG.replace(",", ";")),
    inspected("tabs in .csv", LOG.replace(",", "\t")),
    inspected("bars", LOG.replace(",", "|")),
    inspected("double colons", LOG.replace(",", "::"), file="log.txt"),
    inspected("spaces", LOG.replace(",", " "), file="log.txt"),
    inspected("a separator of one's own", LOG.replace(",", "#"), options="--separator #"),
    inspected("decimal commas", with_column("rating", "4.5").replace(",", ";").replace(".", ","), "decimal comma"),
    inspected("CRLF", LOG.replace("\n", "\r\n")),
    inspected("CR", LOG.replace("\n", "\r")),
    inspected("UTF-8 with a byte-order mark", LOG.encode("utf-8-sig")),
    inspected("UTF-16 with a byte-order mark", LOG.encode("utf-16")),
    inspected("UTF-16 as said", LOG.encode("utf-16-le"), options="--encoding utf-16-le"),
    inspected("Latin-1 as said", LOG.replace("i6", "í6").encode("latin-1"), options="--encoding latin-1"),
    inspected("no header, columns by number", BODY, options=MAPPED),
    inspected("milliseconds", with_times(10**3), "milliseconds", "2014-05-13"),
    inspected("microseconds", with_times(10**6), "microseconds", "2014-05-13"),
    inspected("nanoseconds", with_times(10**9), "nanoseconds", "2014-05-13"),
    inspected("milliseconds as said", with_times(10**3), "2014-05-13", options="--time-unit ms"),
    inspected("a comma at the end of every line", ends_in(",")),
    inspected("titles in the log", with_column("title", "One"), "titles 7 of 7 items"),
    Case("titles in the log that differ", {"log.csv": with_column("title", "A") + "u1,i1,5,B\n"},
         "data inspect log.csv", 0, ("several titles of one item", "item 'i1' has 2 titles: the first is kept, 'A'")),
    inspected("ids that are titles", TITLED, "--column title=game", options="--column item_id=game"),
    inspected("ids that are titles, as said", TITLED, "titles 7 of 7 items",
              options="--column item_id=game --column title=game"),
    inspected("an empty rating left out", with_column("rating", ""), options="--column rating="),
    inspected("many ties", with_times(0), "equal times", "--ties random"),
    inspected("many ties, drawn", with_times(0), "equal times", options="--ties random --ties-seed 3"),
    refused("nothing in the file", "", "log.csv is empty"),
    refused("blank lines only", "\n\n", "log.csv is empty"),
    refused("a header only", LOG.splitlines()[0] + "\n", "no interactions"),
    Case("no such file", {}, "data inspect log.csv", 2, ("no file or folder 'log.csv'",)),
    refused("an unknown ending", "x", "no format known here", "table", file="log.doc"),
    Case("a folder without a log", {"a/notes.txt": "x"}, "data inspect a", 2, ("no format known here",)),
    Case("two logs in a folder", {"a/log.csv": LOG, "a/ratings.csv": LOG}, "data inspect a", 2,
         ("ratings.csv and log.csv",)),
    refused("no such column", LOG, "no column 'who' for user_id", "got user_id, item_id, timestamp",
            options="--column user_id=who"),
    refused("an unknown name of ours", LOG, "got who", options="--column who=user_id"),
    refused("other names", LOG.replace("user_id", "who"), "lacks the column user_id (got who, item_id, timestamp)",
            "--column user_id="),
    refused("no header", BODY, "the first line of log.csv looks like data (u0, i0, 1)", "--column user_id=1"),
    refused("a column number that is not there", BODY, "has the columns 1 to 3 (got 7)",
            options="--column user_id=1 --column item_id=7"),
    refused("a separator of two characters", LOG, "(got ';;')", options="--separator ;;"),
    refused("an unknown format", LOG, "got 'csv'", "table", options="--format csv"),
    refused("an option of another format", LOG, "reader recbole has no option encoding; its options are title",
            options="--encoding cp1252 --format recbole"),
    Case("options for packaged data", {}, "data inspect movietweetings-100k --separator ;", 2, ("do not apply",)),
    refused("Latin-1", LOG.replace("i6", "í6").encode("latin-1"), "log.csv is not UTF-8 text (line 16: byte 0xed)",
            "--encoding"),
    refused("UTF-16 without a mark", LOG.encode("utf-16-le"), "byte 2 is 0", "--encoding utf-16-le"),
    refused("an unknown encoding", LOG, "no encoding 'utf-9'", options="--encoding utf-9"),
    refused("two columns of one name", with_column("item_id", "i1"), "2 columns named 'item_id' (columns 2 and 4)"),
    refused("a spreadsheet", b"PK\x03\x04" + bytes(range(256)), "a ZIP archive or a spreadsheet"),
    refused("zeros", bytes(1000), "not a text file: byte 1 is 0"),
    refused("random bytes", bytes(range(254, 0, -1)) * 9, "log.csv is not UTF-8"),
    refused("packed and cut short", TRUNCATED, "log.csv.gz is damaged", "up to line", file="log.csv.gz"),
    refused("packed and damaged", gzip.compress(LOG.encode())[:40] + bytes(90), "log.csv.gz is damaged",
            file="log.csv.gz"),
    refused("an empty rating", with_column("rating", ""), "'rating' of log.csv", "empty throughout",
            "--column rating="),
    refused("a field too many in every line", ends_in(",x"), "all 45 rows have the error 'broken line'"),
    refused("one line with a comma at its end", LOG + "u1,i1,5,\n", "line 47: 4 fields instead of 3"),
    refused("a quotation mark that stays open", LOG + 'u1,"i1,5\n' + BODY, "log.csv"),
    refused("times of two units", LOG + "u1,i1,1400000000000\n", "beyond the year 5000", "these have several"),
    refused("a time that is none", LOG + "u1,i1,soon\n", "row 46", "'soon'"),
    refused("a line too short", LOG + "u1,i1\n", "line 47", "2 fields instead of 3", "--on-error skip"),
    Case("a line too short, skipped", {"log.csv": LOG + "u1,i1\n"}, "data inspect log.csv --on-error skip", 0,
         ("broken line", "45", "1 errors")),
    refused("half of a character", json_lines() + '{"user_id": "\\ud83d"}', "log.jsonl line 46",
            "'user_id' holds the lone surrogate \\ud83d", file="log.jsonl"),
    refused("no JSON", "{'user_id': 1}\n", "log.jsonl", "line 1", file="log.jsonl"),
    refused("a JSON array that breaks off", '[{"user_id": 1}', "cannot be parsed as JSON", file="log.json"),
    refused("numbers for records", "1\n2\n", "not a record but int", file="log.jsonl"),
    refused("lists for ids", '{"user_id": [1], "item_id": 2}', "'user_id'", "holds lists", file="log.jsonl"),
    refused("no Parquet", LOG, "log.parquet cannot be read as Parquet", file="log.parquet"),
]  # fmt: skip

KNOWN = [
    Case("MovieLens-100K with a line too short", {"u.data": "1\t2\t3\n", "u.item": "2|Two" + "|" * 22},
         "data inspect .", 2,
         ("u.data line 1: 3 fields instead of 4",)),
    Case("MovieLens-1M that is empty", {"ratings.dat": "", "movies.dat": "1::One::War\n"}, "data inspect .", 2,
         ("ratings.dat is empty",)),
    Case("MovieTweetings packed and cut short", {"ratings.dat": TRUNCATED, "movies.dat": "0000001::One::War\n"},
         "data inspect .", 2, ("ratings.dat is damaged",)),
    Case("Last.fm without a column", {"user_taggedartists-timestamps.dat": "userID\ttagID\n1\t2\n",
         "artists.dat": "id\n"},
         "data inspect .", 2, ("lacks the column artistID, timestamp (got userID, tagID)",)),
    Case("Steam that is no Python", {"steam_reviews.json": "import os\n"}, "data inspect .", 2,
         ("steam_reviews.json line 1: cannot be parsed",)),
    Case("Goodreads without its map", {"goodreads_interactions.csv": "user_id,book_id,rating\n"}, "data inspect .", 2,
         ("without book_id_map.csv",)),
    Case("YooChoose with a word for a number", {"yoochoose-clicks.dat": "1,2014-04-07T10:51:09.277Z,x,0\n"},
         "data inspect .", 2, ("item_id is not a whole number", "all 1 rows")),
    Case("KuaiRec in UTF-16",
         {"big_matrix.csv": "user_id,video_id,timestamp,watch_ratio\n0,1,5,1\n0,2,6,1\n".encode("utf-16")},
         "data inspect .", 0, ("0 errors",)),
    Case("ZhihuRec in Latin-1", {"inter_impression.csv": "é,7,1,1\n".encode("latin-1")}, "data inspect .", 2,
         ("inter_impression.csv is not UTF-8 text (line 1: byte 0xe9)", "convert the file")),
    Case("DreamRec without Parquet", {f"{n}.parquet": "x" for n in ("train", "val",
         "test")} | {"statistics.json": "{}"},
         "data inspect .", 2, ("train.parquet cannot be read as Parquet",)),
    Case("RetailRocket with a spreadsheet for a log", {"events.csv": b"PK\x03\x04..."},
         "data inspect . --format retailrocket", 2,
         ("a ZIP archive or a spreadsheet",)),
    Case("RecBole without types", {"a.inter": "user_id\titem_id\n1\t2\n"}, "data inspect .", 2,
         ("fields without a type token",)),
    Case("RecBole in milliseconds",
         {"a.inter": "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t1400000000000\n"},
         "data inspect .", 0, ("milliseconds", "2014-05-13")),
    Case("a saved data set that is no JSON", {"predilect.json": "{"}, "data inspect .", 2, ("predilect.json",)),
    Case("options for a saved data set", {"predilect.json": "{}"}, "data inspect . --ties random", 2,
         ("read as it was saved", "ties")),
]  # fmt: skip

COMMANDS = [
    Case("convert", {"log.csv": LOG}, "data convert log.csv out", 0, ("wrote",), leaves=("out/",)),
    Case("convert onto a full folder", {"log.csv": LOG, "out/a.txt": "x"}, "data convert log.csv out", 2,
         ("not an empty folder",)),
    Case("convert a faulty log", {"log.csv": LOG + "u1\n"}, "data convert log.csv out", 2, ("line 47",)),
    Case("recommend without a model", {}, "recommend i1", 2, ("no saved recommender", "--model FOLDER")),
    Case("recommend from a file", {"m": "x"}, "recommend i1 --model m", 2, ("no saved recommender in m",)),
    Case("recommend from a method that is no JSON", {"m/method.json": "{"}, "recommend i1 --model m",
         2, ("method.json",)),
    Case("recommend", {}, "recommend i1 --model {board} -k 2", 0, ("after item i1",)),
    Case("recommend for a title nobody has", {}, "recommend Nobody --model {board}", 2,
         ("not in the catalogue of 7 items: 'Nobody'",)),
    Case("recommend nothing", {}, "recommend i1 --model {board} -k 0", 2, ("greater than or equal to 1",)),
    Case("evaluate without a model", {"log.csv": LOG}, "evaluate --data log.csv", 2, ("no saved recommender",)),
    Case("evaluate on other items", {"log.csv": LOG.replace("i6", "j6")},
         "evaluate --data log.csv --model {board} --k-core 0",
         2, ("only the data has 1 items",)),
    Case("evaluate on a faulty log", {"log.csv": LOG + "u1\n"},
         "evaluate --data log.csv --model {board} --output-dir out",
         2, ("line 47",)),
    Case("evaluate on semicolons", {"log.csv": LOG.replace(",", ";")},
         "evaluate --data log.csv --model {board} --k-core 0 --bootstrap 10 --separator ;", 0, ("ndcg@10",)),
    Case("leaderboard on a faulty log", {"log.csv": LOG + "u1\n"}, f"leaderboard --data log.csv {BAD_OPTION}",
         2, ("line 47",)),
    Case("leaderboard with drawn ties", {"log.csv": with_times(0)},
         "leaderboard --data log.csv --models random --split leave_one_out --ties random --ties-seed 3 --bootstrap 10 "
         f"{BAD_OPTION}", 0, ("ties random, seed 3",), leaves=("out/",)),
    Case("leaderboard on a log that is too short", {"log.csv": LOG},
         "leaderboard --data log.csv --k-core 50 --output-dir out",
         2, ("the 50-core of log is empty",)),
    Case("an unknown recommender", {"log.csv": LOG}, f"leaderboard --data log.csv --models popularty {BAD_OPTION}", 2,
         ("popularty", "popularity")),
    Case("heads that do not divide the width", {}, "leaderboard --data nowhere.csv --models sasrec --recommenders "
         f"sasrec.num_heads=3 {BAD_OPTION}", 2, ("recommenders.sasrec: num_heads must divide hidden_size",)),
    Case("an encoder's heads that do not divide its width", {}, "leaderboard --data nowhere.csv --models dreamrec "
         f"--recommenders dreamrec.encoder_options={{\'num_heads\':3}} {BAD_OPTION}", 2, ("num_heads must divide",)),
    Case("a retriever that is none", {}, "leaderboard --data nowhere.csv --models language --recommenders "
         f"language.retriever=knn {BAD_OPTION}", 2, ("retriever must be one of", "(got 'knn')")),
    Case("an option of another recommender", {},
         f"leaderboard --models popularity --recommenders sasrec.seed=1 {BAD_OPTION}", 2,
         ("options for sasrec, which the run does not compare",)),
    Case("an option that is none", {"log.csv": LOG}, "leaderboard --data log.csv --ratios 1,2", 2, ("ratios",)),
    Case("an output folder that is a file", {"log.csv": LOG, "out": "x"},
         f"leaderboard --data log.csv {BAD_OPTION}", 2,
         ("the output folder out is a file",)),
    Case("a YAML file that is none", {"run.yaml": "a: ["}, "leaderboard --config run.yaml",
         2, ("run.yaml is not valid YAML",)),
    Case("DreamRec on a faulty log", {"log.csv": LOG + "u1\n"}, f"train dreamrec --data log.csv {BAD_OPTION}", 2,
         ("line 47",)),
    Case("a language model on a faulty log", {"log.csv": LOG + "u1\n"}, f"train bigrec --data log.csv {BAD_OPTION}",
         2, ("line 47",)),
    Case("a language model with an option that is none", {}, f"train bigrec --set gama=1 {BAD_OPTION}", 2,
         ("no option 'gama'", "gamma")),
    Case("training with heads that do not divide the width", {},
         f"train sasrec --data nowhere.csv --set num_heads=3 {BAD_OPTION}", 2, ("num_heads must divide",)),
    Case("training a method that is none", {}, "train sasrek", 2, ("no method 'sasrek'", "sasrec")),
    Case("training on spaces", {"log.txt": LOG.replace(",", " ")},
         "train popularity --data log.txt --k-core 0 --bootstrap 10 --output-dir out", 0, ("ndcg@10",),
         leaves=("out/",)),
]  # fmt: skip

OPTIONS = "--model {model} --method dpo --output-dir out --dataset"
PAIR = '{"prompt": "p", "chosen": "a", "rejected": "b"}\n'
CHAT = json.dumps({name: [{"role": "user", "content": text}] for name, text in json.loads(PAIR).items()}) + "\n"
ALIGN = [
    Case("no preferences", {}, f"align {OPTIONS} rows.jsonl", 2, ("rows.jsonl",)),
    Case("preferences without rejected answers", {"rows.jsonl": PAIR.replace("rejected", "refused")},
         f"align {OPTIONS} rows.jsonl", 2, ("missing: rejected",)),
    Case("an empty file of preferences", {"rows.jsonl": ""}, f"align {OPTIONS} rows.jsonl", 2, ("rows.jsonl",)),
    Case("preferences in Latin-1", {"rows.jsonl": PAIR.replace('"p"', '"é"').encode("latin-1")},
         f"align {OPTIONS} rows.jsonl", 2, ("rows.jsonl line 1 is not UTF-8",)),
    Case("a null among preferences", {"rows.jsonl": PAIR * 3 + PAIR.replace('"a"', "null")},
         f"align {OPTIONS} rows.jsonl", 2,
         ("chosen is null", "rows.jsonl line 4")),
    Case("text and messages mixed", {"rows.jsonl": PAIR + CHAT}, f"align {OPTIONS} rows.jsonl", 2,
         ("line 1 has text as prompt and rows.jsonl line 2 has messages",)),
    Case("preferences packed and cut short", {"rows.jsonl.gz": gzip.compress((PAIR * 900).encode())[:60]},
         f"align {OPTIONS} rows.jsonl.gz", 2, ("rows.jsonl.gz is damaged",)),
    Case("half of a character in a preference", {"rows.jsonl": PAIR.replace('"a"', '"\\ud83d"')},
         f"align {OPTIONS} rows.jsonl", 2, ("line 1", "lone surrogate")),
    Case("a method that is none", {"rows.jsonl": PAIR},
         "align --model {model} --method dppo --dataset rows.jsonl", 2, ("dppo",)),
    Case("an option of align that is none", {"rows.jsonl": PAIR}, f"align {OPTIONS} rows.jsonl --bta 1",
         2, ("--bta", "beta")),
]  # fmt: skip

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
SIGNS = with_column("title", "Amélie ≈ 七").replace("i0,", "ï0,")
LOCALE = [
    Case("titles in an ASCII locale", {"log.csv": SIGNS}, "data inspect log.csv", 0, ("Am?lie ? ?",
         "titles 7 of 7"), env=ASCII),
    Case("a leaderboard in an ASCII locale", {"log.csv": SIGNS},
         "leaderboard --data log.csv --models popularity,random --k-core 0 --bootstrap 10 --output-dir out", 0,
         ("popularity", "report: out/report.html"), leaves=("out/",), env=ASCII),
    Case("a path that an ASCII locale cannot write", {"log.csv": LOG},
         "leaderboard --data log.csv --output-dir ü/out", 2,
         (r"/\xfc/out' cannot be written in this locale", "PYTHONUTF8=1"), env=ASCII),
    Case("a file that an ASCII locale cannot name", {"log.csv": LOG}, "data inspect lög.csv", 2,
         (r"l\xf6g.csv' cannot be written in this locale",), env=ASCII),
]  # fmt: skip

TABLE = [*READERS, *KNOWN, *COMMANDS, *ALIGN, *LOCALE]


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "log.csv").write_text(LOG)
    words = ["leaderboard", "--data", str(folder / "log.csv"), "--models", "popularity", "--k-core", "0"]
    result = CliRunner().invoke(app, [*words, "--bootstrap", "10", "--output-dir", str(folder / "out")])
    assert result.exit_code == 0, result.output
    return folder / "out"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    core = Tokenizer(models.WordLevel({"</s>": 0, "p": 1, "a": 2, "b": 3, "?": 4}, unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>").save_pretrained(folder)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=5, **sizes)).save_pretrained(folder)
    return folder


def test_rows_have_names_of_their_own() -> None:
    assert len({case.name for case in TABLE}) == len(TABLE)


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_input(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    for fixture in ("board", "model"):
        if f"{{{fixture}}}" in case.command:
            folder = str(request.getfixturevalue(fixture))
            case = replace(case, command=case.command.replace(f"{{{fixture}}}", folder))
    for name, content in case.files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        packed = isinstance(content, str) and name.endswith(".gz")
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if packed else data)
    status, output = _run(case, tmp_path, monkeypatch)
    assert status == case.status, output
    assert "Traceback" not in output, output
    assert output.count("Error: ") + output.count("Error ─") == (status != 0), output
    flat = " ".join(output.split())
    assert not [words for words in case.says if words not in flat], output
    there = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    left = {p for p in there - set(case.files) if not any(p.startswith(f) for f in case.leaves if f.endswith("/"))}
    assert left == {f for f in case.leaves if not f.endswith("/")}


def _run(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit status and all that was printed."""
    words, wide = case.command.split(), {"COLUMNS": "400", "HF_HUB_OFFLINE": "1"}
    if case.env:
        env = {**os.environ, **wide, "OMP_NUM_THREADS": "1", **case.env}
        done = subprocess.run([sys.executable, "-m", "predilect", *words], cwd=folder, env=env, capture_output=True)
        return done.returncode, (done.stdout + done.stderr).decode("ascii" if "LC_ALL" in case.env else "utf-8")
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, words, env=wide)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.output
