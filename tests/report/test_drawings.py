"""Pictures of a page: trees hung from their midpoint, charts whose marks stand where their values say."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from vbpi_mix.report.charts import HEIGHT, WIDTH, Line, density, line_chart, scatter_chart, ticks
from vbpi_mix.report.tree_figure import hang, tree_picture
from vbpi_mix.trees.newick import parse_newick
from vbpi_mix.trees.summaries import majority_rule_consensus


def tree_of(*newicks):
    """Consensus of trees."""
    trees = [parse_newick(text) for text in newicks]
    children = np.stack([tree.children for tree in trees])
    lengths = np.stack([tree.branch_lengths for tree in trees])
    return majority_rule_consensus(trees[0].taxa, children, None, lengths)


def depths(drawn):
    """Distance of every node from the root."""
    depth = [0.0] * len(drawn.parents)
    for node in reversed(drawn.order):
        if drawn.parents[node] >= 0:
            depth[node] = depth[drawn.parents[node]] + drawn.lengths[node]
    return depth


@pytest.mark.parametrize(
    "newick",
    [
        "((A:1,B:2):3,C:1,D:5);",
        "((A:0,B:0):0,C:0,D:0);",
        "(A:9,(B:1,(C:1,(D:1,E:1):1):1):1,F:1);",
        "((A:1,B:1):1,(C:1,D:1):1,(E:1,F:1):1);",
    ],
)
def test_the_root_is_in_the_middle_of_the_longest_path(newick):
    tree = tree_of(newick)
    drawn = hang(tree)
    depth, root = depths(drawn), len(drawn.parents) - 1
    num_taxa = len(tree.taxa)
    # The two deepest leaves on different sides of the root are equally deep, and nothing is deeper.
    side = {}
    for node in reversed(drawn.order):
        parent = drawn.parents[node]
        side[node] = node if parent == root else side.get(parent)
    deepest = {}
    for leaf in range(num_taxa):
        deepest[side[leaf]] = max(deepest.get(side[leaf], 0.0), depth[leaf])
    first, second = sorted(deepest.values())[-2:]
    assert first == pytest.approx(second)
    # Distances between leaves stay.
    total = sum(length for length in tree.lengths.mean[:-1])
    assert sum(drawn.lengths) == pytest.approx(total)
    assert sorted(drawn.order) == list(range(len(drawn.parents)))
    assert sum(not below for below in drawn.children) == num_taxa


def test_a_tree_shows_names_supports_and_links():
    trees = ["((A:1,B:2):3,(C:1,D:5):0.5,E:1);"] * 3 + ["((A:1,C:2):3,(B:1,D:5):0.5,E:1);"]
    tree = tree_of(*trees)
    picture = tree_picture(tree, "a <tree>", lambda branch: f"#clade-{branch}")
    root = ElementTree.fromstring(picture)
    assert root.attrib["aria-label"] == "a <tree>"
    told = [element.text for element in root.iter("text")]
    assert {"A", "B", "C", "D", "E"} < set(told)
    assert told.count("75") == 2  # both inner branches are in three of four trees
    assert any("substitutions per site" in text for text in told)
    assert len(set(root_links(root))) == 2


def root_links(root):
    return [element.attrib["href"] for element in root.iter("a")]


def test_names_are_cut_with_the_whole_in_a_tooltip():
    name = "x" * 100
    tree = tree_of(f"(({name}:1,B:2):3,C:1,'<D>&':5);")
    picture = tree_picture(tree, "tree", lambda branch: None)
    assert "<D>" not in picture
    titles = [element.text for element in ElementTree.fromstring(picture).iter("title")]
    assert name in titles


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-7108.7, -7108.4, [-7108.7, -7108.65, -7108.6, -7108.55, -7108.5, -7108.45, -7108.4]),
        (1.0, 1500.0, [500.0, 1000.0, 1500.0]),
    ],
)
def test_ticks_are_round_and_inside(low, high, expected):
    found = ticks(low, high)
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)
    assert len(found) <= 7
    steps = np.diff(found)
    assert np.allclose(steps, steps[0])
    assert set(np.round(found, 6)) <= set(np.round(expected, 6))


def test_lines_are_inside_and_told_apart_without_colour():
    steps = np.arange(1000.0)
    lines = [Line("run1", steps, np.sqrt(steps)), Line("run2", steps, steps / 40)]
    root = ElementTree.fromstring(line_chart("bounds", lines, "x", "y", rule=("best", 33.0)))
    paths = [element for element in root.iter("path") if "line-" in element.attrib["class"]]
    assert {element.attrib["class"] for element in paths} == {"line line-0", "line line-1"}
    drawn = [element.attrib["d"] for element in paths if "L" in element.attrib["d"]]
    for path in drawn:
        points = np.array([pair.split() for pair in re.split("[ML]", path)[1:]], dtype=float)
        assert 2 < len(points) <= 400
        assert points.min() >= 0
        assert points[:, 0].max() <= WIDTH
        assert points[:, 1].max() <= HEIGHT
        assert np.all(np.diff(points[:, 0]) > 0)
        assert np.all(np.diff(points[:, 1]) <= 0)  # up is down
    assert {"run1", "run2", "best"} <= {element.text for element in root.iter("text")}


def test_a_single_point_and_a_flat_line_can_be_drawn():
    one = Line("run", np.array([5.0]), np.array([-3.0]))
    assert "circle" in line_chart("one", [one], "x", "y")
    flat = Line("run", np.array([1.0, 2.0]), np.array([-3.0, -3.0]))
    assert "nan" not in line_chart("flat", [flat], "x", "y")


def test_equal_frequencies_are_on_the_diagonal():
    x = np.array([0.1, 0.5, 1.0])
    root = ElementTree.fromstring(scatter_chart("both", x, x, "x", "y", ["a", "<b>", "c"]))
    points = [(float(p.attrib["cx"]), float(p.attrib["cy"])) for p in root.iter("circle")]
    (rule,) = [element.attrib["d"] for element in root.iter("path") if element.attrib["class"] == "rule"]
    (x0, y0), (x1, y1) = (map(float, pair.split()) for pair in re.split("[ML]", rule)[1:])
    for value, (px, py) in zip(x, points, strict=True):
        assert px == pytest.approx(x0 + value * (x1 - x0), abs=0.02)
        assert py == pytest.approx(y0 + value * (y1 - y0), abs=0.02)
    assert [element.text for element in root.iter("title")] == ["a", "<b>", "c"]


def test_a_density_with_a_draw_far_out_can_be_drawn():
    values = np.append(np.linspace(0.2, 0.3, 1000), np.full(5, 4e10))
    drawing = density("far", values, (0.2, 0.3))
    assert "nan" not in drawing
    assert 'class="line' in drawing


def test_a_density_peaks_where_the_draws_are():
    draws = np.random.default_rng(0).normal(3.0, 1.0, 4000)
    root = ElementTree.fromstring(density("of x", draws, (1.0, 5.0)))
    (line,) = [p.attrib["d"] for p in root.iter("path") if p.attrib["class"] == "line line-0"]
    points = np.array([pair.split() for pair in re.split("[ML]", line)[1:]], dtype=float)
    low, high = np.quantile(draws, [0.001, 0.999])
    peak = low + points[points[:, 1].argmin(), 0] / 150 * (high - low)
    assert abs(peak - 3.0) < 0.3  # of a standard deviation of 1 and a bandwidth of 0.17
    assert "nan" not in density("constant", np.full(10, 2.0), (2.0, 2.0))


def test_consensus_trees_keep_their_splits_when_hung():
    tree = tree_of("((A:1,B:2):3,(C:1,D:5):0.5,E:1);")
    drawn = hang(tree)
    assert drawn.parents.count(-1) == 1
    assert {branch for branch in drawn.branches if branch >= 0} == set(range(len(tree.parents) - 1))
