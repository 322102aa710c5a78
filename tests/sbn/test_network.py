"""Probabilities, gradients and samples of subsplit Bayesian networks against their definition."""

import numpy as np
import pytest
from scipy import stats

from vbpi_mix.sbn.em import rooting_averaged_logits
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.reference import log_probability, parameter_names
from vbpi_mix.sbn.support import build_support
from vbpi_mix.trees.enumeration import all_topologies
from vbpi_mix.trees.newick import parse_newick, write_newick
from vbpi_mix.trees.topology import Tree, canonicalise, random_topologies


def networks_on(children, num_components, seed, spread=1.5):
    support = build_support(children, tuple(f"t{i}" for i in range(children.shape[1] + 2)))
    rng = np.random.default_rng(seed)
    return SubsplitNetworks.from_logits(
        support, spread * rng.normal(size=(num_components, support.num_parameters))
    )


def table_of(networks, component):
    return dict(zip(parameter_names(networks.support), networks.log_q[component, :-2], strict=True))


def test_probabilities_of_all_topologies_sum_to_one():
    topologies = all_topologies(6)
    assert len(topologies) == 105
    full = networks_on(topologies, 3, 0)
    np.testing.assert_allclose(np.exp(full.log_probability_of(topologies)).sum(0), 1.0, rtol=0, atol=1e-12)
    partial = networks_on(topologies[[3, 40, 77, 78]], 2, 1)
    probabilities = np.exp(partial.log_probability_of(topologies))
    np.testing.assert_allclose(probabilities.sum(0), 1.0, rtol=0, atol=1e-12)
    assert 4 <= np.count_nonzero(probabilities[:, 0]) < 105


@pytest.mark.parametrize(("num_taxa", "num_trees"), [(4, 2), (6, 4), (11, 9), (70, 2)])
def test_log_probability_is_the_sum_over_rootings(num_taxa, num_trees):
    rng = np.random.default_rng(num_taxa)
    networks = networks_on(random_topologies(num_taxa, num_trees, rng), 2, 2)
    inside = networks.sample(np.array([0, 1, 1], np.int32), rng)
    outside = random_topologies(num_taxa, 3, rng)
    topologies = np.concatenate([inside, outside])
    fast = networks.log_probability_of(topologies)
    for a in range(2):
        table = table_of(networks, a)
        slow = [log_probability(tree, table) for tree in topologies]
        # rounding of about 4n additions of numbers of order 1 to 100
        np.testing.assert_allclose(fast[:, a], slow, rtol=1e-12, atol=1e-12)
    assert np.isfinite(fast[:3]).all()


def test_a_partly_covered_topology_counts_only_its_covered_rootings():
    # Recombination makes topologies some of whose rootings leave the support: those contribute exactly zero.
    topologies = all_topologies(7)
    networks = networks_on(topologies[::40], 1, 3)
    support = networks.support
    index = support.index(topologies)
    inside = np.isfinite(networks.log_probability(index)[:, 0])
    has_gap = (index.parameter_index == support.num_parameters).any(axis=(1, 2))
    assert (inside & has_gap).any()
    for tree in topologies[inside & has_gap]:
        np.testing.assert_allclose(
            networks.log_probability_of(tree[None])[0, 0],
            log_probability(tree, table_of(networks, 0)),
            rtol=1e-12,
        )
    assert np.isneginf(networks.log_probability_of(topologies[~inside])).all()


def test_probability_does_not_depend_on_the_names_of_taxa():
    rng = np.random.default_rng(5)
    children = random_topologies(9, 6, rng)
    permutation = rng.permutation(9)
    names = tuple(f"t{i}" for i in range(9))
    shuffled_names = tuple(names[i] for i in permutation)
    shuffled = np.stack(
        [parse_newick(write_newick(Tree(names, c)), shuffled_names).children for c in children]
    )
    weights = rng.random(6)
    results = []
    for topologies, taxa in ((children, names), (shuffled, shuffled_names)):
        support = build_support(topologies, taxa)
        logits = rooting_averaged_logits(support, support.index(topologies), weights)
        results.append(SubsplitNetworks.from_logits(support, logits[None]).log_probability_of(topologies))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-12)


def test_gradient_is_the_derivative():
    topologies = all_topologies(6)
    networks = networks_on(topologies[[0, 30, 77, 90]], 2, 4)
    index = networks.support.index(topologies)
    inside = np.isfinite(networks.log_probability(index)[:, 1])
    weights = np.where(inside, np.random.default_rng(0).normal(size=105), 0.3)

    def value(logits):
        log_q = SubsplitNetworks.from_logits(networks.support, logits).log_probability(index)[inside, 1]
        return weights[inside] @ log_q

    step = 1e-5
    numeric = np.empty(networks.support.num_parameters)
    for i in range(len(numeric)):
        change = np.zeros_like(networks.logits)
        change[1, i] = step
        numeric[i] = (value(networks.logits + change) - value(networks.logits - change)) / (2 * step)
    # central differences: error step^2 plus rounding 1e-15 / step
    np.testing.assert_allclose(networks.gradient(index, 1, weights), numeric, rtol=0, atol=2e-9)
    assert np.abs(numeric).max() > 0.1


def test_samples_follow_the_probabilities_and_are_canonical():
    topologies = all_topologies(6)
    networks = networks_on(topologies, 2, 6, spread=1.0)
    expected = np.exp(networks.log_probability_of(topologies))
    num_draws = 40_000
    components = np.repeat(np.arange(2, dtype=np.int32), num_draws)
    drawn = networks.sample(components, np.random.default_rng(7))
    np.testing.assert_array_equal(drawn, canonicalise(drawn))
    number = {tree.tobytes(): i for i, tree in enumerate(topologies)}
    drawn_number = np.array([number[tree.tobytes()] for tree in drawn])
    for a in range(2):
        counts = np.bincount(drawn_number[components == a], minlength=105)
        is_common = expected[:, a] * num_draws > 5
        group = np.where(is_common, np.arange(105), 105)  # the rare ones together
        observed, means = np.bincount(group, counts), num_draws * np.bincount(group, expected[:, a])
        observed, means = observed[means > 0], means[means > 0]
        assert stats.chisquare(observed, means).pvalue > 1e-3


def test_samples_of_many_taxa_lie_in_the_support():
    networks = networks_on(random_topologies(100, 5, np.random.default_rng(8)), 1, 8)
    drawn = networks.sample(np.zeros(50, np.int32), np.random.default_rng(9))
    np.testing.assert_array_equal(drawn, canonicalise(drawn))
    assert np.isfinite(networks.log_probability_of(drawn)).all()


def test_mixture_probability_is_the_mean():
    topologies = all_topologies(5)
    networks = networks_on(topologies, 3, 10)
    np.testing.assert_allclose(
        np.exp(networks.log_mixture_probability_of(topologies)),
        np.exp(networks.log_probability_of(topologies)).mean(1),
        rtol=1e-13,
    )
