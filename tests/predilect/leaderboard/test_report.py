from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from predilect.leaderboard import charts
from predilect.leaderboard.report import finding, headline, kind_tables, mark, render, write_report
from predilect.leaderboard.results import GroupComparison, Leaderboard, ModelComparison

MakeBoard = Callable[..., Leaderboard]
HOSTILE = [
    "<script>document.title='taken'</script>",
    '"><img src=x onerror="document.title=\'taken\'">',
    "'; alert(1); //",
    "{{ 7 * 7 }} {% raw %}",
    "</select></script><b>",
    "Amélie \u2603 映画 \u202eright to left",
    "&lt;already&gt; & co",
]


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_page_makes_no_request(make_board: MakeBoard) -> None:
    page = render(make_board())
    for tag, attributes in Tags(page).tags:
        assert tag not in ("iframe", "object", "embed", "img", "base"), tag
        assert not (tag == "script" and "src" in attributes)
        for name in ("src", "href", "action", "srcset", "poster", "data", "xlink:href"):
            value = attributes.get(name) or ""
            assert value in ("", "data:,") or value.startswith("#"), (tag, value)
    assert not re.search(r"https?://|url\(|@import|\bfetch\(|XMLHttpRequest|sendBeacon", page)
    assert "default-src 'none'" in page


def test_hostile_titles_stay_text(make_board: MakeBoard) -> None:
    plain, hostile = render(make_board()), render(make_board(titles=HOSTILE * 6))
    kinds = ("script", "img", "b", "select", "style")
    count = {kind: sum(tag == kind for tag, _ in Tags(plain).tags) for kind in kinds}
    assert count == {kind: sum(tag == kind for tag, _ in Tags(hostile).tags) for kind in kinds}
    text = " ".join(Tags(hostile).text)
    assert all(title in text for title in HOSTILE)
    assert "<b>out of memory</b>" in text


def test_report_shows_every_model_user_and_step(make_board: MakeBoard) -> None:
    board = make_board()
    page = Tags(render(board))
    assert sum("data-person" in attributes for _, attributes in page.tags) == len(board.examples)
    text = " ".join(page.text)
    for model in board.models:
        assert model.name in text
    for count in board.counts:
        assert f"{count['interactions']:,}" in text
    assert board.command in text
    assert "quick run" not in text.lower()


def test_quick_run_is_flagged(make_board: MakeBoard) -> None:
    assert "Quick run." in render(make_board(quick=True))


def test_headline_says_what_the_comparison_says(make_board: MakeBoard) -> None:
    board = make_board()
    assert headline(board) == "sasrec ranks the next item best, 24% above item-knn."
    assert "Its difference to gru4rec is within the noise." in finding(board)
    undecided = [ModelComparison("sasrec", "item-knn", 0.001, -0.001, 0.003, 0.4)]
    assert "within the noise" in headline(Leaderboard(**{**vars(board), "comparisons": undecided}))
    baselines = [m for m in board.models if m.is_baseline]
    assert headline(Leaderboard(**{**vars(board), "models": baselines})) == "item-knn ranks the next item best."
    assert headline(Leaderboard(**{**vars(board), "models": board.failed})) == "No model finished."
    behind = [*baselines, *(m for m in board.ranked if not m.is_baseline)]
    assert headline(Leaderboard(**{**vars(board), "models": behind})) == "No trained model beats item-knn."


