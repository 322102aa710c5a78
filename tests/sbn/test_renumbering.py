import numpy as np
import pytest

from vbpi_mix.errors import OutOfSupportError
from vbpi_mix.sbn.network import SubsplitNetworks
from vbpi_mix.sbn.renumbering import renumber
from vbpi_mix.sbn.support import build_support
from vbpi_mix.trees.topology import random_topologies


def two_supports(num_taxa, num_small, num_large, seed=0):
    """A support, a larger one, and the topologies that the smaller one is made of."""
    taxa = tuple(f"t{i}" for i in range(num_taxa))
    topologies = random_topologies(num_taxa, num_large, np.random.default_rng(seed))
    return (
        build_support(topologies[:num_small], taxa),
        build_support(topologies, taxa),
        topologies[:num_small],
    )


@pytest.mark.parametrize("num_taxa", [4, 5, 9, 70])
def test_what_a_topology_uses_is_renumbered(num_taxa):
    old, new, topologies = two_supports(num_taxa, 8, 40)
    moved = renumber(old, new)
    before, after = old.index(topologies), new.index(topologies)
    parameter = np.append(moved.parameter, [new.num_parameters, new.num_parameters + 1])
    rows = np.concatenate(
        [moved.split, new.num_splits + moved.subsplit, [new.num_splits + new.num_subsplits]]
    )
    np.testing.assert_array_equal(parameter[before.parameter_index], after.parameter_index)
    np.testing.assert_array_equal(parameter[before.root_index], after.root_index)
    np.testing.assert_array_equal(rows[before.feature_index], after.feature_index)
    for numbers in moved:
        assert len(np.unique(numbers)) == len(numbers)


def test_a_network_without_what_is_new_keeps_its_probabilities():
    old, new, topologies = two_supports(8, 6, 60)
    logits = np.random.default_rng(1).normal(size=(2, old.num_parameters))
    carried = np.full((2, new.num_parameters), -np.inf)
    carried[:, renumber(old, new).parameter] = logits
    # Parents that are new altogether have no probabilities; what they are does not matter.
    only_new = np.isneginf(np.maximum.reduceat(carried, new.parent_start[:-1], axis=1))
    carried[only_new[:, new.tables.parameter_parent]] = 0.0
    inside = SubsplitNetworks.from_logits(old, logits).log_probability_of(topologies)
    np.testing.assert_allclose(
        SubsplitNetworks.from_logits(new, carried).log_probability_of(topologies), inside, rtol=1e-12
    )


def test_a_support_that_lacks_something_is_refused():
    old, new, _ = two_supports(7, 5, 30)
    with pytest.raises(OutOfSupportError, match="lacks some of its subsplits"):
        renumber(new, old)


def test_a_support_is_where_it_is_in_itself():
    old, _, _ = two_supports(7, 5, 30)
    for numbers in renumber(old, old):
        np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
