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

The derivative with respect to the transition matrix of a branch is ``sum_patterns U[x] L[y]``: with it comes
the derivative with respect to whatever P depends on (see `_model_kernel`). As the rows of P sum to one
whatever the parameters, a number may be subtracted from all L[y] of a pattern:
``G[x, y] = sum_patterns U[x] (L[y] - L[3])`` serves as well, and vanishes for y = 3.

A *cell* is one pattern in one category. The cells of a pattern are neighbours, and their number, the *width*,
is a power of two: one, or else four or more, filled up with categories of weight zero. A block has ``CELLS``
cells whatever the width, and a node has four rows of them, one for each state. A vector holds neighbouring
cells, so that one vector of an entry of P serves all patterns; where the width is above the number of lanes,
several vectors take turns, and their number is that of the *phases*. The message of a leaf is looked up by
its code, a set of states, in a table of sums of P's columns. A node's D takes the place of its message.

Blocks stay in cache, and a piece of work is one tree in some blocks, over which G is gathered. A pattern has
one scaling factor for all categories, and it is the partial that is scaled (see `_jc_kernel`).
"""

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from vbpi_mix.likelihood._board import GRADIENT, HELP, finish, next_piece, post
from vbpi_mix.likelihood._model_kernel import CODES, add_rate_matrix, add_to_derivatives
from vbpi_mix.likelihood._simd import (
    Vector,
    constant,
    exponent_to_unit,
    fours,
    horizontal_sum,
    load,
    maximum,
    num_lanes,
    scale_to_unit,
    store,
    store_four,
    to_float64,
    transpose_fours,
    zeros,
)
from vbpi_mix.likelihood._sites import add_log_likelihood

CELLS = 128
"""Cells in a block; a multiple of twice the lanes of a vector of any type, and of twice any width."""
ROW = CELLS + 16
"""Distance of rows of cells in memory: no power of two, as those get in the way of each other in caches."""
NODE = 4 * ROW
"""Numbers that a block has for a node: a row of cells for every state."""
GATHER = 16
"""Blocks over which G is gathered before it is added up in float64."""
SITE_ROWS = 4
"""Rows of a block's own workspace: site likelihoods (then weight over likelihood), exponents, what of the
likelihoods is that of invariable sites, and whether what evolves counts beside it (1 or 0)."""
SPARE_ROWS = 2
"""Rows of cells beside those of factors: exponents, and one for anything."""
SPARE_NODES = 4
"""Nodes beside those of messages and partials: U of a node's two children, root weights, a leaf's partial."""
_NEGLIGIBLE = 100
"""Exponent of two by which a number must exceed another for that to count for nothing."""


@njit(cache=True, nogil=True)
def accumulate(
    board,
    generation,
    mode,
    blocks_of_piece,
    cells_of_last,
    codes,
    leaf_partials,
    common,
    weights,
    children,
    frequencies,
    invariable,
    transitions,
    leaf_messages,
    root_weights,
    is_scaled,
    nodes,
    rows,
    sites,
    gathered,
    log_likelihood,
    cotangents,
    by_root,
    by_constant,
):
    """What the patterns of each of some groups of blocks contribute to every tree.

    Args:
        board: Where pieces of work, one tree in one group each, are taken from; see `_board`.
        generation: Of the arrays below.
        mode: `VALUE` or `GRADIENT` to post a job and work on it; `HELP` to help with jobs until they cease.
        blocks_of_piece: Blocks in a group.
        cells_of_last: Cells of the last block that are in use: those of its patterns, and so many more that
            vectors are full in pairs.
        codes: Sets of states of the leaves [block, taxon, pattern] uint8.
        leaf_partials: Partial of every code, the same for all categories [1, CODES, 4, width].
        common: One for the states that all leaves allow, else zero [block, pattern, 4] float64.
        weights: Pattern weights [block, site] float64; zero for padding.
        children: Topologies [tree, internal, 2].
        frequencies: See `_model_kernel.plan`; so are the others down to `is_scaled`.
        invariable: Probabilities of invariable sites [tree].
        transitions: Of the branches of internal nodes [tree, internal, phase, 16, lane].
        leaf_messages: Of every leaf and code [tree, taxon, CODES, 4, width].
        root_weights: Of every state [tree, phase, 4, lane].
        is_scaled: Nodes to scale [tree, internal].
        nodes: Any content: messages and partials of internal nodes, messages of leaves, spare nodes
            [2 internal + taxon + SPARE_NODES, 4, ROW].
        rows: Any content: factors, spare rows [internal + SPARE_ROWS, CELLS].
        sites: Any content [SITE_ROWS, site] float64; the patterns of a block are the first of the sites.
        gathered: Any content [edge + 1, phase, 12, lane].
        log_likelihood: Filled with the sums of weight log f [group, tree].
        cotangents: Filled, for `GRADIENT`, with ``G[x, y]`` in row 3 x + y of 13
            [group, tree, 13, cell of the edges]; and:
        by_root: Derivatives by weight times frequency [group, tree, 4, width].
        by_constant: Derivatives by the root weights of invariable sites [group, tree, 4].
    """
    num_trees = children.shape[0]
    num_blocks = codes.shape[0]
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
            gathered[:] = 0
            cotangents[group, tree] = 0.0
            by_root[group, tree] = 0.0
            by_constant[group, tree] = 0.0
        sites[0] = 1.0
        sites[1:3] = 0.0
        sites[3] = 1.0
        start = group * blocks_of_piece
        stop = min(start + blocks_of_piece, num_blocks)
        # Outside the loop, as a part of an array costs some reference counts.
        topology, matrices, messages = children[tree], transitions[tree], leaf_messages[tree]
        roots, scaled, states = root_weights[tree], is_scaled[tree], frequencies[tree]
        for block in range(start, stop):
            cells = CELLS if block < num_blocks - 1 else cells_of_last
            _post_order(
                cells, codes, block, topology, roots, matrices, messages, scaled, job == GRADIENT, nodes,
                rows, sites,
            )  # fmt: skip
            if invariable[tree] > 0.0:
                _add_invariable(invariable[tree], states, common[block], sites)
            total += add_log_likelihood(block * sites.shape[1], weights, sites, sites.shape[1])
            if job == GRADIENT:
                if invariable[tree] > 0.0:
                    _by_invariable(states, invariable[tree], common[block], sites, by_constant[group, tree])
                _pre_order(
                    cells, codes, block, leaf_partials, topology, roots, matrices, scaled, nodes, rows, sites,
                    gathered,
                )  # fmt: skip
                if block == stop - 1 or (block - start) % GATHER == GATHER - 1:
                    _add_gathered(gathered, cotangents[group, tree], by_root[group, tree])
        log_likelihood[group, tree] = total
        finish(board)


@njit(cache=True, nogil=True)
def collect(
    branch_lengths,
    frequencies,
    exchangeabilities,
    rates,
    weights,
    invariable,
    values,
    right,
    left,
    change,
    log_likelihood,
    cotangents,
    by_root,
    by_constant,
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
        branch_lengths: Branch lengths [tree, edge].
        frequencies: Of the states [tree, 4].
        exchangeabilities: [tree, 6].
        rates: Rates of the categories [tree, category].
        weights: Probabilities of the categories [tree, category].
        invariable: Probabilities of invariable sites [tree].
        values: Of `_model_kernel.plan`; so are the others down to `change` [tree, 4].
        right: Right eigenvectors [tree, 4, 4].
        left: Their inverses [tree, 4, 4].
        change: What exponentials exceed one by, and their lengths [tree, 4, cell of the edges].
        log_likelihood: Of `accumulate` [group, tree].
        cotangents: Of `accumulate` [group, tree, 13, cell of the edges]; added up in place.
        by_root: Of `accumulate` [group, tree, 4, width]; added up in place.
        by_constant: Of `accumulate` [group, tree, 4]; added up in place.
        work: Workspace [WORK].
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
        for group in range(1, log_likelihood.shape[0]):
            cotangents[0, tree] += cotangents[group, tree]
            by_root[0, tree] += by_root[group, tree]
            by_constant[0, tree] += by_constant[group, tree]
        for x in range(4):
            for c in range(weights.shape[1]):
                by_weight[tree, c] += frequencies[tree, x] * by_root[0, tree, x, c]
                by_frequency[tree, x] += weights[tree, c] * by_root[0, tree, x, c]
            by_invariable[tree] += frequencies[tree, x] * by_constant[0, tree, x]
            by_frequency[tree, x] += invariable[tree] * by_constant[0, tree, x]
        add_to_derivatives(
            branch_lengths[tree], rates[tree], values[tree], right[tree], left[tree], change[tree],
            cotangents[0, tree], by_root.shape[3], work, by_length[tree], by_rate[tree],
        )  # fmt: skip
        add_rate_matrix(
            frequencies[tree], exchangeabilities[tree], right[tree], left[tree], work,
            by_frequency[tree], by_exchangeability[tree],
        )  # fmt: skip


@njit(forceinline=True)
def _four(array, at):
    """Vectors of the four states."""
    return (
        load(array, at),
        load(array, at + ROW),
        load(array, at + 2 * ROW),
        load(array, at + 3 * ROW),
    )


@njit(forceinline=True)
def _store_four(array, at, x):
    store(array, at, x[0])
    store(array, at + ROW, x[1])
    store(array, at + 2 * ROW, x[2])
    store(array, at + 3 * ROW, x[3])


@njit(forceinline=True)
def _product(a, b):
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3])


@njit(forceinline=True)
def _times(matrices, at, stride, a, b):
    """A row or column of a matrix, with so much from entry to entry, times each of two sets of vectors."""
    entry = load(matrices, at)
    u, v = entry * a[0], entry * b[0]
    entry = load(matrices, at + stride)
    u, v = u + entry * a[1], v + entry * b[1]
    entry = load(matrices, at + 2 * stride)
    u, v = u + entry * a[2], v + entry * b[2]
    entry = load(matrices, at + 3 * stride)
    return u + entry * a[3], v + entry * b[3]


@njit(forceinline=True)
def _multiply(matrices, at, row, column, a, b, nodes, to, to_second):
    """Store a matrix, whose rows and columns are so many entries apart, times two sets of four vectors."""
    lanes = num_lanes(nodes)
    a0, b0 = _times(matrices, at, column * lanes, a, b)
    a1, b1 = _times(matrices, at + row * lanes, column * lanes, a, b)
    a2, b2 = _times(matrices, at + 2 * row * lanes, column * lanes, a, b)
    a3, b3 = _times(matrices, at + 3 * row * lanes, column * lanes, a, b)
    _store_four(nodes, to, (a0, a1, a2, a3))
    _store_four(nodes, to_second, (b0, b1, b2, b3))


@njit(forceinline=True)
def _carry(cells, matrices, at, row, column, nodes, source, to):
    """Multiply the four numbers of each cell of a node by a matrix; see `_multiply`."""
    lanes = num_lanes(nodes)
    phases = matrices.shape[1]
    step = phases * lanes
    for phase in range(phases):
        start = at + phase * 16 * lanes
        for k in range(phase * lanes, cells, 2 * step):
            a, b = _four(nodes, source + k), _four(nodes, source + k + step)
            _multiply(matrices, start, row, column, a, b, nodes, to + k, to + k + step)


@njit(forceinline=True)
def _of_code(start, codes, block, leaf, pattern):
    """Place of the four numbers that a table [CODES, 4] has for a leaf's code."""
    return start + 4 * np.intp(codes[block, leaf, pattern])


