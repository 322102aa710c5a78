"""Compiled loops of the summaries; their public functions are in ``summaries``."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def gather_by_split(
    of_branch: np.ndarray,
    topology_index: np.ndarray,
    kept: np.ndarray,
    branch_lengths: np.ndarray,
    offsets: np.ndarray,
    values: np.ndarray,
    draw: np.ndarray,
) -> None:
    """Put the lengths of each split's branches side by side, in ``values[offsets[s]:offsets[s + 1]]``.

    ``kept`` lists the draws to take, ``draw`` gets the draw of every value; ``of_branch`` [topology, edge]
    is the split of every branch.
    """
    filled = offsets[:-1].copy()
    for i in kept:
        splits = of_branch[topology_index[i]]
        for e in range(splits.shape[0]):
            position = filled[splits[e]]
            values[position] = branch_lengths[i, e]
            draw[position] = i
            filled[splits[e]] = position + 1


@njit(cache=True, nogil=True)
def sort_small_groups(values: np.ndarray, draw: np.ndarray, offsets: np.ndarray, largest: int) -> None:
    """Sort values and draws of every group of at most ``largest`` values, in place, by insertion."""
    for g in range(offsets.shape[0] - 1):
        start, stop = offsets[g], offsets[g + 1]
        if stop - start > largest:
            continue
        for i in range(start + 1, stop):
            value, of_value = values[i], draw[i]
            j = i
            while j > start and values[j - 1] > value:
                values[j], draw[j] = values[j - 1], draw[j - 1]
                j -= 1
            values[j], draw[j] = value, of_value


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


@njit(cache=True, nogil=True)
def summarise_groups(
    values: np.ndarray,
    draw: np.ndarray,
    weights: np.ndarray,
    offsets: np.ndarray,
    mass: float,
    columns: np.ndarray,
    interval: np.ndarray,
) -> None:
    """Mean, median, standard deviation and effective number, [4, group], and shortest interval [group, 2].

    The values are sorted within each group; ``weights`` [draw] are those of the draws. Groups without
    values are left as they are.
    """
    weight = np.empty(np.max(np.diff(offsets)))
    ends = np.empty(2, np.int64)
    for g in range(offsets.shape[0] - 1):
        start, stop = offsets[g], offsets[g + 1]
        if start == stop:
            continue
        size = stop - start
        largest, total, squares, mean = 0.0, 0.0, 0.0, 0.0
        for i in range(size):
            largest = max(largest, weights[draw[start + i]])
        for i in range(size):
            # Relative to the largest, so that squares of tiny weights do not vanish.
            w = weights[draw[start + i]] / largest
            weight[i] = w
            total += w
            squares += w * w
            mean += w * values[start + i]
        mean /= total
        variance = 0.0
        for i in range(size):
            variance += weight[i] * (values[start + i] - mean) ** 2
        columns[0, g] = mean
        columns[1, g] = _median(values[start:stop], weight, total)
        columns[2, g] = np.sqrt(variance / total)
        columns[3, g] = total * total / squares
        ends[0], ends[1] = 0, size
        shortest_intervals(values[start:stop], weight[:size], ends, mass, interval[g : g + 1])


@njit(nogil=True)
def _median(values: np.ndarray, weight: np.ndarray, total: float) -> float:
    """Smallest value with at least half of the weight up to it; its mean with the next one if just half."""
    held = 0.0
    for i in range(values.shape[0]):
        held += weight[i]
        # The allowance is for the rounding of sums.
        if held >= 0.5 * total * (1.0 - 1e-9):
            if held <= 0.5 * total * (1.0 + 1e-9) and i + 1 < values.shape[0]:
                return 0.5 * (values[i] + values[i + 1])
            return values[i]
    return values[-1]
