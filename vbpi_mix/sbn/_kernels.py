"""Compiled kernels of the subsplit Bayesian network: integer tables in, numbers out, no Python objects.

Directed branches. Branch e of a topology separates the clade below it, D(e), from the rest, U(e). They are the
*slots* 2e and 2e + 1 of the topology; a slot stands for its clade and, where the clade has two taxa or more, for the
subsplit into which the topology splits it. (Branch n-1 has the leaf n-1 "below" it: slot 2(n-1) is that leaf and
slot 2(n-1)+1 is everything below the top node.)

``parameter_index[tree, slot, j]`` is the parameter of the slot's subsplit given that its sister is

=====  =================  ==========================================
j      slot 2e            slot 2e + 1
=====  =================  ==========================================
0      U(e): the root lies on branch e   D(e): the same
1      D(sibling of e)    D(first child of e)
2      U(parent of e)     D(second child of e)
=====  =================  ==========================================

or the dummy P + 1 (probability 1) where a slot is a leaf or has no such sister, or P (probability 0) where the
combination is outside the support. P is the number of parameters; a table of log-probabilities therefore has P + 2
entries, the last two being -inf and 0.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

HASH_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class SupportTables(NamedTuple):
    """The support as the kernels see it; shapes and meaning are documented on `vbpi_mix.sbn.support.Support`."""

    num_taxa: int
    parent_start: np.ndarray
    parameter_parent: np.ndarray
    parameter_subsplit: np.ndarray
    root_child_parent: np.ndarray
    subsplit_child_parent: np.ndarray
    subsplit_root_parameter: np.ndarray
    tripartitions: np.ndarray
    clade_min_leaf: np.ndarray
    hash_key: np.ndarray
    hash_value: np.ndarray


# ------------------------------------------------------------------------------------------------ hash tables
@njit(cache=True, nogil=True)
def _hash_position(key, mask):
    mixed = np.uint64(key) * HASH_MULTIPLIER
    return np.int64((mixed >> np.uint64(31)) & np.uint64(mask))


@njit(cache=True, nogil=True)
def build_hash(keys, values, table_key, table_value):
    """Fill an open-addressing table (size a power of two, keys preset to -1) with distinct non-negative keys."""
    mask = table_key.shape[0] - 1
    for i in range(keys.shape[0]):
        position = _hash_position(keys[i], mask)
        while table_key[position] >= 0:
            position = (position + 1) & mask
        table_key[position] = keys[i]
        table_value[position] = values[i]


@njit(cache=True, nogil=True)
def find_hash(key, table_key, table_value):
    """Value stored under a key, -1 where there is none."""
    mask = table_key.shape[0] - 1
    position = _hash_position(key, mask)
    while table_key[position] >= 0:
        if table_key[position] == key:
            return table_value[position]
        position = (position + 1) & mask
    return -1


@njit(cache=True, nogil=True)
def find_hashes(keys, table_key, table_value, out):
    """Values stored under many keys, -1 where there is none."""
    for i in range(keys.shape[0]):
        out[i] = find_hash(keys[i], table_key, table_value)


# ---------------------------------------------------------------------------------------- building the support
@njit(cache=True, nogil=True)
def edge_of_node(node, num_taxa):
    """Branch above a node; the branch above the top node is that of leaf n - 1."""
    return num_taxa - 1 if node == 2 * num_taxa - 3 else node


@njit(cache=True, nogil=True)
def up_slot(node, num_taxa):
    """Slot of the clade that lies above an internal node."""
    return 2 * (num_taxa - 1) if node == 2 * num_taxa - 3 else 2 * node + 1


@njit(cache=True, nogil=True)
def clade_above(node, split_row, num_taxa):
    """Clade above an internal node, from the splits of the topology's branches (-1: unknown)."""
    if node == 2 * num_taxa - 3:
        return 2 * (num_taxa - 1)
    split = split_row[node]
    return 2 * split + 1 if split >= 0 else -1


@njit(cache=True, nogil=True)
def node_tripartitions(children, split, out):
    """The three clades around every internal node, ascending; a row starting with -1 holds an unknown split."""
    num_trees, num_internal = children.shape[0], children.shape[1]
    num_taxa = num_internal + 2
    for t in range(num_trees):
        for i in range(num_internal):
            left, right = children[t, i, 0], children[t, i, 1]
            a = 2 * split[t, left] if split[t, left] >= 0 else -1
            b = 2 * split[t, right] if split[t, right] >= 0 else -1
            c = clade_above(num_taxa + i, split[t], num_taxa)
            if a > b:
                a, b = b, a
            if b > c:
                b, c = c, b
            if a > b:
                a, b = b, a
            out[t, i, 0] = a
            out[t, i, 1] = b
            out[t, i, 2] = c


