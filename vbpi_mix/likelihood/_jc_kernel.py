# mypy: disable-error-code="no-untyped-def"
"""Compiled kernel of the Jukes-Cantor likelihood and its branch gradient.

Notation, for the branch of length t above node v, with ``decay = exp(-4t/3)`` and
``spread = (1 - decay) / 4``:

- L[x], the partial of v, probability of the data below v given state x there; SL its sum over x;
- m[x] = decay L[x] + spread SL, the *message* of v: probability of the data below, given state x at the
  parent; as decay + 4 spread = 1, its sum over x is SL as well;
- U[x], the outer partial: probability of all other data given state x at the parent; SU its sum.

The likelihood of a pattern is ``f = (1/4) sum_x U[x] m[x]`` for every branch, and as
``f = (1/4) (decay sum_x U[x] L[x] + spread SU SL)`` is linear in decay, with ``d decay / dt = -4/3 decay``,

    df/dt = -(1/3) decay (sum_x U[x] L[x] - SU SL / 4) = -(4/3) (f - SU SL / 16),
    d log f / dt = -(4/3) (1 - SU SL / (16 f)),

so that the gradient needs two sums that are at hand anyway, and pendant branches need no outer messages. The
outer message of the top node starts with the factor weight / f, so that every U carries it.

Post-order: L of a node is the product of its children's messages. Pre-order: U of a child is the product of
its sibling's message and the outer message D of the node, where ``D[x] = decay U[x] + spread SU`` is
carried down the node's own branch. The top node's D is the message of the last leaf. A node's D takes the
place of its message in memory.

Patterns go in blocks of ``BLOCK`` that stay in cache; within a block come all trees, so that the tip data are
fetched once a batch. Loops over the patterns of a block have one kind of node each.

Scaling: the message of a node that `choose_scaled` names is multiplied, pattern by pattern, by the power of
two that brings its largest entry into [1/2, 1). Such a factor multiplies the pattern's stored f as well;
the exponents are added up and leave through the logarithm. In the pre-order pass the same factor multiplies
the node's D, which is what differentiation through the scaling amounts to: every U then carries the factors
of all nodes that are not below it, so that SU SL / f needs no correction. Nothing overflows on the way: the
sum of U[x] m[x] is four times the weight, all its terms are positive, and m[x] is at least what
`choose_scaled` keeps.
"""

import numpy as np
from numba import njit

from vbpi_mix.likelihood._board import GRADIENT, HELP, finish, next_piece, post
from vbpi_mix.likelihood._scaling import choose_scaled
from vbpi_mix.likelihood._simd import (
    broadcast,
    constant,
    exponent_to_unit,
    horizontal_sum,
    load,
    maximum,
    num_lanes,
    scale_to_unit,
    store,
    zeros,
)
from vbpi_mix.likelihood._sites import add_log_likelihood

BLOCK = 64
"""Patterns in a block; a multiple of the lanes of a vector of any type."""
TIP_ROWS = 5
"""Rows of a leaf's data in a block: four partials and their sum."""
NODE_ROWS = 5
"""Rows of an internal node's workspace in a block: four messages, the scaling factor."""
LEAF_SIZE = TIP_ROWS * BLOCK
NODE_SIZE = NODE_ROWS * BLOCK
SITE_ROWS = 2
"""Rows of the block's own workspace: site likelihoods (then weight over likelihood), exponents."""


@njit(cache=True, nogil=True)
def plan(children, branch_lengths, smallest_exponent, decay, spread, is_scaled, log_range, high):
    """Branch constants of every tree, and the nodes at which its messages need scaling.

    Args:
        children: Topologies [tree, internal, 2].
        branch_lengths: Branch lengths [tree, edge].
        smallest_exponent: See `choose_scaled`.
        decay: Filled with exp(-4t/3) [tree, edge].
        spread: Filled with (1 - exp(-4t/3)) / 4 [tree, edge].
        is_scaled: Filled with True for the internal nodes to scale [tree, internal].
        log_range: Workspace [2, tree, edge].
        high: Workspace [node].

    Returns:
        Of `choose_scaled`.
    """
    log_most, slack = log_range[0], log_range[1]
    for tree in range(branch_lengths.shape[0]):
        for edge in range(branch_lengths.shape[1]):
            one_minus_decay = -np.expm1(-4.0 / 3.0 * branch_lengths[tree, edge])
            decay[tree, edge] = 1.0 - one_minus_decay
            spread[tree, edge] = 0.25 * one_minus_decay
            log_most[tree, edge] = np.log2(1.0 - 0.75 * one_minus_decay)
            slack[tree, edge] = np.log2(0.25 * one_minus_decay) - log_most[tree, edge]
    return choose_scaled(children, branch_lengths, log_most, slack, smallest_exponent, high, is_scaled)


