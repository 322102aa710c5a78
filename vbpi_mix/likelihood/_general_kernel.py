# mypy: disable-error-code="no-untyped-def, call-arg"
"""Compiled kernel of the likelihood under any reversible model with rate categories, and its gradients.

Notation, for category c (of weight w_c), the branch above node v and its transition matrix P:

- L[x], the partial of v: probability of the data below v, given state x there;
- m[x] = sum_y P[x, y] L[y], the message of v;
- D[x], the outer partial of a node: derivative of the total log-likelihood with respect to its L[x];
- U[x], the derivative with respect to the message's m[x].

Likelihood of a pattern: ``f = sum_c w_c sum_x frequency[x] L_top[x] m_last[x]``, with ``last`` the last
leaf; and where there are invariable sites, the probability of them times the frequencies of the states that
all leaves allow. Post-order: L of a node is the product of its children's messages. Pre-order: D of the top
node is ``(weight / f) w_c frequency[x] m_last[x]``; U of a child is D of its parent times its sibling's
message; and D of the child is ``sum_x U[x] P[x, y]``.

The derivative with respect to the transition matrix of a branch is ``G[x, y] = sum_patterns U[x] L[y]``: with
it comes the derivative with respect to whatever P depends on (see `_model_kernel`).

In memory the four states of a pattern are neighbours, and a vector holds the states of one pattern or two.
So the rows or columns of P stay in registers, and G needs no sums across a vector. A node's U and then its D
take the place of its message. Patterns go in blocks that stay in cache, and a piece of work is one tree in
``GROUP`` blocks, over which G is gathered. A pattern has one scaling factor for all categories, and it is the
partial that is scaled (see `_jc_kernel`).
"""

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from vbpi_mix.likelihood._board import GRADIENT, HELP, finish, next_piece, post
from vbpi_mix.likelihood._model_kernel import add_rate_matrix, add_to_derivatives
from vbpi_mix.likelihood._simd import (
    Vector,
    horizontal_sum,
    load,
    num_lanes,
    spread,
    store,
    to_float64,
    zeros,
)
from vbpi_mix.likelihood._sites import add_log_likelihood

BLOCK = 32
"""Patterns in a block; a multiple of the lanes of a vector of any type."""
GROUP = 4
"""Blocks in a piece of work."""
ROW = 4 * BLOCK
"""Numbers that a block has for a node and category: four states a pattern."""
SITE_ROWS = 4
"""Rows of a block's own workspace: site likelihoods (then weight over likelihood), exponents, what of the
likelihoods is that of invariable sites, and whether what evolves counts beside it (1 or 0)."""
_NEGLIGIBLE = 100
"""Exponent of two by which a number must exceed another for that to count for nothing."""