@njit(cache=True, nogil=True)
def slot_subsplits(children, split, tripartition, tripartitions, out):
    """Subsplit of every slot of one topology; -1 for leaves and for subsplits outside the support.

    Subsplit 3 t + k belongs to tripartition t and splits the complement of its k-th clade into the other two.
    """
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    out[:] = -1
    for i in range(num_internal):
        t = tripartition[i]
        if t < 0:
            continue
        node = num_taxa + i
        for j in range(3):
            clade = tripartitions[t, j]
            if clade == clade_above(node, split, num_taxa):
                out[up_slot(node, num_taxa) ^ 1] = 3 * t + j
            elif clade == 2 * split[children[i, 0]]:
                out[2 * children[i, 0] + 1] = 3 * t + j
            else:
                out[2 * children[i, 1] + 1] = 3 * t + j


@njit(cache=True, nogil=True)
def pcsp_keys(children, split, tripartition, tripartitions, num_subsplits, out):
    """Keys sister * num_subsplits + subsplit of the PCSPs, roots apart, of all rootings of the topologies."""
    num_trees, num_internal = children.shape[0], children.shape[1]
    num_taxa = num_internal + 2
    subsplit = np.empty(2 * (2 * num_taxa - 3), np.int64)
    count = 0
    for t in range(num_trees):
        slot_subsplits(children[t], split[t], tripartition[t], tripartitions, subsplit)
        for i in range(num_internal):
            above = clade_above(num_taxa + i, split[t], num_taxa)
            up = up_slot(num_taxa + i, num_taxa)
            for j in range(2):
                child, sibling = children[t, i, j], children[t, i, 1 - j]
                if subsplit[2 * child] >= 0:
                    out[count] = 2 * np.int64(split[t, sibling]) * num_subsplits + subsplit[2 * child]
                    out[count + 1] = np.int64(above) * num_subsplits + subsplit[2 * child]
                    count += 2
                if subsplit[up] >= 0:
                    out[count] = 2 * np.int64(split[t, child]) * num_subsplits + subsplit[up]
                    count += 1
    return count


# ------------------------------------------------------------------------------------------ indexing topologies
@njit(cache=True, nogil=True)
def _find_parameter(sister, subsplit, num_subsplits, impossible, hash_key, hash_value):
    if subsplit < 0 or sister < 0:
        return impossible
    found = find_hash(np.int64(sister) * num_subsplits + subsplit, hash_key, hash_value)
    return found if found >= 0 else impossible