@njit(cache=True, nogil=True)
def accumulate(
    board,
    generation,
    mode,
    tips,
    weights,
    children,
    decay,
    spread,
    is_scaled,
    workspace,
    sites,
    log_likelihood,
    weighted_ratio,
):
    """What the patterns of each of some blocks contribute to every tree.

    Args:
        board: Where pieces of work, one tree in one block each, are taken from; see `_board`.
        generation: Of the arrays below.
        mode: `VALUE` or `GRADIENT` to post a job and work on it; `HELP` to help with jobs until they cease.
        tips: Leaf partials and their sums [block, taxon, TIP_ROWS, BLOCK].
        weights: Pattern weights [block, BLOCK]; zero for padding.
        children: Topologies [tree, internal, 2].
        decay: Of `plan` [tree, edge].
        spread: Of `plan` [tree, edge].
        is_scaled: Of `plan` [tree, internal].
        workspace: Any content [internal, NODE_ROWS, BLOCK].
        sites: Any content [SITE_ROWS, BLOCK].
        log_likelihood: Filled with the sums of weight log f [block, tree].
        weighted_ratio: Filled, for `GRADIENT`, with the sums of weight SU SL / f [block, tree, edge].
    """
    num_trees = children.shape[0]
    pieces = tips.shape[0] * num_trees
    if mode != HELP:
        post(board, pieces, generation, mode)
    while True:
        piece, job = next_piece(board, pieces, generation, mode == HELP)
        if piece < 0:
            return
        block, tree = piece // num_trees, piece % num_trees
        topology = children[tree]
        sites[:] = 0.0
        _post_order(block, tips, topology, decay[tree], spread[tree], is_scaled[tree], workspace, sites)
        _top_likelihood(block, tips, topology, decay[tree], spread[tree], workspace, sites)
        log_likelihood[block, tree] = add_log_likelihood(block * BLOCK, weights, sites, BLOCK)
        if job == GRADIENT:
            ratio = weighted_ratio[block, tree]
            _top_outer(block, tips, topology, decay[tree], spread[tree], workspace, sites, ratio)
            _pre_order(block, tips, topology, decay[tree], spread[tree], is_scaled[tree], workspace, ratio)
        finish(board)


@njit(cache=True, nogil=True)
def collect(total_weight, log_likelihood, weighted_ratio, value, gradient):
    """Add up the blocks, in their order, and finish the gradient.

    Args:
        total_weight: Sum of the pattern weights.
        log_likelihood: Of `accumulate` [block, tree].
        weighted_ratio: Of `accumulate` [block, tree, edge]; of no tree where only the value is wanted.
        value: Filled with log-likelihoods [tree].
        gradient: Filled with derivatives [tree, edge]; of no tree where only the value is wanted.
    """
    num_blocks, num_trees = log_likelihood.shape
    value[:] = 0.0
    for block in range(num_blocks):
        for tree in range(num_trees):
            value[tree] += log_likelihood[block, tree]
    for tree in range(gradient.shape[0]):
        if value[tree] == -np.inf:
            gradient[tree] = 0.0
            continue
        for edge in range(gradient.shape[1]):
            ratio = 0.0
            for block in range(num_blocks):
                ratio += weighted_ratio[block, tree, edge]
            gradient[tree, edge] = -4.0 / 3.0 * (total_weight - ratio / 16.0)


@njit(forceinline=True)
def _constants(decay, spread, node):
    """Decay and spread of a node's branch, for all patterns of a vector."""
    return broadcast(decay, node), broadcast(spread, node)


@njit(forceinline=True)
def _carried(branch, x, total):
    """``decay x + spread total``: x, of the sum `total`, carried along a branch."""
    e, base = branch[0], branch[1] * total
    return (e * x[0] + base, e * x[1] + base, e * x[2] + base, e * x[3] + base)


@njit(forceinline=True)
def _rows(array, at):
    return (
        load(array, at),
        load(array, at + BLOCK),
        load(array, at + 2 * BLOCK),
        load(array, at + 3 * BLOCK),
    )


@njit(forceinline=True)
def _store_rows(array, at, x):
    store(array, at, x[0])
    store(array, at + BLOCK, x[1])
    store(array, at + 2 * BLOCK, x[2])
    store(array, at + 3 * BLOCK, x[3])


