import itertools

import numpy as np
import pytest

from vbpi_mix.trees.ccd import conditional_clade_distribution
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.newick import parse_newick
from vbpi_mix.trees.topology import canonicalise, nni_neighbours, random_topologies


def tripartitions_and_splits(children):
    """Tripartitions of the nodes and splits of the inner branches of a topology, as sets of sets."""
    num_taxa = len(children) + 2
    below = {leaf: frozenset([leaf]) for leaf in range(num_taxa)}
    everything = frozenset(range(num_taxa))
    nodes, branches = [], []
    for i, (a, b) in enumerate(children.tolist()):
        below[num_taxa + i] = below[a] | below[b]
        nodes.append(frozenset([below[a], below[b], everything - below[num_taxa + i]]))
        if i < len(children) - 1:
            branches.append(frozenset([below[num_taxa + i], everything - below[num_taxa + i]]))
    return nodes, branches


def by_definition(children, weights, topologies):
    """Products over nodes and inner branches, with no leaf special."""
    frequency = {}
    for tree, weight in zip(children, weights / weights.sum(), strict=True):
        for part in itertools.chain(*tripartitions_and_splits(tree)):
            frequency[part] = frequency.get(part, 0.0) + weight
    result = []
    for tree in topologies:
        nodes, branches = tripartitions_and_splits(tree)
        above = np.prod([frequency.get(part, 0.0) for part in nodes])
        result.append(above / np.prod([frequency[part] for part in branches]) if above > 0 else 0.0)
    return np.array(result)


@pytest.mark.parametrize("seed", range(5))
def test_probabilities_entropy_number_and_mode_by_enumeration(seed):
    rng = np.random.default_rng(seed)
    every = all_topologies(6)
    children = every[rng.choice(105, 8, replace=False)]
    weights = rng.exponential(size=8)
    ccd = conditional_clade_distribution(children, weights)
    exact = by_definition(children, weights, every)
    assert exact.sum() == pytest.approx(1)
    np.testing.assert_allclose(
        np.exp(ccd.log_probabilities), by_definition(children, weights, children), rtol=1e-12
    )
    positive = exact[exact > 0]
    assert ccd.entropy == pytest.approx(-(positive * np.log(positive)).sum())
    assert np.exp(ccd.log_num_topologies) == pytest.approx(len(positive))
    assert np.exp(ccd.map_log_probability) == pytest.approx(exact.max())
    np.testing.assert_array_equal(ccd.map_topology, every[exact.argmax()])


def test_the_mode_may_be_a_topology_that_is_not_given():
    # The clades abc and def split independently of each other; their best parts are in different trees.
    taxa = ("a", "b", "c", "d", "e", "f", "o")
    texts = ("(((a,b),c),((d,f),e),o);", "(((a,c),b),((e,f),d),o);", "(((a,b),c),((d,e),f),o);")
    texts += ("(((b,c),a),((e,f),d),o);",)
    children = np.stack([parse_newick(text, taxa).children for text in texts])
    ccd = conditional_clade_distribution(children, np.array([0.3, 0.25, 0.2, 0.25]))
    wanted = parse_newick("(((a,b),c),((e,f),d),o);", taxa).children
    np.testing.assert_array_equal(ccd.map_topology, wanted)
    assert np.exp(ccd.map_log_probability) == pytest.approx(0.5 * 0.5)
    assert np.exp(ccd.log_num_topologies) == pytest.approx(9)


def test_neither_the_order_of_trees_nor_that_of_taxa_matters():
    rng = np.random.default_rng(3)
    centre = random_topologies(70, 1, rng)
    children = np.concatenate([centre, nni_neighbours(centre[0])[:40]])
    weights = rng.exponential(size=len(children))
    one = conditional_clade_distribution(children, weights)
    shuffled = rng.permutation(len(children))
    other = conditional_clade_distribution(children[shuffled], weights[shuffled])
    np.testing.assert_array_equal(one.map_topology, other.map_topology)
    assert one.entropy == pytest.approx(other.entropy)
    np.testing.assert_allclose(one.log_probabilities[shuffled], other.log_probabilities)
    # Another leaf on top: leaves 0 .. 68 keep their order but for the swap of the first two.
    swap = np.arange(2 * 70 - 2, dtype=np.int32)
    swap[[0, 1]] = 1, 0
    again = conditional_clade_distribution(canonicalise(swap[children]), weights)
    np.testing.assert_allclose(again.log_probabilities, one.log_probabilities)
    assert again.entropy == pytest.approx(one.entropy)


def test_three_taxa_have_one_topology():
    ccd = conditional_clade_distribution(np.array([[[0, 1]]], np.int32), np.ones(1))
    assert (ccd.entropy, ccd.log_num_topologies, ccd.map_log_probability) == (0, 0, 0)


def test_bad_weights():
    with pytest.raises(ValueError, match="positive sum"):
        conditional_clade_distribution(all_topologies(4), np.zeros(3))