@njit(forceinline=True)
def _look_up(cells, table, position, codes, block, leaf, nodes, to):
    """Fill a node's rows with what a table [position, CODES, 4, width] has for the codes of a leaf."""
    width = table.shape[3]
    start = position * CODES * 4 * width
    further = num_lanes(nodes) - 4  # a vector of eight takes its second four from there
    if width == 1:
        for k in range(0, cells, num_lanes(nodes)):
            j = k + further
            a, b = _of_code(start, codes, block, leaf, k), _of_code(start, codes, block, leaf, j)
            first = fours(table, a, b)
            a, b = _of_code(start, codes, block, leaf, k + 1), _of_code(start, codes, block, leaf, j + 1)
            second = fours(table, a, b)
            a, b = _of_code(start, codes, block, leaf, k + 2), _of_code(start, codes, block, leaf, j + 2)
            third = fours(table, a, b)
            a, b = _of_code(start, codes, block, leaf, k + 3), _of_code(start, codes, block, leaf, j + 3)
            _store_four(nodes, to + k, transpose_fours(first, second, third, fours(table, a, b)))
    elif width == 4:
        _look_up_cells(cells, table, start, 4, 2, codes, block, leaf, nodes, to)
    else:
        shift = 3
        while 1 << shift < width:
            shift += 1
        _look_up_cells(cells, table, start, width, shift, codes, block, leaf, nodes, to)


