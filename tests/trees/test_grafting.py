import numpy as np
import pytest

from vbpi_mix.trees.enumeration import all_topologies, num_topologies
from vbpi_mix.trees.grafting import graft_leaf
from vbpi_mix.trees.topology import validate


@pytest.mark.parametrize("num_taxa", [3, 4, 5, 6])
def test_a_leaf_on_every_branch_of_every_topology_makes_every_topology_once(num_taxa):
    children, num_edges = all_topologies(num_taxa), 2 * num_taxa - 3
    tree_index = np.repeat(np.arange(len(children)), num_edges)
    grafted = graft_leaf(children, tree_index, np.tile(np.arange(num_edges), len(children)))
    validate(grafted)
    assert len(grafted) == num_topologies(num_taxa + 1)
    assert {t.tobytes() for t in grafted} == {t.tobytes() for t in all_topologies(num_taxa + 1)}


def test_a_leaf_lands_on_the_branch_asked_for():
    # ((0,1),2,3), hung from 3: the new leaf is 3, and 3 becomes 4.
    children = np.array([[[0, 1], [4, 2]]], np.int32)
    on_first, on_inner, on_last = graft_leaf(children, np.zeros(3, np.int64), np.array([0, 4, 3]))
    np.testing.assert_array_equal(on_first, [[0, 3], [5, 1], [6, 2]])
    np.testing.assert_array_equal(on_inner, [[0, 1], [5, 3], [6, 2]])
    np.testing.assert_array_equal(on_last, [[0, 1], [5, 2], [6, 3]])
