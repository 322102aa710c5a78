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

F is smooth where eigenvalues meet, as they do under JC69. With ``d = (values[k] - values[l]) tau`` it is
``tau e[l] (exp(d) - 1) / d``, computed by the series in d where d is small.
"""

import numpy as np
from numba import njit

from vbpi_mix.likelihood._scaling import choose_scaled
from vbpi_mix.likelihood._simd import broadcast, constant, load, store, zeros

BAD_MODEL = 3
"""Status of `plan`: parameters of a tree are out of range."""
FIRST, SECOND = (0, 0, 0, 1, 1, 2), (1, 2, 3, 2, 3, 3)
"""States of the exchangeabilities AC, AG, AT, CG, CT, GT."""
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
    values,
    right,
    left,
    transitions,
    slopes,
    divided,
    root_weights,
    is_scaled,
    log_range,
    high,
    work,
):
    """Eigen-systems, transition matrices and what their derivatives need, and the nodes to scale.

    The bounds of `choose_scaled` are those of the category of the highest rate.

    Args:
        children: Topologies [tree, internal, 2].
        branch_lengths: Branch lengths [tree, edge].
        frequencies: Of the states [tree, 4].
        exchangeabilities: In the order of `FIRST` and `SECOND` [tree, 6].
        rates: Rates of the categories [tree, category].
        weights: Probabilities of the categories [tree, category].
        invariable: Probabilities of invariable sites [tree].
        smallest_exponent: See `choose_scaled`.
        values: Filled with eigenvalues [tree, 4].
        right: Filled with right eigenvectors, as columns [tree, 4, 4].
        left: Filled with their inverses [tree, 4, 4].
        transitions: Filled with P, column by column and then row by row, every four states repeated to
            fill a vector [tree, edge, category, 2, 4, lane].
        slopes: Filled with ``values * e`` [tree, edge, category, 4].
        divided: Filled with F [tree, edge, category, 4, 4].
        root_weights: Filled with weight of the category times frequency of the state, repeated as in
            `transitions` [tree, category, lane].
        is_scaled: Filled with True for the internal nodes to scale [tree, internal].
        log_range: Workspace [2, tree, edge].
        high: Workspace [node].
        work: Workspace [3, 16].

    Returns:
        Of `choose_scaled`; or `BAD_MODEL`, the tree, and the position of the parameter out of range in the
        order of the arguments.
    """
    log_most, slack = log_range[0], log_range[1]
    num_trees, num_edges = branch_lengths.shape
    num_categories = rates.shape[1]
    for tree in range(num_trees):
        fault = _fault(
            frequencies[tree], exchangeabilities[tree], rates[tree], weights[tree], invariable[tree]
        )
        if fault >= 0:
            return BAD_MODEL, tree, fault
        eigen_system(frequencies[tree], exchangeabilities[tree], values[tree], right[tree], left[tree], work)
        fastest = np.argmax(rates[tree])
        for category in range(num_categories):
            for lane in range(root_weights.shape[2]):
                root_weights[tree, category, lane] = weights[tree, category] * frequencies[tree, lane % 4]
        for edge in range(num_edges):
            for category in range(num_categories):
                most, least, largest = _fill(
                    rates[tree, category] * branch_lengths[tree, edge],
                    values[tree],
                    right[tree],
                    left[tree],
                    transitions[tree, edge, category],
                    slopes[tree, edge, category],
                    divided[tree, edge, category],
                    work,
                )
                if category == fastest:
                    log_most[tree, edge] = np.log2(most)
                    slack[tree, edge] = np.log2(least) - np.log2(largest)
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
    """Spectral decomposition of a rate matrix by Jacobi's rotations; the largest eigenvalue is exactly zero.

    Args:
        frequencies: Of the states [4].
        exchangeabilities: In the order of `FIRST` and `SECOND` [6].
        values: Filled with eigenvalues, in any order [4].
        right: Filled with right eigenvectors, as columns [4, 4].
        left: Filled with their inverse [4, 4].
        work: Workspace [2 or more, 16].
    """
    a, v = work[0].reshape(4, 4), work[1].reshape(4, 4)
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
        values[k] = a[k, k]
        if values[k] > values[zero]:
            zero = k
        for x in range(4):
            root = np.sqrt(frequencies[x])
            right[x, k] = v[x, k] / root
            left[k, x] = v[x, k] * root
    values[zero] = 0.0


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
def _fill(tau, values, right, left, transition, slope, divided, work):
    """Fill P, ``values * e`` and F; returns P's smallest diagonal entry, smallest entry and largest entry."""
    change, spectrum = work[0], work[1]
    for k in range(4):
        change[k] = np.expm1(values[k] * tau)
        spectrum[k] = 1.0 + change[k]
        slope[k] = values[k] * spectrum[k]
        divided[k, k] = tau * spectrum[k]
    for k in range(3):
        for m in range(k + 1, 4):
            d = (values[k] - values[m]) * tau
            if abs(d) < _SMALL:
                series = 1.0 + d / 2.0 * (
                    1.0 + d / 3.0 * (1.0 + d / 4.0 * (1.0 + d / 5.0 * (1.0 + d / 6.0 * (1.0 + d / 7.0))))
                )
                quotient = tau * spectrum[m] * series
            else:
                quotient = (change[k] - change[m]) / (values[k] - values[m])
            divided[k, m] = quotient
            divided[m, k] = quotient
    matrix = work[2]
    for x in range(4):
        row = zeros(matrix)
        for k in range(4):
            row = row + constant(row, right[x, k] * change[k]) * load(left, 4 * k)
        store(matrix, 4 * x, row)
    most, least, largest = 1.0, 1.0, 0.0
    for x in range(4):
        matrix[5 * x] += 1.0
        most = min(most, matrix[5 * x])
        for y in range(4):
            probability = max(matrix[4 * x + y], 0.0)
            least = min(least, probability)
            largest = max(largest, probability)
            for lane in range(0, transition.shape[2], 4):
                transition[0, y, lane + x] = probability
                transition[1, x, lane + y] = probability
    return max(most, 0.0), least, largest


