# mypy: disable-error-code="no-untyped-def"
"""Compiled densities and gradients of branch lengths under all components at once.

The same functions as `vbpi_mix.branches._kernels`, for mixtures whose every component is a denominator. There
a branch is the unit and its components are neighbours in memory, so loops over components vectorise. Trees of
a batch share most branches with the same three features; such a *triple* has its parameters summed,
exponentiated and its gradient scattered to rows only once for all of them. Loops over branches go triple by
triple, whose parameters then stay in cache.

Shapes beside those of `vbpi_mix.branches._kernels`:

- ``params [num_features + 1, 3, component]``, contiguous;
- ``edges [tree * edge]`` int32: branches sorted by triple, as number of branches in a tree * tree + branch;
  those of triple u are ``edges[start[u]:start[u + 1]]``; triples are numbered in order of appearance;
- ``triples [tree * edge, 3]`` int32: features of the triples, of which the first ``num_triples`` hold;
- ``sums [tree * edge, 8, component]``: of the triples, location, log scale and 1 / scale; where skewed k
  instead of 1 / scale, and then skew, alpha - 1, C / c, r, and what in log q does not depend on y, in the
  notation of `vbpi_mix.branches.densities`;
- ``hazards [tree * edge, 2, component]``: of ``edges``, where skewed, D = d log q / dx and -log(1 - exp(-G)),
  which the gradient takes from the density.
"""

import math

import numpy as np
from numba import njit

from vbpi_mix._elementary import exp, exp_and_complement
from vbpi_mix.branches._weibull import LOG_2, LOG_CONSTANT, SLOPE, hazard, minus_log_complement

MIN_COMPONENTS = 4
"""Fewest components for which these kernels are faster than going through the components one by one."""
NUM_SUMS = 8
"""Rows of ``sums`` for a triple."""
_LOG_NORMALISER = -0.5 * math.log(2.0 * math.pi)
_REORDER = {"reassoc", "contract", "nsz", "arcp"}


@njit(cache=True, nogil=True)
def number_triples(feature_index, first_of_row, next_triple, triple_of_edge, triples, start, edges):
    """Fill triples, start and edges; returns the number of triples.

    Args:
        feature_index: [tree, edge, 3].
        first_of_row: int32 scratch [num_features + 1], all -1 before and after.
        next_triple: int32 scratch [tree * edge].
        triple_of_edge: int32 scratch [tree * edge].
        triples: Written.
        start: Written, int32 [tree * edge + 1].
        edges: Written.
    """
    num_triples, num_edges = 0, feature_index.shape[1]
    for t in range(feature_index.shape[0]):
        for e in range(num_edges):
            i, j, k = feature_index[t, e, 0], feature_index[t, e, 1], feature_index[t, e, 2]
            u = first_of_row[i]
            while u >= 0 and (triples[u, 1] != j or triples[u, 2] != k):
                u = next_triple[u]
            if u < 0:
                u = num_triples
                num_triples += 1
                triples[u, 0], triples[u, 1], triples[u, 2] = i, j, k
                next_triple[u] = first_of_row[i]
                first_of_row[i] = u
                start[u] = 0
            triple_of_edge[t * num_edges + e] = u
            start[u] += 1
    end = 0
    for u in range(num_triples):
        first_of_row[triples[u, 0]] = -1
        end += start[u]
        start[u] = end
    start[num_triples] = end
    for edge in range(end - 1, -1, -1):
        u = triple_of_edge[edge]
        start[u] -= 1
        edges[start[u]] = edge
    return num_triples


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _sum_rows(first, second, third, skewed, out):
    """Parameters of one triple from its rows [3, component]."""
    for d in range(out.shape[1]):
        log_scale = first[1, d] + second[1, d] + third[1, d]
        out[0, d] = first[0, d] + second[0, d] + third[0, d]
        out[1, d] = log_scale
        out[2, d] = exp(-log_scale)
    if skewed:
        # Like `_add_skewed`, in short loops: out holds G0, exp(-G0) and 1 - exp(-G0) on the way.
        for d in range(out.shape[1]):
            out[3, d] = first[2, d] + second[2, d] + third[2, d]
            out[4, d] = exp(-out[3, d])
        for d in range(out.shape[1]):
            out[5, d], out[6, d] = exp_and_complement(out[4, d])
        for d in range(out.shape[1]):
            G0, u, v = out[4, d], out[5, d], out[6, d]
            L0 = minus_log_complement(-out[3, d], u, v)
            d_log_alpha = G0 * u / (v * L0)
            out[2, d] *= SLOPE / d_log_alpha
            out[4, d] = LOG_2 / L0 - 1.0
            out[5, d] = d_log_alpha
            out[6, d] = G0 + d_log_alpha * (L0 - 1.0) - 1.0
            out[7, d] = LOG_CONSTANT + G0 - L0 - out[1, d]


