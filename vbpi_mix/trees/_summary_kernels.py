"""Compiled loops of the summaries; their public functions are in ``summaries``."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def gather_groups(order: np.ndarray, group: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    """Put indices next to those of their group, in ``out[offsets[g]:offsets[g + 1]]``; their order is kept.

    ``group`` [value] is the group of every index, ``order`` [value] the indices.
    """
    filled = offsets[:-1].copy()
    for index in order:
        out[filled[group[index]]] = index
        filled[group[index]] += 1


@njit(cache=True, nogil=True)
def shortest_intervals(
    values: np.ndarray, weights: np.ndarray, offsets: np.ndarray, mass: float, out: np.ndarray
) -> None:
    """Shortest interval that holds a part ``mass`` of the weight, for every group, into ``out`` [group, 2].

    Group g is ``offsets[g]:offsets[g + 1]`` of the values, which are sorted within a group. Two ends move
    upwards together: for each lower end the first upper end that is enough. The lowest of equally short
    intervals is taken.
    """
    for g in range(offsets.shape[0] - 1):
        start, stop = offsets[g], offsets[g + 1]
        total = 0.0
        for i in range(start, stop):
            total += weights[i]
        # The allowance is for the rounding of sums, so that 95 of 100 equal weights are 95%.
        needed = mass * total * (1.0 - 1e-9)
        out[g, 0], out[g, 1] = values[start], values[stop - 1]
        upper, held = start, 0.0
        for lower in range(start, stop):
            while upper < stop and held < needed:
                held += weights[upper]
                upper += 1
            if held < needed:
                break
            if values[upper - 1] - values[lower] < out[g, 1] - out[g, 0]:
                out[g, 0], out[g, 1] = values[lower], values[upper - 1]
            held -= weights[lower]
