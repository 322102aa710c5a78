# mypy: disable-error-code="no-untyped-def"
"""Compiled kernel of substitution models, one for each tree: transition matrices, and derivatives back.

A tree has frequencies f and exchangeabilities s, which make the rate matrix ``Q[x, y] = s[x, y] f[y] / mu``
(x != y) of rows that sum to zero, with ``mu = sum_{x != y} f[x] s[x, y] f[y]``; and categories of rates r_c
and weights w_c. ``Q = right diag(values) left`` gives ``P = right diag(e) left`` with ``e = exp(values tau)``
on a branch of length t in category c, ``tau = r_c t``.

Derivatives: with ``G[x, y]`` the derivative by ``P[x, y]`` of one branch and category, and
``H[k, l] = sum_xy right[x, k] G[x, y] left[l, y]``,

- the derivative by tau is ``sum_k values[k] e[k] H[k, k]``;
- that by Q is ``left^T (sum H * F) right^T``, summed over branches and categories, where F holds divided
  differences ``(e[k] - e[l]) / (values[k] - values[l])`` (Daleckii & Krein), on the diagonal ``tau e[k]``.

The first eigenvalue is zero, its right eigenvector is constant, and the rows of Q sum to zero: H[k, l] with
l = 0 has no part in either.

F is smooth where eigenvalues meet, as they do under JC69. With ``d = (values[k] - values[l]) tau`` it is
``tau e[l] (exp(d) - 1) / d``, computed by the series in d where d is small.
"""

import numpy as np
from numba import njit

from vbpi_mix.likelihood._scaling import choose_scaled
from vbpi_mix.likelihood._simd import (
    broadcast,
    choose_small,
    constant,
    expm1,
    horizontal_sum,
    load,
    maximum,
    minimum,
    num_lanes,
    store,
    store_four,
    zeros,
)

BAD_MODEL = 3
"""Status of `plan`: parameters of a tree are out of range."""
FIRST, SECOND = (0, 0, 0, 1, 1, 2), (1, 2, 3, 2, 3, 3)
"""States of the exchangeabilities AC, AG, AT, CG, CT, GT."""
CODES = 16
"""Codes of leaves: bit x is set where state x is allowed."""
WORK = 256
"""Numbers in a workspace."""
PLAN_ROWS = 19
"""Rows of cells in the workspace of `plan`: P, and its bounds."""
_SMALL = 0.02
"""Differences ``d`` below which the series serves: its first neglected term is d**7 / 8! < 1e-16."""
_MAX_SWEEPS = 30


