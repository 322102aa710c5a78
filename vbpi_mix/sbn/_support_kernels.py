"""Compiled kernels that build a support and look up topologies in it.

Directed branches. Branch e of a topology separates the clade below it, D(e), from the rest, U(e). They are
the *slots* 2e and 2e + 1 of the topology; a slot stands for its clade and, where the clade has two taxa or
more, for the subsplit into which the topology splits it. (Branch n-1 has the leaf n-1 "below" it: slot
2(n-1) is that leaf and slot 2(n-1)+1 is everything below the top node.)

``parameter_index[tree, slot, j]`` is the parameter of the slot's subsplit given that its sister is

=====  =================  ==========================================
j      slot 2e            slot 2e + 1
=====  =================  ==========================================
0      U(e): the root lies on branch e   D(e): the same
1      D(sibling of e)    D(first child of e)
2      U(parent of e)     D(second child of e)
=====  =================  ==========================================

or the dummy P + 1 (probability 1) where a slot is a leaf or has no such sister, or P (probability 0) where
the combination is outside the support. P is the number of parameters; a table of log-probabilities
therefore has P + 2 entries, the last two being -inf and 0.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

HASH_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class SupportTables(NamedTuple):
    """The support as the kernels see it; numbering as in `vbpi_mix.sbn.support`.

    Attributes:
        num_taxa: n.
        parent_start: First parameter of every parent, and P at the end [parent + 1].
        parameter_parent: Parent of every parameter [parameter].
        parameter_subsplit: Subsplit of every parameter, -1 for rootsplits [parameter].
        root_child_parent: Parents that a rootsplit opens, -1 for leaves [split, 2]: clade 2s, then 2s + 1.
        subsplit_child_parent: Parents that a subsplit opens, -1 for leaves [subsplit, 2]: lower clade first.
        subsplit_root_parameter: Parameter of a subsplit whose sister is all the rest [subsplit].
        tripartitions: Clades of every tripartition, ascending [tripartition, 3].
        clade_min_leaf: Smallest taxon of every clade [clade].
        hash_key: Keys sister * (number of subsplits) + subsplit in open addressing, -1 where free.
        hash_value: Parameter of every key.
    """

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


@njit(cache=True, nogil=True)
def _hash_position(key, mask):
    mixed = np.uint64(key) * HASH_MULTIPLIER
    return np.int64((mixed >> np.uint64(31)) & np.uint64(mask))


@njit(cache=True, nogil=True)
def build_hash(keys, values, table_key, table_value):
    """Fill an open-addressing table (size a power of two, keys preset to -1) with distinct keys >= 0."""
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


# support
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
    """The three clades around every internal node, ascending; a first clade of -1: some split is unknown."""
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


# topologies
@njit(cache=True, nogil=True)
def _find_parameter(sister, subsplit, num_subsplits, impossible, hash_key, hash_value):
    if subsplit < 0 or sister < 0:
        return impossible
    found = find_hash(np.int64(sister) * num_subsplits + subsplit, hash_key, hash_value)
    return found if found >= 0 else impossible


@njit(cache=True, nogil=True)
def index_topologies(
    tables, children, split, tripartition, use_psp, parameter_index, root_index, feature_index
):
    """Look up parameters and branch features of topologies.

    Args:
        tables: The support.
        children: Topologies [tree, internal, 2].
        split: Split of every branch [tree, edge], -1 outside the support.
        tripartition: Tripartition of every internal node [tree, internal], -1 outside the support.
        use_psp: Whether branch features include the primary subsplit pairs.
        parameter_index: Written, [tree, slot, 3]; see the module docstring.
        root_index: Written, [tree, edge]: the parameter of the rootsplit on a branch.
        feature_index: Written, [tree, edge, 3]: split row, PSP row below, PSP row above (dummy: the last
            row).
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