@njit(cache=True, nogil=True)
def accumulate(
    board,
    generation,
    mode,
    tips,
    common,
    weights,
    children,
    branch_lengths,
    frequencies,
    rates,
    invariable,
    right,
    left,
    transitions,
    slopes,
    divided,
    root_weights,
    is_scaled,
    messages,
    partials,
    factors,
    ratios,
    sites,
    cotangents,
    work,
    log_likelihood,
    gradient,
    spectral,
    d_rates,
    d_roots,
):
    """What the patterns of each of some groups of blocks contribute to every tree.

    Args:
        board: Where pieces of work, one tree in one group each, are taken from; see `_board`.
        generation: Of the arrays below.
        mode: `VALUE` or `GRADIENT` to post a job and work on it; `HELP` to help with jobs until they cease.
        tips: Leaf partials [block, taxon, BLOCK, 4].
        common: One for the states that all leaves allow, else zero [block, BLOCK, 4] float64.
        weights: Pattern weights [block, BLOCK] float64; zero for padding.
        children: Topologies [tree, internal, 2].
        branch_lengths: Branch lengths [tree, edge].
        frequencies: See `_model_kernel.plan`; so are the others down to `is_scaled`.
        rates: Rates of the categories [tree, category].
        invariable: Probabilities of invariable sites [tree].
        right: Right eigenvectors [tree, 4, 4].
        left: Their inverses [tree, 4, 4].
        transitions: Of every branch [tree, edge, category, 2, 4, lane].
        slopes: Of every branch [tree, edge, category, 4].
        divided: Of every branch [tree, edge, category, 4, 4].
        root_weights: Of every category [tree, category, lane].
        is_scaled: Nodes to scale [tree, internal].
        messages: Any content [node, category, BLOCK, 4].
        partials: Any content [internal, category, BLOCK, 4].
        factors: Any content [internal, BLOCK].
        ratios: Any content [BLOCK, 4].
        sites: Any content [SITE_ROWS, BLOCK] float64.
        cotangents: Any content [edge, category, 4, 4] float64.
        work: Any content [2 or more, 16] float64.
        log_likelihood: Filled with the sums of weight log f [group, tree].
        gradient: Filled, for `GRADIENT`, with the derivatives by branch lengths [group, tree, edge]; and:
        spectral: See `_model_kernel.add_to_derivatives` [group, tree, 4, 4].
        d_rates: Derivatives by rates [group, tree, category].
        d_roots: Derivatives by root weights; the last row, by those of invariable sites [group, tree,
            category + 1, 4].
    """
    num_trees = children.shape[0]
    num_blocks = tips.shape[0]
    pieces = log_likelihood.shape[0] * num_trees
    if mode != HELP:
        post(board, pieces, generation, mode)
    while True:
        piece, job = next_piece(board, pieces, generation, mode == HELP)
        if piece < 0:
            return
        group, tree = piece // num_trees, piece % num_trees
        total = 0.0
        if job == GRADIENT:
            cotangents[:] = 0.0
            d_roots[group, tree] = 0.0
        for block in range(group * GROUP, min((group + 1) * GROUP, num_blocks)):
            sites[:3] = 0.0
            sites[3] = 1.0
            _post_order(
                block, tips, children[tree], root_weights[tree], transitions[tree], is_scaled[tree],
                messages, partials, factors, sites,
            )  # fmt: skip
            if invariable[tree] > 0.0:
                _add_invariable(invariable[tree], frequencies[tree], common[block], sites)
            total += add_log_likelihood(block * BLOCK, weights, sites, BLOCK)
            if job == GRADIENT:
                by_root = d_roots[group, tree]
                if invariable[tree] > 0.0:
                    _by_invariable(frequencies[tree], invariable[tree], common[block], sites, by_root[-1])
                _pre_order(
                    block, tips, children[tree], root_weights[tree], transitions[tree], is_scaled[tree],
                    messages, partials, factors, ratios, sites, cotangents, by_root,
                )  # fmt: skip
        log_likelihood[group, tree] = total
        if job == GRADIENT:
            add_to_derivatives(
                branch_lengths[tree], rates[tree], right[tree], left[tree], slopes[tree], divided[tree],
                cotangents, work, gradient[group, tree], spectral[group, tree], d_rates[group, tree],
            )  # fmt: skip
        finish(board)


@njit(cache=True, nogil=True)
def collect(
    frequencies,
    exchangeabilities,
    weights,
    invariable,
    right,
    left,
    log_likelihood,
    gradient,
    spectral,
    d_rates,
    d_roots,
    work,
    value,
    by_length,
    by_frequency,
    by_exchangeability,
    by_rate,
    by_weight,
    by_invariable,
):
    """Add up the groups, in their order, and finish the derivatives by parameters.

    Args:
        frequencies: Of the states [tree, 4].
        exchangeabilities: [tree, 6].
        weights: Probabilities of the categories [tree, category].
        invariable: Probabilities of invariable sites [tree].
        right: Right eigenvectors [tree, 4, 4].
        left: Their inverses [tree, 4, 4].
        log_likelihood: Of `accumulate` [group, tree].
        gradient: Of `accumulate` [group, tree, edge].
        spectral: Of `accumulate` [group, tree, 4, 4]; added up in place.
        d_rates: Of `accumulate` [group, tree, category].
        d_roots: Of `accumulate` [group, tree, category + 1, 4]; added up in place.
        work: Workspace [2 or more, 16].
        value: Filled with log-likelihoods [tree].
        by_length: Filled with derivatives by branch lengths [tree, edge]; of no tree where only the value is
            wanted. So are the others.
        by_frequency: [tree, 4].
        by_exchangeability: [tree, 6].
        by_rate: [tree, category].
        by_weight: [tree, category].
        by_invariable: [tree].
    """
    value[:] = 0.0
    for group in range(log_likelihood.shape[0]):
        value += log_likelihood[group]
    for tree in range(by_length.shape[0]):
        by_length[tree] = 0.0
        by_frequency[tree] = 0.0
        by_exchangeability[tree] = 0.0
        by_rate[tree] = 0.0
        by_weight[tree] = 0.0
        by_invariable[tree] = 0.0
        if value[tree] == -np.inf:
            continue
        for group in range(log_likelihood.shape[0]):
            by_length[tree] += gradient[group, tree]
            by_rate[tree] += d_rates[group, tree]
            if group > 0:
                spectral[0, tree] += spectral[group, tree]
                d_roots[0, tree] += d_roots[group, tree]
        roots = d_roots[0, tree]
        for x in range(4):
            for c in range(weights.shape[1]):
                by_weight[tree, c] += frequencies[tree, x] * roots[c, x]
                by_frequency[tree, x] += weights[tree, c] * roots[c, x]
            by_invariable[tree] += frequencies[tree, x] * roots[-1, x]
            by_frequency[tree, x] += invariable[tree] * roots[-1, x]
        add_rate_matrix(
            frequencies[tree], exchangeabilities[tree], right[tree], left[tree], spectral[0, tree], work,
            by_frequency[tree], by_exchangeability[tree],
        )  # fmt: skip


