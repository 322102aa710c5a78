"""Compiled draws, densities and gradients of branch lengths, for parameters summed over rows of a table.

The mathematics is that of `vbpi_mix.branches.densities`; here it is arranged for speed. For each branch
e of tree t, component c's (location, log scale, skew) is the sum of the rows ``feature_index[t, e]`` of
``params[c]``. The last row is the dummy: all zeros, never updated.

Shapes shared by all kernels (float64 but for the indices):

- ``params [component, num_features + 1, 3]``: the columns are location, log scale, skew;
- ``feature_index [tree, edge, 3]`` int32: rows of a branch's split and of its two primary subsplit pairs;
- ``log_lengths [tree, edge]``: logarithms of branch lengths in expected substitutions per site;
- ``denominators [denominator]``: components whose densities are wanted; ``component_of_tree [tree]``: the
  component that generated the tree. Integers;
- ``skewed``: False ignores the skew column (and gives it no gradient), True uses it;
- ``work [3, padded]``: scratch space from `make_work`.

The skewed density needs, for every branch, exp(h), L(exp(h)), exp(x) and L(exp(x)) in the notation of
`densities`. `_exp`, `_exp_and_complement` and `_minus_log` are polynomials without branches or calls, so that
the loops over branches vectorise.
"""

import math

import numpy as np
from numba import njit

from vbpi_mix.branches import densities

_LANES = 8
_SLOPE = densities.SLOPE
_LOG_NORMALISER = -0.5 * math.log(2.0 * math.pi)
_LOG2_E = 1.0 / math.log(2.0)
# ln 2 in two parts, the first short enough that its product with an exponent is exact.
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_LN2 = math.log(2.0)
_FAR = 36.0
_LOG_LOG_2 = math.log(math.log(2.0))
_SQRT_HALF = math.sqrt(0.5)
_TAYLOR = tuple(1.0 / math.factorial(k) for k in range(13))
# Sums may be reordered, which lets loops over branches vectorise; infinities and nans keep their meaning.
_REORDER = {"reassoc", "contract", "nsz", "arcp"}