@njit(cache=True, nogil=True)
def index_topologies(tables, children, split, tripartition, use_psp, parameter_index, root_index, feature_index):
    """Look up parameters and branch features of topologies.

    Args:
        tables: The support.
        children: Topologies [tree, internal, 2].
        split: Split of every branch [tree, edge], -1 outside the support.
        tripartition: Tripartition of every internal node [tree, internal], -1 outside the support.
        use_psp: Whether branch features include the primary subsplit pairs.
        parameter_index: Written, [tree, slot, 3]; see the module docstring.
        root_index: Written, [tree, edge]: the parameter of the rootsplit on a branch.
        feature_index: Written, [tree, edge, 3]: split row, PSP row below, PSP row above (dummy: the last row).
    """
    num_trees, num_internal = children.shape[0], children.shape[1]
    num_taxa = num_internal + 2
    num_edges = 2 * num_taxa - 3
    num_splits = tables.root_child_parent.shape[0]
    num_subsplits = tables.subsplit_root_parameter.shape[0]
    impossible = tables.parameter_parent.shape[0]
    certain = impossible + 1
    dummy = num_splits + num_subsplits if use_psp else num_splits
    hash_key, hash_value, tripartitions = tables.hash_key, tables.hash_value, tables.tripartitions
    subsplit_root_parameter = tables.subsplit_root_parameter
    subsplit = np.empty(2 * num_edges, np.int64)
    for t in range(num_trees):
        slot_subsplits(children[t], split[t], tripartition[t], tripartitions, subsplit)
        for e in range(num_edges):
            root_index[t, e] = split[t, e] if split[t, e] >= 0 else impossible
            feature_index[t, e, 0] = split[t, e] if split[t, e] >= 0 else dummy
            for side in range(2):
                slot = 2 * e + side
                parameter_index[t, slot, 1] = certain
                parameter_index[t, slot, 2] = certain
                s = subsplit[slot]
                if s >= 0:
                    parameter_index[t, slot, 0] = subsplit_root_parameter[s]
                    feature_index[t, e, 1 + side] = num_splits + s if use_psp else dummy
                else:
                    is_leaf = e < num_taxa and side == 0
                    parameter_index[t, slot, 0] = certain if is_leaf else impossible
                    feature_index[t, e, 1 + side] = dummy
        for i in range(num_internal):
            node = num_taxa + i
            above = clade_above(node, split[t], num_taxa)
            up = up_slot(node, num_taxa)
            for j in range(2):
                child, sibling = children[t, i, j], children[t, i, 1 - j]
                if child >= num_taxa:
                    s = subsplit[2 * child]
                    sister = 2 * split[t, sibling] if split[t, sibling] >= 0 else -1
                    parameter_index[t, 2 * child, 1] = _find_parameter(
                        sister, s, num_subsplits, impossible, hash_key, hash_value
                    )
                    parameter_index[t, 2 * child, 2] = _find_parameter(
                        above, s, num_subsplits, impossible, hash_key, hash_value
                    )
                if node < 2 * num_taxa - 3:
                    sister = 2 * split[t, child] if split[t, child] >= 0 else -1
                    parameter_index[t, up, 1 + j] = _find_parameter(
                        sister, subsplit[up], num_subsplits, impossible, hash_key, hash_value
                    )