def _sum_patterns(value: Any) -> Any:
    """Four states in float64; those of two patterns are added."""
    raise NotImplementedError("only compiled code may call this")


@overload(_sum_patterns)
def _typed_sum_patterns(value):
    if not isinstance(value, Vector):
        return None
    if value.element == types.float64:
        return lambda value: value
    return lambda value: to_float64(value, 0) + to_float64(value, 1)


def _add_states(value: Any, sites: Any, pattern: Any) -> Any:
    """Add the sum over states of each pattern of a vector to the entries of `sites` from a pattern on."""
    raise NotImplementedError("only compiled code may call this")


@overload(_add_states)
def _typed_add_states(value, sites, pattern):
    if not isinstance(value, Vector):
        return None

    def wide(value, sites, pattern):
        sites[0, pattern] += horizontal_sum(value)

    def narrow(value, sites, pattern):
        sites[0, pattern] += horizontal_sum(to_float64(value, 0))
        sites[0, pattern + 1] += horizontal_sum(to_float64(value, 1))

    return wide if value.element == types.float64 else narrow


@njit(forceinline=True)
def _matrix(matrices, at):
    """Four rows, or columns, of a matrix."""
    lanes = num_lanes(matrices)
    return (
        load(matrices, at),
        load(matrices, at + lanes),
        load(matrices, at + 2 * lanes),
        load(matrices, at + 3 * lanes),
    )


@njit(forceinline=True)
def _combination(matrix, array, at):
    """Sum of a matrix's rows, or columns, times the four numbers of each pattern of a vector."""
    return (matrix[0] * spread(array, at, 0) + matrix[1] * spread(array, at, 1)) + (
        matrix[2] * spread(array, at, 2) + matrix[3] * spread(array, at, 3)
    )


@njit(forceinline=True)
def _add_outer(total, u, array, at):
    """Add ``u[x] L[y]`` to G, whose columns y are those of `total`."""
    return (
        total[0] + u * spread(array, at, 0),
        total[1] + u * spread(array, at, 1),
        total[2] + u * spread(array, at, 2),
        total[3] + u * spread(array, at, 3),
    )


@njit(forceinline=True)
def _no_outer(array):
    return (zeros(array), zeros(array), zeros(array), zeros(array))


@njit(forceinline=True)
def _add_cotangent(cotangents, at, total):
    store(cotangents, at, load(cotangents, at) + _sum_patterns(total[0]))
    store(cotangents, at + 4, load(cotangents, at + 4) + _sum_patterns(total[1]))
    store(cotangents, at + 8, load(cotangents, at + 8) + _sum_patterns(total[2]))
    store(cotangents, at + 12, load(cotangents, at + 12) + _sum_patterns(total[3]))


@njit(nogil=True)
def _send(array, at, transitions, matrix_at, messages, to):
    """Message of a node in one category, from its partials in an array."""
    columns = _matrix(transitions, matrix_at)
    for k in range(0, ROW, num_lanes(messages)):
        store(messages, to + k, _combination(columns, array, at + k))


