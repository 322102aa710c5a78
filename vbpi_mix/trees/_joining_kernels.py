"""Compiled distances and neighbour joining; their public functions are in ``neighbour_joining``."""

import numpy as np
from numba import njit

from vbpi_mix.trees._kernels import canonicalise_tree


@njit(cache=True, nogil=True)
def count_differences(
    states: np.ndarray, weights: np.ndarray, missing: int, different: np.ndarray, compared: np.ndarray
) -> None:
    """Weight of the patterns in which two taxa differ, and in which they can be compared, [taxon, taxon].

    ``states`` [taxon, pattern] are sets of nucleotides, ``weights`` [pattern] whole numbers. Taxa can be
    compared where neither is missing, and differ where they can have no nucleotide in common.
    """
    num_taxa, num_patterns = states.shape
    for i in range(num_taxa):
        different[i, i], compared[i, i] = 0, 0
        for j in range(i):
            num_different, num_compared = 0, 0
            for p in range(num_patterns):
                first, second = states[i, p], states[j, p]
                if first & second == 0:
                    num_different += weights[p]
                if first != missing and second != missing:
                    num_compared += weights[p]
            different[i, j], different[j, i] = num_different, num_different
            compared[i, j], compared[j, i] = num_compared, num_compared


@njit(cache=True, nogil=True)
def join_neighbours(
    distances: np.ndarray, children: np.ndarray, lengths: np.ndarray, smallest: np.ndarray
) -> None:
    """Canonical neighbour-joining tree of a matrix of distances [taxon, taxon], which is overwritten.

    ``lengths`` [edge] may come out negative. ``smallest`` [2n-2] is work space. Of pairs that are equally
    good the first is joined.
    """
    num_taxa = distances.shape[0]
    num_nodes = 2 * num_taxa - 2
    center = num_nodes - 1
    parent = np.empty(num_nodes, np.int32)
    above = np.empty(num_nodes)
    node = np.arange(num_taxa).astype(np.int32)  # of every row that is left
    sums = np.empty(num_taxa)
    size = num_taxa
    for i in range(size):
        sums[i] = 0.0
        for j in range(size):
            sums[i] += distances[i, j]
    for new_node in range(num_taxa, center):
        best, first, second = np.inf, 0, 1
        for i in range(1, size):
            for j in range(i):
                value = (size - 2) * distances[i, j] - sums[i] - sums[j]
                if value < best:
                    best, first, second = value, j, i
        between = distances[first, second]
        own = 0.5 * (between + (sums[first] - sums[second]) / (size - 2))
        parent[node[first]], parent[node[second]] = new_node, new_node
        above[node[first]], above[node[second]] = own, between - own
        # The new node takes the row of the first, the last row that of the second.
        node[first] = new_node
        for k in range(size):
            if k != first and k != second:
                joined = 0.5 * (distances[first, k] + distances[second, k] - between)
                sums[k] += joined - distances[first, k] - distances[second, k]
                distances[first, k], distances[k, first] = joined, joined
        size -= 1
        node[second], sums[second] = node[size], sums[size]
        for k in range(size):
            distances[second, k] = distances[size, k]
            distances[k, second] = distances[k, size]
        distances[second, second] = 0.0
        sums[first] = 0.0
        for k in range(size):
            if k != first:
                sums[first] += distances[first, k]
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        parent[node[i]] = center
        above[node[i]] = 0.5 * (distances[i, j] + distances[i, k] - distances[j, k])

    # Hang the tree from its last leaf: the branches between that leaf and the center turn round.
    last = num_taxa - 1
    top = parent[last]
    upper, current, length = last, top, above[last]
    while current != center:
        following, own = parent[current], above[current]
        parent[current], above[current] = upper, length
        upper, current, length = current, following, own
    parent[center], above[center] = upper, length
    lower = np.empty((num_taxa - 2, 2), np.int32)
    filled = np.zeros(num_taxa - 2, np.int32)
    for v in range(num_nodes):
        if v != last and v != top:
            row = parent[v] - num_taxa
            lower[row, filled[row]] = v
            filled[row] += 1
    new_number = np.empty(num_nodes, np.int32)
    stack = np.empty(num_taxa - 1, np.int32)
    canonicalise_tree(lower, top, children, new_number, stack, smallest)
    for v in range(num_nodes):
        if v != last and v != top:
            lengths[new_number[v]] = above[v]
    lengths[last] = above[top]
