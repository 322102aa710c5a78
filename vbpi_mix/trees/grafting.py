"""Grafting: another leaf on a branch of each of many topologies."""

import numpy as np
from jaxtyping import Int32, Int64

from vbpi_mix.shapes import Topologies
from vbpi_mix.trees.topology import canonicalise


def graft_leaf(
    children: Topologies, tree_index: Int64[np.ndarray, " grafted"], edge: Int64[np.ndarray, " grafted"]
) -> Int32[np.ndarray, "grafted internal+1 2"]:
    """Canonical topologies with one more leaf, which comes last but one: leaf n - 1 becomes leaf n.

    Args:
        children: Topologies of n taxa.
        tree_index: Topology that each leaf is put on.
        edge: Branch that it is put on, 0 <= edge < 2n - 3.
    """
    num_taxa = children.shape[1] + 2
    last, each = num_taxa - 1, np.arange(len(edge))
    # The new node's row follows that of the branch's lower node: children stay before their parents.
    row = np.where(edge < last, 0, edge - last)
    row[edge == last] = num_taxa - 2
    below = np.where(edge == last, 2 * num_taxa - 3, edge)

    def renumbered(node: np.ndarray, row: np.ndarray) -> np.ndarray:
        """New numbers of old nodes: leaves keep theirs, and the new node takes a number of its own."""
        return np.where(node < last, node, node + 1 + (node - num_taxa >= row))

    old = children[tree_index]
    new_node = (num_taxa + 1 + row)[:, None, None]
    moved = np.where(old == edge[:, None, None], new_node, renumbered(old, row[:, None, None]))
    result = np.empty((len(edge), num_taxa - 1, 2), np.int32)
    rows = np.arange(num_taxa - 2)
    result[each[:, None], rows + (rows >= row[:, None])] = moved
    result[each, row, 0], result[each, row, 1] = renumbered(below, row), last
    return canonicalise(result)