@njit(nogil=True)
def _carry_down(transitions, matrix_at, messages, at):
    """D of a node in one category, in the place of its U."""
    rows = _matrix(transitions, matrix_at + 4 * num_lanes(messages))
    for k in range(at, at + ROW, num_lanes(messages)):
        store(messages, k, _combination(rows, messages, k))


@njit(nogil=True)
def _post_order(
    block, tips, children, root_weights, transitions, is_scaled, messages, partials, factors, sites
):
    """Messages and partials of all nodes; site likelihoods and exponents into `sites`."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    num_categories = transitions.shape[1]
    lanes = num_lanes(messages)
    size = 8 * lanes
    for leaf in range(num_taxa):
        for category in range(num_categories):
            edge_category = leaf * num_categories + category
            _send(
                tips, (block * num_taxa + leaf) * ROW, transitions, edge_category * size, messages,
                edge_category * ROW,
            )  # fmt: skip
    for i in range(num_internal):
        first, second = np.intp(children[i, 0]), np.intp(children[i, 1])
        for category in range(num_categories):
            to = (i * num_categories + category) * ROW
            at_first = (first * num_categories + category) * ROW
            at_second = (second * num_categories + category) * ROW
            for k in range(0, ROW, lanes):
                store(partials, to + k, load(messages, at_first + k) * load(messages, at_second + k))
        if is_scaled[i]:
            _scale(partials[i], factors[i], sites)
        if i < num_internal - 1:
            for category in range(num_categories):
                edge_category = (num_taxa + i) * num_categories + category
                _send(
                    partials, (i * num_categories + category) * ROW, transitions, edge_category * size,
                    messages, edge_category * ROW,
                )  # fmt: skip
    for category in range(num_categories):
        at_top = ((num_internal - 1) * num_categories + category) * ROW
        at_last = ((num_taxa - 1) * num_categories + category) * ROW
        weight = load(root_weights, category * lanes)
        for k in range(0, ROW, lanes):
            product = load(partials, at_top + k) * load(messages, at_last + k)
            _add_states(weight * product, sites, k // 4)


@njit(nogil=True)
def _scale(partials, factors, sites):
    """Bring the largest partial of each pattern into [1/2, 1); keep the factor, add its exponent."""
    for pattern in range(BLOCK):
        largest = partials[0, pattern, 0]
        for category in range(partials.shape[0]):
            for x in range(4):
                largest = max(largest, partials[category, pattern, x])
        _, exponent = math.frexp(largest)
        factor = math.ldexp(1.0, -exponent)
        factors[pattern] = factor
        sites[1, pattern] += exponent
        for category in range(partials.shape[0]):
            for x in range(4):
                partials[category, pattern, x] *= factors[pattern]


@njit(nogil=True)
def _add_invariable(invariable, frequencies, common, sites):
    """Add the likelihood of invariable sites to the site likelihoods, where all leaves allow one state."""
    for pattern in range(BLOCK):
        likelihood = 0.0
        for x in range(4):
            likelihood += frequencies[x] * common[pattern, x]
        likelihood *= invariable
        mantissa, exponent = math.frexp(likelihood)
        if mantissa > 0.0:
            shift = exponent - int(sites[1, pattern])
            if shift < _NEGLIGIBLE:
                sites[2, pattern] = math.ldexp(mantissa, shift)
                sites[0, pattern] += sites[2, pattern]
            else:
                sites[0, pattern] = mantissa
                sites[1, pattern] = exponent
                sites[2, pattern] = mantissa
                sites[3, pattern] = 0.0


@njit(nogil=True)
def _by_invariable(frequencies, invariable, common, sites, by_root):
    """Add the derivatives by the root weights of invariable sites; `sites` holds weight / f."""
    for pattern in range(BLOCK):
        if sites[2, pattern] > 0.0:
            likelihood = 0.0
            for x in range(4):
                likelihood += frequencies[x] * common[pattern, x]
            share = sites[0, pattern] * sites[2, pattern] / (invariable * likelihood)
            for x in range(4):
                by_root[x] += share * common[pattern, x]


@njit(nogil=True)
def _pre_order(
    block, tips, children, root_weights, transitions, is_scaled, messages, partials, factors, ratios, sites,
    cotangents, by_root,
):  # fmt: skip
    """G of all branches, and derivatives by root weights; weight / f is in `sites`."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    num_categories = transitions.shape[1]
    lanes = num_lanes(messages)
    for pattern in range(BLOCK):
        for x in range(4):
            ratios[pattern, x] = sites[0, pattern] * sites[3, pattern]
    _start(num_taxa, block, tips, root_weights, messages, partials, ratios, cotangents, by_root)
    for i in range(num_internal - 1, -1, -1):
        node = num_taxa + i
        first, second = np.intp(children[i, 0]), np.intp(children[i, 1])
        if is_scaled[i]:
            _rescale(messages[node], factors[i])
        for category in range(num_categories):
            _descend(node, first, second, category, block, num_taxa, tips, partials, messages, cotangents)
        for child in (first, second):
            if child >= num_taxa:
                for category in range(num_categories):
                    edge_category = child * num_categories + category
                    _carry_down(transitions, edge_category * 8 * lanes, messages, edge_category * ROW)