# ------------------------------------------------------------------------------------------------- probabilities
@njit(cache=True, nogil=True)
def _rooting_log_probabilities(log_q, children, parameter_index, root_index, below, out):
    """Log-probability of every rooted version of one topology; DESIGN: log p_e."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    num_edges = 2 * num_taxa - 3
    below[:] = 0.0
    for i in range(num_internal):
        left, right = children[i, 0], children[i, 1]
        slot = up_slot(num_taxa + i, num_taxa) ^ 1
        below[slot] = (
            log_q[parameter_index[2 * left, 1]]
            + below[2 * left]
            + log_q[parameter_index[2 * right, 1]]
            + below[2 * right]
        )
    for i in range(num_internal - 1, -1, -1):
        up = up_slot(num_taxa + i, num_taxa)
        for j in range(2):
            child, sibling = children[i, j], children[i, 1 - j]
            below[2 * child + 1] = (
                log_q[parameter_index[2 * sibling, 2]]
                + below[2 * sibling]
                + log_q[parameter_index[up, 2 - j]]  # the sister is the sibling: first child 1, second child 2
                + below[up]
            )
    for e in range(num_edges):
        out[e] = (
            log_q[root_index[e]]
            + log_q[parameter_index[2 * e, 0]]
            + below[2 * e]
            + log_q[parameter_index[2 * e + 1, 0]]
            + below[2 * e + 1]
        )


@njit(cache=True, nogil=True)
def _logsumexp(values):
    largest = -np.inf
    for v in values:
        largest = max(largest, v)
    if largest == -np.inf:
        return -np.inf
    total = 0.0
    for v in values:
        total += np.exp(v - largest)
    return largest + np.log(total)


@njit(cache=True, nogil=True)
def log_probability(log_q, components, children, parameter_index, root_index, below, rooting, out):
    """log q_d(tau) [tree, denominator] of topologies under the listed components; -inf outside the support."""
    for t in range(children.shape[0]):
        for d in range(components.shape[0]):
            _rooting_log_probabilities(
                log_q[components[d]], children[t], parameter_index[t], root_index[t], below, rooting
            )
            out[t, d] = _logsumexp(rooting)


@njit(cache=True, nogil=True)
def add_expected_counts(
    weight, children, parameter_index, root_index, posterior, parameter_parent, mass, counts, parent_counts,
    is_touched, touched, num_touched,
):  # fmt: skip
    """Add `weight` times the posterior expected number of uses of every parameter by one topology.

    posterior [edge] is the probability of each rooting given the topology. A PCSP is used by the rootings on one side
    of its node, so its expected count is a sum of `posterior` over a subtree (M(e): branch e and all below it):
    1 - M(e) - M(sibling) for sister D(sibling), M(sibling) for sister U(parent), M(other child) for an upper slot.

    Args:
        weight: Any real number.
        children, parameter_index, root_index: The indexed topology.
        posterior: Probability of each rooting given the topology [edge].
        parameter_parent: Parent of every parameter.
        mass: Scratch space [2n - 2].
        counts: [parameter + 2], added to.
        parent_counts: [parent], added to.
        is_touched: [parent], set to 1 where something was added.
        touched: [parent]; parents newly set are appended.
        num_touched: Length of that list so far.

    Returns:
        The new length of the list.
    """
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    num_edges = 2 * num_taxa - 3
    num_parameters = parameter_parent.shape[0]
    for e in range(num_edges):
        mass[e] = posterior[e]
    for i in range(num_internal - 1):
        mass[num_taxa + i] += mass[children[i, 0]] + mass[children[i, 1]]
    for e in range(num_edges):
        for j in range(3):
            if j == 0:
                index = root_index[e]
            else:
                index = parameter_index[2 * e + j - 1, 0]
            if index < num_parameters:
                num_touched = _add_count(
                    index, weight * posterior[e], parameter_parent, counts, parent_counts, is_touched, touched, num_touched
                )
    for i in range(num_internal):
        up = up_slot(num_taxa + i, num_taxa)
        for j in range(2):
            child, sibling = children[i, j], children[i, 1 - j]
            for option in range(3):
                if option == 0:
                    index = parameter_index[2 * child, 1]
                    share = max(0.0, 1.0 - mass[child] - mass[sibling])
                elif option == 1:
                    index = parameter_index[2 * child, 2]
                    share = mass[sibling]
                else:
                    index = parameter_index[up, 1 + j]  # sister D(child): the root lies in the sibling's subtree
                    share = mass[sibling]
                if index < num_parameters:
                    num_touched = _add_count(
                        index, weight * share, parameter_parent, counts, parent_counts, is_touched, touched, num_touched
                    )
    return num_touched


@njit(cache=True, nogil=True)
def _add_count(index, amount, parameter_parent, counts, parent_counts, is_touched, touched, num_touched):
    parent = parameter_parent[index]
    counts[index] += amount
    parent_counts[parent] += amount
    if is_touched[parent] == 0:
        is_touched[parent] = 1
        touched[num_touched] = parent
        num_touched += 1
    return num_touched


@njit(cache=True, nogil=True)
def rooting_posterior(log_q, children, parameter_index, root_index, below, out):
    """Probability of each rooting given the topology, into out [edge]; returns log q(tau) (-inf: out is all 0)."""
    _rooting_log_probabilities(log_q, children, parameter_index, root_index, below, out)
    largest = -np.inf
    for e in range(out.shape[0]):
        largest = max(largest, out[e])
    if largest == -np.inf:
        out[:] = 0.0
        return -np.inf
    total = 0.0
    for e in range(out.shape[0]):
        out[e] = np.exp(out[e] - largest)
        total += out[e]
    for e in range(out.shape[0]):
        out[e] /= total
    return largest + np.log(total)


@njit(cache=True, nogil=True)
def refresh_parent(logits, parent, parent_start, log_q, q):
    """Recompute the softmax of one parent's children."""
    start, stop = parent_start[parent], parent_start[parent + 1]
    largest = -np.inf
    for i in range(start, stop):
        largest = max(largest, logits[i])
    total = 0.0
    for i in range(start, stop):
        q[i] = np.exp(logits[i] - largest)
        total += q[i]
    shift = largest + np.log(total)
    for i in range(start, stop):
        q[i] /= total
        log_q[i] = logits[i] - shift


@njit(cache=True, nogil=True)
def refresh(logits, parent_start, log_q, q):
    """Recompute every softmax of every component: log_q, q [component, parameter + 2] from logits."""
    for a in range(logits.shape[0]):
        for parent in range(parent_start.shape[0] - 1):
            refresh_parent(logits[a], parent, parent_start, log_q[a], q[a])
        size = log_q.shape[1]
        log_q[a, size - 2] = -np.inf
        log_q[a, size - 1] = 0.0
        q[a, size - 2] = 0.0
        q[a, size - 1] = 1.0


