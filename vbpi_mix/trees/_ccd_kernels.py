"""Compiled recursions of conditional clade distributions; the mathematics is in ``ccd``."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def fill_subsplits(children: np.ndarray, of_branch: np.ndarray, out: np.ndarray) -> None:
    """Clade of every internal node and its two parts, as splits, the part of the lower number first.

    ``out`` [tree, internal, 3] gets parent, first part and second part.
    """
    num_trees, num_internal = children.shape[0], children.shape[1]
    num_taxa = num_internal + 2
    for t in range(num_trees):
        for i in range(num_internal):
            above = num_taxa - 1 if i == num_internal - 1 else num_taxa + i
            first, second = of_branch[t, children[t, i, 0]], of_branch[t, children[t, i, 1]]
            out[t, i, 0] = of_branch[t, above]
            out[t, i, 1] = min(first, second)
            out[t, i, 2] = max(first, second)


@njit(cache=True, nogil=True)
def recurse(
    subsplits: np.ndarray,
    log_conditional: np.ndarray,
    entropy: np.ndarray,
    log_count: np.ndarray,
    log_best: np.ndarray,
    best: np.ndarray,
) -> None:
    """Entropy, number of trees and best subsplit of every clade, [split], from those of its parts.

    ``subsplits`` [subsplit, 3] has a parent and two parts a row, small parents first. The outputs come with
    the values of single taxa in their places: 0, 0 and 0; and 0, -inf, -inf and -1 elsewhere.
    """
    for s in range(subsplits.shape[0]):
        parent, first, second = subsplits[s, 0], subsplits[s, 1], subsplits[s, 2]
        log_p = log_conditional[s]
        if log_p == -np.inf:
            continue
        entropy[parent] += np.exp(log_p) * (entropy[first] + entropy[second] - log_p)
        count = log_count[first] + log_count[second]
        high, low = max(log_count[parent], count), min(log_count[parent], count)
        log_count[parent] = high + np.log1p(np.exp(low - high))
        value = log_p + log_best[first] + log_best[second]
        if value > log_best[parent]:
            log_best[parent] = value
            best[parent] = s
