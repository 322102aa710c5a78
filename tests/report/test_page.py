"""The page as a whole: well-formed, escaped, on its own, true to the files, fit for desktop and phone."""

import html
import json
import re
import shutil
import subprocess
from itertools import pairwise

import pytest

from vbpi_mix.errors import ConfigurationError, RunDirectoryError
from vbpi_mix.report.page import TEMPLATES, page, write_report
from vbpi_mix.report.words import fixed
from vbpi_mix.results.run_directory import RunDirectory

WIDTHS = (1280, 390)
"""Widths of a desktop's and a phone's window, in pixels."""

PROBE = """<script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map((frame) => {
    const root = frame.contentDocument.documentElement;
    const isCut = (element) => element.closest(".scroll") === null
      && element.getBoundingClientRect().right > root.clientWidth + 1;
    return {
      width: frame.clientWidth,
      inside: root.clientWidth,
      scroll: root.scrollWidth,
      height: root.scrollHeight,
      cut: [...frame.contentDocument.querySelectorAll("body *")].filter(isCut).map((e) => e.tagName),
    };
  });
  document.documentElement.dataset.found = JSON.stringify(found);
});
</script>"""
RUNS = ("nasty_run", "least_run", "large_run")


@pytest.fixture(scope="module")
def nasty_page(nasty_run):
    return page(nasty_run, [nasty_run.run_trees(1), nasty_run.run_trees(2)])


@pytest.fixture(params=RUNS)
def run(request):
    return request.getfixturevalue(request.param)


def test_every_page_is_well_formed_and_needs_nothing_else(run, read_page):
    text = page(run)
    read = read_page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert {"script", "iframe", "img", "object"} & {tag for tag, _ in read.tags} == set()
    assert read.attributes("link", "href") == ["data:,"]
    assert [name for _, attributes in read.tags for name in attributes if name == "src"] == []
    assert re.findall(r"@import|url\(|https?:", text) == []


def test_headings_descend_by_one_and_anchors_exist_once(run, read_page):
    read = read_page(page(run))
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    anchors = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(set(anchors)) == len(anchors)
    targets = {target for target in read.attributes("a", "href") if target.startswith("#")}
    assert {target[1:] for target in targets} - set(anchors) == set()


def test_tables_and_pictures_say_what_they_are(run, read_page):
    read = read_page(page(run))
    assert [scope for scope in read.attributes("th", "scope") if scope not in ("row", "col")] == []
    assert len(read.attributes("th", "scope")) == sum(tag == "th" for tag, _ in read.tags)
    labels = read.attributes("svg", "aria-label")
    assert len(labels) == sum(tag == "svg" for tag, _ in read.tags) >= 4
    assert all(labels)
    boxes = [attributes for _, attributes in read.tags if "scroll" in attributes.get("class", "").split()]
    assert all(box["role"] == "region" and box["aria-label"] and box["tabindex"] == "0" for box in boxes)


def test_names_of_taxa_are_escaped_and_whole(nasty_page, nasty_run, read_page):
    read = read_page(nasty_page)
    assert {"script", "b"} & {tag for tag, _ in read.tags} == set()
    told = "".join(read.text)
    for name in _taxa(nasty_run):
        assert name in told
    assert "<script>alert" not in nasty_page
    assert "my & own.fasta" in told


def _taxa(run):
    rows = (line.split("\t") for line in run.splits.read_text().splitlines()[1:])
    return [json.loads(row[0])[0] for row in rows if row[2] == "1"]


def test_numbers_are_those_of_the_result(run, read_page):
    result = json.loads(run.result.read_text())
    told = " ".join(read_page(page(run)).text)
    marginal, topologies = result["marginal_log_likelihood"], result["topologies"]
    expected = [
        fixed(marginal["mean"], 2),
        *(fixed(marginal[name]) for name in ("mean", "std", "pooled", "standard_error")),
        *(fixed(result[name]) for name in ("lower_bound_1", "lower_bound_10")),
        fixed(result["ess"], 0),
        fixed(result["pareto_k"], 2),
        f"{result['ess_percent']:.1f}%",
        f"{topologies['ccd']['entropy']:.2f}",
        fixed(topologies["ccd"]["map_probability"]),
        result["provenance"]["data_sha256"],
        *(f"{100 * share:.1f}%" for share in result["components"]["weight_share"][1:]),
        *(fixed(one["probability"], 4) for one in topologies["credible_sets"]),
        *(f"{name} {version}" for name, version in result["versions"].items()),
    ]
    assert [number for number in expected if number not in told] == []


def test_clades_are_those_of_the_table(nasty_run, read_page):
    rows = [line.split("\t") for line in nasty_run.splits.read_text().splitlines()[1:]]
    inner = [row for row in rows if row[2] != "1" and float(row[3]) > 0.01]
    read = read_page(page(nasty_run))
    anchors = [attributes["id"] for tag, attributes in read.tags if tag == "tr" and "id" in attributes]
    assert anchors == [f"clade-{number}" for number in range(1, len(inner) + 1)]
    told = " ".join(read.text)
    assert [row[3] for row in inner if fixed(float(row[3])) not in told] == []