@njit(cache=True, nogil=True)
def plan(
    children,
    branch_lengths,
    frequencies,
    exchangeabilities,
    rates,
    weights,
    invariable,
    smallest_exponent,
    codes,
    bits,
    values,
    right,
    left,
    change,
    transitions,
    leaf_messages,
    root_weights,
    is_scaled,
    log_range,
    high,
    cells,
    work,
):
    """Eigen-systems, transition matrices and messages of leaves, and the nodes to scale.

    The bounds of `choose_scaled` are those of the category of the highest rate. Cells are those of
    `_general_kernel`, here branches times categories: those that fill up the categories have the first one's
    rate, and there may be some more at the end.

    Args:
        children: Topologies [tree, internal, 2].
        branch_lengths: Branch lengths [tree, edge].
        frequencies: Of the states [tree, 4].
        exchangeabilities: In the order of `FIRST` and `SECOND` [tree, 6].
        rates: Rates of the categories [tree, category].
        weights: Probabilities of the categories [tree, category].
        invariable: Probabilities of invariable sites [tree].
        smallest_exponent: See `choose_scaled`.
        codes: Codes of leaves whose messages are wanted [code].
        bits: One for the states of every code, else zero [CODES, 4].
        values: Filled with eigenvalues, the first one zero [tree, 4].
        right: Filled with right eigenvectors, as columns [tree, 4, 4].
        left: Filled with their inverses [tree, 4, 4].
        change: Filled with ``e - 1`` of the other eigenvalues, and tau [tree, 4, cell].
        transitions: Filled with P of the branches of internal nodes, entries repeated to fill a vector
            [tree, internal, phase, 16, lane].
        leaf_messages: Filled with the messages of leaves [tree, taxon, CODES, 4, width].
        root_weights: Filled with weight of the category times frequency of the state [tree, phase, 4, lane].
        is_scaled: Filled with True for the internal nodes to scale [tree, internal].
        log_range: Workspace [2, tree, edge].
        high: Workspace [node].
        cells: Workspace [PLAN_ROWS, cell].
        work: Workspace [WORK].

    Returns:
        Of `choose_scaled`; or `BAD_MODEL`, the tree, and the position of the parameter out of range in the
        order of the arguments.
    """
    log_most, slack = log_range[0], log_range[1]
    num_trees, num_edges = branch_lengths.shape
    num_categories, width = rates.shape[1], leaf_messages.shape[4]
    num_taxa = leaf_messages.shape[1]
    for tree in range(num_trees):
        fault = _fault(
            frequencies[tree], exchangeabilities[tree], rates[tree], weights[tree], invariable[tree]
        )
        if fault >= 0:
            return BAD_MODEL, tree, fault
        eigen_system(frequencies[tree], exchangeabilities[tree], values[tree], right[tree], left[tree], work)
        taus = change[tree, 3]
        taus[num_edges * width :] = 0.0
        for edge in range(num_edges):
            for c in range(width):
                rate = rates[tree, c if c < num_categories else 0]
                taus[edge * width + c] = rate * branch_lengths[tree, edge]
        _fill_probabilities(values[tree], right[tree], left[tree], change[tree], cells, work)
        fastest = np.argmax(rates[tree])
        for edge in range(num_edges):
            cell = edge * width + fastest
            log_most[tree, edge] = np.log2(cells[16, cell])
            slack[tree, edge] = np.log2(cells[17, cell]) - np.log2(cells[18, cell])
        _spread(cells, num_taxa, codes, bits, leaf_messages[tree], transitions[tree])
        phases, lanes = root_weights.shape[1], root_weights.shape[3]
        for phase in range(phases):
            for x in range(4):
                for lane in range(lanes):
                    c = (phase * lanes + lane) % width
                    weight = weights[tree, c] if c < num_categories else 0.0
                    root_weights[tree, phase, x, lane] = weight * frequencies[tree, x]
    return choose_scaled(children, branch_lengths, log_most, slack, smallest_exponent, high, is_scaled)


@njit(nogil=True)
def _fault(frequencies, exchangeabilities, rates, weights, invariable):
    """Position of the first parameter out of range, or -1."""
    for x in range(4):
        if not 0.0 < frequencies[x] < np.inf:
            return 0
    for k in range(6):
        if not 0.0 < exchangeabilities[k] < np.inf:
            return 1
    for c in range(rates.shape[0]):
        if not 0.0 <= rates[c] < np.inf:
            return 2
        if not 0.0 < weights[c] < np.inf:
            return 3
    return -1 if 0.0 <= invariable < np.inf else 4


@njit(cache=True, nogil=True)
def eigen_system(frequencies, exchangeabilities, values, right, left, work):
    """Spectral decomposition of a rate matrix by Jacobi's rotations; the first eigenvalue is exactly zero.

    Args:
        frequencies: Of the states [4].
        exchangeabilities: In the order of `FIRST` and `SECOND` [6].
        values: Filled with eigenvalues, the others in any order [4].
        right: Filled with right eigenvectors, as columns [4, 4].
        left: Filled with their inverse [4, 4].
        work: Workspace [WORK].
    """
    a, v = work[:16].reshape(4, 4), work[16:32].reshape(4, 4)
    mu = scale(frequencies, exchangeabilities)
    a[:] = 0.0
    v[:] = 0.0
    for x in range(4):
        v[x, x] = 1.0
    for k in range(6):
        x, y = FIRST[k], SECOND[k]
        a[x, y] = exchangeabilities[k] * np.sqrt(frequencies[x] * frequencies[y]) / mu
        a[y, x] = a[x, y]
        a[x, x] -= exchangeabilities[k] * frequencies[y] / mu
        a[y, y] -= exchangeabilities[k] * frequencies[x] / mu
    for _ in range(_MAX_SWEEPS):
        is_diagonal = True
        for k in range(6):
            x, y = FIRST[k], SECOND[k]
            if abs(a[x, y]) > 1e-17 * (abs(a[x, x]) + abs(a[y, y])):
                is_diagonal = False
                _rotate(a, v, x, y)
        if is_diagonal:
            break
    zero = 0
    for k in range(4):
        if a[k, k] > a[zero, zero]:
            zero = k
    for k in range(4):
        own = zero if k == 0 else 0 if k == zero else k
        values[k] = a[own, own]
        for x in range(4):
            root = np.sqrt(frequencies[x])
            right[x, k] = v[x, own] / root
            left[k, x] = v[x, own] * root
    values[0] = 0.0