@njit(cache=True, nogil=True)
def sum_features(params, triples, num_triples, skewed, sums):
    """Write the parameters of all triples to sums."""
    for u in range(num_triples):
        _sum_rows(params[triples[u, 0]], params[triples[u, 1]], params[triples[u, 2]], skewed, sums[u])


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _add_lognormal(y, p, total):
    for d in range(total.shape[0]):
        z = (y - p[0, d]) * p[2, d]
        total[d] += _LOG_NORMALISER - 0.5 * z * z - p[1, d]


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _add_skewed(y, p, work, hazards, total):
    """Add log k + log alpha + (alpha - 1) log(1 - exp(-G)) - G + x; write hazards [2, component].

    Several short loops, whose iterations the processor overlaps, in place of a long one. work is
    [4, component].
    """
    for d in range(total.shape[0]):
        step = (y - p[0, d]) * p[2, d]
        work[0, d] = step
        work[1, d] = exp(step - p[3, d])
    for d in range(total.shape[0]):
        work[2, d], work[3, d] = exp_and_complement(work[1, d])
    for d in range(total.shape[0]):
        hazards[1, d] = minus_log_complement(work[0, d] - p[3, d], work[2, d], work[3, d])
    for d in range(total.shape[0]):
        G = work[1, d]
        hazards[0, d] = 1.0 - G + p[4, d] * G * (work[2, d] / work[3, d])
        total[d] += p[7, d] + work[0, d] - p[4, d] * hazards[1, d] - G


@njit(cache=True, nogil=True)
def log_density(sums, num_triples, start, edges, log_lengths, skewed, hazards, out):
    """Write log q_d(y | tau), summed over branches, of every component d to out; where skewed, hazards."""
    num_edges = log_lengths.shape[1]
    work = np.empty((4, out.shape[1]))
    out[:] = 0.0
    for u in range(num_triples):
        for m in range(start[u], start[u + 1]):
            t, e = edges[m] // num_edges, edges[m] % num_edges
            if skewed:
                _add_skewed(log_lengths[t, e], sums[u], work, hazards[m], out[t])
            else:
                _add_lognormal(log_lengths[t, e], sums[u], out[t])


@njit(nogil=True, fastmath=_REORDER, error_model="numpy")
def _differentiate_lognormal(y, p, path, score, slope):
    d_y = 0.0
    for d in range(slope.shape[1]):
        z = (y - p[0, d]) * p[2, d]
        slope[0, d] += score[d] * z * p[2, d]
        slope[1, d] += score[d] * (z * z - 1.0)
        d_y -= path[d] * z * p[2, d]
    return d_y


@njit(nogil=True, fastmath=_REORDER, error_model="numpy")
def _differentiate_skewed(y, p, hazards, path, score, slope):
    """Add score * derivatives of log q_d in location, log scale, skew to slope; returns path * d/dy."""
    d_y = 0.0
    for d in range(slope.shape[1]):
        step = (y - p[0, d]) * p[2, d]
        d_x = hazards[0, d]
        d_h = p[6, d] + p[5, d] * (1.0 - (p[4, d] + 1.0) * hazards[1, d]) + (1.0 + p[6, d] * step) * d_x
        slope[0, d] -= score[d] * d_x * p[2, d]
        slope[1, d] -= score[d] * (1.0 + step * d_x)
        slope[2, d] -= score[d] * d_h
        d_y += path[d] * d_x * p[2, d]
    return d_y


