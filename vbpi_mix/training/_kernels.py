"""Compiled parts of a training step that belong to no single network: topology gradients and the optimiser.

The optimiser is Adam (Kingma & Ba 2015) visiting only parameters that the step's trees use. A parameter's bias
correction follows its own number of updates, so that one that is seen rarely starts as quickly as one seen always.
"""

import numpy as np
from numba import njit

from vbpi_mix.sbn._kernels import add_expected_counts, refresh_parent, rooting_posterior

FIRST_DECAY = 0.9
SECOND_DECAY = 0.999
EPSILON = 1e-8
# After this many updates both bias corrections are 1 in double precision.
_CORRECTIONS = np.stack(
    [1.0 / (1.0 - FIRST_DECAY ** np.arange(1, 40_001)), 1.0 / (1.0 - SECOND_DECAY ** np.arange(1, 40_001))], 1
)


@njit(cache=True, nogil=True)
def topology_counts(
    log_q, denominators, coefficients, children, parameter_index, root_index, parameter_parent, below, posterior, mass,
    counts, parent_counts, is_touched, touched, num_touched,
):  # fmt: skip
    """Add sum_{t, d} coefficients[t, d] * (expected parameter counts of tree t under component d) to counts.

    The gradient of the same sum of log q_d(tau_t) with respect to the logits follows parent by parent; `update_topologies`
    takes it. Shapes: counts [component, parameter + 2]; parent_counts, is_touched, touched [component, parent];
    num_touched [component].
    """
    for d in range(denominators.shape[0]):
        a = denominators[d]
        for t in range(children.shape[0]):
            if coefficients[t, d] == 0.0:
                continue
            rooting_posterior(log_q[a], children[t], parameter_index[t], root_index[t], below, posterior)
            num_touched[a] = add_expected_counts(
                coefficients[t, d], children[t], parameter_index[t], root_index[t], posterior, parameter_parent, mass,
                counts[a], parent_counts[a], is_touched[a], touched[a], num_touched[a],
            )  # fmt: skip


@njit(cache=True, nogil=True)
def _adam(value, gradient, moments, num_updates, rate):
    """Value after one Adam step uphill; moments [2] are updated in place."""
    moments[0] = FIRST_DECAY * moments[0] + (1.0 - FIRST_DECAY) * gradient
    moments[1] = SECOND_DECAY * moments[1] + (1.0 - SECOND_DECAY) * gradient * gradient
    row = min(num_updates, _CORRECTIONS.shape[0]) - 1
    first = moments[0] * _CORRECTIONS[row, 0]
    second = moments[1] * _CORRECTIONS[row, 1]
    return value + rate * first / (np.sqrt(second) + EPSILON)


@njit(cache=True, nogil=True)
def update_topologies(
    rate, parent_start, logits, log_q, q, counts, parent_counts, is_touched, touched, num_touched, moments, num_updates
):
    """Step uphill along the gradient in `counts` (see `topology_counts`), refresh probabilities, clear the counts.

    moments is [component, parameter, 2], num_updates [component, parent].
    """
    for a in range(logits.shape[0]):
        for n in range(num_touched[a]):
            parent = touched[a, n]
            start, stop = parent_start[parent], parent_start[parent + 1]
            total = parent_counts[a, parent]
            if stop - start > 1:
                num_updates[a, parent] += 1
                for i in range(start, stop):
                    gradient = counts[a, i] - q[a, i] * total
                    logits[a, i] = _adam(logits[a, i], gradient, moments[a, i], num_updates[a, parent], rate)
                refresh_parent(logits[a], parent, parent_start, log_q[a], q[a])
            counts[a, start:stop] = 0.0
            parent_counts[a, parent] = 0.0
            is_touched[a, parent] = 0
        num_touched[a] = 0


@njit(cache=True, nogil=True)
def touch_all_parents(is_touched, touched, num_touched):
    """Mark every parent of every component as touched, which makes the optimiser an ordinary Adam."""
    for a in range(is_touched.shape[0]):
        for parent in range(is_touched.shape[1]):
            is_touched[a, parent] = 1
            touched[a, parent] = parent
        num_touched[a] = is_touched.shape[1]


@njit(cache=True, nogil=True)
def touch_all_rows(touched_flag, touched_list, touched_count):
    """Mark every row but the dummy of every component's branch table as touched."""
    num_rows = touched_flag.shape[1]
    count = 0
    for a in range(touched_flag.shape[0]):
        for row in range(num_rows - 1):
            touched_flag[a, row] = 1
            touched_list[count] = a * num_rows + row
            count += 1
    touched_count[0] = count


@njit(cache=True, nogil=True)
def update_branches(rate, table, grad, skewed, touched_flag, touched_list, touched_count, moments, num_updates):
    """Step uphill along grad [component, feature + 1, 3] in its touched rows, and clear them.

    moments is [component, feature + 1, 3, 2], num_updates [component, feature + 1].
    """
    num_rows = table.shape[1]
    num_columns = 3 if skewed else 2
    for n in range(touched_count[0]):
        a, row = touched_list[n] // num_rows, touched_list[n] % num_rows
        num_updates[a, row] += 1
        for column in range(num_columns):
            table[a, row, column] = _adam(
                table[a, row, column], grad[a, row, column], moments[a, row, column], num_updates[a, row], rate
            )
        grad[a, row] = 0.0
        touched_flag[a, row] = 0
    touched_count[0] = 0