@njit(forceinline=True)
def _look_up_cells(cells, table, start, width, shift, codes, block, leaf, nodes, to):
    """`_look_up` for a width, with its logarithm to base two, of four or more."""
    further = num_lanes(nodes) - 4
    for k in range(0, cells, num_lanes(nodes)):
        j = k + further
        a = start + (np.intp(codes[block, leaf, k >> shift]) << (shift + 2)) + (k & (width - 1))
        b = start + (np.intp(codes[block, leaf, j >> shift]) << (shift + 2)) + (j & (width - 1))
        found = (
            fours(table, a, b),
            fours(table, a + width, b + width),
            fours(table, a + 2 * width, b + 2 * width),
            fours(table, a + 3 * width, b + 3 * width),
        )
        _store_four(nodes, to + k, found)


@njit(forceinline=True)
def _join(cells, nodes, first, second, to):
    """Partial of a node from its children's messages."""
    for k in range(0, cells, num_lanes(nodes)):
        _store_four(nodes, to + k, _product(_four(nodes, first + k), _four(nodes, second + k)))


@njit(forceinline=True)
def _join_and_send(cells, matrices, at, nodes, first, second, partial, to):
    """Partial and message of a node from its children's messages."""
    lanes = num_lanes(nodes)
    phases = matrices.shape[1]
    step = phases * lanes
    for phase in range(phases):
        start = at + phase * 16 * lanes
        for k in range(phase * lanes, cells, 2 * step):
            a = _product(_four(nodes, first + k), _four(nodes, second + k))
            b = _product(_four(nodes, first + k + step), _four(nodes, second + k + step))
            _store_four(nodes, partial + k, a)
            _store_four(nodes, partial + k + step, b)
            _multiply(matrices, start, 4, 1, a, b, nodes, to + k, to + k + step)


