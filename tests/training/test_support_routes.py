import stat

import numpy as np
import pytest

from vbpi_mix.alignment import Alignment
from vbpi_mix.errors import VbpiMixError
from vbpi_mix.likelihood.base import make_likelihood
from vbpi_mix.likelihood.models import jc69
from vbpi_mix.patterns import compress
from vbpi_mix.sbn.support import build_support
from vbpi_mix.training import joining_trees, piqtree_trees, support_routes
from vbpi_mix.training.support_routes import SupportRoute, choose_route, find_support
from vbpi_mix.training.support_search import TopologySearch
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.newick import newick_texts
from vbpi_mix.trees.samples import TreeSample
from vbpi_mix.trees.topology import random_topologies


def make_alignment(num_taxa, num_sites=300, seed=0):
    """Sequences on a caterpillar: each taxon differs from the last one at a tenth of the sites."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 4, num_sites)]
    for _ in range(num_taxa - 1):
        changed = rng.random(num_sites) < 0.1
        rows.append(np.where(changed, rng.integers(0, 4, num_sites), rows[-1]))
    return Alignment(
        tuple(f"t{i}" for i in range(num_taxa)), (1 << np.array(rows)).astype(np.uint8), "made up"
    )


def without_data(alignment, taxon):
    states = alignment.states.copy()
    states[taxon] = 15
    return Alignment(alignment.taxa, states, alignment.source)


@pytest.fixture
def nothing_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(support_routes, "has_piqtree", lambda: False)
    monkeypatch.setattr(joining_trees, "NUM_REPLICATES", 5)


def test_routes_come_in_order(tmp_path, monkeypatch, nothing_installed):
    alignment, few = make_alignment(8), make_alignment(6)
    assert choose_route(alignment) is SupportRoute.NEIGHBOUR_JOINING
    assert choose_route(few) is SupportRoute.ENUMERATED
    monkeypatch.setattr(support_routes, "has_piqtree", lambda: True)
    assert choose_route(alignment) is SupportRoute.PIQTREE
    program = tmp_path / "iqtree2"
    program.write_text("#!/bin/sh\ntrue\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert choose_route(alignment) is SupportRoute.IQTREE
    assert choose_route(without_data(alignment, 2)) is SupportRoute.IQTREE
    assert choose_route(without_data(make_alignment(7), 2)) is SupportRoute.ENUMERATED
    assert choose_route(few, bundled=tmp_path) is SupportRoute.BUNDLED
    assert choose_route(few, given=tmp_path, bundled=tmp_path) is SupportRoute.GIVEN


def test_the_fallback_reports_itself_with_the_cure(nothing_installed):
    found = find_support(make_alignment(8, num_sites=60), seed=1)
    assert found.route is SupportRoute.NEIGHBOUR_JOINING
    assert found.advice is not None
    assert "install IQ-TREE" in found.advice
    assert found.sample.source.endswith(found.advice)
    assert found.num_topologies == len(found.sample.children) > 1
    assert found.seconds > 0
    assert found.summary().startswith("support by route neighbour-joining: ")
    again = find_support(make_alignment(8, num_sites=60), seed=1)
    np.testing.assert_array_equal(found.sample.children, again.sample.children)


@pytest.mark.parametrize("route", ["iqtree", "piqtree", "neighbour-joining", "enumerated", "given"])
def test_taxa_without_data_are_put_on_every_branch(route, tmp_path, monkeypatch, nothing_installed):
    """Whatever makes trees of the others; here it is told to make one of two kinds."""
    num_taxa = 7 if route == "enumerated" else 9
    alignment = without_data(make_alignment(num_taxa), num_taxa - 1)  # the last one: trees hang from it
    others = alignment.taxa[:-1]
    two = TreeSample(
        others, random_topologies(num_taxa - 1, 2, np.random.default_rng(0)), np.array([3.0, 1.0]), "two"
    )
    given = None
    if route == "given":
        given = tmp_path / "two.nwk"
        texts = list(newick_texts(two.children, None, others))
        given.write_text("\n".join([texts[0]] * 3 + texts[1:]))
    for name in ("bootstrap_trees", "piqtree_trees", "joined_trees"):
        monkeypatch.setattr(support_routes, name, lambda alignment, *_: two)
    monkeypatch.setattr(support_routes, "has_iqtree", lambda: route == "iqtree")
    monkeypatch.setattr(support_routes, "has_piqtree", lambda: route == "piqtree")
    found = find_support(alignment, seed=1, given=given)
    assert found.route == route
    assert found.sample.taxa == alignment.taxa
    num_edges = 2 * (num_taxa - 1) - 3
    assert found.num_topologies == num_edges * (105 if route == "enumerated" else 2)
    assert found.num_trees == pytest.approx(105 if route == "enumerated" else 4)
    assert f"{alignment.taxa[-1]} without data on every branch" in found.sample.source
    build_support(found.sample.children, alignment.taxa)


def test_the_search_finds_all_good_topologies_of_six_taxa():
    patterns = compress(make_alignment(6, num_sites=60))
    likelihood = make_likelihood(patterns, jc69())
    search = TopologySearch(likelihood, patterns.num_sites, 100_000)
    search.climb(random_topologies(6, 1, np.random.default_rng(0))[0], np.full(9, 0.1))
    while search.expand_best():
        pass
    found = search.good(1e9)
    assert len(found.children) == 105
    # Against many more updates of all lengths at once, from the same start.
    lengths = np.full((105, 9), 0.1)
    for _ in range(300):
        _, gradient = likelihood.value_and_gradient(all_topologies(6), lengths)
        lengths = np.maximum(lengths * (1 + gradient / patterns.num_sites), 1e-6)
    best = dict(
        zip(
            (t.tobytes() for t in all_topologies(6)),
            likelihood.value(all_topologies(6), lengths),
            strict=True,
        )
    )
    losses = np.array([best[t.tobytes()] for t in found.children]) - found.log_likelihoods
    assert losses.min() > -1e-3  # none is above its maximum
    assert best[found.children[0].tobytes()] == pytest.approx(max(best.values()), abs=0.5)
    assert len(search.good(5.0).children) < 105


@pytest.mark.parametrize("num_taxa", [4, 7])
def test_identical_sequences_and_one_site_are_no_trouble(num_taxa, nothing_installed):
    alignment = Alignment(
        tuple(f"t{i}" for i in range(num_taxa)), np.ones((num_taxa, 1), np.uint8), "identical"
    )
    sample = joining_trees.joined_trees(alignment, seed=0)
    assert len(sample.children) >= 3
    assert np.isfinite(sample.weights).all()


def test_bootstrap_trees_are_found_in_a_checkpoint():
    section = "UFBoot:\n 000: 1 -2.5 -3 (0,1,(2,3));\n 001: 2 -2 -4 (0,2,(1,3));\n 002: \n"
    text = f"A:\n x: 1\n{section}B:\n 0: (9,8,7);\n"
    assert piqtree_trees.bootstrap_section(text) == ["(0,1,(2,3));", "(0,2,(1,3));"]
    with pytest.raises(VbpiMixError, match="found none"):
        piqtree_trees.bootstrap_section("A:\n x: 1\n")


def test_what_piqtree_says_when_it_fails_is_passed_on(tmp_path, monkeypatch):
    # A stand-in for the compiled module: only the process around it is tested here.
    (tmp_path / "_piqtree.py").write_text(
        "__iqtree_version__ = '0'\ndef iq_build_tree(*request):\n    raise RuntimeError('no such model')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(VbpiMixError, match=r"exit status 1 .* no such model; mend"):
        piqtree_trees.piqtree_trees(make_alignment(8), seed=1)


@pytest.mark.iqtree
def test_iqtree_makes_trees_where_a_taxon_has_no_data(require_program):
    require_program("iqtree3", "iqtree2")
    alignment = without_data(make_alignment(8), 3)
    found = find_support(alignment, seed=1)
    assert found.route is SupportRoute.IQTREE
    assert found.sample.taxa == alignment.taxa
    assert found.num_topologies % 11 == 0  # the branches of seven taxa


def test_piqtree_makes_bootstrap_trees():
    if not piqtree_trees.has_piqtree():
        pytest.skip("piqtree is absent: pip install 'vbpi-mix[support]'")
    whole = make_alignment(8)
    is_missing = np.random.default_rng(0).random(whole.states.shape) < 0.3
    alignment = Alignment(whole.taxa, np.where(is_missing, np.uint8(15), whole.states), "with gaps")
    sample = piqtree_trees.piqtree_trees(alignment, seed=1)
    assert sample.taxa == alignment.taxa
    assert sample.weights.sum() == piqtree_trees.NUM_TREES
    assert sample.source.startswith("piqtree (IQ-TREE ")
