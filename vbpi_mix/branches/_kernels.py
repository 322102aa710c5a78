"""Compiled draws, densities and gradients of branch lengths, for parameters summed over rows of a table.

The mathematics is that of `vbpi_mix.branches.densities`; here it is arranged for speed. For each branch
e of tree t, component c's (location, log scale, skew) is the sum of the rows ``feature_index[t, e]`` of
``params[c]``. The last row is the dummy: all zeros, never updated.

Shapes shared by all kernels (float64 but for the indices):

- ``params [component, num_features + 1, 3]``, in any order in memory: the columns are location, log scale,
  skew;
- ``feature_index [tree, edge, 3]`` int32: rows of a branch's split and of its two primary subsplit pairs;
- ``log_lengths [tree, edge]``: logarithms of branch lengths in expected substitutions per site;
- ``denominators [denominator]``: components whose densities are wanted; ``component_of_tree [tree]``: the
  component that generated the tree. Integers;
- ``skewed``: False ignores the skew column (and gives it no gradient), True uses it;
- ``work [3, padded]``: scratch space from `make_work`.

The skewed density's notation is that of `densities`; what a single branch needs is in
`vbpi_mix.branches._weibull`.
"""

import math

import numpy as np
from numba import njit

from vbpi_mix._elementary import exp
from vbpi_mix.branches._weibull import (
    LOG_2,
    LOG_CONSTANT,
    SLOPE,
    hazard,
    noise_of_surprise,
    shape,
    step_of_surprise,
    surprise_of_noise,
    surprise_of_step,
)

_LANES = 8
_LOG_NORMALISER = -0.5 * math.log(2.0 * math.pi)
# Sums may be reordered, which lets loops over branches vectorise; infinities and nans keep their meaning.
_REORDER = {"reassoc", "contract", "nsz", "arcp"}