@njit(forceinline=True)
def _message(node, num_taxa):
    """Position of a node's message."""
    return (node - num_taxa if node >= num_taxa else 2 * (num_taxa - 2) + node) * NODE


@njit(forceinline=True)
def _post_order(
    cells,
    codes,
    block,
    children,
    root_weights,
    transitions,
    leaf_messages,
    is_scaled,
    keeps,
    nodes,
    rows,
    sites,
):
    """Messages and, if one `keeps` them, partials of all nodes; site likelihoods and exponents."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    size = transitions.size // transitions.shape[0]
    partials = num_internal * NODE
    width = leaf_messages.shape[3]
    rows[num_internal] = 0
    for leaf in range(num_taxa):
        _look_up(cells, leaf_messages, leaf, codes, block, leaf, nodes, _message(leaf, num_taxa))
    for i in range(num_internal):
        first, second = np.intp(children[i, 0]), np.intp(children[i, 1])
        partial = partials + i * NODE if keeps else 2 * partials - NODE
        at_first, at_second = _message(first, num_taxa), _message(second, num_taxa)
        if i < num_internal - 1 and not is_scaled[i]:
            _join_and_send(cells, transitions, i * size, nodes, at_first, at_second, partial, i * NODE)
            continue
        _join(cells, nodes, at_first, at_second, partial)
        if is_scaled[i]:
            _scale(cells, width, nodes, partial, rows, i)
            if i < num_internal - 1:
                _carry(cells, transitions, i * size, 4, 1, nodes, partial, i * NODE)
    top, last = 2 * partials - NODE, _message(num_taxa - 1, num_taxa)
    _site_likelihoods(cells, width, top, last, root_weights, nodes, rows, sites)


@njit(nogil=True)
def _scale(cells, width, nodes, at, rows, i):
    """Bring the largest partial of each pattern into [1/2, 1); keep the factor, add its exponent."""
    num_internal = rows.shape[0] - SPARE_ROWS
    lanes = num_lanes(nodes)
    factors, exponents = i * CELLS, num_internal * CELLS
    for k in range(0, cells, lanes):
        x = _four(nodes, at + k)
        store(rows, factors + k, maximum(maximum(x[0], x[1]), maximum(x[2], x[3])))
    if width > 1:
        for start in range(0, cells, width):
            largest = rows[i, start]
            for cell in range(start + 1, start + width):
                largest = max(largest, rows[i, cell])
            for cell in range(start, start + width):
                rows[i, cell] = largest
    for k in range(0, cells, lanes):
        largest = load(rows, factors + k)
        factor = scale_to_unit(largest)
        store(rows, exponents + k, load(rows, exponents + k) + exponent_to_unit(largest))
        store(rows, factors + k, factor)
        _store_four(nodes, at + k, _product(_four(nodes, at + k), (factor, factor, factor, factor)))


@njit(nogil=True)
def _site_likelihoods(cells, width, top, last, root_weights, nodes, rows, sites):
    """Likelihoods and exponents of patterns, from the top node's partial and the last leaf's message."""
    lanes = num_lanes(nodes)
    phases = root_weights.shape[0]
    exponents, by_cell = rows[rows.shape[0] - 2], rows[rows.shape[0] - 1]
    for phase in range(phases):
        w0, w1 = load(root_weights, phase * 4 * lanes), load(root_weights, (phase * 4 + 1) * lanes)
        w2, w3 = load(root_weights, (phase * 4 + 2) * lanes), load(root_weights, (phase * 4 + 3) * lanes)
        for k in range(phase * lanes, cells, phases * lanes):
            x = _product(_four(nodes, top + k), _four(nodes, last + k))
            store(by_cell, k, (w0 * x[0] + w1 * x[1]) + (w2 * x[2] + w3 * x[3]))
    likelihoods, site_exponents = sites[0], sites[1]
    for pattern in range(cells // width):
        cell = pattern * width
        site_exponents[pattern] = exponents[cell]
        likelihood = by_cell[cell]
        if width >= 4:
            likelihood = (by_cell[cell] + by_cell[cell + 1]) + (by_cell[cell + 2] + by_cell[cell + 3])
            for further in range(cell + 4, cell + width):
                likelihood += by_cell[further]
        likelihoods[pattern] = likelihood
    likelihoods[cells // width :] = 1.0


@njit(nogil=True)
def _add_invariable(invariable, frequencies, common, sites):
    """Add the likelihood of invariable sites to the site likelihoods, where all leaves allow one state."""
    for pattern in range(common.shape[0]):
        likelihood = 0.0
        for x in range(4):
            likelihood += frequencies[x] * common[pattern, x]
        likelihood *= invariable
        mantissa, exponent = math.frexp(likelihood)
        sites[2, pattern] = 0.0
        sites[3, pattern] = 1.0
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
    for pattern in range(common.shape[0]):
        if sites[2, pattern] > 0.0:
            likelihood = 0.0
            for x in range(4):
                likelihood += frequencies[x] * common[pattern, x]
            share = sites[0, pattern] * sites[2, pattern] / (invariable * likelihood)
            for x in range(4):
                by_root[x] += share * common[pattern, x]


@njit(forceinline=True)
def _pre_order(
    cells,
    codes,
    block,
    leaf_partials,
    children,
    root_weights,
    transitions,
    is_scaled,
    nodes,
    rows,
    sites,
    gathered,
):
    """G of all branches, and derivatives by root weights, added to `gathered`; weight / f is in `sites`."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    size = transitions.size // transitions.shape[0]
    gathered_size = gathered.size // gathered.shape[0]
    partials = num_internal * NODE
    spare = _message(num_taxa - 1, num_taxa) + NODE
    root, leaf = spare + 2 * NODE, spare + 3 * NODE
    top = 2 * partials - NODE
    _start(
        cells,
        leaf_partials.shape[3],
        top,
        spare - NODE,
        root,
        partials - NODE,
        root_weights,
        nodes,
        rows,
        sites,
        gathered,
    )
    for i in range(num_internal, -1, -1):
        is_root = i == num_internal  # above the top node, and the last leaf its only child
        outer = root if is_root else i * NODE
        if not is_root and is_scaled[i]:
            _rescale(cells, nodes, outer, rows, i * CELLS)
        for side in range(1 if is_root else 2):
            child = num_taxa - 1 if is_root else np.intp(children[i, side])
            message = top if is_root else _message(np.intp(children[i, 1 - side]), num_taxa)
            partial = partials + (child - num_taxa) * NODE
            if child < num_taxa:
                partial = leaf
                _look_up(cells, leaf_partials, 0, codes, block, child, nodes, leaf)
            _gather(
                cells, nodes, outer, message, partial, spare + side * NODE, gathered, child * gathered_size
            )
        for side in range(0 if is_root else 2):
            below = np.intp(children[i, side]) - num_taxa
            if below >= 0:
                _carry(cells, transitions, below * size, 1, 4, nodes, spare + side * NODE, below * NODE)