@njit(cache=True, nogil=True)
def expectation_step(log_q, weights, children, parameter_index, root_index, parameter_parent, uniform_rooting, counts):
    """Add weighted expected parameter counts of topologies to counts [parameter + 2]; returns sum_t w_t log q(tau_t).

    With `uniform_rooting` every rooting has probability 1 / (2n - 3), whatever log_q; otherwise topologies outside
    the support are passed over and do not enter the returned sum.
    """
    num_edges = root_index.shape[1]
    num_parents = parameter_parent[-1] + 1
    below = np.empty(2 * num_edges)
    posterior = np.empty(num_edges)
    parent_counts = np.zeros(num_parents)
    is_touched = np.zeros(num_parents, np.uint8)
    touched = np.empty(num_parents, np.int32)
    num_touched = 0
    mass = np.empty(num_edges + 1)
    total = 0.0
    for t in range(children.shape[0]):
        if weights[t] == 0.0:
            continue
        if uniform_rooting:
            posterior[:] = 1.0 / num_edges
        else:
            log_probability_of_tree = rooting_posterior(
                log_q, children[t], parameter_index[t], root_index[t], below, posterior
            )
            if log_probability_of_tree == -np.inf:
                continue
            total += weights[t] * log_probability_of_tree
        num_touched = add_expected_counts(
            weights[t], children[t], parameter_index[t], root_index[t], posterior, parameter_parent, mass, counts,
            parent_counts, is_touched, touched, num_touched,
        )  # fmt: skip
    return total


# ------------------------------------------------------------------------------------------------------- sampling
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
    num_taxa = tables.num_taxa
    num_internal = num_taxa - 2
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
        # Draw. Internal nodes get numbers 0, 1, ... as they are drawn; leaf k is -1 - k. stack_node is the node that a
        # clade hangs from (side: which of its three directions), or the other end of the root branch (side 3).
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
            drawn = _choose(q_tree, parent_start[parent], parent_start[parent + 1], uniforms[t, 1 + num_nodes])
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
    """Join the two ends of the root branch; end0 is node or leaf of clade 2 root, end1 that of the other side."""
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


# ------------------------------------------------------------------------------------------ for array frameworks
@njit(cache=True, nogil=True)
def rooting_terms(children, parameter_index, impossible, terms, in_subtree):
    """What log-probabilities of rootings are sums of, without recursion.

    Every branch c that has a sibling adds, to the rooting on branch e,

        log q[terms[c, 0]]                       if e is neither in the subtree of c nor in its sibling's,
        log q[terms[c, 1]] + log q[terms[c, 2]]  if e is in the sibling's subtree.

    Args:
        children: Topologies [tree, internal, 2].
        parameter_index: [tree, slot, 3]; see the module docstring.
        impossible: Number of parameters, P; P + 1 is the dummy of probability 1.
        terms: Written, [tree, edge, 3].
        in_subtree: Written, [tree, edge c, edge e, 2] uint8: whether e lies in the subtree (top branch included) of c,
            and of c's sibling.
    """
    num_trees, num_internal = children.shape[0], children.shape[1]
    num_taxa = num_internal + 2
    num_edges = 2 * num_taxa - 3
    in_subtree[:] = 0
    terms[:] = impossible + 1
    for t in range(num_trees):
        for e in range(num_taxa):
            in_subtree[t, e, e, 0] = 1
        for i in range(num_internal - 1):
            node = num_taxa + i
            for e in range(num_edges):
                in_subtree[t, node, e, 0] = (
                    in_subtree[t, children[t, i, 0], e, 0] | in_subtree[t, children[t, i, 1], e, 0]
                )
            in_subtree[t, node, node, 0] = 1
        for i in range(num_internal):
            up = up_slot(num_taxa + i, num_taxa)
            for j in range(2):
                child, sibling = children[t, i, j], children[t, i, 1 - j]
                terms[t, child, 0] = parameter_index[t, 2 * child, 1]
                terms[t, child, 1] = parameter_index[t, 2 * child, 2]
                terms[t, child, 2] = parameter_index[t, up, 1 + j]
                for e in range(num_edges):
                    in_subtree[t, child, e, 1] = in_subtree[t, sibling, e, 0]
        # the last leaf has no sibling: mark everything as below it, so that it adds nothing
        in_subtree[t, num_taxa - 1, :, 0] = 1
