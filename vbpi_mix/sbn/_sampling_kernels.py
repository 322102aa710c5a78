"""Compiled kernels that draw topologies from a subsplit Bayesian network."""

import numpy as np
from numba import njit


# sampling
@njit(cache=True, nogil=True)
def _choose(q, start, stop, uniform):
    """Index drawn from the probabilities q[start:stop] by inversion."""
    cumulative = 0.0
    last = start
    for i in range(start, stop):
        if q[i] > 0.0:
            cumulative += q[i]
            last = i
            if uniform < cumulative:
                return i
    return last  # rounding left the sum a hair below 1


@njit(cache=True, nogil=True)
def sample_topologies(tables, q, component_of_tree, uniforms, children, split, tripartition, work):
    """Draw topologies: a rootsplit, then a subsplit of every clade of two taxa or more given its sister.

    Args:
        tables: The support.
        q: Probabilities [component, parameter + 2].
        component_of_tree: Component that each topology is drawn from [tree].
        uniforms: Numbers in [0, 1) [tree, n - 1], one a subsplit.
        children: Written: canonical topologies [tree, internal, 2].
        split: Written: split of every branch [tree, edge].
        tripartition: Written: tripartition of every internal node [tree, internal].
        work: int32 scratch space [9, 2n].
    """
    neighbour = work[:3]  # neighbour[j, v]: node in the direction of the j-th clade of node v's tripartition
    node_tripartition, stack_parent, stack_node, stack_side, order, entry = (
        work[3], work[4], work[5], work[6], work[7], work[8],
    )  # fmt: skip
    parent_start, parameter_subsplit, tripartitions = (
        tables.parent_start, tables.parameter_subsplit, tables.tripartitions,
    )  # fmt: skip
    root_child_parent, subsplit_child_parent = tables.root_child_parent, tables.subsplit_child_parent
    clade_min_leaf = tables.clade_min_leaf
    for t in range(component_of_tree.shape[0]):
        q_tree = q[component_of_tree[t]]
        root = _choose(q_tree, parent_start[0], parent_start[1], uniforms[t, 0])
        # Draw. Internal nodes get numbers 0, 1, ... as they are drawn; leaf k is -1 - k. stack_node is the
        # node that a clade hangs from (side: which of its three directions), or the other end of the root
        # branch (side 3).
        num_nodes = 0
        height = 0
        root_end0 = -1 - root  # a leaf, unless drawn below
        root_end1 = np.int64(-1)
        for side in range(2):
            parent = root_child_parent[root, side]
            if parent >= 0:
                stack_parent[height] = parent
                stack_node[height] = -1
                stack_side[height] = side
                height += 1
        while height > 0:
            height -= 1
            parent, above, side = stack_parent[height], stack_node[height], stack_side[height]
            drawn = _choose(
                q_tree, parent_start[parent], parent_start[parent + 1], uniforms[t, 1 + num_nodes]
            )
            s = parameter_subsplit[drawn]
            node = num_nodes
            num_nodes += 1
            t3 = s // 3
            up = s - 3 * t3
            node_tripartition[node] = t3
            neighbour[up, node] = above
            if above >= 0:
                neighbour[side, above] = node
            elif side == 0:
                root_end0 = node
            else:
                root_end1 = node
            which = 0
            for j in range(3):
                if j == up:
                    continue
                clade = tripartitions[t3, j]
                child_parent = subsplit_child_parent[s, which]
                which += 1
                if child_parent >= 0:
                    stack_parent[height] = child_parent
                    stack_node[height] = node
                    stack_side[height] = j
                    height += 1
                else:
                    neighbour[j, node] = -1 - (clade >> 1)
        _join_root(tripartitions, root, root_end0, root_end1, node_tripartition, neighbour)
        _hang_from_last_leaf(
            tripartitions, clade_min_leaf, node_tripartition, neighbour, stack_node, stack_side, order, entry,
            children[t], split[t], tripartition[t],
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _join_root(tripartitions, root, end0, end1, node_tripartition, neighbour):
    """Join the ends of the root branch; end0 is the node or leaf of clade 2 root, end1 the other side's."""
    for j in range(3):
        if end0 >= 0 and tripartitions[node_tripartition[end0], j] == 2 * root + 1:
            neighbour[j, end0] = end1
        if end1 >= 0 and tripartitions[node_tripartition[end1], j] == 2 * root:
            neighbour[j, end1] = end0


@njit(cache=True, nogil=True)
def _hang_from_last_leaf(
    tripartitions, clade_min_leaf, node_tripartition, neighbour, stack_node, stack_side, order, entry,
    children, split, tripartition,
):  # fmt: skip
    """Write the topology in canonical form from the neighbours of its internal nodes."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    last_leaf = -num_taxa  # -1 - (n - 1)
    top = 0
    top_side = 0
    for node in range(num_internal):
        for j in range(3):
            if neighbour[j, node] == last_leaf:
                top = node
                top_side = j
    # Reversed (node, second subtree, first subtree) is post-order.
    stack_node[0], stack_side[0] = top, top_side
    height, count = 1, 0
    while height > 0:
        height -= 1
        node, side = stack_node[height], stack_side[height]
        order[count] = node
        entry[node] = side
        count += 1
        first, second = _ordered_sides(tripartitions, clade_min_leaf, node_tripartition[node], side)
        for j in (first, second):
            child = neighbour[j, node]
            if child >= 0:
                stack_node[height] = child
                stack_side[height] = _side_towards(neighbour, child, node)
                height += 1
    for e in range(num_taxa):
        split[e] = e
    # number of each node, in stack_side (free now)
    for position in range(num_internal):
        stack_side[order[position]] = 2 * num_taxa - 3 - position
    for position in range(num_internal):
        node = order[position]
        i = num_internal - 1 - position
        t3 = node_tripartition[node]
        tripartition[i] = t3
        first, second = _ordered_sides(tripartitions, clade_min_leaf, t3, entry[node])
        for j in range(2):
            side = first if j == 0 else second
            child = neighbour[side, node]
            if child >= 0:
                children[i, j] = stack_side[child]
                split[stack_side[child]] = tripartitions[t3, side] >> 1
            else:
                children[i, j] = -1 - child


@njit(cache=True, nogil=True)
def _ordered_sides(tripartitions, clade_min_leaf, t, side):
    """The two directions other than `side`, the one with the smaller leaf first."""
    first, second = (side + 1) % 3, (side + 2) % 3
    if clade_min_leaf[tripartitions[t, first]] > clade_min_leaf[tripartitions[t, second]]:
        first, second = second, first
    return first, second


@njit(cache=True, nogil=True)
def _side_towards(neighbour, node, target):
    for j in range(3):
        if neighbour[j, node] == target:
            return j
    return -1
