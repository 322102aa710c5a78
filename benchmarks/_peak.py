# mypy: disable-error-code="no-untyped-def"
"""What one core of this machine can do: fused multiply-adds in registers, and reading memory."""

import time

import numpy as np
from numba import njit

from vbpi_mix.likelihood._simd import VECTOR_BYTES, horizontal_sum, load, num_lanes, zeros

CHAINS = 10
REPEATS = 40


@njit
def _multiply_add(array, times):
    """Ten independent chains of fused multiply-adds: enough to hide their latency."""
    factor, term = load(array, 0), load(array, 8)
    a, b, c, d, e = (load(array, 16), load(array, 24), load(array, 32), load(array, 40), load(array, 48))
    f, g, h, i, j = (load(array, 56), load(array, 64), load(array, 72), load(array, 80), load(array, 88))
    for _ in range(times):
        a, b, c, d, e = (
            a * factor + term,
            b * factor + term,
            c * factor + term,
            d * factor + term,
            e * factor + term,
        )
        f, g, h, i, j = (
            f * factor + term,
            g * factor + term,
            h * factor + term,
            i * factor + term,
            j * factor + term,
        )
    return horizontal_sum((((a + b) + (c + d)) + ((e + f) + (g + h))) + (i + j))


@njit
def _read(array):
    lanes = num_lanes(array)
    a, b, c, d = zeros(array), zeros(array), zeros(array), zeros(array)
    for k in range(0, array.shape[0], 4 * lanes):
        a = a + load(array, k)
        b = b + load(array, k + lanes)
        c = c + load(array, k + 2 * lanes)
        d = d + load(array, k + 3 * lanes)
    return horizontal_sum((a + b) + (c + d))


def peak_rate(dtype: str) -> float:
    """Additions and multiplications a second, of a dtype: the best of many short measurements."""
    array = np.random.default_rng(0).uniform(0.1, 0.9, 96).astype(dtype)
    times, best = 20_000, np.inf
    _multiply_add(array, 10)
    for _ in range(REPEATS):
        began = time.perf_counter()
        _multiply_add(array, times)
        best = min(best, time.perf_counter() - began)
    return 2 * CHAINS * (VECTOR_BYTES // array.itemsize) * times / best


def bandwidth() -> float:
    """Bytes a second that one core reads from memory, far beyond the caches: the best of several passes."""
    array = np.ones(1 << 25)
    _read(array[:1024])
    best = np.inf
    for _ in range(8):
        began = time.perf_counter()
        _read(array)
        best = min(best, time.perf_counter() - began)
    return array.nbytes / best