@njit(nogil=True)
def _rescale(messages, factors):
    """Multiply a node's D by the factors of its partials."""
    for category in range(messages.shape[0]):
        for pattern in range(BLOCK):
            for x in range(4):
                messages[category, pattern, x] *= factors[pattern]


@njit(nogil=True)
def _start(num_taxa, block, tips, root_weights, messages, partials, ratios, cotangents, by_root):
    """D of the top node, G of the last leaf's branch, and derivatives by root weights."""
    num_categories = root_weights.shape[0]
    lanes = num_lanes(messages)
    top, last = num_taxa - 3, num_taxa - 1
    at_tip = (block * num_taxa + last) * ROW
    for category in range(num_categories):
        at_partial = (top * num_categories + category) * ROW
        at_outer = ((num_taxa + top) * num_categories + category) * ROW
        at_last = (last * num_categories + category) * ROW
        root_weight = load(root_weights, category * lanes)
        total, by_weight = _no_outer(messages), zeros(messages)
        for k in range(0, ROW, lanes):
            ratio = load(ratios, k)
            partial = load(partials, at_partial + k)
            outer = ratio * load(messages, at_last + k)
            by_weight = by_weight + partial * outer
            store(messages, at_outer + k, root_weight * outer)
            total = _add_outer(total, ratio * (root_weight * partial), tips, at_tip + k)
        _add_cotangent(cotangents, (last * num_categories + category) * 16, total)
        store(by_root, category * 4, load(by_root, category * 4) + _sum_patterns(by_weight))


@njit(nogil=True)
def _descend(node, first, second, category, block, num_taxa, tips, partials, messages, cotangents):
    """U of a node's children in the place of their messages, and G of their branches; of one category."""
    num_categories = partials.shape[1]
    outer = (node * num_categories + category) * ROW
    a = (first * num_categories + category) * ROW
    b = (second * num_categories + category) * ROW
    to_a = (first * num_categories + category) * 16
    to_b = (second * num_categories + category) * 16
    above = num_taxa * num_categories * ROW
    leaves = block * num_taxa * ROW
    if first < num_taxa:
        leaf_a = leaves + first * ROW
        if second < num_taxa:
            leaf_b = leaves + second * ROW
            _share(outer, a, b, tips, leaf_a, tips, leaf_b, messages, cotangents, to_a, to_b)
        else:
            _share(outer, a, b, tips, leaf_a, partials, b - above, messages, cotangents, to_a, to_b)
    elif second < num_taxa:
        leaf_b = leaves + second * ROW
        _share(outer, a, b, partials, a - above, tips, leaf_b, messages, cotangents, to_a, to_b)
    else:
        _share(outer, a, b, partials, a - above, partials, b - above, messages, cotangents, to_a, to_b)


@njit(nogil=True)
def _share(outer, a, b, array_a, at_a, array_b, at_b, messages, cotangents, to_a, to_b):
    """U of two siblings and G of their branches, from D of their parent, their messages and partials."""
    total_a, total_b = _no_outer(messages), _no_outer(messages)
    for k in range(0, ROW, num_lanes(messages)):
        d = load(messages, outer + k)
        u_a, u_b = d * load(messages, b + k), d * load(messages, a + k)
        total_a = _add_outer(total_a, u_a, array_a, at_a + k)
        total_b = _add_outer(total_b, u_b, array_b, at_b + k)
        store(messages, a + k, u_a)
        store(messages, b + k, u_b)
    _add_cotangent(cotangents, to_a, total_a)
    _add_cotangent(cotangents, to_b, total_b)