@njit(nogil=True)
def add_to_derivatives(
    branch_lengths, rates, right, left, slopes, divided, cotangents, work, gradient, spectral, d_rates
):
    """From the cotangents G of one tree to derivatives.

    Args:
        branch_lengths: Branch lengths [edge].
        rates: Rates of the categories [category].
        right: Of `plan` [4, 4].
        left: Of `plan` [4, 4].
        slopes: Of `plan` [edge, category, 4].
        divided: Of `plan` [edge, category, 4, 4].
        cotangents: ``G[x, y]`` at [edge, category, y, x].
        work: Workspace [2 or more, 16].
        gradient: Filled with derivatives by branch lengths [edge].
        spectral: Filled with ``sum H * F``, at [l, k] for H[k, l] [4, 4].
        d_rates: Filled with derivatives by rates [category].
    """
    inner, projected = work[0], work[1]
    d_rates[:] = 0.0
    s0, s1, s2, s3 = zeros(inner), zeros(inner), zeros(inner), zeros(inner)
    r0, r1, r2, r3 = load(right, 0), load(right, 4), load(right, 8), load(right, 12)
    num_categories = rates.shape[0]
    for edge in range(branch_lengths.shape[0]):
        by_length = 0.0
        for category in range(num_categories):
            at = (edge * num_categories + category) * 16
            g0, g1 = load(cotangents, at), load(cotangents, at + 4)
            g2, g3 = load(cotangents, at + 8), load(cotangents, at + 12)
            for m in range(0, 16, 4):
                row = (broadcast(left, m) * g0 + broadcast(left, m + 1) * g1) + (
                    broadcast(left, m + 2) * g2 + broadcast(left, m + 3) * g3
                )
                store(inner, m, row)
            for m in range(0, 16, 4):
                row = (broadcast(inner, m) * r0 + broadcast(inner, m + 1) * r1) + (
                    broadcast(inner, m + 2) * r2 + broadcast(inner, m + 3) * r3
                )
                store(projected, m, row)
            s0 = s0 + load(projected, 0) * load(divided, at)
            s1 = s1 + load(projected, 4) * load(divided, at + 4)
            s2 = s2 + load(projected, 8) * load(divided, at + 8)
            s3 = s3 + load(projected, 12) * load(divided, at + 12)
            by_tau = 0.0
            for k in range(4):
                by_tau += slopes[edge, category, k] * projected[5 * k]
            by_length += rates[category] * by_tau
            d_rates[category] += branch_lengths[edge] * by_tau
        gradient[edge] = by_length
    store(spectral, 0, s0)
    store(spectral, 4, s1)
    store(spectral, 8, s2)
    store(spectral, 12, s3)


@njit(nogil=True)
def add_rate_matrix(frequencies, exchangeabilities, right, left, spectral, work, d_f, d_s):
    """Derivatives by frequencies and exchangeabilities that come through the rate matrix.

    Args:
        frequencies: Of the states [4].
        exchangeabilities: In the order of `FIRST` and `SECOND` [6].
        right: Of `plan` [4, 4].
        left: Of `plan` [4, 4].
        spectral: Of `add_to_derivatives` [4, 4].
        work: Workspace [2 or more, 16].
        d_f: Added to [4].
        d_s: Filled [6].
    """
    inner, by_q = work[0].reshape(4, 4), work[1].reshape(4, 4)
    for m in range(4):
        for x in range(4):
            inner[m, x] = 0.0
            for k in range(4):
                inner[m, x] += spectral[m, k] * left[k, x]
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
