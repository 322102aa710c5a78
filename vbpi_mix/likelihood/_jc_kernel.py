# mypy: disable-error-code="no-untyped-def"
"""Compiled kernel of the Jukes-Cantor likelihood and its branch gradient.

Notation, for the branch of length t above node v, with ``decay = exp(-4t/3)`` and
``spread = (1 - decay) / 4``:

- L[x], the partial of v, probability of the data below v given state x there; SL its sum over x;
- m[x] = decay L[x] + spread SL, the *message* of v: probability of the data below, given state x at the
  parent;
- U[x], the outer partial: probability of all other data given state x at the parent; SU its sum.

The likelihood of a pattern is ``f = (1/4) sum_x U[x] m[x]`` for every branch, and as
``f = (1/4) (decay sum_x U[x] L[x] + spread SU SL)`` is linear in decay, with ``d decay / dt = -4/3 decay``,

    df/dt = -(1/3) decay (sum_x U[x] L[x] - SU SL / 4) = -(4/3) (f - SU SL / 16),
    d log f / dt = -(4/3) (1 - SU SL / (16 f)),

so that the gradient needs two sums that are at hand anyway, and pendant branches need no outer messages.

Post-order: L of a node is the product of its children's messages. Pre-order: U of a child is the product of
its sibling's message and the outer message D of the node, where ``D[x] = decay U[x] + spread SU`` is
carried down the node's own branch. The top node's D is the message of the last leaf. A node's D takes the
place of its message in memory.

Patterns go in blocks of ``BLOCK`` that fit the fastest cache; within a block come all trees, so that the
tip data are fetched once a batch.

Scaling: the message of a node that `choose_scaled` names is multiplied, pattern by pattern, by the power of
two that brings its largest entry into [1/2, 1). Such a factor multiplies the pattern's stored f as well;
the exponents are added up and leave through the logarithm. In the pre-order pass the same factor multiplies
the node's D, which is what differentiation through the scaling amounts to: every U then carries the factors
of all nodes that are not below it, so that SU SL / f needs no correction.
"""

import numpy as np
from numba import njit

from vbpi_mix.likelihood._scaling import choose_scaled
from vbpi_mix.likelihood._simd import (
    VECTOR_BYTES,
    broadcast,
    constant,
    exponent_to_unit,
    horizontal_sum,
    load,
    maximum,
    scale_to_unit,
    store,
    zeros,
)
from vbpi_mix.likelihood._sites import add_log_likelihood

BLOCK = 64
"""Patterns in a block; a multiple of the lanes of a vector of any type."""
TIP_ROWS = 5
"""Rows of a leaf's data in a block: four partials and their sum."""
NODE_ROWS = 6
"""Rows of an internal node's workspace in a block: four messages, the sum SL, the scaling factor."""
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
    blocks,
    tips,
    weights,
    children,
    decay,
    spread,
    is_scaled,
    workspace,
    sites,
    compute_gradient,
    log_likelihood,
    weighted_ratio,
):
    """What the patterns of each of some blocks contribute to every tree.

    Args:
        blocks: First block and the one after the last.
        tips: Leaf partials and their sums [block, taxon, TIP_ROWS, BLOCK].
        weights: Pattern weights [block, BLOCK]; zero for padding.
        children: Topologies [tree, internal, 2].
        decay: Of `plan` [tree, edge].
        spread: Of `plan` [tree, edge].
        is_scaled: Of `plan` [tree, internal].
        workspace: Any content [internal, NODE_ROWS, BLOCK].
        sites: Any content [SITE_ROWS, BLOCK].
        compute_gradient: Whether to fill `weighted_ratio`.
        log_likelihood: Filled with the sums of weight log f [block, tree].
        weighted_ratio: Filled with the sums of weight SU SL / f [block, tree, edge].
    """
    for block in range(blocks[0], blocks[1]):
        for tree in range(children.shape[0]):
            topology = children[tree]
            sites[:] = 0.0
            _post_order(block, tips, topology, decay[tree], spread[tree], is_scaled[tree], workspace, sites)
            log_likelihood[block, tree] = add_log_likelihood(block * BLOCK, weights, sites, BLOCK)
            if compute_gradient:
                _pre_order(
                    block,
                    tips,
                    topology,
                    decay[tree],
                    spread[tree],
                    is_scaled[tree],
                    workspace,
                    sites,
                    weighted_ratio[block, tree],
                )


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
def _message(node, k, block, num_taxa, tips, decay, spread, workspace):
    """Message of a node and the sum of its partial, for the vector of patterns at k."""
    if node < num_taxa:
        at = (block * num_taxa + node) * (TIP_ROWS * BLOCK) + k
        total = load(tips, at + 4 * BLOCK)
        e = broadcast(decay, node)
        base = broadcast(spread, node) * total
        return (
            e * load(tips, at) + base,
            e * load(tips, at + BLOCK) + base,
            e * load(tips, at + 2 * BLOCK) + base,
            e * load(tips, at + 3 * BLOCK) + base,
            total,
        )
    at = (node - num_taxa) * (NODE_ROWS * BLOCK) + k
    return (
        load(workspace, at),
        load(workspace, at + BLOCK),
        load(workspace, at + 2 * BLOCK),
        load(workspace, at + 3 * BLOCK),
        load(workspace, at + 4 * BLOCK),
    )