@njit(nogil=True)
def _start(cells, width, top, last, root, outer, root_weights, nodes, rows, sites, gathered):
    """D of the top node and derivatives by root weights.

    Args:
        cells: Cells of the block that are in use.
        width: Cells of a pattern.
        top: Position of the top node's partial.
        last: Position of the last leaf's message.
        root: Position to fill with root weights times weight / f: times `top`, they are U of the last leaf.
        outer: Position to fill with D of the top node.
        root_weights: See `accumulate`.
        nodes: See `accumulate`.
        rows: See `accumulate`.
        sites: See `accumulate`; weight / f and whether it counts.
        gathered: Derivatives by root weights are added to the beginning of its last row, one for each state.
    """
    lanes = num_lanes(nodes)
    phases = root_weights.shape[0]
    ratios = rows[rows.shape[0] - 1]
    weights, counts = sites[0], sites[3]
    for pattern in range(cells // width):
        ratio = weights[pattern] * counts[pattern]
        if width == 1:
            ratios[pattern] = ratio
        else:
            for cell in range(pattern * width, (pattern + 1) * width, 4):
                store_four(ratios, cell, constant(zeros(sites), ratio))
    to = gathered.size - gathered.size // gathered.shape[0]
    for phase in range(phases):
        first = phase * 4 * lanes
        w = (
            load(root_weights, first),
            load(root_weights, first + lanes),
            load(root_weights, first + 2 * lanes),
            load(root_weights, first + 3 * lanes),
        )
        total = (zeros(nodes), zeros(nodes), zeros(nodes), zeros(nodes))
        for k in range(phase * lanes, cells, phases * lanes):
            ratio = load(ratios, k)
            ratio = (ratio, ratio, ratio, ratio)
            message = _product(ratio, _four(nodes, last + k))
            x = _product(message, _four(nodes, top + k))
            total = (total[0] + x[0], total[1] + x[1], total[2] + x[2], total[3] + x[3])
            _store_four(nodes, outer + k, _product(w, message))
            _store_four(nodes, root + k, _product(w, ratio))
        here = to + phase * 12 * lanes
        _keep_three(gathered, here, total)
        here += 3 * lanes
        store(gathered, here, load(gathered, here) + total[3])


@njit(nogil=True)
def _rescale(cells, nodes, at, rows, factors):
    """Multiply a node's D by the factors of its partials."""
    for k in range(0, cells, num_lanes(nodes)):
        factor = load(rows, factors + k)
        _store_four(nodes, at + k, _product(_four(nodes, at + k), (factor, factor, factor, factor)))


@njit(forceinline=True)
def _add_three(total, u, difference):
    return (
        total[0] + u * difference[0],
        total[1] + u * difference[1],
        total[2] + u * difference[2],
    )


@njit(forceinline=True)
def _keep_three(gathered, at, total):
    lanes = num_lanes(gathered)
    store(gathered, at, load(gathered, at) + total[0])
    store(gathered, at + lanes, load(gathered, at + lanes) + total[1])
    store(gathered, at + 2 * lanes, load(gathered, at + 2 * lanes) + total[2])


@njit(forceinline=True)
def _gather(cells, nodes, outer, message, partial, to, gathered, at):
    """U of a node from D of its parent and its sibling's message, and G of its branch."""
    lanes = num_lanes(nodes)
    phases = gathered.shape[1]
    for phase in range(phases):
        none = (zeros(nodes), zeros(nodes), zeros(nodes))
        g0, g1, g2, g3 = none, none, none, none
        for k in range(phase * lanes, cells, phases * lanes):
            last = load(nodes, partial + 3 * ROW + k)
            difference = (
                load(nodes, partial + k) - last,
                load(nodes, partial + ROW + k) - last,
                load(nodes, partial + 2 * ROW + k) - last,
            )
            u = load(nodes, outer + k) * load(nodes, message + k)
            store(nodes, to + k, u)
            g0 = _add_three(g0, u, difference)
            u = load(nodes, outer + ROW + k) * load(nodes, message + ROW + k)
            store(nodes, to + ROW + k, u)
            g1 = _add_three(g1, u, difference)
            u = load(nodes, outer + 2 * ROW + k) * load(nodes, message + 2 * ROW + k)
            store(nodes, to + 2 * ROW + k, u)
            g2 = _add_three(g2, u, difference)
            u = load(nodes, outer + 3 * ROW + k) * load(nodes, message + 3 * ROW + k)
            store(nodes, to + 3 * ROW + k, u)
            g3 = _add_three(g3, u, difference)
        here = at + phase * 12 * lanes
        _keep_three(gathered, here, g0)
        _keep_three(gathered, here + 3 * lanes, g1)
        _keep_three(gathered, here + 6 * lanes, g2)
        _keep_three(gathered, here + 9 * lanes, g3)


@njit(nogil=True)
def _add_gathered(gathered, cotangents, by_root):
    """Add what was gathered to sums in float64, one for each category, and empty it."""
    num_edges, width = gathered.shape[0] - 1, by_root.shape[1]
    num_cells = cotangents.shape[1]
    by_edge, by_state = cotangents.reshape(-1), by_root.reshape(-1)
    for edge in range(num_edges):
        for entry in range(12):
            _fold(gathered, edge, entry, by_edge, entry * num_cells + edge * width, width)
    for x in range(4):
        _fold(gathered, num_edges, x, by_state, x * width, width)
    gathered[:] = 0


@njit(forceinline=True)
def _fold(gathered, edge, entry, totals, to, width):
    """Add the sums over patterns of an entry of `gathered` to the totals of its categories."""
    phases, lanes = gathered.shape[1], num_lanes(gathered)
    at = (edge * phases * 12 + entry) * lanes
    if width == 1:
        totals[to] += horizontal_sum(load(gathered, at))
    elif width == 4:
        store(totals, to, load(totals, to) + _sum_fours(load(gathered, at)))
    else:
        for phase in range(phases):
            for lane in range(lanes):
                totals[to + (phase * lanes + lane) % width] += gathered[edge, phase, entry, lane]


def _sum_fours(value: Any) -> Any:
    """Four numbers in float64; those of the two fours of a vector of eight are added."""
    raise NotImplementedError("only compiled code may call this")


@overload(_sum_fours)
def _typed_sum_fours(value):
    if not isinstance(value, Vector):
        return None
    if value.element == types.float64:
        return lambda value: value
    return lambda value: to_float64(value, 0) + to_float64(value, 1)
