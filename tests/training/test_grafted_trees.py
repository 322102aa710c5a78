import numpy as np
import pytest

from vbpi_mix.alignment import Alignment
from vbpi_mix.training import grafted_trees
from vbpi_mix.training.grafted_trees import graft_taxa, taxa_without_data, without_empty_taxa
from vbpi_mix.trees.exchange import from_dendropy, to_dendropy
from vbpi_mix.trees.samples import TreeSample
from vbpi_mix.trees.topology import Tree, random_topologies, unique_topologies

TAXA = ("f", "a", "e", "b", "d", "c", "g")


def alignment_with_data_in(*with_data):
    states = np.full((len(TAXA), 3), 15, np.uint8)
    for taxon in with_data:
        states[TAXA.index(taxon), 1] = 4
    return Alignment(TAXA, states, "made up")


def test_empty_taxa_are_left_out_but_for_what_makes_four():
    assert taxa_without_data(alignment_with_data_in("a", "g")) == ["f", "e", "b", "d", "c"]
    assert without_empty_taxa(alignment_with_data_in("a", "b", "c", "d", "g")).taxa == (
        "a",
        "b",
        "d",
        "c",
        "g",
    )
    assert without_empty_taxa(alignment_with_data_in("a", "g")).taxa == ("f", "a", "e", "g")
    assert without_empty_taxa(alignment_with_data_in()).taxa == TAXA[:4]
    full = alignment_with_data_in(*TAXA)
    assert without_empty_taxa(full) is full


@pytest.mark.parametrize("lacking", [("g",), ("f",), ("e", "g"), ("a", "b", "d")])
def test_without_the_grafted_taxa_the_trees_are_those_that_were_given(lacking):
    some = tuple(taxon for taxon in TAXA if taxon not in lacking)
    given = unique_topologies(random_topologies(len(some), 3, np.random.default_rng(1)))[0]
    weights = np.arange(len(given), 0, -1.0)
    grafted = graft_taxa(TreeSample(some, given, weights, "given"), TAXA, np.random.default_rng(2))
    assert grafted.taxa == TAXA
    ways = np.prod([2 * (len(some) + k) - 3 for k in range(len(lacking))])
    assert len(unique_topologies(grafted.children)[0]) == len(grafted.children) == len(given) * ways
    totals = dict.fromkeys((t.tobytes() for t in given), 0.0)
    for children, weight in zip(grafted.children, grafted.weights, strict=True):
        tree = to_dendropy(Tree(TAXA, children))
        tree.prune_taxa_with_labels(lacking)
        totals[from_dendropy(tree, some).children.tobytes()] += weight
    np.testing.assert_allclose(list(totals.values()), weights)


def test_where_topologies_are_many_only_the_heaviest_get_a_taxon_everywhere(monkeypatch):
    monkeypatch.setattr(grafted_trees, "MAX_GRAFTED", 30)
    given = unique_topologies(random_topologies(6, 12, np.random.default_rng(1)))[0]
    sample = TreeSample(TAXA[:6], given, np.arange(len(given), 0, -1.0), "given")
    grafted = graft_taxa(sample, TAXA, np.random.default_rng(2))
    # Nine branches: each topology grafted everywhere is eight more, and two of them leave room for no third.
    assert len(given) == 12
    assert len(grafted.children) == 12 + 2 * 8
    assert grafted.weights.sum() == pytest.approx(sample.weights.sum())
    assert list(grafted.weights) == sorted(grafted.weights, reverse=True)
