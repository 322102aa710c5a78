# mypy: disable-error-code="no-untyped-def"
"""Compiled kernel of the likelihood under any reversible model with rate categories, and its gradients.

Notation, for category c (of weight w_c), the branch above node v and its transition matrix P:

- L[x], the partial of v: probability of the data below v, given state x there;
- m[x] = sum_y P[x, y] L[y], the message of v;
- D[x], the outer partial of a node: derivative of the total log-likelihood with respect to its L[x];
- U[x], the derivative with respect to the message's m[x].

Likelihood of a pattern: ``f = sum_c w_c sum_x frequency[x] L_top[x] m_last[x]``, with ``last`` the last
leaf. Post-order: L of a node is the product of its children's messages. Pre-order: D of the top node is
``(weight / f) w_c frequency[x] m_last[x]``; U of a child is D of its parent times its sibling's message;
and D of the child is ``sum_x U[x] P[x, y]``.

The derivative with respect to the transition matrix of a branch is ``G[x, y] = sum_patterns U[x] L[y]``:
with it comes the derivative with respect to whatever P depends on; here the branch length, ``sum_cxy G_c[x,
y] dP_c[x, y]/dt``.

A node's U and then its D take the place of its message in memory. Blocks and scaling are as in
`_jc_kernel`; a pattern has one scaling factor for all categories, and it is the partial that is scaled.
"""

import numpy as np
from numba import njit

