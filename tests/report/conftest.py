"""Finished runs to write pages of, small enough for a second or two each."""

import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from vbpi_mix import cli
from vbpi_mix.alignment import Alignment, write_fasta
from vbpi_mix.datasets import load_dataset
from vbpi_mix.patterns import compress
from vbpi_mix.results.run_directory import RunDirectory
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.neighbour_joining import bootstrap_topologies
from vbpi_mix.trees.newick import newick_texts, quoted

NASTY = (
    "<script>alert('x')</script>",
    'O\'Brien & "Söhne"',
    "</title><b>bold</b>",
    "鳥類_オウム 🦜",
    "a|b;c,(d)[e]{{ f }}",
    "x" * 120,
)
"""Names of taxa that a page has to survive."""


class Reader(HTMLParser):
    """Tags with their attributes and the text of a page; fails on tags that do not match."""

    EMPTY = ("meta", "link", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and data.strip():
            self.text.append(data)

    def attributes(self, tag, name):
        return [attributes[name] for found, attributes in self.tags if found == tag and name in attributes]


@pytest.fixture(scope="session")
def read_page():
    """Function that reads a page's text as HTML."""
    return Reader


def finish_run(folder, alignment, topologies, *options):
    """Directory of a finished run; the page at its end is left out."""
    data, support = folder / "my & own.fasta", folder / "support.trees"
    write_fasta(alignment, data)
    names = [quoted(name) for name in alignment.taxa]
    support.write_text("\n".join(newick_texts(topologies, None, names)) + "\n")
    arguments = [
        "run",
        folder / "my & own.fasta",
        "--support",
        folder / "support.trees",
        "--out",
        folder / "run",
    ]
    arguments += [*options, "--runs", "1", "--quiet", "--no-report"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vbpi-mix", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
    assert exit_info.value.code in (None, 0, 3)  # whether it has converged is not the question
    return RunDirectory(folder / "run")


@pytest.fixture(scope="session")
def nasty_run(tmp_path_factory):
    """A run of three components and six taxa of names that break pages, two of them identical."""
    whole = load_dataset("DS1")
    states = whole.states[[0, 5, 9, 14, 19, 19], 400:550]
    alignment = Alignment(NASTY, states, "part of DS1")
    options = ["--components", 3, "--iterations", 100, "--log-every", 10, "--repeats", 4, "--samples", 300]
    return finish_run(tmp_path_factory.mktemp("nasty"), alignment, all_topologies(6), *options)


@pytest.fixture(scope="session")
def least_run(tmp_path_factory):
    """A run of four taxa and one pattern, with one line of metrics, all of it annealed."""
    alignment = Alignment(("A", "B", "C", "D"), np.full((4, 3), 1, np.uint8), "constant")
    options = ["--iterations", 20, "--repeats", 2, "--samples", 30]
    return finish_run(tmp_path_factory.mktemp("least"), alignment, all_topologies(4), *options)


@pytest.fixture(scope="session")
def large_run(tmp_path_factory):
    """A run of a hundred taxa."""
    rng = np.random.default_rng(0)
    states = np.full((100, 200), 1, np.uint8)
    for taxon in range(1, 100):  # a tree grown by copying with errors
        states[taxon] = states[rng.integers(taxon)]
        changed = rng.random(200) < 0.08
        states[taxon, changed] = 1 << rng.integers(0, 4, changed.sum())
    alignment = Alignment(tuple(f"Genus_{i} species" for i in range(100)), states, "grown")
    topologies = bootstrap_topologies_of(alignment, rng)
    options = ["--iterations", 20, "--repeats", 2, "--samples", 30, "--posterior-samples", 50]
    return finish_run(tmp_path_factory.mktemp("large"), alignment, topologies, *options)


def bootstrap_topologies_of(alignment, rng):
    """A few neighbour-joining trees."""
    return bootstrap_topologies(compress(alignment), 5, rng)