@njit(forceinline=True)
def _carry(e, q, x, total, workspace, at):
    """Store ``decay x + spread total``: x carried along a branch."""
    base = q * total
    store(workspace, at, e * x[0] + base)
    store(workspace, at + BLOCK, e * x[1] + base)
    store(workspace, at + 2 * BLOCK, e * x[2] + base)
    store(workspace, at + 3 * BLOCK, e * x[3] + base)


@njit(forceinline=True)
def _product(a, b):
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3])


@njit(forceinline=True)
def _sum(x):
    return (x[0] + x[1]) + (x[2] + x[3])


@njit(nogil=True)
def _post_order(block, tips, children, decay, spread, is_scaled, workspace, sites):
    """Messages of all nodes but the top one; site likelihoods and exponents into `sites`."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    lanes = VECTOR_BYTES // workspace.itemsize
    for i in range(num_internal - 1):
        first, second = np.intp(children[i, 0]), np.intp(children[i, 1])
        node = num_taxa + i
        e, q = broadcast(decay, node), broadcast(spread, node)
        at = i * (NODE_ROWS * BLOCK)
        for k in range(0, BLOCK, lanes):
            a = _message(first, k, block, num_taxa, tips, decay, spread, workspace)
            b = _message(second, k, block, num_taxa, tips, decay, spread, workspace)
            partial = _product(a, b)
            total = _sum(partial)
            store(workspace, at + k + 4 * BLOCK, total)
            _carry(e, q, partial, total, workspace, at + k)
        if is_scaled[i]:
            _scale(workspace, at, sites)
    first, second = np.intp(children[num_internal - 1, 0]), np.intp(children[num_internal - 1, 1])
    for k in range(0, BLOCK, lanes):
        a = _message(first, k, block, num_taxa, tips, decay, spread, workspace)
        b = _message(second, k, block, num_taxa, tips, decay, spread, workspace)
        c = _message(num_taxa - 1, k, block, num_taxa, tips, decay, spread, workspace)
        likelihood = _sum(_product(_product(a, b), c))
        store(sites, k, likelihood * constant(likelihood, 0.25))
        top = (num_internal - 1) * (NODE_ROWS * BLOCK) + k
        store(workspace, top, c[0])
        store(workspace, top + BLOCK, c[1])
        store(workspace, top + 2 * BLOCK, c[2])
        store(workspace, top + 3 * BLOCK, c[3])


@njit(forceinline=True)
def _scale(workspace, at, sites):
    """Bring a message's largest entry into [1/2, 1); keep the factor, add its exponent to the sites'."""
    for k in range(at, at + BLOCK, VECTOR_BYTES // workspace.itemsize):
        m0, m1, m2, m3 = _rows(workspace, k)
        largest = maximum(maximum(m0, m1), maximum(m2, m3))
        factor = scale_to_unit(largest)
        site = BLOCK + k - at
        store(sites, site, load(sites, site) + exponent_to_unit(largest))
        store(workspace, k, m0 * factor)
        store(workspace, k + BLOCK, m1 * factor)
        store(workspace, k + 2 * BLOCK, m2 * factor)
        store(workspace, k + 3 * BLOCK, m3 * factor)
        store(workspace, k + 4 * BLOCK, load(workspace, k + 4 * BLOCK) * factor)
        store(workspace, k + 5 * BLOCK, factor)


@njit(nogil=True)
def _pre_order(block, tips, children, decay, spread, is_scaled, workspace, sites, weighted_ratio):
    """Sums of weight SU SL / f of all branches, from messages in `workspace` and weight / f in `sites`."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    lanes = VECTOR_BYTES // workspace.itemsize
    for i in range(num_internal - 1, -1, -1):
        first, second = np.intp(children[i, 0]), np.intp(children[i, 1])
        e_first, q_first = broadcast(decay, first), broadcast(spread, first)
        e_second, q_second = broadcast(decay, second), broadcast(spread, second)
        at = i * (NODE_ROWS * BLOCK)
        at_first = (first - num_taxa) * (NODE_ROWS * BLOCK)
        at_second = (second - num_taxa) * (NODE_ROWS * BLOCK)
        ratio_first, ratio_second, ratio_last = zeros(workspace), zeros(workspace), zeros(workspace)
        if is_scaled[i]:
            _rescale_outer(workspace, at)
        for k in range(0, BLOCK, lanes):
            outer = _rows(workspace, at + k)
            a = _message(first, k, block, num_taxa, tips, decay, spread, workspace)
            b = _message(second, k, block, num_taxa, tips, decay, spread, workspace)
            weight = load(sites, k)
            if i == num_internal - 1:
                last_total = load(
                    tips, (block * num_taxa + num_taxa - 1) * (TIP_ROWS * BLOCK) + 4 * BLOCK + k
                )
                ratio_last = ratio_last + _sum(_product(a, b)) * last_total * weight
            u = _product(outer, b)
            total = _sum(u)
            ratio_first = ratio_first + total * a[4] * weight
            if first >= num_taxa:
                _carry(e_first, q_first, u, total, workspace, at_first + k)
            u = _product(outer, a)
            total = _sum(u)
            ratio_second = ratio_second + total * b[4] * weight
            if second >= num_taxa:
                _carry(e_second, q_second, u, total, workspace, at_second + k)
        weighted_ratio[first] = horizontal_sum(ratio_first)
        weighted_ratio[second] = horizontal_sum(ratio_second)
        if i == num_internal - 1:
            weighted_ratio[num_taxa - 1] = horizontal_sum(ratio_last)


@njit(forceinline=True)
def _rows(workspace, at):
    return (
        load(workspace, at),
        load(workspace, at + BLOCK),
        load(workspace, at + 2 * BLOCK),
        load(workspace, at + 3 * BLOCK),
    )


@njit(forceinline=True)
def _rescale_outer(workspace, at):
    """Multiply a node's outer message by the factor that its message was multiplied by."""
    for k in range(at, at + BLOCK, VECTOR_BYTES // workspace.itemsize):
        factor = load(workspace, k + 5 * BLOCK)
        d0, d1, d2, d3 = _rows(workspace, k)
        store(workspace, k, d0 * factor)
        store(workspace, k + BLOCK, d1 * factor)
        store(workspace, k + 2 * BLOCK, d2 * factor)
        store(workspace, k + 3 * BLOCK, d3 * factor)
