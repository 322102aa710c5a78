# mypy: disable-error-code="no-untyped-def"
"""Choice of the nodes whose partials are scaled, so that no pattern underflows, whatever the data.

A lower bound decides. A node's message is ``m[x] = sum_y P[x, y] L[y]``. With `most` the smallest diagonal
entry of P, and `slack` the logarithm of P's smallest entry over its largest one:

- the largest entry of a message is at least `most` times the largest entry of L;
- its smallest entry is at least its largest entry times 2**slack;
- so, with ``high`` a bound of log2 of the largest entry, the entries of a product of two messages are at
  least ``high_a + slack_a + high_b + slack_b``, and the largest one at least ``high_a + high_b +
  max(slack_a, slack_b)``.

Where the first of these would fall below what the dtype can hold, the child of the lower bound is scaled,
pattern by pattern, to a largest entry in [1/2, 1), then the other child if need be. Trees of moderate size
and branches need none.
"""

import numpy as np
from numba import njit

PLANNED = 0
BAD_TOPOLOGY = 1
BAD_LENGTH = 2


@njit(nogil=True)
def choose_scaled(children, branch_lengths, log_most, slack, smallest_exponent, high, is_scaled):
    """Check every tree, and choose the nodes to scale.

    Args:
        children: Topologies [tree, internal, 2].
        branch_lengths: Branch lengths [tree, edge].
        log_most: log2 of `most` [tree, edge]; any content where the length is no length.
        slack: `slack` [tree, edge]; minus infinity on branches of length zero.
        smallest_exponent: Exponent of two above which products of messages must stay (negative).
        high: Workspace [node].
        is_scaled: Filled with True for the internal nodes to scale [tree, internal].

    Returns:
        A status, and the tree, the internal node or branch, where it is not `PLANNED`.
    """
    for tree in range(children.shape[0]):
        for edge in range(branch_lengths.shape[1]):
            if not 0.0 <= branch_lengths[tree, edge] < np.inf:
                return BAD_LENGTH, tree, edge
        fault = _choose_scaled_of_tree(
            children[tree], log_most[tree], slack[tree], smallest_exponent, high, is_scaled[tree]
        )
        if fault >= 0:
            return BAD_TOPOLOGY, tree, fault
    return PLANNED, 0, 0


@njit(nogil=True)
def _choose_scaled_of_tree(children, log_most, slack, smallest_exponent, high, is_scaled):
    """Choose the nodes of one tree to scale; returns the first internal node with bad children, or -1."""
    num_internal = children.shape[0]
    num_taxa = num_internal + 2
    is_scaled[:] = False
    high[:num_taxa] = log_most[:num_taxa]
    high[num_taxa:] = np.nan
    for i in range(num_internal):
        a, b = children[i, 0], children[i, 1]
        node = num_taxa + i
        if a < 0 or b < 0 or a >= node or b >= node or a == b or a == num_taxa - 1 or b == num_taxa - 1:
            return i
        if np.isnan(high[a]) or np.isnan(high[b]):  # has a parent already
            return i
        is_top = i == num_internal - 1
        above = high[num_taxa - 1] + slack[num_taxa - 1] if is_top else 0.0
        is_first_lower = high[a] + slack[a] <= high[b] + slack[b]
        for child in (a, b) if is_first_lower else (b, a):
            if above + high[a] + slack[a] + high[b] + slack[b] >= smallest_exponent:
                break
            if child >= num_taxa:
                is_scaled[child - num_taxa] = True
                high[child] = -1.0 + min(log_most[child], 0.0)
        if not is_top:
            high[node] = log_most[node] + high[a] + high[b] + max(slack[a], slack[b])
        high[a] = np.nan
        high[b] = np.nan
    return -1