def with_kinds(board: Leaderboard, beats: bool) -> Leaderboard:
    """Targets taken 1 to 5 times: sasrec .03 and item-knn .01; more often: .06 and .07; 5 % repeats."""
    values = {"sasrec": (0.03, 0.06), "item-knn": (0.01, 0.07)}
    models = []
    for m in board.models:
        if m.name not in values:
            continue
        ends = [{"rows": 400, "ndcg@10": v, "ndcg@10_low": v - 0.01, "ndcg@10_high": v + 0.01} for v in values[m.name]]
        groups = {"target_frequency": {"never": {"rows": 3, "ndcg@10": 0.0}, "1 to 5": ends[0], "more": ends[1]}}
        groups["repeat"] = {"new": ends[1], "repeat": {"rows": 340, "ndcg@10": 0.0}}
        models.append(replace(m, groups=groups, metrics={**m.metrics, "repeat_targets": 340}))
    models.sort(key=lambda m: m.name)  # item-knn comes first
    shared = {"model": "sasrec", "other": "item-knn", "by": "target_frequency", "rows": 400, "users": 90}
    compared = [
        GroupComparison(**shared, group="1 to 5", difference=0.02, low=0.01, high=0.03, beats=beats, loses=False),
        GroupComparison(**shared, group="more", difference=-0.01, low=-0.02, high=0.0, beats=False, loses=False),
    ]
    return replace(board, models=models, group_comparisons=compared)


def test_headline_says_for_whom_the_best_counting_method_is_beaten(make_board: MakeBoard) -> None:
    won = "On the whole no trained model beats item-knn; for items taken 1 to 5 times in training sasrec does."
    assert headline(with_kinds(make_board(), beats=True)) == won
    assert headline(with_kinds(make_board(), beats=False)) == "No trained model beats item-knn."


def test_tables_by_kinds_of_rows(make_board: MakeBoard) -> None:
    board = with_kinds(make_board(), beats=True)
    frequency, repeat = kind_tables(board)
    assert frequency["columns"] == [("never", 3), ("1 to 5", 400), ("more than 50", 400)]
    assert [line["name"] for line in frequency["lines"]] == ["item-knn", "sasrec"]
    cells = {line["name"]: line["cells"] for line in frequency["lines"]}
    assert [c["sign"] for c in cells["sasrec"]] == ["", "▲", "≈"]
    assert [c["best"] for c in cells["item-knn"]] == [True, False, True]
    assert repeat["columns"] == [("new", 400), ("repeat", 340)]
    text = " ".join(Tags(render(board)).text)
    assert "By how often the target was taken in training" in text
    assert "5.0% of the targets were taken before by the same user" in " ".join(text.split())
    few = replace(board, models=[replace(m, metrics={**m.metrics, "repeat_targets": 68}) for m in board.models])
    assert len(kind_tables(few)) == 1  # 1 % or less is not shown apart
    assert kind_tables(make_board()) == []  # results of an earlier version


def test_page_of_failures_only(make_board: MakeBoard) -> None:
    board = make_board()
    page = render(Leaderboard(**{**vars(board), "models": board.failed, "comparisons": [], "examples": []}))
    assert "No model finished." in page
    assert "out of memory" in page


def test_marks(make_board: MakeBoard) -> None:
    board = make_board()
    assert mark(board, "sasrec")[0] == "▲"
    assert mark(board, "popularity")[0] == "▼"
    assert mark(board, "item-knn") == ("", "")


@pytest.mark.parametrize(("low", "high"), [(0, 0.063), (0, 1.0), (0, 0.0), (1, 12), (0, 3e-7), (0, 0.08)])
def test_ticks_cover_the_range_in_equal_steps(low: float, high: float) -> None:
    ticks = charts.nice_ticks(low, high)
    steps = {round(b - a, 9) for a, b in itertools.pairwise(ticks)}
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert len(steps) == 1 or max(steps) - min(steps) < 1e-8
    assert 2 <= len(ticks) <= 9


