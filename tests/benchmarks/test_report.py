"""The report of the benchmarks: all of what sections hold, in Markdown and on one page that needs nothing."""

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import report
from _render import Provenance, draw, figures_not_in, is_number, markdown, page, slug
from _sections import Figure, Section, Table

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
MADE = Provenance(("0123456789ab",), ("Processor, 2 cores, 8 GiB",), ("python benchmarks/x.py --seed 1",))


def plot(canvas):
    axes = canvas.subplots()
    axes.plot([0, 1, 2], [3, 1, 2], label="a line")
    axes.set_xlabel("seconds")
    axes.legend()


TABLE = Table("Of `x` | in *nats*.", ["what", "value"], [["a|b", "1.25"], ["<b>", "-2.5 (0.1)"]])
SECTION = Section("Rate & cost", ["A *finding* with `code`."], [TABLE, Figure("rate", "A plot.", plot)], [])


class Reader(HTMLParser):
    """Tags with their attributes, and the text of cells, of a page; fails on tags that do not match."""

    EMPTY = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data

    def attributes(self, tag, name):
        return [attributes[name] for found, attributes in self.tags if found == tag and name in attributes]


@pytest.fixture
def html():
    return page([SECTION], {SECTION.title: MADE}, "An introduction.", {"rate": draw(SECTION.parts[1])})


def test_the_page_shows_every_cell_as_it_is(html):
    assert Reader(html).cells == ["what", "value", "a|b", "1.25", "<b>", "-2.5 (0.1)"]


def test_the_page_needs_nothing_from_elsewhere(html):
    reader = Reader(html)
    assert [url[:5] for url in reader.attributes("img", "src")] == ["data:"]
    assert reader.attributes("link", "href") == ["data:,"]
    assert "script" not in {tag for tag, _ in reader.tags}
    assert not re.search(r"url\(|@import", html)


def test_the_contents_lead_to_the_headings(html):
    reader = Reader(html)
    assert reader.attributes("a", "href") == ["#rate--cost"]
    assert "rate--cost" in reader.attributes("h2", "id")


def test_tables_and_plots_scroll_in_boxes_of_their_own(html):
    assert html.count('class="scroll') == len(SECTION.parts)


def test_the_page_says_where_the_figures_come_from(html):
    assert MADE.commits[0] in html
    assert MADE.commands[0] in html


def test_a_plot_is_an_image_that_adapts_to_dark_pages_and_repeats_exactly(html):
    (source,) = Reader(html).attributes("img", "src")
    drawing = base64.b64decode(source.partition(",")[2]).decode()
    assert drawing == draw(SECTION.parts[1])
    assert ElementTree.fromstring(drawing).tag.endswith("svg")
    assert "prefers-color-scheme: dark" in drawing
    assert ">seconds</text>" in drawing


def test_markdown_has_the_same_figures_as_the_page(html):
    text = markdown([SECTION], {SECTION.title: MADE}, "An introduction.")
    assert "| a\\|b | 1.25 |" in text
    assert "![rate](figures/rate.svg)" in text
    assert "- [Rate & cost](#rate--cost)" in text
    assert figures_not_in(" ".join(Reader(html).cells), text) == []


def test_figures_that_a_text_lacks_are_found():
    assert figures_not_in("1.5 and -2,000 of 3", "3 with -2,000 beside 1.55") == ["1.5"]


@pytest.mark.parametrize("cell", ["1.5", "-7108.39 (0.05)", "<= 3", "≤ 0.8", "-", "± 2"])
def test_numbers_are_known(cell):
    assert is_number(cell)


@pytest.mark.parametrize("cell", ["DS1", "splits: max 0.1", "a2a"])
def test_names_are_no_numbers(cell):
    assert not is_number(cell)


def test_anchors_are_those_of_markdown_viewers():
    assert slug("DS1 to DS8, with `x`") == "ds1-to-ds8-with-x"


def test_the_results_that_are_there_make_a_report(tmp_path):
    results = shutil.copytree(RESULTS, tmp_path / "results")
    text = report.write_report(results)
    titles = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert "Start-up" in titles
    assert len(set(titles)) == len(titles)
    html = (results / "report.html").read_text(encoding="utf-8")
    assert len(Reader(html).attributes("h2", "id")) == len(titles)
    drawn = {path.stem for path in (results / "figures").glob("*.svg")}
    assert drawn == set(re.findall(r"\(figures/(.+)\.svg\)", text))
    assert report.headlines(results, text) != ""


def test_no_results_make_an_empty_report(tmp_path):
    assert report.collect(tmp_path) == []
    assert "# Measured" in report.write_report(tmp_path)


def test_plots_of_an_earlier_report_are_removed(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "stale.svg").write_text("<svg/>")
    report.write_report(tmp_path)
    assert list((tmp_path / "figures").iterdir()) == []


def test_readme_may_quote_only_the_report(tmp_path):
    results = shutil.copytree(RESULTS, tmp_path / "results")
    with pytest.raises(ValueError, match="which lacks"):
        report.headlines(results, "nothing")


def test_readme_changes_between_the_marks_only(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.MARK}\nold\n{report.MARK}\nafter\n")
    report.update_readme(readme, "new")
    assert readme.read_text() == f"before\n{report.MARK}\nnew\n{report.MARK}\nafter\n"


def test_a_browser_shows_the_page_whole_and_without_complaint(html, tmp_path, require_program):
    require_program("chromium")
    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8")
    pictures = report.screenshot(file, tmp_path)
    assert [picture.stat().st_size > 10_000 for picture in pictures] == [True, True]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ('<div style="width: 3000px">wide</div>', "is cut off: DIV"),
        ("<script>console.error('wrong')</script>", "CONSOLE.*wrong"),
    ],
)
def test_a_browser_finds_what_is_cut_off_and_what_complains(html, tmp_path, broken, message, require_program):
    require_program("chromium")
    file = tmp_path / "report.html"
    file.write_text(html.replace("</main>", broken + "</main>"), encoding="utf-8")
    with pytest.raises(RuntimeError, match=message):
        report.screenshot(file, tmp_path)