def make_work(num_edges: int) -> np.ndarray:
    """Zeroed scratch space [3, padded] for trees of this many branches, padded to whole vectors of eight."""
    return np.zeros((3, -(-num_edges // _LANES) * _LANES))


@njit(nogil=True, fastmath={"contract"})
def _exp(x: float) -> float:
    """exp(x) to about 3e-16 relative, in a form that vectorises; clips x to [-700, 700], nan stays nan."""
    x = -700.0 if x < -700.0 else x
    x = 700.0 if x > 700.0 else x
    power = np.rint(x * _LOG2_E)
    f = (x - power * _LN2_HIGH) - power * _LN2_LOW
    p = _TAYLOR[12]
    p = p * f + _TAYLOR[11]
    p = p * f + _TAYLOR[10]
    p = p * f + _TAYLOR[9]
    p = p * f + _TAYLOR[8]
    p = p * f + _TAYLOR[7]
    p = p * f + _TAYLOR[6]
    p = p * f + _TAYLOR[5]
    p = p * f + _TAYLOR[4]
    p = p * f + _TAYLOR[3]
    p = p * f + _TAYLOR[2]
    p = p * f + 1.0
    p = p * f + 1.0
    bits = (np.int64(np.int32(power)) + np.int64(1023)) << np.int64(52)
    return p * np.int64(bits).view(np.float64)


# Not inline="always": that would give these functions the caller's licence to reorder.
@njit(nogil=True, fastmath={"contract"})
def _exp_and_complement(x: float) -> tuple[float, float]:
    """exp(-x) and 1 - exp(-x) for x >= 0, both to about 4e-16 relative; clips x to 700, nan stays nan."""
    x = 700.0 if x > 700.0 else x
    power = np.rint(-x * _LOG2_E)
    f = (-x - power * _LN2_HIGH) - power * _LN2_LOW
    p = _TAYLOR[12]
    p = p * f + _TAYLOR[11]
    p = p * f + _TAYLOR[10]
    p = p * f + _TAYLOR[9]
    p = p * f + _TAYLOR[8]
    p = p * f + _TAYLOR[7]
    p = p * f + _TAYLOR[6]
    p = p * f + _TAYLOR[5]
    p = p * f + _TAYLOR[4]
    p = p * f + _TAYLOR[3]
    p = p * f + _TAYLOR[2]
    p = p * f + 1.0
    scale = np.int64((np.int64(np.int32(power)) + np.int64(1023)) << np.int64(52)).view(np.float64)
    return scale + scale * (p * f), (1.0 - scale) - scale * (p * f)


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _minus_log(v: float, u: float) -> float:
    """-log(v) for normal v in (0, 1] to about 4e-16 relative, given u = 1 - v; nan stays nan."""
    bits = np.float64(v).view(np.int64)
    power = (bits >> np.int64(52)) - np.int64(1023)
    mantissa = np.int64((bits & np.int64(0xFFFFFFFFFFFFF)) | np.int64(0x3FF0000000000000)).view(np.float64)
    is_large = mantissa > 2.0 * _SQRT_HALF
    m = 0.5 * mantissa if is_large else mantissa
    exponent = float(np.int32(power)) + (1.0 if is_large else 0.0)
    # Near 1 the distance from 1 is given more precisely than v holds it.
    is_near = v > _SQRT_HALF
    exponent = 0.0 if is_near else exponent
    s = (u if is_near else 1.0 - m) / ((v if is_near else m) + 1.0)
    t = s * s
    p = 1.0 / 21.0
    p = p * t + 1.0 / 19.0
    p = p * t + 1.0 / 17.0
    p = p * t + 1.0 / 15.0
    p = p * t + 1.0 / 13.0
    p = p * t + 1.0 / 11.0
    p = p * t + 1.0 / 9.0
    p = p * t + 1.0 / 7.0
    p = p * t + 1.0 / 5.0
    p = p * t + 1.0 / 3.0
    return (2.0 * s + 2.0 * s * t * p) - exponent * _LN2_LOW - exponent * _LN2_HIGH + 0.0 * v


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _hazard(x: float) -> tuple[float, float, float, float]:
    """G = exp(x), exp(-G), 1 - exp(-G) and -log(1 - exp(-G)), the last also where exp(x) is clipped."""
    G = _exp(x)
    u, v = _exp_and_complement(G)
    return G, u, v, -x if x < -_FAR else _minus_log(v, u)


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _shape(skew: float) -> tuple[float, float, float]:
    """G0 = exp(-skew), L(G0) and d log alpha / dh = C / c of the skewed density."""
    G0, u, v, L0 = _hazard(-skew)
    return G0, L0, G0 * u / (v * L0)


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
def _skew(noise: np.ndarray, work: np.ndarray) -> None:
    """Replace the skews in the work space by what, times scale, is y - location at this noise."""
    for e in range(noise.shape[0]):
        z = noise[e]
        tail = 0.5 * math.erfc(abs(z) * _SQRT_HALF)
        surprise = -math.log1p(-tail) if z > 0.0 else -math.log(tail)
        _, L0, d_log_alpha = _shape(work[2, e])
        t = surprise * L0 / _LN2
        if t > _FAR:
            x = -t
        elif t > _LN2:
            x = math.log(-math.log1p(-math.exp(-t)))
        else:
            x = math.log(-math.log(-math.expm1(-t)))
        work[2, e] = (x + work[2, e]) * d_log_alpha / _SLOPE


@njit(nogil=True, fastmath={"contract"})
def _scale_and_shift(z: np.ndarray, work: np.ndarray, out: np.ndarray) -> None:
    """Write location + scale * z of one tree to out; `_gather` has negated the locations."""
    for e in range(out.shape[0]):
        out[e] = _exp(work[1, e]) * z[e] - work[0, e]


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
            _skew(noise[t], work)
            _scale_and_shift(work[2], work, out[t])
        else:
            _scale_and_shift(noise[t], work, out[t])


@njit(nogil=True, fastmath=_REORDER, error_model="numpy")
def _sum_lognormal(work: np.ndarray) -> float:
    """Sum over the padded branches of -noise^2 / 2 - log scale."""
    total = 0.0
    for e in range(work.shape[1]):
        noise = work[0, e] * _exp(-work[1, e])
        total -= 0.5 * noise * noise + work[1, e]
    return total


@njit(nogil=True, fastmath=_REORDER, error_model="numpy")
def _sum_skewed(num_edges: int, work: np.ndarray) -> float:
    """Sum over the branches of log k + log alpha + (alpha - 1) log(1 - exp(-G)) - G + x."""
    total = 0.0
    for e in range(num_edges):
        G0, L0, d_log_alpha = _shape(work[2, e])
        step = _SLOPE / d_log_alpha * work[0, e] * _exp(-work[1, e])
        G, _, _, minus_l = _hazard(step - work[2, e])
        # log(alpha c) - skew + x with x = step - skew and log(alpha c / (C log 2)) = G0 - L0 + skew
        total += G0 - L0 + step - work[1, e] - (_LN2 / L0 - 1.0) * minus_l - G
    return total + num_edges * (math.log(_SLOPE) + _LOG_LOG_2)


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
        table = params[denominators[d]]
        for t in range(num_trees):
            _gather(table, feature_index[t], log_lengths[t], skewed, work)
            if skewed:
                out[t, d] = _sum_skewed(num_edges, work)
            else:
                out[t, d] = num_edges * _LOG_NORMALISER + _sum_lognormal(work)


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _differentiate(num_edges: int, skewed: bool, work: np.ndarray) -> None:
    """Replace what `_gather` wrote by d log q / dy, d log q / d log scale and d log q / d skew.

    d log q / d location is the negative of the first.
    """
    for e in range(num_edges):
        inverse_scale = _exp(-work[1, e])
        z = work[0, e] * inverse_scale
        if skewed:
            G0, L0, d_log_alpha = _shape(work[2, e])
            step = _SLOPE / d_log_alpha * z
            G, u, v, minus_l = _hazard(step - work[2, e])
            alpha = _LN2 / L0
            d_x = 1.0 - G + (alpha - 1.0) * G * (u / v)
            d_log_c = G0 + d_log_alpha * (L0 - 1.0) - 1.0
            d_h = d_log_c + d_log_alpha * (1.0 - alpha * minus_l) + (1.0 + d_log_c * step) * d_x
            work[2, e] = -d_h
            d_z = _SLOPE / d_log_alpha * d_x
        else:
            d_z = -z
        work[0, e] = d_z * inverse_scale
        work[1, e] = -z * d_z - 1.0


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _differentiate_draw(num_edges: int, work: np.ndarray) -> None:
    """Replace the skews that `_gather` wrote by dy/dskew at fixed noise."""
    for e in range(num_edges):
        G0, L0, d_log_alpha = _shape(work[2, e])
        inverse_k = _exp(work[1, e]) * d_log_alpha / _SLOPE
        G, u, v, minus_l = _hazard(work[0, e] / inverse_k - work[2, e])
        d_log_c = G0 + d_log_alpha * (L0 - 1.0) - 1.0
        # dx/dlog alpha times G is L(G) (exp(G) - 1)
        d_x = d_log_alpha * minus_l * (v / (u * G))
        work[2, e] = (1.0 - d_x) * inverse_k + work[0, e] * d_log_c


@njit(nogil=True, inline="always")
def _touch(
    component: int,
    rows: np.ndarray,
    touched_flag: np.ndarray,
    touched_list: np.ndarray,
    touched_count: np.ndarray,
) -> None:
    """Note the rows of one tree's branches, the dummy excepted, as touched in this component."""
    num_rows = touched_flag.shape[1]
    for e in range(rows.shape[0]):
        for j in range(3):
            row = rows[e, j]
            if touched_flag[component, row] == 0 and row != num_rows - 1:
                touched_flag[component, row] = 1
                touched_list[touched_count[0]] = component * num_rows + row
                touched_count[0] += 1


@njit(cache=True, nogil=True)
def backward(
    params: np.ndarray,
    feature_index: np.ndarray,
    log_lengths: np.ndarray,
    component_of_tree: np.ndarray,
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
        d_path: [tree, denominator], cotangents of log q_d as a function of y.
        d_score: [tree, denominator], cotangents of log q_d as a function of its parameters.
        d_log_lengths: [tree, edge], cotangents of y from elsewhere (likelihood, prior). On return g_y.
        grad: [component, num_features + 1, 3], added to; the dummy row stays zero.
        touched_flag: [component, num_features + 1] uint8, 1 where a row's gradient has been written.
        touched_list: int64, at least component * num_features long; the rows with a flag, each once, in order
            of first touch, as component * (num_features + 1) + row.
        touched_count: [1] int64, how many entries of touched_list hold.
    """
    num_trees, num_edges = log_lengths.shape
    dummy = params.shape[1] - 1
    for d in range(denominators.shape[0]):
        component = denominators[d]
        table, slope = params[component], grad[component]
        for t in range(num_trees):
            path, score = d_path[t, d], d_score[t, d]
            if path == 0.0 and score == 0.0:
                continue
            rows = feature_index[t]
            _gather(table, rows, log_lengths[t], skewed, work)
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
                _touch(component, rows, touched_flag, touched_list, touched_count)
        slope[dummy] = 0.0
    for t in range(num_trees):
        component = component_of_tree[t]
        slope, rows = grad[component], feature_index[t]
        _gather(params[component], rows, log_lengths[t], skewed, work)
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
        _touch(component, rows, touched_flag, touched_list, touched_count)