from vbpi_mix.likelihood._board import GRADIENT, HELP, finish, next_piece, post
from vbpi_mix.likelihood._scaling import choose_scaled
from vbpi_mix.likelihood._simd import (
    broadcast,
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

BLOCK = 32
"""Patterns in a block; a multiple of the lanes of a vector of any type."""
TIP_ROWS = 5
"""Rows of a leaf's data in a block; the first four are its partials."""
NODE_ROWS = 8
"""Rows of a node's workspace in a block and category: four messages (then U, then D), four partials."""
SITE_ROWS = 2
"""Rows of the block's own workspace: site likelihoods (then weight over likelihood), exponents."""


@njit(cache=True, nogil=True)
def plan(
    children,
    branch_lengths,
    smallest_exponent,
    values,
    right,
    left,
    rates,
    transitions,
    derivatives,
    is_scaled,
    log_range,
    high,
    spectrum,
):
    """Transition matrices, their derivatives, and the nodes at which partials need scaling.

    The bounds of `choose_scaled` are those of the category of the highest rate.

    Args:
        children: Topologies [tree, internal, 2].
        branch_lengths: Branch lengths [tree, edge].
        smallest_exponent: See `choose_scaled`.
        values: Eigenvalues of the rate matrix [4].
        right: Its right eigenvectors, as columns [4, 4].
        left: Their inverse [4, 4].
        rates: Rates of the categories [category].
        transitions: Filled with P(t) [tree, edge, category, 4, 4].
        derivatives: Filled with dP(t)/dt, likewise.
        is_scaled: Filled with True for the internal nodes to scale [tree, internal].
        log_range: Workspace [2, tree, edge].
        high: Workspace [node].
        spectrum: Workspace [2, 4].

    Returns:
        Of `choose_scaled`.
    """
    log_most, slack = log_range[0], log_range[1]
    fastest = np.argmax(rates)
    for tree in range(branch_lengths.shape[0]):
        for edge in range(branch_lengths.shape[1]):
            for category in range(rates.shape[0]):
                most, least, largest = _fill_transition(
                    branch_lengths[tree, edge],
                    rates[category],
                    values,
                    right,
                    left,
                    transitions[tree, edge, category],
                    derivatives[tree, edge, category],
                    spectrum,
                )
                if category == fastest:
                    log_most[tree, edge] = np.log2(most)
                    slack[tree, edge] = np.log2(least) - np.log2(largest)
    return choose_scaled(children, branch_lengths, log_most, slack, smallest_exponent, high, is_scaled)


@njit(cache=True, nogil=True)
def _fill_transition(length, rate, values, right, left, transition, derivative, spectrum):
    """Fill P and dP/dt; returns P's smallest diagonal entry, smallest entry and largest entry."""
    for k in range(4):
        spectrum[0, k] = np.expm1(values[k] * rate * length)
        spectrum[1, k] = values[k] * rate * (1.0 + spectrum[0, k])
    most, least, largest = 1.0, 1.0, 0.0
    for x in range(4):
        for y in range(4):
            probability = 1.0 if x == y else 0.0
            slope = 0.0
            for k in range(4):
                product = right[x, k] * left[k, y]
                probability += product * spectrum[0, k]
                slope += product * spectrum[1, k]
            probability = max(probability, 0.0)
            transition[x, y] = probability
            derivative[x, y] = slope
            least = min(least, probability)
            largest = max(largest, probability)
            if x == y:
                most = min(most, probability)
    return most, least, largest


@njit(cache=True, nogil=True)
def accumulate(
    board,
    generation,
    mode,
    tips,
    weights,
    children,
    root_weights,
    transitions,
    derivatives,
    is_scaled,
    workspace,
    factors,
    sites,
    log_likelihood,
    gradient,
    cotangents,
    has_cotangents,
):
    """What the patterns of each of some blocks contribute to every tree.

    Args:
        board: Where pieces of work, one tree in one block each, are taken from; see `_board`.
        generation: Of the arrays below.
        mode: `VALUE` or `GRADIENT` to post a job and work on it; `HELP` to help with jobs until they cease.
        tips: Leaf partials and their sums [block, taxon, TIP_ROWS, BLOCK].
        weights: Pattern weights [block, BLOCK]; zero for padding.
        children: Topologies [tree, internal, 2].
        root_weights: Weight of the category times frequency of the state [category, 4].
        transitions: P of every branch [tree, edge, category, 4, 4].
        derivatives: dP/dt of every branch [tree, edge, category, 4, 4].
        is_scaled: Of `plan` [tree, internal].
        workspace: Any content [node, category, NODE_ROWS, BLOCK].
        factors: Any content [internal, BLOCK].
        sites: Any content [SITE_ROWS, BLOCK].
        log_likelihood: Filled with the sums of weight log f [block, tree].
        gradient: Filled, for `GRADIENT`, with the derivatives by branch lengths [block, tree, edge].
        cotangents: Added to where wanted: G of every branch [tree, edge, category, 4, 4]; else of one tree.
        has_cotangents: Whether to add to `cotangents`.
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
        sites[:] = 0.0
        _post_order(
            block,
            tips,
            children[tree],
            root_weights,
            transitions[tree],
            is_scaled[tree],
            workspace,
            factors,
            sites,
        )
        log_likelihood[block, tree] = add_log_likelihood(block * BLOCK, weights, sites, BLOCK)
        if job == GRADIENT:
            _pre_order(
                block,
                tips,
                children[tree],
                root_weights,
                transitions[tree],
                derivatives[tree],
                is_scaled[tree],
                workspace,
                factors,
                sites,
                gradient[block, tree],
                cotangents[tree if has_cotangents else 0],
                has_cotangents,
            )
        finish(board)


@njit(cache=True, nogil=True)
def collect(block_values, block_gradients, value, gradient):
    """Add up the blocks, in their order.

    Args:
        block_values: Log-likelihoods of `accumulate` [block, tree].
        block_gradients: Derivatives of `accumulate` [block, tree, edge].
        value: Filled with log-likelihoods [tree].
        gradient: Filled with derivatives [tree, edge]; of no tree where only the value is wanted.
    """
    value[:] = 0.0
    gradient[:] = 0.0
    for block in range(block_values.shape[0]):
        value += block_values[block]
        for tree in range(gradient.shape[0]):
            gradient[tree] += block_gradients[block, tree]
    for tree in range(gradient.shape[0]):
        if value[tree] == -np.inf:
            gradient[tree] = 0.0


@njit(forceinline=True)
def _rows(array, at):
    """Four rows of an array, as vectors of the patterns from `at` on."""
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
def _scaled(x, factor):
    return (x[0] * factor, x[1] * factor, x[2] * factor, x[3] * factor)


@njit(forceinline=True)
def _weighted_sum(matrix, at, step, x):
    """``sum_y matrix[at + step y] x[y]``: with step 1 along a row of a matrix, with step 4 down a column."""
    return (broadcast(matrix, at) * x[0] + broadcast(matrix, at + step) * x[1]) + (
        broadcast(matrix, at + 2 * step) * x[2] + broadcast(matrix, at + 3 * step) * x[3]
    )


@njit(nogil=True)
def _send(node, from_array, from_at, from_stride, transitions, workspace):
    """Messages of a node in every category, from its partials in an array."""
    num_categories = transitions.shape[1]
    for category in range(num_categories):
        matrix = (node * num_categories + category) * 16
        to = (node * num_categories + category) * (NODE_ROWS * BLOCK)
        start = from_at + category * from_stride
        for k in range(0, BLOCK, num_lanes(workspace)):
            x = _rows(from_array, start + k)
            store(workspace, to + k, _weighted_sum(transitions, matrix, 1, x))
            store(workspace, to + k + BLOCK, _weighted_sum(transitions, matrix + 4, 1, x))
            store(workspace, to + k + 2 * BLOCK, _weighted_sum(transitions, matrix + 8, 1, x))
            store(workspace, to + k + 3 * BLOCK, _weighted_sum(transitions, matrix + 12, 1, x))


@njit(nogil=True)
def _post_order(block, tips, children, root_weights, transitions, is_scaled, workspace, factors, sites):
    """Messages and partials of all nodes; site likelihoods and exponents into `sites`."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    num_categories = transitions.shape[1]
    slot = NODE_ROWS * BLOCK
    lanes = num_lanes(workspace)
    for leaf in range(num_taxa):
        _send(leaf, tips, (block * num_taxa + leaf) * (TIP_ROWS * BLOCK), 0, transitions, workspace)
    for i in range(num_internal):
        first, second = np.intp(children[i, 0]), np.intp(children[i, 1])
        node = num_taxa + i
        partials = node * num_categories * slot + 4 * BLOCK
        for category in range(num_categories):
            at_first = (first * num_categories + category) * slot
            at_second = (second * num_categories + category) * slot
            for k in range(0, BLOCK, lanes):
                partial = _product(_rows(workspace, at_first + k), _rows(workspace, at_second + k))
                _store_rows(workspace, partials + category * slot + k, partial)
        if is_scaled[i]:
            _scale(workspace, partials, num_categories, factors, i * BLOCK, sites)
        if i < num_internal - 1:
            _send(node, workspace, partials, slot, transitions, workspace)
    top, last = 2 * num_taxa - 3, num_taxa - 1
    for category in range(num_categories):
        at_top = (top * num_categories + category) * slot + 4 * BLOCK
        at_last = (last * num_categories + category) * slot
        for k in range(0, BLOCK, lanes):
            x = _product(_rows(workspace, at_top + k), _rows(workspace, at_last + k))
            store(sites, k, load(sites, k) + _weighted_sum(root_weights, category * 4, 1, x))


@njit(nogil=True)
def _scale(workspace, partials, num_categories, factors, factor_at, sites):
    """Bring the largest partial of a node into [1/2, 1); keep the factor, add its exponent to the sites'."""
    for k in range(0, BLOCK, num_lanes(workspace)):
        largest = zeros(workspace)
        for category in range(num_categories):
            x = _rows(workspace, partials + category * (NODE_ROWS * BLOCK) + k)
            largest = maximum(largest, maximum(maximum(x[0], x[1]), maximum(x[2], x[3])))
        factor = scale_to_unit(largest)
        store(factors, factor_at + k, factor)
        store(sites, BLOCK + k, load(sites, BLOCK + k) + exponent_to_unit(largest))
        for category in range(num_categories):
            at = partials + category * (NODE_ROWS * BLOCK) + k
            _store_rows(workspace, at, _scaled(_rows(workspace, at), factor))


@njit(nogil=True)
def _pre_order(
    block,
    tips,
    children,
    root_weights,
    transitions,
    derivatives,
    is_scaled,
    workspace,
    factors,
    sites,
    gradient,
    cotangents,
    has_cotangents,
):
    """Derivatives by all branch lengths and, if wanted, transition matrices; weight / f is in `sites`."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    num_categories = transitions.shape[1]
    slot = NODE_ROWS * BLOCK
    lanes = num_lanes(workspace)
    top, last = 2 * num_taxa - 3, num_taxa - 1
    for category in range(num_categories):
        at_top = (top * num_categories + category) * slot
        at_last = (last * num_categories + category) * slot
        for k in range(0, BLOCK, lanes):
            weight = load(sites, k)
            w = (
                weight * broadcast(root_weights, category * 4),
                weight * broadcast(root_weights, category * 4 + 1),
                weight * broadcast(root_weights, category * 4 + 2),
                weight * broadcast(root_weights, category * 4 + 3),
            )
            _store_rows(workspace, at_top + k, _product(w, _rows(workspace, at_last + k)))
            _store_rows(workspace, at_last + k, _product(w, _rows(workspace, at_top + 4 * BLOCK + k)))
    gradient[last] = _receive(
        last, block, num_taxa, tips, transitions, derivatives, workspace, cotangents, has_cotangents
    )
    for i in range(num_internal - 1, -1, -1):
        first, second = np.intp(children[i, 0]), np.intp(children[i, 1])
        node = num_taxa + i
        for category in range(num_categories):
            at = (node * num_categories + category) * slot
            at_first = (first * num_categories + category) * slot
            at_second = (second * num_categories + category) * slot
            for k in range(0, BLOCK, lanes):
                outer = _rows(workspace, at + k)
                if is_scaled[i]:
                    outer = _scaled(outer, load(factors, i * BLOCK + k))
                a, b = _rows(workspace, at_first + k), _rows(workspace, at_second + k)
                _store_rows(workspace, at_first + k, _product(outer, b))
                _store_rows(workspace, at_second + k, _product(outer, a))
        for child in (first, second):
            gradient[child] = _receive(
                child, block, num_taxa, tips, transitions, derivatives, workspace, cotangents, has_cotangents
            )


@njit(nogil=True)
def _receive(node, block, num_taxa, tips, transitions, derivatives, workspace, cotangents, has_cotangents):
    """Derivative by a branch's length, from U and L of its node; an internal node's D replaces its U."""
    num_categories = transitions.shape[1]
    slope = 0.0
    for category in range(num_categories):
        edge_category = node * num_categories + category
        at = edge_category * (NODE_ROWS * BLOCK)
        if node < num_taxa:
            leaf_at = (block * num_taxa + node) * (TIP_ROWS * BLOCK)
            slope += _slope(workspace, at, tips, leaf_at, derivatives, edge_category * 16)
            if has_cotangents:
                _add_cotangent(workspace, at, tips, leaf_at, node, category, cotangents)
            continue
        slope += _slope(workspace, at, workspace, at + 4 * BLOCK, derivatives, edge_category * 16)
        if has_cotangents:
            _add_cotangent(workspace, at, workspace, at + 4 * BLOCK, node, category, cotangents)
        matrix = edge_category * 16
        for k in range(at, at + BLOCK, num_lanes(workspace)):
            u = _rows(workspace, k)
            store(workspace, k, _weighted_sum(transitions, matrix, 4, u))
            store(workspace, k + BLOCK, _weighted_sum(transitions, matrix + 1, 4, u))
            store(workspace, k + 2 * BLOCK, _weighted_sum(transitions, matrix + 2, 4, u))
            store(workspace, k + 3 * BLOCK, _weighted_sum(transitions, matrix + 3, 4, u))
    return slope


@njit(forceinline=True)
def _slope(outer, outer_at, partials, partials_at, derivatives, matrix):
    """``sum_patterns sum_x U[x] sum_y dP[x, y]/dt L[y]`` of one category: the sum of G dP/dt without G."""
    total = zeros(outer)
    for k in range(0, BLOCK, num_lanes(outer)):
        u, x = _rows(outer, outer_at + k), _rows(partials, partials_at + k)
        first = u[0] * _weighted_sum(derivatives, matrix, 1, x) + u[1] * _weighted_sum(
            derivatives, matrix + 4, 1, x
        )
        last = u[2] * _weighted_sum(derivatives, matrix + 8, 1, x) + u[3] * _weighted_sum(
            derivatives, matrix + 12, 1, x
        )
        total = total + (first + last)
    return horizontal_sum(total)


@njit(nogil=True)
def _add_cotangent(outer, outer_at, partials, partials_at, node, category, cotangents):
    """Add ``G[x, y] = sum_patterns U[x] L[y]`` of one category to the cotangents."""
    for x in range(4):
        v0, v1, v2, v3 = zeros(outer), zeros(outer), zeros(outer), zeros(outer)
        for k in range(0, BLOCK, num_lanes(outer)):
            u = load(outer, outer_at + x * BLOCK + k)
            partial = _rows(partials, partials_at + k)
            v0 = v0 + u * partial[0]
            v1 = v1 + u * partial[1]
            v2 = v2 + u * partial[2]
            v3 = v3 + u * partial[3]
        cotangents[node, category, x, 0] += horizontal_sum(v0)
        cotangents[node, category, x, 1] += horizontal_sum(v1)
        cotangents[node, category, x, 2] += horizontal_sum(v2)
        cotangents[node, category, x, 3] += horizontal_sum(v3)