@njit(forceinline=True)
def _product(a, b):
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3])


@njit(forceinline=True)
def _sum(x):
    return (x[0] + x[1]) + (x[2] + x[3])


@njit(forceinline=True)
def _leaf_message(branch, tips, at):
    """Message of a leaf, and its sum, which is that of the leaf's partial."""
    total = load(tips, at + 4 * BLOCK)
    return _carried(branch, _rows(tips, at), total), total


@njit(forceinline=True)
def _node_message(workspace, at):
    """Message of an internal node, and its sum, which is that of the node's partial."""
    message = _rows(workspace, at)
    return message, _sum(message)


@njit(forceinline=True)
def _send(branch, a, b, workspace, at):
    """Store the message of a node from those of its children."""
    partial = _product(a, b)
    _store_rows(workspace, at, _carried(branch, partial, _sum(partial)))


@njit(forceinline=True)
def _leaves_first(children, i, num_taxa):
    """Children of an internal node; if one is a leaf, it comes first."""
    first, second = np.intp(children[i, 0]), np.intp(children[i, 1])
    if second < num_taxa:
        return second, first
    return first, second


@njit(nogil=True)
def _post_order(block, tips, children, decay, spread, is_scaled, workspace, sites):
    """Messages of all nodes but the top one; site likelihoods and exponents into `sites`."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    lanes = num_lanes(workspace)
    leaves = block * num_taxa * LEAF_SIZE
    for i in range(num_internal - 1):
        first, second = _leaves_first(children, i, num_taxa)
        branch = _constants(decay, spread, num_taxa + i)
        at = i * NODE_SIZE
        if first >= num_taxa:
            at_first, at_second = (first - num_taxa) * NODE_SIZE, (second - num_taxa) * NODE_SIZE
            for k in range(0, BLOCK, lanes):
                a, b = _rows(workspace, at_first + k), _rows(workspace, at_second + k)
                _send(branch, a, b, workspace, at + k)
        elif second >= num_taxa:
            branch_first = _constants(decay, spread, first)
            at_first, at_second = leaves + first * LEAF_SIZE, (second - num_taxa) * NODE_SIZE
            for k in range(0, BLOCK, lanes):
                a, _ = _leaf_message(branch_first, tips, at_first + k)
                _send(branch, a, _rows(workspace, at_second + k), workspace, at + k)
        else:
            branch_first = _constants(decay, spread, first)
            branch_second = _constants(decay, spread, second)
            at_first, at_second = leaves + first * LEAF_SIZE, leaves + second * LEAF_SIZE
            for k in range(0, BLOCK, lanes):
                a, _ = _leaf_message(branch_first, tips, at_first + k)
                b, _ = _leaf_message(branch_second, tips, at_second + k)
                _send(branch, a, b, workspace, at + k)
        if is_scaled[i]:
            _scale(workspace, at, sites)


@njit(forceinline=True)
def _any_message(node, k, leaves, num_taxa, tips, decay, spread, workspace):
    """Message of a node of either kind, and its sum."""
    if node < num_taxa:
        return _leaf_message(_constants(decay, spread, node), tips, leaves + node * LEAF_SIZE + k)
    return _node_message(workspace, (node - num_taxa) * NODE_SIZE + k)


@njit(nogil=True)
def _top_likelihood(block, tips, children, decay, spread, workspace, sites):
    """Site likelihoods into `sites`."""
    num_taxa = children.shape[0] + 2
    leaves = block * num_taxa * LEAF_SIZE
    first, second = np.intp(children[-1, 0]), np.intp(children[-1, 1])
    last = _constants(decay, spread, num_taxa - 1)
    at_last = leaves + (num_taxa - 1) * LEAF_SIZE
    for k in range(0, BLOCK, num_lanes(workspace)):
        a, _ = _any_message(first, k, leaves, num_taxa, tips, decay, spread, workspace)
        b, _ = _any_message(second, k, leaves, num_taxa, tips, decay, spread, workspace)
        c, _ = _leaf_message(last, tips, at_last + k)
        likelihood = _sum(_product(_product(a, b), c))
        store(sites, k, likelihood * constant(likelihood, 0.25))


@njit(nogil=True)
def _top_outer(block, tips, children, decay, spread, workspace, sites, weighted_ratio):
    """Outer message of the top node, times weight / f, and the last leaf's sum of SU SL weight / f."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    leaves = block * num_taxa * LEAF_SIZE
    first, second = np.intp(children[-1, 0]), np.intp(children[-1, 1])
    last = _constants(decay, spread, num_taxa - 1)
    at_last = leaves + (num_taxa - 1) * LEAF_SIZE
    top = (num_internal - 1) * NODE_SIZE
    ratio = zeros(workspace)
    for k in range(0, BLOCK, num_lanes(workspace)):
        a, _ = _any_message(first, k, leaves, num_taxa, tips, decay, spread, workspace)
        b, _ = _any_message(second, k, leaves, num_taxa, tips, decay, spread, workspace)
        c, total = _leaf_message(last, tips, at_last + k)
        weight = load(sites, k)
        ratio = ratio + _sum(_product(a, b)) * (total * weight)
        _store_rows(workspace, top + k, (c[0] * weight, c[1] * weight, c[2] * weight, c[3] * weight))
    weighted_ratio[num_taxa - 1] = horizontal_sum(ratio)