@njit(nogil=True, error_model="numpy")
def _derivative_of_draw(deviation, p, d):
    """dy/dskew at fixed noise."""
    G, u, v, minus_l = hazard(deviation * p[2, d] - p[3, d])
    return (1.0 - p[5, d] * minus_l * (v / (u * G))) / p[2, d] + deviation * p[6, d]


@njit(nogil=True)
def _mark(d_score, flags):
    for d in range(flags.shape[0]):
        flags[d] |= np.uint8(d_score[d] != 0.0)


@njit(cache=True, nogil=True)
def backward(
    sums, num_triples, start, edges, log_lengths, hazards, generator_of_tree, skewed, d_path, d_score,
    d_log_lengths, slopes, flags,
):  # fmt: skip
    """Write the gradient of an objective in the parameters of every triple to slopes.

    The objective and its cotangents are those of `vbpi_mix.branches._kernels.backward`.

    Args (beside those of the module's docstring):
        d_path: [tree, component].
        d_score: [tree, component].
        d_log_lengths: [tree, edge]. On return g_y.
        slopes: Written, [tree * edge, 3, component].
        flags: Written, [tree * edge, component] uint8: 1 where the component has a gradient in the triple.
    """
    num_edges = log_lengths.shape[1]
    paths, scores = np.ascontiguousarray(d_path), np.ascontiguousarray(d_score)
    for u in range(num_triples):
        p, slope = sums[u], slopes[u]
        slope[:] = 0.0
        flags[u] = 0
        for m in range(start[u], start[u + 1]):
            t, e = edges[m] // num_edges, edges[m] % num_edges
            generator, y = generator_of_tree[t], log_lengths[t, e]
            if skewed:
                d_y = _differentiate_skewed(y, p, hazards[m], paths[t], scores[t], slope)
            else:
                d_y = _differentiate_lognormal(y, p, paths[t], scores[t], slope)
            d_log_lengths[t, e] += d_y
            g = d_log_lengths[t, e]
            deviation = y - p[0, generator]
            slope[0, generator] += g
            slope[1, generator] += g * deviation
            if skewed:
                slope[2, generator] += g * _derivative_of_draw(deviation, p, generator)
            _mark(scores[t], flags[u])
            flags[u, generator] = 1


@njit(cache=True, nogil=True)
def triples_of_rows(triples, num_triples, dummy, position_of_row, rows, row_start, row_triple):
    """List the rows that triples use, the dummy excepted, and the triples of every such row.

    Args:
        triples: [triple, 3].
        num_triples: How many hold.
        dummy: Row to leave out.
        position_of_row: int32 scratch [num_features + 1], all -1 before and after.
        rows: Written: rows used, [3 * triple].
        row_start: Written: where each row's triples start, and the end [3 * triple + 1].
        row_triple: Written: triples, row by row [3 * triple].

    Returns:
        The number of rows.
    """
    num_rows = 0
    for u in range(num_triples):
        for j in range(3):
            row = triples[u, j]
            if row == dummy:
                continue
            if position_of_row[row] < 0:
                position_of_row[row] = num_rows
                rows[num_rows] = row
                row_start[num_rows] = 0
                num_rows += 1
            row_start[position_of_row[row]] += 1
    end = 0
    for n in range(num_rows):
        end += row_start[n]
        row_start[n] = end
    row_start[num_rows] = end
    for u in range(num_triples):
        for j in range(3):
            row = triples[u, j]
            if row != dummy:
                row_start[position_of_row[row]] -= 1
                row_triple[row_start[position_of_row[row]]] = u
    for n in range(num_rows):
        position_of_row[rows[n]] = -1
    return num_rows