def test_chart_positions(make_board: MakeBoard) -> None:
    board = make_board()
    chart = charts.ranking(board)
    end = 0.08
    assert chart["ticks"][-1] == {"x": 100.0, "label": "0.08"}
    first = chart["rows"][0]
    assert (first["x_low"], first["x"], first["x_high"]) == tuple(
        pytest.approx(100 * v / end, abs=1e-3) for v in (0.0661 * 0.95, 0.0661, 0.0661 * 1.05)
    )
    points = {p["name"]: p for p in charts.accuracy_and_time(board)["points"]}
    assert points["random"]["x"] == 0.0  # 1 ms, the left end: axis from 1 ms to 100 s
    assert points["gru4rec"]["x"] == pytest.approx(100 * (1.3324 + 3) / 5, abs=0.01)
    margin = sorted(p["label_y"] for p in points.values() if p["margin"])
    assert all(b - a >= 15 for a, b in itertools.pairwise(margin))
    assert charts.learning_curves(Leaderboard(**{**vars(board), "models": board.failed})) == {}


@pytest.fixture
def browser(tmp_path: Path) -> Callable[[Path], str]:
    """`browser(page)`: the DOM after headless Chromium has loaded the page."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed")
    flags = "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --disable-dev-shm-usage --virtual-time-budget=2000 --dump-dom"

    def load(page: Path) -> str:
        command = [program, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return load


def rows(dom: str) -> list[str]:
    body = dom[dom.index('<table id="results">') : dom.index("</table>")]
    return re.findall(r'<th scope="row" data-value="([^"]*)"', body)


def test_page_in_a_browser(make_board: MakeBoard, browser: Callable[[Path], str], tmp_path: Path) -> None:
    board = make_board(titles=HOSTILE * 6)
    write_report(board, tmp_path / "report.html")
    dom = browser(tmp_path / "report.html")
    assert rows(dom) == [m.name for m in board.models]
    assert "taken" not in re.findall(r"<title>(.*?)</title>", dom)[0]
    people = re.findall(r'<div class="person" data-person=""( hidden="")?>', dom)
    assert [bool(p) for p in people] == [False] + [True] * (len(board.examples) - 1)  # one person at a time


def test_sorting_theme_and_tooltip_in_a_browser(
    make_board: MakeBoard, browser: Callable[[Path], str], tmp_path: Path
) -> None:
    script = """<script>
      const heads = [...document.querySelectorAll("#results thead button")], told = [];
      const order = () => {
        const names = [...document.querySelectorAll("#results tbody th")].map((h) => h.dataset.value);
        told.push(names.join(" "));
      };
      const click = (text) => { heads.find((b) => b.textContent === text).click(); order(); };
      order();
      click("coverage@10");
      click("coverage@10");
      click("model");
      const sorted = document.querySelectorAll("#results th[aria-sort]");
      told.push(sorted.length + sorted[0].getAttribute("aria-sort"));
      const theme = () => { document.getElementById("theme").click(); return document.documentElement.dataset.theme; };
      told.push(theme() + " " + theme());
      document.querySelector(".hot").focus();
      const tip = document.getElementById("tip");
      told.push(tip.className + " " + tip.textContent);
      document.getElementById("previous").click();
      told.push(document.getElementById("user").selectedIndex);
      const out = document.createElement("pre");
      out.id = "told";
      out.textContent = told.join("|");
      document.body.append(out);
    </script></body>"""
    page = tmp_path / "report.html"
    page.write_text(render(make_board()).replace("</body>", script))
    dom = browser(page)
    told = re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)
    assert told is not None
    by_ndcg, by_coverage, backwards, by_name, aria, themes, tip, person = told[1].split("|")
    assert by_ndcg.split() == [
        "sasrec",
        "gru4rec",
        "nextitnet",
        "item-knn",
        "recent-popularity",
        "popularity",
        "random",
        "caser",
    ]
    assert by_coverage.split() == [
        "random",
        "item-knn",
        "sasrec",
        "gru4rec",
        "nextitnet",
        "recent-popularity",
        "popularity",
        "caser",
    ]
    assert backwards.split() == [*reversed(by_coverage.split()[:-1]), "caser"]  # failed models stay last
    assert by_name.split() == [*sorted(by_ndcg.split()[:-1]), "caser"]
    assert aria == "1ascending"
    assert set(themes.split()) == {"dark", "light"}
    assert tip.startswith("on sasrec")
    assert person == "7"