def make_work(num_edges: int) -> np.ndarray:
    """Zeroed scratch space [3, padded] for trees of this many branches, padded to whole vectors of eight."""
    return np.zeros((3, -(-num_edges // _LANES) * _LANES))


@njit(nogil=True, inline="always")
def _gather(
    table: np.ndarray, rows: np.ndarray, log_lengths: np.ndarray, skewed: bool, work: np.ndarray
) -> None:
    """Fill work with y - location, log scale and skew of one tree's branches; the padding stays zero."""
    for e in range(rows.shape[0]):
        # Unsigned, an index needs no test for counting from the end.
        i, j, k = np.uint32(rows[e, 0]), np.uint32(rows[e, 1]), np.uint32(rows[e, 2])
        work[0, e] = log_lengths[e] - (table[i, 0] + table[j, 0] + table[k, 0])
        work[1, e] = table[i, 1] + table[j, 1] + table[k, 1]
        if skewed:
            work[2, e] = table[i, 2] + table[j, 2] + table[k, 2]


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _skew(noise: np.ndarray, work: np.ndarray, scratch: np.ndarray) -> None:
    """Replace the skews in the work space by what, times scale, is y - location at this noise."""
    for e in range(noise.shape[0]):
        scratch[e] = surprise_of_noise(noise[e])
    for e in range(noise.shape[0]):
        work[2, e] = step_of_surprise(scratch[e], work[2, e])


@njit(nogil=True, fastmath={"contract"})
def _scale_and_shift(z: np.ndarray, work: np.ndarray, out: np.ndarray) -> None:
    """Write location + scale * z of one tree to out; `_gather` has negated the locations."""
    for e in range(out.shape[0]):
        out[e] = exp(work[1, e]) * z[e] - work[0, e]


@njit(cache=True, nogil=True)
def draw(
    params: np.ndarray,
    feature_index: np.ndarray,
    component_of_tree: np.ndarray,
    noise: np.ndarray,
    skewed: bool,
    work: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the log branch lengths that each tree's component makes from ``noise [tree, edge]`` to out."""
    for t in range(noise.shape[0]):
        out[t] = 0.0
        _gather(params[component_of_tree[t]], feature_index[t], out[t], skewed, work)
        if skewed:
            _skew(noise[t], work, out[t])
            _scale_and_shift(work[2], work, out[t])
        else:
            _scale_and_shift(noise[t], work, out[t])


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def standardise(
    table: np.ndarray,
    rows: np.ndarray,
    log_lengths: np.ndarray,
    skewed: bool,
    work: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the noise that one component's table turns into one tree's log branch lengths to out [edge]."""
    _gather(table, rows, log_lengths, skewed, work)
    for e in range(out.shape[0]):
        out[e] = work[0, e] * exp(-work[1, e])
    if skewed:
        for e in range(out.shape[0]):
            work[0, e] = surprise_of_step(out[e], work[2, e])
        for e in range(out.shape[0]):
            out[e] = noise_of_surprise(work[0, e])


@njit(nogil=True, fastmath=_REORDER, error_model="numpy")
def _sum_lognormal(work: np.ndarray) -> float:
    """Sum over the padded branches of -noise^2 / 2 - log scale."""
    total = 0.0
    for e in range(work.shape[1]):
        noise = work[0, e] * exp(-work[1, e])
        total -= 0.5 * noise * noise + work[1, e]
    return total


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _skewed_terms(num_edges: int, work: np.ndarray) -> None:
    """Replace work[0] by log k + log alpha + (alpha - 1) log(1 - exp(-G)) - G + x of every branch."""
    for e in range(num_edges):
        G0, L0, d_log_alpha = shape(work[2, e])
        step = SLOPE / d_log_alpha * work[0, e] * exp(-work[1, e])
        G, _, _, minus_l = hazard(step - work[2, e])
        # log(alpha c) - skew + x with x = step - skew and log(alpha c / (C log 2)) = G0 - L0 + skew
        work[0, e] = LOG_CONSTANT + (G0 - L0) + step - work[1, e] - (LOG_2 / L0 - 1.0) * minus_l - G


@njit(nogil=True, fastmath=_REORDER)
def _sum(values: np.ndarray) -> float:
    total = 0.0
    for e in range(values.shape[0]):
        total += values[e]
    return total


@njit(cache=True, nogil=True)
def log_density(
    params: np.ndarray,
    feature_index: np.ndarray,
    log_lengths: np.ndarray,
    denominators: np.ndarray,
    skewed: bool,
    work: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write log q_d(y | tau), summed over branches, to out [tree, denominator].

    Components are the outer loop: trees of a batch share most rows, which then stay in cache.
    """
    num_trees, num_edges = log_lengths.shape
    for d in range(denominators.shape[0]):
        for t in range(num_trees):
            _gather(params[denominators[d]], feature_index[t], log_lengths[t], skewed, work)
            if skewed:
                _skewed_terms(num_edges, work)
                out[t, d] = _sum(work[0, :num_edges])
            else:
                out[t, d] = num_edges * _LOG_NORMALISER + _sum_lognormal(work)


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _differentiate(num_edges: int, skewed: bool, work: np.ndarray) -> None:
    """Replace what `_gather` wrote by d log q / dy, d log q / d log scale and d log q / d skew.

    d log q / d location is the negative of the first.
    """
    for e in range(num_edges):
        inverse_scale = exp(-work[1, e])
        z = work[0, e] * inverse_scale
        if skewed:
            G0, L0, d_log_alpha = shape(work[2, e])
            step = SLOPE / d_log_alpha * z
            G, u, v, minus_l = hazard(step - work[2, e])
            alpha = LOG_2 / L0
            d_x = 1.0 - G + (alpha - 1.0) * G * (u / v)
            d_log_c = G0 + d_log_alpha * (L0 - 1.0) - 1.0
            d_h = d_log_c + d_log_alpha * (1.0 - alpha * minus_l) + (1.0 + d_log_c * step) * d_x
            work[2, e] = -d_h
            d_z = SLOPE / d_log_alpha * d_x
        else:
            d_z = -z
        work[0, e] = d_z * inverse_scale
        work[1, e] = -z * d_z - 1.0


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _differentiate_draw(num_edges: int, work: np.ndarray) -> None:
    """Replace the skews that `_gather` wrote by dy/dskew at fixed noise."""
    for e in range(num_edges):
        G0, L0, d_log_alpha = shape(work[2, e])
        inverse_k = exp(work[1, e]) * d_log_alpha / SLOPE
        G, u, v, minus_l = hazard(work[0, e] / inverse_k - work[2, e])
        d_log_c = G0 + d_log_alpha * (L0 - 1.0) - 1.0
        # dx/dlog alpha times G is L(G) (exp(G) - 1)
        d_x = d_log_alpha * minus_l * (v / (u * G))
        work[2, e] = (1.0 - d_x) * inverse_k + work[0, e] * d_log_c


@njit(nogil=True, inline="always")
def _touch(
    position: int,
    rows: np.ndarray,
    touched_flag: np.ndarray,
    touched_list: np.ndarray,
    touched_count: np.ndarray,
) -> None:
    """Note the rows of one tree's branches, the dummy excepted, as touched in this denominator."""
    num_rows = touched_flag.shape[1]
    for e in range(rows.shape[0]):
        for j in range(3):
            row = rows[e, j]
            if touched_flag[position, row] == 0 and row != num_rows - 1:
                touched_flag[position, row] = 1
                touched_list[touched_count[0]] = position * num_rows + row
                touched_count[0] += 1


@njit(cache=True, nogil=True)
def backward(
    params: np.ndarray,
    feature_index: np.ndarray,
    log_lengths: np.ndarray,
    generator_of_tree: np.ndarray,
    denominators: np.ndarray,
    skewed: bool,
    d_path: np.ndarray,
    d_score: np.ndarray,
    d_log_lengths: np.ndarray,
    work: np.ndarray,
    grad: np.ndarray,
    touched_flag: np.ndarray,
    touched_list: np.ndarray,
    touched_count: np.ndarray,
) -> None:
    """Add the gradient of an objective in ``params`` to ``grad`` and note the touched rows.

    With g_y = d_log_lengths + sum_d d_path[:, d] * d log q_d / dy, the gradient is g_y pushed through
    y(noise; parameters of the generating component), plus d_score[:, d] times the direct derivative of log
    q_d in the parameters of component d. Zero cotangents cost nothing.

    Args (beside those of the module's docstring):
        generator_of_tree: [tree], position in ``denominators`` of the component that generated the tree.
        d_path: [tree, denominator], cotangents of log q_d as a function of y.
        d_score: [tree, denominator], cotangents of log q_d as a function of its parameters.
        d_log_lengths: [tree, edge], cotangents of y from elsewhere (likelihood, prior). On return g_y.
        grad: [denominator, num_features + 1, 3], added to; the dummy row stays zero.
        touched_flag: [denominator, num_features + 1] uint8, 1 where a row's gradient has been written.
        touched_list: int64, at least denominator * num_features long; the rows with a flag, each once, in
            order of first touch, as denominator * (num_features + 1) + row.
        touched_count: [1] int64, how many entries of touched_list hold.
    """
    num_trees, num_edges = log_lengths.shape
    dummy = params.shape[1] - 1
    for d in range(denominators.shape[0]):
        slope = grad[d]
        for t in range(num_trees):
            path, score = d_path[t, d], d_score[t, d]
            if path == 0.0 and score == 0.0:
                continue
            rows = feature_index[t]
            _gather(params[denominators[d]], rows, log_lengths[t], skewed, work)
            _differentiate(num_edges, skewed, work)
            if path != 0.0:
                for e in range(num_edges):
                    d_log_lengths[t, e] += path * work[0, e]
            if score != 0.0:
                for e in range(num_edges):
                    for j in range(3):
                        row = rows[e, j]
                        slope[row, 0] -= score * work[0, e]
                        slope[row, 1] += score * work[1, e]
                        if skewed:
                            slope[row, 2] += score * work[2, e]
                _touch(d, rows, touched_flag, touched_list, touched_count)
        slope[dummy] = 0.0
    for t in range(num_trees):
        d = generator_of_tree[t]
        slope, rows = grad[d], feature_index[t]
        _gather(params[denominators[d]], rows, log_lengths[t], skewed, work)
        if skewed:
            _differentiate_draw(num_edges, work)
        for e in range(num_edges):
            # dy/dloc = 1, dy/dlog_scale = y - loc
            g = d_log_lengths[t, e]
            d_log_scale = g * work[0, e]
            d_skew = g * work[2, e] if skewed else 0.0
            for j in range(3):
                row = rows[e, j]
                slope[row, 0] += g
                slope[row, 1] += d_log_scale
                slope[row, 2] += d_skew
        slope[dummy] = 0.0
        _touch(d, rows, touched_flag, touched_list, touched_count)