@njit(nogil=True)
def _rotate(a, v, x, y):
    """Rotate states x and y of a symmetric matrix so that their entry vanishes; v gathers the rotations."""
    half = 0.5 * (a[y, y] - a[x, x]) / a[x, y]
    tangent = 1.0 / (abs(half) + np.sqrt(1.0 + half * half))
    if half < 0.0:
        tangent = -tangent
    cosine = 1.0 / np.sqrt(1.0 + tangent * tangent)
    sine = tangent * cosine
    for k in range(4):
        p, q = a[k, x], a[k, y]
        a[k, x], a[k, y] = cosine * p - sine * q, sine * p + cosine * q
        p, q = v[k, x], v[k, y]
        v[k, x], v[k, y] = cosine * p - sine * q, sine * p + cosine * q
    for k in range(4):
        p, q = a[x, k], a[y, k]
        a[x, k], a[y, k] = cosine * p - sine * q, sine * p + cosine * q
    a[x, y] = 0.0
    a[y, x] = 0.0


@njit(nogil=True)
def scale(frequencies, exchangeabilities):
    """Substitutions per unit of time before the rate matrix is scaled: ``mu``."""
    mu = 0.0
    for k in range(6):
        mu += 2.0 * exchangeabilities[k] * frequencies[FIRST[k]] * frequencies[SECOND[k]]
    return mu


@njit(nogil=True)
def _fill_probabilities(values, right, left, change, cells, work):
    """From the lengths tau of cells to P of all cells and the bounds of its entries.

    Args:
        values: Eigenvalues [4].
        right: Right eigenvectors [4, 4].
        left: Their inverses [4, 4].
        change: Filled with ``e - 1``; the last row is tau [4, cell].
        cells: Filled with P, row by row, then P's smallest diagonal entry, smallest entry and largest entry
            [PLAN_ROWS, cell].
        work: Workspace [WORK].
    """
    num_cells = cells.shape[1]
    for x in range(4):
        for y in range(4):
            for k in range(1, 4):
                work[3 * (4 * x + y) + k - 1] = right[x, k] * left[k, y]
    one = constant(zeros(work), 1.0)
    for j in range(0, num_cells, 4):
        tau = load(change, 3 * num_cells + j)
        c1 = expm1(tau * broadcast(values, 1))
        c2 = expm1(tau * broadcast(values, 2))
        c3 = expm1(tau * broadcast(values, 3))
        store(change, j, c1)
        store(change, num_cells + j, c2)
        store(change, 2 * num_cells + j, c3)
        most, least, largest = one, one, zeros(work)
        for entry in range(16):
            p = broadcast(work, 3 * entry) * c1
            p = p + broadcast(work, 3 * entry + 1) * c2
            p = p + broadcast(work, 3 * entry + 2) * c3
            if entry % 5 == 0:
                p = maximum(p + one, zeros(work))
                most = minimum(most, p)
            p = maximum(p, zeros(work))
            least, largest = minimum(least, p), maximum(largest, p)
            store(cells, entry * num_cells + j, p)
        store(cells, 16 * num_cells + j, most)
        store(cells, 17 * num_cells + j, least)
        store(cells, 18 * num_cells + j, largest)