def test_components_and_reference_appear_where_there_are_some(nasty_page, least_run, read_page):
    told = " ".join(read_page(nasty_page).text)
    assert "Components of the mixture" in told
    assert "ASDSF" in told
    assert "posterior.run1.t" in told
    assert "First to second file" in told
    told = " ".join(read_page(page(least_run)).text)
    assert "Components of the mixture" not in told
    assert "Your reference" not in told


def test_combined_runs_are_read_from_their_directories(nasty_run, tmp_path, read_page):
    whole = shutil.copytree(nasty_run.path, tmp_path / "whole")
    for name in ("run1", "run2"):
        shutil.copytree(nasty_run.path, whole / name)
    for name in ("checkpoint.pt", "metrics.jsonl", "posterior.npz"):
        (whole / name).unlink()
    text = page(RunDirectory(whole), [nasty_run.run_trees(1)])
    told = " ".join(read_page(text).text)
    assert "run1, 1" in told
    assert "run2, 3" in told
    assert "run1/" in told
    assert text.count('class="line line-1"') == 4  # the other run's bound in two charts, and its legends


def test_weighted_references_have_no_burn_in(nasty_run, read_page):
    told = " ".join(read_page(page(nasty_run, [nasty_run.topology_probabilities])).text)
    assert "weighted trees" in told
    with pytest.raises(ConfigurationError, match="--burn-in"):
        page(nasty_run, [nasty_run.topology_probabilities], 0.5)


def test_the_command_writes_the_page(nasty_run, tmp_path, command):
    out, trees = tmp_path / "page.html", nasty_run.run_trees(1)
    code, printed, _ = command("report", nasty_run.path, "--reference", trees, "--burn-in", 0.5, "--out", out)
    assert (code, printed) == (0, f"{out}\n")
    assert "burn-in of 50%" in out.read_text(encoding="utf-8")
    code, _, message = command("report", nasty_run.path, "--out", out)
    assert code == 2
    assert "exists already" in message
    assert not nasty_run.report.exists()


def test_an_unfinished_run_is_refused(nasty_run, tmp_path):
    with pytest.raises(RunDirectoryError, match="expected the directory of a run"):
        write_report(RunDirectory(tmp_path / "absent"))
    folder = shutil.copytree(nasty_run.path, tmp_path / "run")
    (folder / "result.json").unlink()
    with pytest.raises(RunDirectoryError, match="has not finished"):
        write_report(RunDirectory(folder))


@pytest.mark.parametrize("name", ["splits.tsv", "credible_sets.tsv", "posterior.run2.p"])
def test_damaged_files_are_named(nasty_run, tmp_path, name):
    folder = shutil.copytree(nasty_run.path, tmp_path / "run")
    (folder / name).write_text("[x]\nnonsense\n1\t2\n")
    with pytest.raises(RunDirectoryError, match=name):
        write_report(RunDirectory(folder))
    assert not (folder / "report.html").exists()


def test_a_browser_shows_every_page_whole_at_both_widths(request, tmp_path, require_program):
    pages = [page(request.getfixturevalue(name)) for name in RUNS]
    wide = pages[0].replace("</main>", '<p style="width: 2000px; max-width: none">wide</p></main>')
    shown, complaints = show(require_program("chromium"), [*pages, wide], tmp_path)
    assert complaints == []
    assert [one["width"] for one in shown] == [1280, 390] * 4
    assert all(
        one["scroll"] == one["inside"] > one["width"] - 20 for one in shown[:-2]
    )  # but for a scroll bar
    assert [one["cut"] for one in shown[:-2]] == [[]] * 6
    assert [one["cut"] for one in shown[-2:]] == [["P"]] * 2
    assert all(one["height"] > 2000 for one in shown)


def luminance(colour):
    """Relative luminance of ``#rrggbb`` by the Web Content Accessibility Guidelines."""
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(theme):
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    root = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[theme]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})\b", root))
    for text in ("ink", "faint", "link", "accent", "good", "bad", "unknown"):
        for back in ("page", "box"):
            dark, light = sorted((luminance(colours[text]), luminance(colours[back])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {back}"  # level AA


def show(chromium, pages, folder):
    """What a browser says of pages, each on a desktop and on a phone, and its complaints.

    Of each: the window's width, with and without scroll bar, that of what could be scrolled to, the height,
    and elements that stick out and are in no box that scrolls.
    """
    frames = "".join(
        f'<iframe style="border: 0; width: {width}px; height: 900px" srcdoc="{html.escape(text)}"></iframe>'
        for text in pages
        for width in WIDTHS
    )
    whole = folder / "frames.html"
    whole.write_text(f'<!DOCTYPE html><meta charset="utf-8">{frames}{PROBE}', encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom")
    command = [chromium, *options, f"--user-data-dir={folder / 'profile'}", whole.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=500)
    found = re.search(r'<html[^>]* data-found="([^"]*)"', done.stdout)[1]
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found)), complaints