@njit(forceinline=True)
def _scale(workspace, at, sites):
    """Bring a message's largest entry into [1/2, 1); keep the factor, add its exponent to the sites'."""
    for k in range(at, at + BLOCK, num_lanes(workspace)):
        message = _rows(workspace, k)
        largest = maximum(maximum(message[0], message[1]), maximum(message[2], message[3]))
        factor = scale_to_unit(largest)
        site = BLOCK + k - at
        store(sites, site, load(sites, site) + exponent_to_unit(largest))
        store(workspace, k + 4 * BLOCK, factor)
        _store_rows(workspace, k, _product(message, (factor, factor, factor, factor)))


@njit(forceinline=True)
def _rescale_outer(workspace, at):
    """Multiply a node's outer message by the factor that its message was multiplied by."""
    for k in range(at, at + BLOCK, num_lanes(workspace)):
        factor = load(workspace, k + 4 * BLOCK)
        _store_rows(workspace, k, _product(_rows(workspace, k), (factor, factor, factor, factor)))


@njit(nogil=True)
def _pre_order(block, tips, children, decay, spread, is_scaled, workspace, weighted_ratio):
    """Sums of SU SL weight / f of all branches below the top node, whose outer message is in `workspace`."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    lanes = num_lanes(workspace)
    leaves = block * num_taxa * LEAF_SIZE
    for i in range(num_internal - 1, -1, -1):
        first, second = _leaves_first(children, i, num_taxa)
        branch_first, branch_second = _constants(decay, spread, first), _constants(decay, spread, second)
        at = i * NODE_SIZE
        ratio_first, ratio_second = zeros(workspace), zeros(workspace)
        if is_scaled[i]:
            _rescale_outer(workspace, at)
        if first >= num_taxa:
            at_first, at_second = (first - num_taxa) * NODE_SIZE, (second - num_taxa) * NODE_SIZE
            for k in range(0, BLOCK, lanes):
                outer = _rows(workspace, at + k)
                a, sum_a = _node_message(workspace, at_first + k)
                b, sum_b = _node_message(workspace, at_second + k)
                u = _product(outer, b)
                total = _sum(u)
                ratio_first = ratio_first + total * sum_a
                _store_rows(workspace, at_first + k, _carried(branch_first, u, total))
                u = _product(outer, a)
                total = _sum(u)
                ratio_second = ratio_second + total * sum_b
                _store_rows(workspace, at_second + k, _carried(branch_second, u, total))
        elif second >= num_taxa:
            at_first, at_second = leaves + first * LEAF_SIZE, (second - num_taxa) * NODE_SIZE
            for k in range(0, BLOCK, lanes):
                outer = _rows(workspace, at + k)
                a, sum_a = _leaf_message(branch_first, tips, at_first + k)
                b, sum_b = _node_message(workspace, at_second + k)
                ratio_first = ratio_first + _sum(_product(outer, b)) * sum_a
                u = _product(outer, a)
                total = _sum(u)
                ratio_second = ratio_second + total * sum_b
                _store_rows(workspace, at_second + k, _carried(branch_second, u, total))
        else:
            at_first, at_second = leaves + first * LEAF_SIZE, leaves + second * LEAF_SIZE
            for k in range(0, BLOCK, lanes):
                outer = _rows(workspace, at + k)
                a, sum_a = _leaf_message(branch_first, tips, at_first + k)
                b, sum_b = _leaf_message(branch_second, tips, at_second + k)
                ratio_first = ratio_first + _sum(_product(outer, b)) * sum_a
                ratio_second = ratio_second + _sum(_product(outer, a)) * sum_b
        weighted_ratio[first] = horizontal_sum(ratio_first)
        weighted_ratio[second] = horizontal_sum(ratio_second)
