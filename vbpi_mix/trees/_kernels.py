"""Compiled loops over batches of topologies; their public functions are in ``topology``."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def canonicalise_tree(
    children: np.ndarray,
    top: int,
    new_children: np.ndarray,
    new_node: np.ndarray,
    stack: np.ndarray,
    smallest: np.ndarray,
) -> None:
    """Write one topology's canonical form into ``new_children`` and its nodes' new numbers into ``new_node``.

    The internal nodes of ``children`` may be numbered in any order; ``top`` is the one next to the last leaf.
    ``stack`` [internal] and ``smallest`` [2n-2] are work space.
    """
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    for leaf in range(num_taxa):
        smallest[leaf] = leaf
        new_node[leaf] = leaf
    # Pre-order, kept in new_node's upper part so that the reverse visits children before parents.
    order = new_node[num_taxa:]
    order[0] = top
    depth = 1
    for i in range(num_internal):
        node = order[i]
        for j in range(2):
            child = children[node - num_taxa, j]
            if child >= num_taxa:
                order[depth] = child
                depth += 1
    for i in range(num_internal - 1, -1, -1):
        node = order[i]
        pair = children[node - num_taxa]
        smallest[node] = min(smallest[pair[0]], smallest[pair[1]])
    # Node, second subtree, first subtree: the post-order backwards.
    stack[0] = top
    depth = 1
    number = 2 * num_taxa - 3
    while depth > 0:
        depth -= 1
        node = stack[depth]
        new_node[node] = number
        number -= 1
        first, second = children[node - num_taxa, 0], children[node - num_taxa, 1]
        if smallest[first] > smallest[second]:
            first, second = second, first
        if first >= num_taxa:
            stack[depth] = first
            depth += 1
        if second >= num_taxa:
            stack[depth] = second
            depth += 1
    for row in range(num_internal):
        first, second = children[row, 0], children[row, 1]
        if smallest[first] > smallest[second]:
            first, second = second, first
        target = new_node[num_taxa + row] - num_taxa
        new_children[target, 0] = new_node[first]
        new_children[target, 1] = new_node[second]


@njit(cache=True, nogil=True)
def canonicalise_trees(children: np.ndarray, new_children: np.ndarray, new_nodes: np.ndarray) -> None:
    """Canonical forms of valid topologies, and the new number of every node, [tree, 2n-2]."""
    num_trees, num_internal = children.shape[0], children.shape[1]
    stack = np.empty(num_internal + 1, np.int32)
    smallest = np.empty(2 * num_internal + 2, np.int32)
    for t in range(num_trees):
        canonicalise_tree(children[t], 2 * num_internal + 1, new_children[t], new_nodes[t], stack, smallest)


@njit(cache=True, nogil=True)
def permute_branch_lengths(branch_lengths: np.ndarray, new_nodes: np.ndarray, out: np.ndarray) -> None:
    """Move every branch's length to the branch's new number."""
    for t in range(branch_lengths.shape[0]):
        for e in range(branch_lengths.shape[1]):
            out[t, new_nodes[t, e]] = branch_lengths[t, e]


@njit(cache=True, nogil=True)
def first_fault(children: np.ndarray) -> tuple[int, int, int]:
    """Tree, row and kind of the first breach of the data model; kind 0 is none.

    Kinds: 1 node number out of range or not before its parent, 2 node with two parents.
    With both excluded every node but the top and the last leaf is a child once, by counting.
    """
    num_trees, num_internal = children.shape[0], children.shape[1]
    num_taxa = num_internal + 2
    is_child = np.zeros(2 * num_taxa - 2, np.bool_)
    for t in range(num_trees):
        is_child[:] = False
        for i in range(num_internal):
            for j in range(2):
                child = children[t, i, j]
                if child < 0 or child >= num_taxa + i or child == num_taxa - 1:
                    return t, i, 1
                if is_child[child]:
                    return t, i, 2
                is_child[child] = True
    return -1, -1, 0


@njit(cache=True, nogil=True)
def fill_parents(children: np.ndarray, out: np.ndarray) -> None:
    """Upper node of every branch, [tree, edge]."""
    num_internal = children.shape[1]
    num_taxa = num_internal + 2
    for t in range(children.shape[0]):
        out[t, num_taxa - 1] = 2 * num_taxa - 3
        for i in range(num_internal):
            out[t, children[t, i, 0]] = num_taxa + i
            out[t, children[t, i, 1]] = num_taxa + i


@njit(cache=True, nogil=True)
def fill_clade_masks(children: np.ndarray, out: np.ndarray) -> None:
    """Bits of the taxa below every branch, [tree, edge, word]; ``out`` comes zeroed."""
    num_internal = children.shape[1]
    num_taxa = num_internal + 2
    for t in range(children.shape[0]):
        for leaf in range(num_taxa):
            out[t, leaf, leaf >> 6] = np.uint64(1) << np.uint64(leaf & 63)
        for i in range(num_internal - 1):
            first, second = children[t, i, 0], children[t, i, 1]
            for w in range(out.shape[2]):
                out[t, num_taxa + i, w] = out[t, first, w] | out[t, second, w]


@njit(cache=True, nogil=True)
def _hash_row(row: np.ndarray) -> np.uint64:
    """FNV-1a over the numbers of a row, finished by a multiply and shift so that the low bits are mixed."""
    value = np.uint64(14695981039346656037)
    for number in row:
        value = (value ^ np.uint64(number)) * np.uint64(1099511628211)
    value ^= value >> np.uint64(33)
    value *= np.uint64(18397679294719823053)
    return value ^ (value >> np.uint64(29))


@njit(cache=True, nogil=True)
def group_rows(rows: np.ndarray, inverse: np.ndarray, first: np.ndarray) -> int:
    """Number the distinct rows of an integer matrix in order of first appearance; returns how many there are.

    ``inverse`` [row] gets the number of each row, the head of ``first`` [row] the row where each number
    appeared first. Open addressing; rows are compared in full, so equal hashes do no harm.
    """
    num_rows = rows.shape[0]
    size = 16
    while size < 2 * num_rows:
        size *= 2
    table = np.full(size, -1, np.int64)
    mask = np.uint64(size - 1)
    num_distinct = 0
    for r in range(num_rows):
        slot = _hash_row(rows[r]) & mask
        while True:
            known = table[slot]
            if known < 0:
                table[slot] = num_distinct
                first[num_distinct] = r
                inverse[r] = num_distinct
                num_distinct += 1
                break
            candidate = rows[first[known]]
            same = True
            for c in range(rows.shape[1]):
                if candidate[c] != rows[r, c]:
                    same = False
                    break
            if same:
                inverse[r] = known
                break
            slot = (slot + np.uint64(1)) & mask
    return num_distinct


@njit(cache=True, nogil=True)
def add_leaves(choices: np.ndarray, out: np.ndarray) -> None:
    """Canonical topologies by stepwise addition: step k puts leaf k + 2 onto branch ``choices[t, k]``.

    The tree starts with leaves 0, 1 and the last one. Branches are counted in order of creation: 0 and 1 lead
    to those leaves, 2 to the last leaf, and adding leaf k + 2 makes branches 2k + 3 (the leaf's) and 2k + 4
    (the upper half of the branch cut). ``choices`` has shape [tree, n - 3] with values below 3, 5, 7, ...
    """
    num_trees, num_internal = out.shape[0], out.shape[1]
    num_taxa = num_internal + 2
    last = num_taxa - 1
    children = np.empty((num_internal, 2), np.int32)
    parent = np.empty(2 * num_taxa - 2, np.int32)
    below = np.empty(
        2 * num_taxa - 3, np.int32
    )  # lower node of every branch; the last leaf for the one above the top
    new_node = np.empty(2 * num_taxa - 2, np.int32)
    stack = np.empty(num_internal + 1, np.int32)
    smallest = np.empty(2 * num_taxa - 2, np.int32)
    for t in range(num_trees):
        top = num_taxa
        children[0, 0], children[0, 1] = 0, 1
        parent[0], parent[1] = top, top
        below[0], below[1], below[2] = 0, 1, last
        for k in range(num_internal - 1):
            leaf, node = k + 2, num_taxa + k + 1
            lower = below[choices[t, k]]
            children[node - num_taxa, 1] = leaf
            parent[leaf] = node
            below[2 * k + 3] = leaf
            below[2 * k + 4] = node
            if (
                lower == last
            ):  # the new node is the top; what hangs between it and the old top is the new branch
                children[node - num_taxa, 0] = top
                parent[top] = node
                below[2 * k + 4] = top
                top = node
            else:
                upper = parent[lower]
                side = 0 if children[upper - num_taxa, 0] == lower else 1
                children[upper - num_taxa, side] = node
                children[node - num_taxa, 0] = lower
                parent[node], parent[lower] = upper, node
        canonicalise_tree(children, top, out[t], new_node, stack, smallest)


@njit(cache=True, nogil=True)
def fill_nni_neighbours(children: np.ndarray, out: np.ndarray) -> None:
    """Canonical topologies that one nearest-neighbour interchange makes of one topology."""
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
                canonicalise_tree(swapped, top, out[neighbour], new_node, stack, smallest)
                swapped[upper, 1 - side] = sibling
                swapped[lower, j] = children[lower, j]
                neighbour += 1
