"""Compiled nearest-neighbour interchanges of trees with branch lengths; the public function is in ``nni``."""

import numpy as np
from numba import njit

from vbpi_mix.trees._kernels import canonicalise_tree


@njit(cache=True, nogil=True)
def fill_neighbour_trees(
    children: np.ndarray, lengths: np.ndarray, neighbours: np.ndarray, neighbour_lengths: np.ndarray
) -> None:
    """Canonical trees one interchange away; subtrees and the inner branch keep their lengths."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    top = 2 * num_taxa - 3
    swapped = children.copy()
    new_node = np.empty(2 * num_taxa - 2, np.int32)
    stack = np.empty(num_internal + 1, np.int32)
    smallest = np.empty(2 * num_taxa - 2, np.int32)
    neighbour = 0
    for upper in range(num_internal):
        for side in range(2):
            lower = children[upper, side] - num_taxa
            if lower < 0:
                continue
            sibling = children[upper, 1 - side]
            for j in range(2):
                swapped[upper, 1 - side] = children[lower, j]
                swapped[lower, j] = sibling
                canonicalise_tree(swapped, top, neighbours[neighbour], new_node, stack, smallest)
                for edge in range(top):
                    neighbour_lengths[neighbour, new_node[edge]] = lengths[edge]
                swapped[upper, 1 - side] = sibling
                swapped[lower, j] = children[lower, j]
                neighbour += 1


@njit(cache=True, nogil=True)
def interchange(
    children: np.ndarray,
    lengths: np.ndarray,
    chosen: np.ndarray,
    new_children: np.ndarray,
    new_lengths: np.ndarray,
) -> int:
    """Canonical tree after several interchanges at once; returns how many were made.

    ``chosen`` holds neighbours' numbers as in `fill_neighbour_trees`. One that shares a node with an earlier
    one is left out.
    """
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    top = 2 * num_taxa - 3
    position = np.empty((2 * (num_internal - 1), 3), np.int64)
    neighbour = 0
    for upper in range(num_internal):
        for side in range(2):
            if children[upper, side] >= num_taxa:
                for j in range(2):
                    position[neighbour, 0], position[neighbour, 1], position[neighbour, 2] = upper, side, j
                    neighbour += 1
    swapped = children.copy()
    is_used = np.zeros(num_internal, np.bool_)
    num_made = 0
    for number in chosen:
        upper, side, j = position[number]
        lower = children[upper, side] - num_taxa
        if is_used[upper] or is_used[lower]:
            continue
        is_used[upper], is_used[lower] = True, True
        sibling = swapped[upper, 1 - side]
        swapped[upper, 1 - side] = swapped[lower, j]
        swapped[lower, j] = sibling
        num_made += 1
    new_node = np.empty(2 * num_taxa - 2, np.int32)
    stack = np.empty(num_internal + 1, np.int32)
    smallest = np.empty(2 * num_taxa - 2, np.int32)
    canonicalise_tree(swapped, top, new_children, new_node, stack, smallest)
    for edge in range(top):
        new_lengths[new_node[edge]] = lengths[edge]
    return num_made