@njit(forceinline=True)
def _sum_columns(bits, code, p0, p1, p2, p3):
    """Sum of the vectors, one for each state, of the states of a code."""
    return (broadcast(bits, 4 * code) * p0 + broadcast(bits, 4 * code + 1) * p1) + (
        broadcast(bits, 4 * code + 2) * p2 + broadcast(bits, 4 * code + 3) * p3
    )


@njit(nogil=True)
def _spread(cells, num_taxa, codes, bits, leaf_messages, transitions):
    """Put the transition matrices where the likelihood's kernel wants them.

    Args:
        cells: Of `_fill_probabilities` [PLAN_ROWS, cell].
        num_taxa: Number of leaves, whose branches are the first ones.
        codes: Codes of leaves whose messages are wanted [code].
        bits: Of `plan` [CODES, 4].
        leaf_messages: Filled with the messages of leaves [taxon, CODES, 4, width].
        transitions: Filled with P of internal nodes [internal, phase, 16, lane].
    """
    num_cells, width = cells.shape[1], leaf_messages.shape[3]
    phases, lanes = transitions.shape[1], num_lanes(transitions)
    columns = np.empty((4, 4))
    for leaf in range(num_taxa):
        if width == 1:
            for entry in range(16):
                columns[entry % 4, entry // 4] = cells[entry, leaf]
            p0, p1, p2, p3 = load(columns, 0), load(columns, 4), load(columns, 8), load(columns, 12)
            for code in codes:
                message = _sum_columns(bits, code, p0, p1, p2, p3)
                store_four(leaf_messages, (leaf * CODES + code) * 4, message)
            continue
        for x in range(4):
            for c in range(0, width, 4):
                at = 4 * x * num_cells + leaf * width + c
                p0, p1 = load(cells, at), load(cells, at + num_cells)
                p2, p3 = load(cells, at + 2 * num_cells), load(cells, at + 3 * num_cells)
                for code in codes:
                    message = _sum_columns(bits, code, p0, p1, p2, p3)
                    store_four(leaf_messages, ((leaf * CODES + code) * 4 + x) * width + c, message)
    for i in range(transitions.shape[0] - 1):
        edge = num_taxa + i
        for phase in range(phases):
            for entry in range(16):
                at = ((i * phases + phase) * 16 + entry) * lanes
                if width == 1:
                    like = zeros(transitions)
                    store(transitions, at, constant(like, cells[entry, edge]))
                    continue
                for lane in range(0, lanes, 4):
                    cell = edge * width + (phase * lanes + lane) % width
                    store_four(transitions, at + lane, load(cells, entry * num_cells + cell))


@njit(nogil=True)
def add_to_derivatives(
    branch_lengths, rates, values, right, left, change, cotangents, width, work, gradient, d_rates
):
    """From the cotangents G of one tree to derivatives; ``sum H * F`` is left at the beginning of `work`.

    Args:
        branch_lengths: Branch lengths [edge].
        rates: Rates of the categories [category].
        values: Of `plan` [4].
        right: Of `plan` [4, 4].
        left: Of `plan` [4, 4].
        change: Of `plan` [4, cell].
        cotangents: ``G[x, y]`` in row 3 x + y; the last row is workspace [13, cell].
        width: Cells of a branch.
        work: Workspace [WORK].
        gradient: Filled with derivatives by branch lengths [edge].
        d_rates: Filled with derivatives by rates [category].
    """
    num_categories = rates.shape[0]
    num_edges, num_cells = branch_lengths.shape[0], change.shape[1]
    divided, inner, inverses = 64, 128, 192  # places in the workspace, after the sums
    work[:64] = 0.0
    for k in range(4):
        for m in range(4):
            gap = values[k] - values[m]
            work[inverses + 4 * k + m] = 1.0 / gap if gap != 0.0 else 0.0
    one = constant(zeros(work), 1.0)
    for j in range(0, num_cells, 4):
        tau = load(change, 3 * num_cells + j)
        for k in range(4):
            own = zeros(work) if k == 0 else load(change, (k - 1) * num_cells + j)
            store(work, divided + 20 * k, tau * (own + one))
            for m in range(k + 1, 4):
                other = load(change, (m - 1) * num_cells + j)
                d = tau * constant(tau, values[k] - values[m])
                series = constant(d, 1.0 / 7.0)
                for n in range(6, 0, -1):
                    series = (series * d + one) * constant(d, 1.0 / n)
                quotient = (own - other) * broadcast(work, inverses + 4 * k + m)
                quotient = choose_small(d, _SMALL, tau * (other + one) * series, quotient)
                store(work, divided + 4 * (4 * k + m), quotient)
                store(work, divided + 4 * (4 * m + k), quotient)
        for k in range(4):
            for y in range(3):
                at = y * num_cells + j
                row = broadcast(right, k) * load(cotangents, at)
                row = row + broadcast(right, 4 + k) * load(cotangents, at + 3 * num_cells)
                row = row + broadcast(right, 8 + k) * load(cotangents, at + 6 * num_cells)
                row = row + broadcast(right, 12 + k) * load(cotangents, at + 9 * num_cells)
                store(work, inner + 4 * (4 * k + y), row)
        by_tau = zeros(work)
        for k in range(4):
            at = inner + 16 * k
            a, b, c = load(work, at), load(work, at + 4), load(work, at + 8)
            for m in range(1, 4):
                projected = a * broadcast(left, 4 * m)
                projected = projected + b * broadcast(left, 4 * m + 1)
                projected = projected + c * broadcast(left, 4 * m + 2)
                at = 4 * (4 * k + m)
                store(work, at, load(work, at) + projected * load(work, divided + at))
                if k == m:
                    spectrum = load(change, (k - 1) * num_cells + j) + one
                    by_tau = by_tau + projected * (spectrum * broadcast(values, k))
        store(cotangents, 12 * num_cells + j, by_tau)
    gradient[:] = 0.0
    d_rates[:] = 0.0
    for edge in range(num_edges):
        for c in range(num_categories):
            by_tau = cotangents[12, edge * width + c]
            gradient[edge] += rates[c] * by_tau
            d_rates[c] += branch_lengths[edge] * by_tau
    for entry in range(16):
        work[entry] = horizontal_sum(load(work, 4 * entry))


@njit(nogil=True)
def add_rate_matrix(frequencies, exchangeabilities, right, left, work, d_f, d_s):
    """Derivatives by frequencies and exchangeabilities that come through the rate matrix.

    Args:
        frequencies: Of the states [4].
        exchangeabilities: In the order of `FIRST` and `SECOND` [6].
        right: Of `plan` [4, 4].
        left: Of `plan` [4, 4].
        work: ``sum H * F`` at the beginning, by rows; the rest is workspace [WORK].
        d_f: Added to [4].
        d_s: Filled [6].
    """
    spectral, inner, by_q = work[:16].reshape(4, 4), work[16:32].reshape(4, 4), work[32:48].reshape(4, 4)
    for m in range(4):
        for x in range(4):
            inner[m, x] = 0.0
            for k in range(4):
                inner[m, x] += spectral[k, m] * left[k, x]
    for x in range(4):
        for y in range(4):
            by_q[x, y] = 0.0
            for m in range(4):
                by_q[x, y] += inner[m, x] * right[y, m]
    mu = scale(frequencies, exchangeabilities)
    by_log_scale = 0.0
    for k in range(6):
        x, y = FIRST[k], SECOND[k]
        up = (by_q[x, y] - by_q[x, x]) / mu
        down = (by_q[y, x] - by_q[y, y]) / mu
        d_s[k] = up * frequencies[y] + down * frequencies[x]
        by_log_scale += exchangeabilities[k] * d_s[k]
        d_f[y] += up * exchangeabilities[k]
        d_f[x] += down * exchangeabilities[k]
    for k in range(6):
        x, y = FIRST[k], SECOND[k]
        d_s[k] -= by_log_scale * 2.0 * frequencies[x] * frequencies[y] / mu
        d_f[x] -= by_log_scale * 2.0 * exchangeabilities[k] * frequencies[y] / mu
        d_f[y] -= by_log_scale * 2.0 * exchangeabilities[k] * frequencies[x] / mu
